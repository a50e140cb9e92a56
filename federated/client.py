"""What happens on one client: local training, of which only differences and sums come back."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float32, Int32

from lepton_jax import config, metrics, trees
from lepton_jax.metrics import Tally
from lepton_jax.training.losses import Loss
from lepton_jax.training.optimizers import make_optimizer
from lepton_jax.training.step import (
    Augment,
    Gradient,
    TrainState,
    init_state,
    make_step_along,
    mean_gradient,
)
from lepton_jax.typing import Classifier, PRNGKey, PyTree, Variables

Count = Int32[Array, ""]


class Update(NamedTuple):
    """All that leaves a client; none of it has an axis of examples.

    Attributes:
      delta: its parameters after local training, less those that it began with.
      stats: likewise of the BatchNorm statistics; {} without BatchNorm.
      tally: sums over the examples of all local steps, each measured before its step.
    """

    delta: PyTree
    stats: PyTree
    tally: Tally


ClientOptimizer = Callable[[Count], optax.GradientTransformation]
LocalUpdate = Callable[[Variables, PyTree, Count, Count, PRNGKey], Update]


def learning_rate(settings: config.Federated, round: Count) -> Float32[Array, ""]:
    """The clients' after so many rounds: `client.learning_rate` times `client_decay` ** rounds."""
    return settings.client.learning_rate * settings.client_decay ** round.astype(jnp.float32)


def client_optimizer(settings: config.Federated) -> ClientOptimizer:
    """rounds done -> the clients' optimizer, its learning rate times `client_decay` ** rounds done.

    The round is traced: a new rate is no new compilation.
    """

    def in_round(round: Count) -> optax.GradientTransformation:
        rate = learning_rate(settings, round)
        return make_optimizer(settings.client, learning_rate=lambda step: rate)

    return in_round


def local_update(
    model: Classifier,
    optimizer: ClientOptimizer,
    loss: Loss,
    *,
    augment: Augment,
    proximal: float = 0.0,
    gradient: Gradient | None = None,
) -> LocalUpdate:
    """A client's part in a round: the steps of central training, on its own examples.

    Args:
      model: what is trained.
      optimizer: rounds done -> the optimizer, begun anew in every round.
      loss: (logits [B,K], labels [B]) -> each example's loss [B].
      augment: (images uint8 [B,H,W,F], key) -> pixels on 0..255.
      gradient: that each step follows; None: of the mean loss of its batch.
      proximal: mu of FedProx (Li et al., 2020), which adds mu/2 |w - w_start|^2 to the loss.

    Returns:
      (variables, batches [T,B,...], steps, rounds done, key) -> update. Of the T steps the first
      `steps` are taken; the others cost nothing, and like masked rows contribute exactly 0.
    """
    along = gradient or mean_gradient(model, loss, augment=augment)

    def update(
        variables: Variables, batches: PyTree, steps: Count, round: Count, key: PRNGKey
    ) -> Update:
        pull = _pull(proximal, variables.params) if proximal else optax.identity()
        tx = optax.chain(pull, optimizer(round))
        step = make_step_along(along, tx)

        def one(i: Count, carry: tuple[TrainState, Tally]) -> tuple[TrainState, Tally]:
            state, total = carry
            batch = jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, i, keepdims=False), batches)
            state, tally = step(state, batch, key)
            return state, metrics.merge(total, tally)

        begin = (init_state(variables, tx), metrics.zero_tally())
        end, total = lax.fori_loop(0, steps, one, begin)
        delta = trees.sub(end.params, variables.params)
        return Update(delta, trees.sub(end.stats, variables.stats), total)

    return update


def _pull(mu: float, start: PyTree) -> optax.GradientTransformation:
    """Adds the gradient of mu/2 |w - start|^2; the tally's loss stays that of the examples."""

    def add(gradient: PyTree, params: PyTree) -> PyTree:
        return jax.tree.map(lambda g, w, w0: g + mu * (w - w0), gradient, params, start)

    return optax.stateless(add)
