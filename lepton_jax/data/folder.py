"""A folder of the user's own images, whose sub-folders name splits, regions and classes."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lepton_jax.checks import UserError
from lepton_jax.data.archive import is_archive, unpacked
from lepton_jax.data.source import SPLITS, Record, Source

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_DEEPEST = 3  # split/region/class


class _Leaf(NamedTuple):
    """A folder that holds images, or nothing."""

    folder: Path
    names: tuple[str, ...]  # of the folders from the root down to it
    files: tuple[tuple[str, int, int], ...]  # name, bytes, time of change in ns


class _Group(NamedTuple):
    """The images of one class in one place."""

    split: str
    region: str
    label: str
    leaf: _Leaf


def source(path: str) -> Source:
    """Looks through an image folder, or an archive of one, without opening the images.

    Its layout is `class/`, `region/class/`, `split/class/` or `split/region/class/`: the top folders
    are splits where they are called train, validation (or val) and test, else regions. Hidden files and whatever
    isn't called .jpg, .jpeg, .png, .bmp or .webp is ignored.

    Args:
      path: the root, or a .zip, .tar or .tar.gz, which is unpacked into the cache.

    Returns:
      The source; without split folders all is `train`.

    Raises:
      UserError: no such folder, an empty class, classes that differ between the splits, another
        layout; the message names the folder or file. An archive: as `unpacked`.
    """
    root = _existing(path)
    return _of_archive(root) if root.is_file() else _of_folder(root)


def _of_archive(path: Path) -> Source:
    """The source of what the archive holds; places and the identity are the archive's."""
    folder, sha256 = unpacked(path, SUFFIXES)
    root = _inner(folder)
    try:
        inside = _of_folder(root)
    except UserError as error:
        said = (error.where, error.expected, str(error.got), error.remedy)
        raise UserError(*(text.replace(str(root), str(path)) for text in said)) from None

    def records(split: str) -> Iterator[Record]:
        for record in inside.records(split):
            yield record._replace(place=record.place.replace(str(root), str(path)))

    return inside._replace(name=path.name.split(".")[0], records=records, identity=sha256)


def _inner(folder: Path) -> Path:
    """The root: what is packed is often one folder that holds the others."""
    while True:
        entries = list(folder.iterdir())
        alone = len(entries) == 1 and entries[0].is_dir() and entries[0].name.lower() not in SPLITS
        if not alone or not any(entry.is_dir() for entry in entries[0].iterdir()):
            return folder
        folder = entries[0]


def _of_folder(root: Path) -> Source:
    leaves = sorted(_walk(root, ()), key=lambda leaf: leaf.names)
    groups = [_group(root, leaf, _has_splits(root, leaves)) for leaf in leaves]
    classes = _classes(root, groups)
    regions = tuple(sorted({group.region for group in groups} - {""}))

    def records(split: str) -> Iterator[Record]:
        for group in groups:
            if group.split == split:
                label = classes.index(group.label)
                region = regions.index(group.region) if regions else 0
                for name, _, _ in group.leaf.files:
                    file = group.leaf.folder / name
                    yield Record(str(file), file, label, region)

    seen = json.dumps([[leaf.names, leaf.files] for leaf in leaves])
    digest = hashlib.sha256(seen.encode()).hexdigest()
    counts = _counts(groups)
    return Source(root.name, classes, regions, None, counts, records, [str(root), digest])


def _existing(path: str) -> Path:
    try:
        root = Path(path).expanduser().absolute()
        if root.is_dir() or is_archive(root):
            return root
        got = f"a file ({root})" if root.exists() else f"{root}, which does not exist"
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such user, a zero byte
        got = f"{path!r} ({error})"
    expected = "the root of an image folder, or a .zip, .tar or .tar.gz of one"
    raise UserError("data.path", expected, got)


def _walk(folder: Path, names: tuple[str, ...]) -> Iterator[_Leaf]:
    """All folders with images, and those with nothing in them."""
    if len(names) > _DEEPEST:
        raise UserError(
            str(folder), "at most split/region/class", f"{len(names)} levels", "move its images up"
        )
    try:
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
        folders = [entry.name for entry in entries if entry.is_dir()]
        files = sorted(
            (entry.name, entry.stat().st_size, entry.stat().st_mtime_ns)
            for entry in entries
            if entry.is_file() and entry.name.lower().endswith(SUFFIXES)
        )
    except OSError as error:
        raise UserError(str(folder), "a readable folder", error.strerror or error) from error
    if files or not folders:
        yield _Leaf(folder, names, tuple(files))
    for name in folders:
        yield from _walk(folder / name, (*names, name))


def _has_splits(root: Path, leaves: list[_Leaf]) -> bool:
    """Whether the top folders are splits rather than regions or classes; not something of both."""
    tops = sorted({leaf.names[0] for leaf in leaves if leaf.names})
    splits = [SPLITS[top.lower()] for top in tops if top.lower() in SPLITS]
    if not splits:
        return False
    if others := [top for top in tops if top.lower() not in SPLITS]:
        expected = "beside each other only train, validation and test"
        raise UserError(str(root), expected, f"{others[0]} too", "move or rename it")
    if "train" not in splits:
        raise UserError(str(root), "a folder train", ", ".join(tops))
    if len(set(splits)) < len(splits):
        raise UserError(str(root), "one folder a split", ", ".join(tops), "merge them")
    return True


def _group(root: Path, leaf: _Leaf, has_splits: bool) -> _Group:
    expected = "split/class/, region/class/, split/region/class/ or class/"
    below = leaf.names[1:] if has_splits else leaf.names
    if not leaf.files:
        empty = "a folder with images" if leaf.names else f"an image folder, {expected}"
        kinds = ", ".join(SUFFIXES)
        raise UserError(str(leaf.folder), empty, f"none ({kinds})", "add some or remove it")
    if len(below) not in (1, 2):
        file = leaf.folder / leaf.files[0][0]
        where = str(file.relative_to(root))
        raise UserError(str(root), f"images in {expected}", where, "move it into its class")
    split = SPLITS[leaf.names[0].lower()] if has_splits else "train"
    return _Group(split, below[0] if len(below) == 2 else "", below[-1], leaf)


def _classes(root: Path, groups: list[_Group]) -> tuple[str, ...]:
    flat = [group for group in groups if not group.region]
    if flat and len(flat) < len(groups):
        folder = str(flat[0].leaf.folder)
        raise UserError(folder, "a region with class folders, like the others", "images")
    known = {group.label for group in groups if group.split == "train"}
    for group in groups:
        if group.label not in known:
            folder = str(group.leaf.folder)
            expected = f"the training split's classes ({', '.join(sorted(known))})"
            raise UserError(folder, expected, group.label, "add it to train or remove it")
    for split in {group.split for group in groups}:
        here = {group.label for group in groups if group.split == split}
        if missing := sorted(known - here):
            expected = f"every class of train in {split}"
            raise UserError(str(root), expected, f"none of {missing[0]}", "add images of it")
    if len(known) < 2:
        raise UserError(str(root), "at least 2 classes", f"only {next(iter(known))}")
    return tuple(sorted(known))


def _counts(groups: list[_Group]) -> dict[str, int]:
    """Examples by split, train first."""
    counts = {"train": 0}
    for group in groups:
        counts[group.split] = counts.get(group.split, 0) + len(group.leaf.files)
    return counts
