"""Archives that mean harm: each maker takes a random source and gives a name and bytes."""

import gzip
import io
import random
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable

import numpy as np
from PIL import Image

Made = tuple[str, bytes]
Maker = Callable[[random.Random], Made]
Entries = list[tuple[str, bytes]]

TRAVERSALS = (
    "../out.png",
    "cat/../../out.png",
    "/tmp/out.png",
    "//out.png",
    "C:/out.png",
    "c:out.png",
    "..\\out.png",
    "cat\\0.png",
    "cat/a\x01b.png",
    "cat/a\nb.png",
    "cat/" + "n" * 256 + ".png",
    "/".join(["d"] * 9) + "/0.png",
    "/".join(["d" * 200] * 6) + "/0.png",
    "cat/..",
    "..",
)


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), shade, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES: Entries = [(f"{name}/{i}.png", png(10 * i)) for name in ("cat", "dog") for i in range(3)]


def zip_of(entries: Entries, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method, compresslevel=1) as archive:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.filename = info.orig_filename = name  # as it is, also with what zipfile would mend
            info.compress_type = method
            archive.NameToInfo.clear()  # else it warns of a name that stands there twice
            archive.writestr(info, content)
    return buffer.getvalue()


def tar_of(entries: Entries) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def either(rng: random.Random, entries: Entries) -> Made:
    """The same entries in any of the three forms."""
    kind = rng.randrange(3)
    if kind == 0:
        return "a.zip", zip_of(entries)
    content = tar_of(entries)
    return ("a.tar", content) if kind == 1 else ("a.tar.gz", gzip.compress(content))


def _among(rng: random.Random, entries: Entries) -> Entries:
    place = rng.randrange(len(PICTURES) + 1)
    return [*PICTURES[:place], *entries, *PICTURES[place:]]


# --- what has to be refused -----------------------------------------------------------------------


def traversal(rng: random.Random) -> Made:
    return either(rng, _among(rng, [(rng.choice(TRAVERSALS), png(0))]))


def twice(rng: random.Random) -> Made:
    name = rng.choice(("cat/0.png", "CAT/0.PNG", "cat/./0.png", "cat//0.png", "cat/0.png/x.png"))
    return either(rng, [*PICTURES, (name, png(0))])


def composed_twice(rng: random.Random) -> Made:
    return either(rng, [*PICTURES, ("caf\u00e9/0.png", png(0)), ("cafe\u0301/0.png", png(1))])


def link(rng: random.Random) -> Made:
    """A link that leads out, and a file that is written through it."""
    target = rng.choice(("/tmp", "..", "../../..", "cat"))
    if rng.random() < 0.5:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            info = zipfile.ZipInfo("way")
            info.create_system = 3
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
            archive.writestr("way/out.png", png(0))
            for name, content in PICTURES:
                archive.writestr(name, content)
        return "a.zip", buffer.getvalue()
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
    return _tar_with(rng.choice((*kinds, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE)), target)


def _tar_with(kind: bytes, target: str) -> Made:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("way")
        info.type, info.linkname = kind, target
        archive.addfile(info)
    head = buffer.getvalue()[:512]
    return "a.tar", head + tar_of([("way/out.png", png(0)), *PICTURES])


def truncated(rng: random.Random) -> Made:
    name, content = either(rng, PICTURES)
    whole = len(content.rstrip(b"\0")) if name == "a.tar" else len(content)
    return name, content[: rng.randrange(whole)]


def lying_zip(rng: random.Random) -> Made:
    """One member's size in the directory is another than in truth."""
    return _lying(rng, field=24)


def _lying(rng: random.Random, field: int) -> Made:
    content = bytearray(zip_of(PICTURES, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))))
    at = [i for i in range(len(content)) if content[i : i + 4] == b"PK\x01\x02"]
    field += rng.choice(at)
    (size,) = struct.unpack_from("<I", content, field)
    lie = rng.choice((size + 1, size - 1, 0, 2**31, 2**32 - 2, size * 100))
    struct.pack_into("<I", content, field, lie)
    return "a.zip", bytes(content)


def lying_tar(rng: random.Random) -> Made:
    """A size that reaches beyond the end, or hides the members that follow."""
    content = bytearray(tar_of(PICTURES))
    content[124:136] = b"%011o\0" % rng.choice((2**30, 2**33 - 1, 5000, 10_000, 77_777))
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    packed = rng.random() < 0.5
    return ("a.tar.gz", gzip.compress(bytes(content))) if packed else ("a.tar", bytes(content))


def bomb(rng: random.Random) -> Made:
    zeros = bytes(2**21 + rng.randrange(2**20))
    name = rng.choice(("cat/bomb.png", "bomb.txt"))
    made = _among(rng, [(name, zeros)])
    if rng.random() < 0.5:
        return "a.zip", zip_of(made)
    return "a.tar.gz", gzip.compress(tar_of(made), 1)


def long_headers(rng: random.Random) -> Made:
    """A header of megabytes before a member, which a reader would hold in memory."""
    info = tarfile.TarInfo("cat/0.png")
    info.pax_headers = {"comment": rng.choice("ab") * 2**21}
    head = info.tobuf(tarfile.PAX_FORMAT)
    return "a.tar", head + tar_of(PICTURES)


def overlapping(rng: random.Random) -> Made:
    """Two entries of the directory that share one member's bytes."""
    content = bytearray(zip_of(PICTURES))
    at = [i for i in range(len(content)) if content[i : i + 4] == b"PK\x01\x02"]
    one, other = rng.sample(at, 2)
    content[other + 42 : other + 46] = content[one + 42 : one + 46]
    return "a.zip", bytes(content)


def encrypted(rng: random.Random) -> Made:
    content = bytearray(zip_of(PICTURES))
    at = [i for i in range(len(content)) if content[i : i + 4] == b"PK\x01\x02"]
    content[rng.choice(at) + 8] |= 1
    return "a.zip", bytes(content)


def empty(rng: random.Random) -> Made:
    return either(rng, rng.choice(([], [("notes.txt", b"no image")], [(".cat/0.png", png(0))])))


def nested(rng: random.Random) -> Made:
    """Nothing but an archive in an archive: it is not unpacked."""
    _, inner = either(rng, PICTURES)
    return either(rng, [(rng.choice(("a.zip", "cat/a.tar.gz", "a.tar")), inner)])


def disguised(rng: random.Random) -> Made:
    """Something else under an archive's name."""
    return rng.choice(("a.zip", "a.tar", "a.tgz")), rng.randbytes(rng.randrange(3000))


# --- what may be refused --------------------------------------------------------------------------


def lying_packed(rng: random.Random) -> Made:
    """Other packed bytes than there are: deflate may end before, with all that it should hold."""
    return _lying(rng, field=20)


def flipped(rng: random.Random) -> Made:
    name, content = either(rng, PICTURES)
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return name, bytes(changed)


def spliced(rng: random.Random) -> Made:
    """A piece cut out, doubled or moved elsewhere."""
    name, content = either(rng, PICTURES)
    start, end, to = sorted(rng.randrange(len(content)) for _ in range(3))
    piece = content[start:end]
    return name, rng.choice(
        (
            content[:start] + content[end:],
            content[:end] + piece + content[end:],
            content[:start] + content[end:to] + piece + content[to:],
            content + piece,
        )
    )


def overwritten(rng: random.Random) -> Made:
    """A field of some header set to an extreme."""
    name, content = either(rng, PICTURES)
    changed = bytearray(content)
    value = rng.choice((b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f", rng.randbytes(4), b"\x00\x80"))
    at = rng.randrange(len(changed) - len(value))
    changed[at : at + len(value)] = value
    return name, bytes(changed)


REFUSED: tuple[Maker, ...] = (
    traversal,
    twice,
    composed_twice,
    link,
    truncated,
    lying_zip,
    lying_tar,
    bomb,
    long_headers,
    overlapping,
    encrypted,
    empty,
    nested,
    disguised,
)
DAMAGED: tuple[Maker, ...] = (lying_packed, flipped, spliced, overwritten)
