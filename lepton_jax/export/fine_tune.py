"""Quantization-aware training: a finished run, trained on for a little while with rounded numbers.

Its steps are those of the run's own training, in a form that rounds (`models.fake_quantization`).
What comes of it is kept only where it beats the run's own variables, both rounded, on validation
images or, where those are too few, on training images.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lepton_jax import config, models
from lepton_jax.checks import UserError
from lepton_jax.data.augment import augmenter
from lepton_jax.data.batches import epoch_batches, steps_per_epoch
from lepton_jax.data.splits import Examples, Splits
from lepton_jax.export.quantize.weights import FINE
from lepton_jax.models.conv import choose_form
from lepton_jax.models.fake_quantization import fake_quantized
from lepton_jax.training.evaluate import classifier, predict
from lepton_jax.training.loop import fit
from lepton_jax.training.losses import make_loss
from lepton_jax.training.optimizers import make_optimizer, make_schedule
from lepton_jax.training.runs import SavedRun
from lepton_jax.training.step import evaluated, init_state, make_step
from lepton_jax.typing import Classifier, Variables

Rounded = Literal["int8-qat", "int4"]
ROUNDED: tuple[Rounded, ...] = ("int8-qat", "int4")
_BITS: dict[Rounded, tuple[int, int | None]] = {"int8-qat": (8, 8), "int4": (4, None)}
_DECAY = 0.99  # of the moving average over the steps, which is what comes out
_LEAST = 100  # validation images, fewer of which tell no two models apart
_TELLING = 2.0  # standard errors that a cost must be above to be told from chance


class FineTuned(NamedTuple):
    """What quantization-aware training came to; losses are means over `images` images.

    Attributes:
      variables: the fine-tuned ones, or the run's own where those are better.
      kept: whether they are the fine-tuned ones.
      steps: of training; 0 where rounding cost nothing that could be won back.
      images: how many, of the validation split, or of the training split where that is too small.
      cost: by how much the loss of the run's own variables rises when they are rounded.
      cost_error: its standard error.
      loss_before: of the run's own variables, rounded.
      loss_after: of the fine-tuned ones, likewise; None where there are none.
    """

    variables: Variables
    kept: bool
    steps: int
    images: int
    cost: float
    cost_error: float
    loss_before: float
    loss_after: float | None


def fine_tune(saved: SavedRun, splits: Splits, variant: Rounded) -> FineTuned:
    """Trains a run's variables on, so that they bear being rounded (Jacob et al., 2018).

    SGD with momentum 0.9 and Nesterov's step, a cosine down to 0, the run's own loss, augmentation
    and batches of the training split; the moving average is what counts. For `int8-qat` kernels and
    activations are rounded to 8 bits, for `int4` kernels to 4. Where rounding costs no more than
    twice its standard error there is nothing to win, and nothing is trained. The same run gives the
    same variables.

    Args:
      saved: a run of `lepton train` without privacy; its `export.fine_tuning` says how long.
      splits: its data.
      variant: what is to bear it.

    Raises:
      UserError: the run is federated or private: training on would pool the clients' images, or
        spend a privacy that nobody accounts for; or training diverged.
    """
    why = untunable(saved)
    if why is not None:
        expected = "a run whose training images may be trained on again"
        raise UserError(variant, expected, why, "leave the variant out")
    enough = len(splits.validation.images) >= _LEAST
    judges = splits.validation if enough else splits.train
    rounded, own = _model(saved, splits, variant), saved.variables
    plain = _losses(saved, classifier(saved.config, splits), own, judges)
    before = _losses(saved, rounded, own, judges)
    rise = before - plain
    error = float(rise.std() / np.sqrt(len(rise)))
    found = FineTuned(
        own, False, 0, len(rise), float(rise.mean()), error, float(before.mean()), None
    )
    if found.cost <= _TELLING * found.cost_error:
        return found
    tuned, steps = _train(saved, splits.train, rounded)
    after = float(_losses(saved, rounded, tuned, judges).mean())
    kept = after < found.loss_before
    return found._replace(
        variables=tuned if kept else own, kept=kept, steps=steps, loss_after=after
    )


def _losses(
    saved: SavedRun, model: Classifier, variables: Variables, examples: Examples
) -> np.ndarray:
    """Each example's loss."""
    logits = predict(model, variables, examples.images)
    return np.asarray(
        make_loss(saved.config.loss)(jnp.asarray(logits), jnp.asarray(examples.labels))
    )


def untunable(saved: SavedRun) -> str | None:
    """Why a run's training images are not to be trained on again; None where they may be."""
    if saved.kind == "simulate":
        return "a federated run, whose clients keep their images"
    return None if saved.config.train.privacy is None else "a private run"


def _model(saved: SavedRun, splits: Splits, variant: Rounded) -> Classifier:
    settings = saved.config.model
    residual = settings.name.startswith("resnet")
    weights, activations = _BITS[variant]
    form = fake_quantized(
        choose_form(settings.conv, in_loop=False, residual=residual),
        weights=weights,
        activations=activations,
        fine=FINE,
    )
    height, width, channels = splits.train.images.shape[1:]
    info = splits.info
    shape, classes = (height, width, channels), len(info.classes)
    return models.build_in(form, settings, shape, classes, mean=info.mean, std=info.std)


def _train(saved: SavedRun, examples: Examples, model: Classifier) -> tuple[Variables, int]:
    asked = saved.config.export.fine_tuning
    settings = config.Train(
        epochs=asked.epochs,
        batch_size=asked.batch_size,
        optimizer=config.Sgd(learning_rate=asked.learning_rate, momentum=0.9, nesterov=True),
        schedule=config.Cosine(),
    )
    run = saved.config
    schedule = make_schedule(settings, steps_per_epoch(len(examples.labels), settings.batch_size))
    tx = make_optimizer(settings.optimizer, learning_rate=schedule)
    augment = augmenter(run.data.augment)
    step = make_step(model, tx, make_loss(run.loss), augment=augment, ema=_DECAY)
    step, key = jax.jit(step, donate_argnums=0), jax.random.key(run.seed)
    # A donated state is used up: the run's own variables are still needed.
    copied = Variables(*jax.tree.map(jnp.array, tuple(saved.variables)))
    state = init_state(copied, tx, ema=_DECAY)
    for epoch in range(1, settings.epochs + 1):
        batches = epoch_batches(examples, settings.batch_size, seed=run.seed, epoch=epoch)
        for _, latest, _ in fit(step, state, batches, key):
            state = latest
    if int(state.first_bad):
        rate = settings.optimizer.learning_rate
        raise UserError(
            "export.fine_tuning.learning_rate",
            "a rate at which training stays finite",
            rate,
            f"set export.fine_tuning.learning_rate={rate / 10:g}",
        )
    return evaluated(state), int(state.step)
