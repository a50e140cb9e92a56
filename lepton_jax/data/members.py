"""What a .zip or .tar says that it holds, read without believing it: sizes are counted, not trusted."""

import gzip
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple

from lepton_jax.checks import UserError

ENTRIES = 1_000_000
_RATIO = 200  # of what comes out to what went in; images are compressed already
_SLACK = 2**20  # bytes that no ratio is asked of
_PIECE = 2**18
_HEADERS = 2**20  # bytes that a tar may spend between the contents of two members
_EMPTY = 4  # reads at the end; tarfile goes on reading to where a member states that it ends
_BLOCK = 512
_ZIP_ENTRY = b"PK\x01\x02"
_KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Member(NamedTuple):
    """An entry of an archive.

    Attributes:
      name: as stated; nothing about it is certain.
      size: bytes as stated; `read` gives no more.
      is_folder: else it is an ordinary file; other kinds never get here.
      read: its content in pieces, to be taken before the next member; raises UserError where it is
        not as long as stated, damaged or a bomb.
    """

    name: str
    size: int
    is_folder: bool
    read: Callable[[], Iterator[bytes]]


Members = Callable[[IO[bytes], str], Iterator[Member]]
"""(an open archive, what errors call it) -> its members, in the archive's order."""


def reader(name: str) -> Members | None:
    """The reader of an archive by its name, or None where it is called like none.

    >>> reader("photos.ZIP") is zipped, reader("photos.tar.gz") is gzipped, reader("photos")
    (True, True, None)
    """
    kinds = {".zip": zipped, ".tar": tarred, ".tar.gz": gzipped, ".tgz": gzipped}
    return next((kinds[end] for end in kinds if name.lower().endswith(end)), None)


def zipped(file: IO[bytes], where: str) -> Iterator[Member]:
    """The members of a .zip.

    Raises:
      UserError: it is damaged, encrypted, holds too many entries, entries that overlap, links or
        devices, or another compression than deflate.
    """
    _count_entries(file, where)
    with _whole(where), zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        _refuse_overlaps(entries, archive.start_dir, where)
        for entry in entries:
            _refuse_odd(entry, where)
        for entry in entries:

            def read(entry: zipfile.ZipInfo = entry) -> Iterator[bytes]:
                name = f"{where}: {entry.filename!r}"
                with _whole(name), archive.open(entry) as content:
                    yield from _pieces(
                        content.read, entry.file_size, max(entry.compress_size, 1), name
                    )

            yield Member(entry.filename, entry.file_size, entry.is_dir(), read)


def tarred(file: IO[bytes], where: str) -> Iterator[Member]:
    """The members of a .tar; raises UserError as `zipped` does."""
    file.seek(0)
    return _tar(_Counted(file.read, None, where), where)


def gzipped(file: IO[bytes], where: str) -> Iterator[Member]:
    """The members of a .tar.gz; raises UserError as `zipped` does."""
    file.seek(0)
    return _tar(_Counted(gzip.GzipFile(fileobj=file).read, file.tell, where), where)


# --- zip ------------------------------------------------------------------------------------------


def _count_entries(file: IO[bytes], where: str) -> None:
    """Refuses too many before they are read: each one takes half a kilobyte of memory."""
    count, tail = 0, b""
    file.seek(0)
    while piece := file.read(_PIECE):
        count += (tail + piece).count(_ZIP_ENTRY)
        tail = piece[-len(_ZIP_ENTRY) + 1 :]
    if count > ENTRIES:
        raise UserError(where, f"at most {ENTRIES:,} members", f"{count:,}", "divide it")
    file.seek(0)


def _refuse_overlaps(entries: list[zipfile.ZipInfo], end: int, where: str) -> None:
    """Entries that share bytes are how a small archive comes to hold petabytes (Fifield, 2019)."""
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    starts = [*(entry.header_offset for entry in ordered[1:]), end]
    for entry, following in zip(ordered, starts, strict=True):
        header = 30 + len(entry.orig_filename)
        if entry.header_offset + header + entry.compress_size > following:
            name = f"{where}: {entry.filename!r}"
            raise UserError(name, "members apart from one another", "one that overlaps the next")


def _refuse_odd(entry: zipfile.ZipInfo, where: str) -> None:
    name = f"{where}: {entry.filename!r}"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if entry.filename != entry.orig_filename:
        raise UserError(name, "one name", f"{entry.orig_filename!r} too", "pack it anew")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        got = "a link" if kind == stat.S_IFLNK else "something else"
        raise UserError(name, "a file or folder", got, "remove it")
    if entry.flag_bits & 0x2041:
        raise UserError(name, "no encryption", "an encrypted member", "pack it without a password")
    if not entry.is_dir() and entry.compress_type not in _KINDS:
        got = f"compression method {entry.compress_type}"
        raise UserError(name, "a member stored or deflated", got, "pack it anew")
    _refuse_bomb(entry.file_size, max(entry.compress_size, 1), name)


# --- tar ------------------------------------------------------------------------------------------


class _Counted:
    """The bytes of a tar as they come out, counted against what they may be.

    The budget bounds what tarfile reads into memory for a member's headers.
    """

    def __init__(
        self, inner: Callable[[int], bytes], packed: Callable[[], int] | None, where: str
    ) -> None:
        self.inner, self.packed, self.where = inner, packed, where
        self.count, self.budget, self.empty, self.recent = 0, _HEADERS, 0, b""

    def read(self, size: int) -> bytes:
        piece = self.inner(size)
        self.count += len(piece)
        self.budget -= len(piece)
        self.empty += not piece
        if self.empty > _EMPTY:
            raise UserError(self.where, "a whole archive", "one cut off", "get it again")
        self.recent = (self.recent + piece)[-2 * tarfile.RECORDSIZE :]
        if self.packed is not None:
            _refuse_bomb(self.count, self.packed(), self.where)
        if self.budget < 0:
            raise UserError(self.where, "short headers", f"more than {_HEADERS:,} bytes of them")
        return piece

    def block(self, offset: int) -> bytes:
        """The block at an offset that was read just now."""
        start = offset - (self.count - len(self.recent))
        return self.recent[max(start, 0) : start + _BLOCK] if start >= 0 else b""


def _tar(stream: _Counted, where: str) -> Iterator[Member]:
    with _whole(where):
        archive = tarfile.open(fileobj=stream, mode="r|")  # type: ignore[call-overload]  # noqa: SIM115
        count = 0
        while (entry := archive.next()) is not None:
            archive.members = []  # else it keeps them all, and what headers say to all that follow
            archive.pax_headers.clear()
            count += 1
            name = f"{where}: {entry.name!r}"
            if count > ENTRIES:
                raise UserError(where, f"at most {ENTRIES:,} members", "more", "divide it")
            if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
                got = "a link" if entry.issym() or entry.islnk() else "something else"
                raise UserError(name, "a file or folder", got, "remove it")
            if entry.sparse is not None or entry.size < 0:
                raise UserError(name, "a file with all its bytes", "a sparse one", "pack it anew")
            stream.budget = entry.size + _HEADERS

            def read(entry: tarfile.TarInfo = entry, name: str = name) -> Iterator[bytes]:
                content = archive.extractfile(entry)
                if content is not None:
                    with _whole(name):
                        yield from _pieces(content.read, entry.size, None, name)

            yield Member(entry.name, entry.size, entry.isdir(), read)
        _refuse_cut(stream, archive.offset, where)


def _refuse_cut(stream: _Counted, offset: int, where: str) -> None:
    """tarfile takes a damaged header for the end; the end is a block of zeros."""
    if stream.block(offset) != bytes(_BLOCK):
        raise UserError(where, "a whole archive", "one cut off or damaged", "get it again")
    stream.budget = _HEADERS
    while stream.read(_PIECE):  # gzip compares its checksum at the very end
        pass


# --- both -----------------------------------------------------------------------------------------


@contextmanager
def _whole(where: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # readers fail in many ways on damaged bytes
        got = f"{type(error).__name__} ({error})"
        raise UserError(where, "a whole archive", got, "get it again") from error


def _pieces(
    take: Callable[[int], bytes], size: int, compressed: int | None, name: str
) -> Iterator[bytes]:
    count = 0
    while piece := take(_PIECE):
        count += len(piece)
        if compressed is not None:
            _refuse_bomb(count, compressed, name)
        if count > size:
            break
        yield piece
    if count != size:
        got = "more" if count > size else f"{count:,}"
        raise UserError(name, f"the {size:,} bytes that it states", got, "get the archive again")


def _refuse_bomb(inflated: int, compressed: int, name: str) -> None:
    if inflated > _SLACK and inflated > _RATIO * compressed:
        expected = f"no more than {_RATIO} times its {compressed:,} packed bytes"
        raise UserError(name, expected, f"{inflated:,}", "pack it anew, of images alone")
