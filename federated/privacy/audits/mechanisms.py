"""A run's noised releases, driven by vectors of our own: what the audits attack is the real code.

Only the model and the clients' training are replaced, by probes. Clipping, summing, noise and where
it comes from, division, the step that follows and the keys from round to round are those of the run;
its sums are plain ones, which secure sums equal to the last bit.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float32, Int32, UInt32

from federated.aggregate import aggregate
from federated.algorithms import ServerState, fed_avg
from federated.channel import plain
from federated.over import make_over
from federated.parts import sources
from federated.privacy.audits import probes
from federated.privacy.audits.probes import Table
from federated.privacy.make import make_noise
from federated.privacy.noise import Drawn, Noise, side_by_side
from federated.privacy.promise import promise
from federated.sampling import make_sampler
from federated.stages import chain, make_stage
from lepton_jax import config
from lepton_jax.privacy.entropy import secure_source
from lepton_jax.privacy.grid import noise_like
from lepton_jax.privacy.lattice import rounded_normal
from lepton_jax.training.private import PrivateBatch, private_gradient, private_grid
from lepton_jax.training.step import TrainState, init_state, make_step_along
from lepton_jax.typing import PRNGKey, PyTree

_CHUNK = 512  # runs side by side
Members = Int32[Array, "R U"]
Releases = Float32[Array, "R D"]


class Mechanism(NamedTuple):
    """What a run releases of its units.

    Attributes:
      name: the config's key.
      unit: what it protects.
      multiplier: deviation of the noise over the L2 bound of one unit's share.
      numbers: D of a unit's vector.
      replaced: neighbours have another unit in one's place, since noise comes with the units; else
        one unit less.
      independent: rounds have noise of their own, so that the canary may be in each of them.
      steady: all rounds' noise has the same deviation.
      releases: (vectors [M,D], members [R,U], N, seed) -> [N,R,D]: N runs of R successive releases,
        each the sum of the members' clipped vectors and noise, in units of the bound. Members are
        rows of the vectors; -1 is an empty slot, and those stand last.
    """

    name: str
    unit: Literal["example", "client"]
    multiplier: float
    numbers: int
    replaced: bool
    independent: bool
    steady: bool
    releases: Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]


@jax.vmap
def _keys(seed: UInt32[Array, ""]) -> PRNGKey:
    return jax.random.key(seed)


def _batched(
    once: Callable[[Table, Members, PRNGKey, PyTree], Releases],
    draw: Callable[[np.ndarray, int, int], PyTree],
) -> Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]:
    """`Mechanism.releases` from one run of the rounds, and (members, N, seed) -> what N are given."""
    many = jax.jit(jax.vmap(once, in_axes=(None, None, 0, 0)))

    def releases(vectors: np.ndarray, members: np.ndarray, trials: int, seed: int) -> np.ndarray:
        table, rows = jnp.asarray(vectors, jnp.float32), jnp.asarray(members, jnp.int32)
        rng = np.random.default_rng(seed)
        size = min(_CHUNK, trials)
        parts = []
        for _ in range(-(-trials // size)):
            keys = _keys(jnp.asarray(rng.integers(2**32, size=size, dtype=np.uint32)))
            given = draw(np.asarray(members), size, int(rng.integers(2**31)))
            parts.append(np.asarray(many(table, rows, keys, given)))
        return np.concatenate(parts)[:trials]

    return releases


# --- examples -------------------------------------------------------------------------------------


def of_examples(
    settings: config.Privacy,
    multiplier: float,
    *,
    batch_size: int,
    name: str = "train.privacy",
    numbers: int = 64,
) -> Mechanism:
    """The releases of DP-SGD: steps along its gradients.

    Args:
      settings: bound and randomness.
      multiplier: of the noise, which the settings may leave to their budget.
      batch_size: expected.
      name: the settings' key.
      numbers: D, a multiple of `probes.LEAVES`.
    """
    settings = msgspec.structs.replace(settings, noise_multiplier=multiplier)
    bound, secure = settings.clip_norm, settings.randomness == "secure"
    capacity = max(64, 4 * batch_size)
    grid = private_grid(settings, capacity=capacity, size=numbers) if secure else None

    def once(table: Table, members: Members, key: PRNGKey, given: PyTree) -> Releases:
        gradient = private_gradient(
            probes.model(table * bound),
            probes.first_logit,
            settings,
            augment=lambda images, key: images,
            batch_size=batch_size,
            grid=grid,
        )
        tx = optax.sgd(1.0)
        step = make_step_along(gradient, tx)

        def one(state: TrainState, now: tuple) -> tuple[TrainState, jax.Array]:
            rows, noise = now
            batch = probes.batch(rows)
            after, _ = step(state, batch if grid is None else PrivateBatch(batch, noise), key)
            moved = probes.flat(state.params) - probes.flat(after.params)
            return after, moved * (batch_size / bound)

        return lax.scan(one, init_state(probes.zeros(numbers), tx), (members, given))[1]

    def draw(members: np.ndarray, trials: int, seed: int) -> PyTree:
        if grid is None:
            return ()
        like = side_by_side(probes.zeros(numbers).params, len(members))
        sampler = rounded_normal(grid.deviation)
        return noise_like(side_by_side(like, trials), sampler, secure_source())

    return Mechanism(
        name, "example", multiplier, numbers,
        replaced=False, independent=True, steady=True,
        releases=_batched(once, draw),
    )  # fmt: skip


# --- clients --------------------------------------------------------------------------------------


def as_simulated(federated: config.Federated) -> config.Federated:
    """The config with the noise multiplier that its simulated rounds have, and no budget."""
    sampler = make_sampler(federated, 0)
    promised = promise(federated, sampler, 0.0)
    noise = None if promised is None else make_noise(federated, promised.terms, sampler)
    if noise is None or federated.noise is None:
        return federated
    told = msgspec.structs.replace(federated.noise, multiplier=noise.multiplier)
    return msgspec.structs.replace(federated, noise=told, hypothetical=None, epsilon=None)


def of_clients(run: config.Run, numbers: int = 64) -> Mechanism:
    """The releases of `federated.noise`: steps of a server that adds the mean update.

    Args:
      run: with `federated.noise`.
      numbers: D, a multiple of `probes.LEAVES`.
    """
    federated = as_simulated(run.federated)
    noise = _noise(federated)
    stages = [make_stage(each, run.seed) for each in federated.stages]
    aggregator = aggregate(stages, plain(), noise)
    unit = _unit(federated, aggregator.bound)

    def once(table: Table, members: Members, key: PRNGKey, given: PyTree) -> Releases:
        over = make_over("scan")
        algorithm = fed_avg(probes.client(table * unit), optax.sgd(1.0), aggregator, over)

        def one(state: ServerState, now: tuple) -> tuple[ServerState, jax.Array]:
            rows, (server, clients) = now
            drawn = Drawn(server, clients, jnp.float32(noise.clients))
            after, _ = algorithm.apply(state, probes.cohort(rows), key, drawn)
            moved = probes.flat(after.params) - probes.flat(state.params)
            return after, moved * (noise.clients / unit)

        return lax.scan(one, algorithm.init(probes.zeros(numbers)), (members, given))[1]

    kind, adaptive = federated.noise, _adaptive(federated)
    independent = not isinstance(kind, config.Tree | config.Banded)
    return Mechanism(
        "federated.noise", "client", noise.multiplier, numbers,
        replaced=isinstance(kind, config.Local | config.Distributed),
        independent=independent,
        steady=independent and adaptive is None,
        releases=_batched(once, _drawing(run, noise, numbers)),
    )  # fmt: skip


def _noise(federated: config.Federated) -> Noise:
    sampler = make_sampler(federated, 0)
    promised = promise(federated, sampler, 0.0)
    found = None if promised is None else make_noise(federated, promised.terms, sampler)
    if found is None:
        raise ValueError("there is no noise to audit")
    return found


def _drawing(
    run: config.Run, noise: Noise, numbers: int
) -> Callable[[np.ndarray, int, int], PyTree]:
    """What so many runs are given: (the server's noise [N,R,...], the clients' [N,R,U,...])."""
    stage = chain(*(make_stage(each, run.seed) for each in run.federated.stages))
    grid, params = noise.grid(stage.bound(math.inf)), probes.zeros(numbers).params
    like = jax.eval_shape(stage.encode, stage.init(params), params)[0]

    def draw(members: np.ndarray, trials: int, seed: int) -> PyTree:
        source = sources(msgspec.structs.replace(run, seed=seed))
        many = side_by_side(like, trials)  # all runs' noise for a round comes in one draw
        rounds = []
        for number, rows in enumerate(members, start=1):
            present = int((rows >= 0).sum())
            server, clients = noise.draw(grid, many, source(number), present, len(rows))[:2]
            rounds.append((server, jax.tree.map(lambda x: np.moveaxis(x, 0, 1), clients)))
        return jax.tree.map(lambda *each: np.stack(each, axis=1), *rounds)

    return draw


def _unit(federated: config.Federated, bound: float) -> float:
    """How far in the parameters' units a bound of 1 reaches; with an adaptive clip, at first."""
    adaptive = _adaptive(federated)
    if adaptive is None:
        return bound
    return bound * adaptive.initial / math.sqrt(1 - adaptive.share**2)


def _adaptive(federated: config.Federated) -> config.AdaptiveClip | None:
    found = (each for each in federated.stages if isinstance(each, config.AdaptiveClip))
    return next(found, None)
