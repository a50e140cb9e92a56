"""An archive of the user's images, unpacked into the cache once; a hostile one leaves nothing behind."""

import hashlib
import re
import shutil
import unicodedata
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from lepton_jax.cache import stored
from lepton_jax.checks import UserError
from lepton_jax.data.members import Member, Members, reader

TOTAL_BYTES = 2**35  # of all members together, unpacked
_NAME_BYTES, _PATH_BYTES = 255, 1024
_DEEPEST = 8  # split/region/class/image, and what stands around it
_DRIVE = re.compile(r"[A-Za-z]:")


class Unpacked(NamedTuple):
    """An archive in the cache.

    Attributes:
      folder: what it holds; not to be written to.
      sha256: of the archive's bytes, by which it is found again.
    """

    folder: Path
    sha256: str


def is_archive(path: Path) -> bool:
    """Whether a path is a file that `unpacked` takes."""
    return reader(path.name) is not None and path.is_file()


def unpacked(path: Path, suffixes: tuple[str, ...]) -> Unpacked:
    """Unpacks a .zip, .tar or .tar.gz, unless the cache has it already.

    All of its members are checked before the first one is written, and again while it is; what is
    written is counted. Hidden files and those with other suffixes are left out, archives too. Where
    all is in one folder, that folder's content counts.

    Args:
      path: of the archive.
      suffixes: what the names of the files to unpack end with, in lower case.

    Returns:
      The folder that holds them, and the archive's SHA-256.

    Raises:
      UserError: the archive is damaged; a member's name is absolute, leads upwards, is too long,
        stands there twice (in any case of letters) or holds a drive, a backslash or a control
        character; a member is a link, a device, encrypted or not as long as stated; there are more
        than 1,000,000 members, 32 GiB, or 200 times the packed bytes; or nothing is to unpack.
    """
    members = reader(path.name)
    if members is None:
        raise UserError(str(path), "a .zip, .tar or .tar.gz", path.suffix or "another file")
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            write = partial(_write, members, file, str(path), suffixes)
            folder = stored("archives", [sha256, members.__name__, suffixes], write)
    except OSError as error:
        what = error.strerror or str(error)
        raise UserError(str(path), "an archive that can be unpacked", what) from error
    return Unpacked(folder, sha256)


def _write(
    members: Members, file: IO[bytes], where: str, suffixes: tuple[str, ...], folder: Path
) -> None:
    free = shutil.disk_usage(folder).free
    room, wanted = 0, 0
    for member in _checked(members(file, where), where):
        if _is_wanted(member, suffixes):
            room, wanted = room + member.size, wanted + 1
    if not wanted:
        raise UserError(where, f"images ({', '.join(suffixes)})", "none", "add some")
    if room > free:
        remedy = "set LEPTON_CACHE_DIR to a folder with more room"
        raise UserError(str(folder.parent), f"{room:,} bytes of free disk", f"{free:,}", remedy)
    for member in _checked(members(file, where), where):  # the file may be another by now
        if _is_wanted(member, suffixes):
            target = folder.joinpath(*PurePosixPath(member.name).parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as out:
                for piece in member.read():
                    out.write(piece)


def _is_wanted(member: Member, suffixes: tuple[str, ...]) -> bool:
    hidden = any(part.startswith(".") for part in PurePosixPath(member.name).parts)
    return not member.is_folder and not hidden and member.name.lower().endswith(suffixes)


def _checked(members: Iterator[Member], where: str) -> Iterator[Member]:
    """The same members, up to the first that is to be refused."""
    total = 0
    taken: dict[bytes, bool] = {}  # whether what has this name is a folder
    for member in members:
        _refuse_name(member.name, where)
        total += member.size
        if total > TOTAL_BYTES:
            raise UserError(where, f"at most {TOTAL_BYTES:,} bytes unpacked", "more", "divide it")
        _refuse_twice(member, taken, where)
        yield member


def _refuse_name(name: str, where: str) -> None:
    place, parts = f"{where}: {name!r}", name.split("/")
    if name.startswith("/") or _DRIVE.match(name):
        raise UserError(place, "a name within the archive", "an absolute one", "pack it anew")
    if ".." in parts or "\\" in name:
        got = "one with .. in it" if ".." in parts else "one with a backslash"
        raise UserError(place, "a name within the archive", got, "pack it anew")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        raise UserError(place, "a printable name", "a control character", "rename it")
    if len(parts) > _DEEPEST:
        raise UserError(place, f"at most {_DEEPEST} levels", len(parts), "pack less around it")
    length = max(len(part.encode()) for part in parts)
    if length > _NAME_BYTES or len(name.encode()) > _PATH_BYTES:
        expected = f"a name of at most {_NAME_BYTES} bytes, a path of {_PATH_BYTES}"
        raise UserError(place, expected, f"{length} and {len(name.encode())}", "shorten it")


def _refuse_twice(member: Member, taken: dict[bytes, bool], where: str) -> None:
    """Also names that some file system takes for one: of other case, or composed otherwise."""
    parts = PurePosixPath(unicodedata.normalize("NFKC", member.name).casefold()).parts
    place = f"{where}: {member.name!r}"
    if not parts:
        if not member.is_folder:
            raise UserError(place, "a name", "none", "pack it anew")
        return  # the root itself: `tar` puts it first
    names = [_digest("/".join(parts[: i + 1])) for i in range(len(parts))]
    for name in names[:-1]:
        if not taken.setdefault(name, True):
            raise UserError(place, "files beside one another", "a file inside a file", "rename it")
    if names[-1] in taken and not (member.is_folder and taken[names[-1]]):
        raise UserError(place, "each name once, in any case", "it twice", "rename one")
    taken[names[-1]] = member.is_folder


def _digest(name: str) -> bytes:
    """A short stand-in: a million names of a kilobyte would fill the memory."""
    return hashlib.blake2b(name.encode(), digest_size=16).digest()
