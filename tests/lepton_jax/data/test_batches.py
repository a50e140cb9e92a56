"""Batches cover the examples exactly once, in one shape, in an order that only the key decides."""

import numpy as np
import pytest

from lepton_jax.data.batches import epoch_batches, in_order, steps_per_epoch
from lepton_jax.data.splits import Examples


def numbered(count: int) -> Examples:
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((2, 3, 1), np.uint8)
    return Examples(images, np.arange(count, dtype=np.int32), None)


@pytest.mark.parametrize("count", [0, 1, 4, 9, 12])
def test_an_epoch_holds_every_example_once(count: int) -> None:
    batches = list(epoch_batches(numbered(count), 4, seed=0, epoch=1))
    seen = [label for batch in batches for label in batch.labels[batch.mask].tolist()]
    assert sorted(seen) == list(range(count))
    assert len(batches) == steps_per_epoch(count, 4)


def test_all_batches_have_one_shape_and_images_go_with_their_labels() -> None:
    for batch in epoch_batches(numbered(9), 4, seed=0, epoch=1):
        assert (batch.images.shape, batch.images.dtype) == ((4, 2, 3, 1), np.uint8)
        assert (batch.labels.shape, batch.labels.dtype) == ((4,), np.int32)
        assert (batch.mask.shape, batch.mask.dtype) == ((4,), np.bool_)
        assert np.array_equal(batch.images[batch.mask][:, 0, 0, 0], batch.labels[batch.mask])


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        batches = epoch_batches(numbered(40), 8, seed=seed, epoch=epoch)
        return np.concatenate([batch.labels for batch in batches]).tolist()

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


def test_in_order_keeps_the_order_and_pads_the_end_with_zeros() -> None:
    batches = list(in_order(numbered(6), 4))
    assert [batch.labels.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 0, 0]]
    assert batches[1].mask.tolist() == [True, True, False, False]
    assert not np.any(batches[1].images[2:])
