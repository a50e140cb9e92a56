"""A private run: what it promises, and where its batches and noise come from."""

from collections.abc import Callable, Iterator
from functools import partial

import jax
import msgspec
import numpy as np

from lepton_jax import trees
from lepton_jax.config import Run
from lepton_jax.data.batches import (
    poisson_batches,
    sampling_rate,
    seeded_choice,
    steps_per_epoch,
)
from lepton_jax.data.splits import Examples
from lepton_jax.privacy.entropy import Source, bernoulli, secure_source
from lepton_jax.privacy.grid import noise_like
from lepton_jax.privacy.lattice import rounded_normal
from lepton_jax.privacy.promise import Promise, make_promise
from lepton_jax.privacy.terms import Terms
from lepton_jax.training.losses import Loss
from lepton_jax.training.private import (
    PrivateBatch,
    private_gradient,
    private_grid,
    private_settings,
    private_terms,
)
from lepton_jax.training.step import Augment, Batches, Gradient
from lepton_jax.typing import Classifier


def private_promise(run: Run, examples: int) -> Promise:
    """What a private run promises; an epoch costs its steps.

    Args:
      run: with `train.privacy`.
      examples: how many there are to train on.

    Raises:
      UserError: as of `private_terms` and `make_promise`.
    """
    terms, size = private_terms(run, examples), run.train.batch_size
    asked = None if run.train.privacy is None else run.train.privacy.noise_multiplier
    steps = steps_per_epoch(examples, size)
    return make_promise(terms, asked, lambda epoch, again: steps, last=run.train.epochs)


def private_way(
    run: Run, terms: Terms, examples: Examples, model: Classifier, loss: Loss, augment: Augment
) -> tuple[Gradient, Batches]:
    """The gradient and the batches of a private run: `secure`, or repeatable from the run's seed.

    Secure batches and noise come from a source of their own, new in each process: a run that is
    resumed draws anew what it had not saved, and those releases count again.

    Args:
      run: the configuration.
      terms: from `private_terms`.
      examples: to train on.
      model: without BatchNorm.
      loss: (logits, labels) -> each example's loss [B].
      augment: as of `private_gradient`.

    Returns:
      The gradient, and an epoch's number -> its batches.

    Raises:
      UserError: the noise is too much or too little for the grid, or the extra `privacy` isn't
        installed.
    """
    size, count, epochs = run.train.batch_size, len(examples.labels), run.train.epochs
    noise = terms.noise_multiplier
    settings = msgspec.structs.replace(private_settings(run), noise_multiplier=noise)
    gradient = partial(private_gradient, model, loss, settings, augment=augment, batch_size=size)
    if terms.randomness == "reproducible":
        choose = seeded_choice(count, size, seed=run.seed)
        return gradient(), poisson_batches(examples, size, choose=choose, epochs=epochs).epoch
    source = secure_source()
    choose = secure_choice(source, count, sampling_rate(count, size))
    drawn = poisson_batches(examples, size, choose=choose, epochs=epochs)
    shapes = jax.eval_shape(model.init, jax.random.key(0)).params
    grid = private_grid(settings, capacity=drawn.capacity, size=trees.size(shapes))
    sampler = rounded_normal(grid.deviation)

    def batches(epoch: int) -> Iterator[PrivateBatch]:
        for batch in drawn.epoch(epoch):
            yield PrivateBatch(batch, noise_like(shapes, sampler, source))

    return gradient(grid=grid), batches


def secure_choice(source: Source, n_examples: int, rate: float) -> Callable[[int, int], np.ndarray]:
    """What is in each batch of `poisson_batches`, other rows at each call, from a source's bits."""
    return lambda epoch, step: np.flatnonzero(bernoulli(source, rate, n_examples))
