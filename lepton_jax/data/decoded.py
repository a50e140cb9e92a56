"""A source decoded once into cached arrays, which every later start only maps."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from lepton_jax.cache import new_array, read_array, stored
from lepton_jax.checks import UserError
from lepton_jax.data.source import Record, Source
from lepton_jax.data.splits import Examples
from lepton_jax.processor import cores

_CHUNK = 64  # images at a time: few enough for large ones, enough for small ones


class Part(NamedTuple):
    """Rows of a decoded split, and what the statistics of any of them are made of.

    Attributes:
      examples: images, labels and regions of N rows.
      moments: [N,2,F] the sums of each image's pixels and of their squares.
    """

    examples: Examples
    moments: Int64[np.ndarray, "N 2 F"]


def decoded(
    source: Source, *, image_size: tuple[int, int] | None, channels: int | None, seed: int
) -> dict[str, Part]:
    """Decodes a source, unless the cache has it already.

    Args:
      source: what to decode.
      image_size: (height, width) to resize to; None: as stored, which must be one size.
      channels: 1 or 3; None: as the source declares, else as stored, which must be one count.
      seed: the order of the training split, so that any fraction of it is a run of rows.

    Returns:
      Its splits; the training split in random order, the others in the source's.

    Raises:
      UserError: an image is broken or differs in size or channels, or the cache can't be written.
    """
    channels = channels or source.channels
    folder = stored(
        "data",
        [source.identity, image_size, channels, seed],
        partial(_write, source, image_size, channels, seed),
    )
    return {split: _read(folder, split, bool(source.regions)) for split in source.counts}


def _read(folder: Path, split: str, has_regions: bool) -> Part:
    def array(kind: str) -> np.ndarray:
        return read_array(folder / f"{split}.{kind}.npy")

    regions = np.array(array("regions")) if has_regions else None
    examples = Examples(array("images"), np.array(array("labels")), regions)
    return Part(examples, array("moments"))


# --- writing --------------------------------------------------------------------------------------


def _write(
    source: Source,
    image_size: tuple[int, int] | None,
    channels: int | None,
    seed: int,
    folder: Path,
) -> None:
    from lepton_jax.data.images import decoder  # Pillow isn't needed where the cache has it all

    decode = decoder(image_size, channels)
    shape: tuple[int, ...] | None = None
    with ThreadPoolExecutor(cores()) as pool:
        for split, count in source.counts.items():
            rng = np.random.default_rng(seed)
            rows = rng.permutation(count) if split == "train" else np.arange(count)
            chunks = _chunks(source.records(split), decode, pool)
            shape = _write_split(chunks, rows, folder / split, shape)


def _chunks(
    records: Iterator[Record], decode: Callable[[Record], np.ndarray], pool: ThreadPoolExecutor
) -> Iterator[tuple[Sequence[Record], Sequence[np.ndarray]]]:
    while chunk := list(islice(records, _CHUNK)):
        yield chunk, list(pool.map(decode, chunk))


def _write_split(
    chunks: Iterator[tuple[Sequence[Record], Sequence[np.ndarray]]],
    rows: np.ndarray,
    stem: Path,
    shape: tuple[int, ...] | None,
) -> tuple[int, ...]:
    """Writes one split's four arrays; returns the images' shape, which `shape` has to equal."""
    arrays: dict[str, np.memmap] = {}
    done = 0
    for records, images in chunks:
        shape = shape or images[0].shape
        _refuse_unequal(records, images, shape)
        arrays = arrays or _arrays(stem, len(rows), shape)
        place = rows[done : done + len(records)]
        arrays["images"][place] = images
        arrays["labels"][place] = [record.label for record in records]
        arrays["regions"][place] = [record.region for record in records]
        arrays["moments"][place] = _moments(np.stack(images))
        done += len(records)
    if shape is None or done != len(rows):
        raise UserError(stem.name, f"{len(rows)} examples", done, "prepare the data set again")
    for array in arrays.values():
        array.flush()
    return shape


def _arrays(stem: Path, count: int, shape: tuple[int, ...]) -> dict[str, np.memmap]:
    layout = {
        "images": (np.uint8, (count, *shape)),
        "labels": (np.int32, (count,)),
        "regions": (np.int32, (count,)),
        "moments": (np.int64, (count, 2, shape[-1])),
    }
    return {
        kind: new_array(stem.with_name(f"{stem.name}.{kind}.npy"), *spec)
        for kind, spec in layout.items()
    }


def _moments(images: np.ndarray) -> np.ndarray:
    pixels = images.reshape(len(images), -1, images.shape[-1]).astype(np.uint16)
    sums = [np.sum(power, axis=1, dtype=np.int64) for power in (pixels, pixels * pixels)]
    return np.stack(sums, axis=1)  # exact: 255 squared fits 16 bits


def _refuse_unequal(
    records: Sequence[Record], images: Sequence[np.ndarray], shape: tuple[int, ...]
) -> None:
    for record, image in zip(records, images, strict=True):
        if image.shape != shape:
            size = "x".join(map(str, shape))
            key = "channels" if image.shape[:2] == shape[:2] else "image_size"
            example = "3" if key == "channels" else f"[{shape[0]}, {shape[1]}]"
            raise UserError(
                record.place,
                f"an image of {size} (height x width x channels) as before it",
                "x".join(map(str, image.shape)),
                f"set data.{key}={example}",
            )
