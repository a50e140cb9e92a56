"""The step-level gate: a correct mechanism passes, and each of the seeded mistakes fails."""

import math
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest

import federated.parts
import federated.privacy.noise
import federated.stages.make
import lepton_jax.training.private
from federated.privacy.audits.mechanisms import Mechanism, of_clients, of_examples
from federated.privacy.audits.noise import Deviation, noise_audit
from federated.privacy.audits.probes import LEAVES
from federated.privacy.audits.step import Verdict, audit_release, scenarios, step_audit
from federated.stages import Stage
from lepton_jax import config, trees
from lepton_jax.checks import UserError
from lepton_jax.privacy.grid import Grid, noise_like
from lepton_jax.privacy.lattice import rounded_normal
from lepton_jax.privacy.noise import add_normal
from lepton_jax.training.private import clipped_steps
from lepton_jax.typing import PyTree

DELTA = 1e-5
CLIP = (config.Clip(max_norm=0.2),)
SOME: dict[str, Any] = {
    "clients": 12,
    "clients_per_round": 4,
    "weights": "uniform",
    "stages": CLIP,
    "sampling": "poisson",
    "randomness": "reproducible",
    "noise": config.Gaussian(multiplier=0.8),
}
CYCLIC = {**SOME, "sampling": "cyclic"}
CLIENTS: dict[str, dict[str, Any]] = {
    "clients": SOME,
    "secure": {**SOME, "randomness": "secure"},
    "adaptive": {**SOME, "stages": (config.AdaptiveClip(), config.Rotate())},
    "tree": {**CYCLIC, "noise": config.Tree(multiplier=0.8)},
    "banded": {**CYCLIC, "noise": config.Banded(multiplier=0.8, bands=2)},
    "local": {**SOME, "sampling": "fixed", "noise": config.Local(multiplier=0.8)},
    "distributed": {
        **CYCLIC,
        "noise": config.Distributed(multiplier=0.8),
        "channel": config.Secure(dropouts=0.25),
        "accountant": "rdp",
    },
}
EXAMPLES = config.Privacy(noise_multiplier=1.5, clip_norm=0.3, randomness="reproducible")
TWO = ("secure examples", "clients")
SLOW = pytest.mark.slow  # all together they take minutes, most of it to compile


def mechanism(kind: str) -> Mechanism:
    if kind == "examples":
        return of_examples(EXAMPLES, 1.5, batch_size=32)
    if kind == "secure examples":
        secure = msgspec.structs.replace(EXAMPLES, randomness="secure")
        return of_examples(secure, 1.5, batch_size=32)
    return of_clients(config.Run(federated=config.Federated(**CLIENTS[kind])))


def failed(kind: str, seed: int = 0, miss: float = 0.01) -> set[str]:
    """The names of the gates that a run's mechanism fails."""
    one = mechanism(kind)
    gates: list[Verdict | Deviation] = [
        *step_audit(one, delta=DELTA, miss=miss, trials=1024, seed=seed)
    ]
    gates += noise_audit(one, trials=256, seed=seed)
    return {gate.name for gate in gates if not gate.passed}


@pytest.mark.parametrize(
    "kind",
    [*TWO, *(pytest.param(kind, marks=SLOW) for kind in ("examples", *CLIENTS) if kind not in TWO)],
)
def test_a_correct_mechanism_passes(kind: str) -> None:
    assert failed(kind, miss=1e-7) == set()  # secure noise has no seed


# --- what a mechanism releases ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*TWO, pytest.param("secure", marks=SLOW)])
def test_a_release_is_the_clipped_sum_and_the_promised_noise(kind: str) -> None:
    one = mechanism(kind)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 64))
    vectors *= np.linspace(0.1, 3, 300)[:, None] / np.linalg.norm(vectors, axis=1)[:, None]
    members = np.array([[0, 7, 299], [280, -1, -1], [-1, -1, -1]])
    found = one.releases(vectors, members, 1500, 0).astype(np.float64)
    clipped = vectors / np.maximum(1, np.linalg.norm(vectors, axis=1))[:, None]
    sums = np.stack([clipped[rows[rows >= 0]].sum(0) for rows in members])
    assert found.shape == (1500, 3, 64)
    error = one.multiplier / math.sqrt(1500)
    np.testing.assert_allclose(found.mean(0), sums, atol=7 * error)
    assert (found - sums).std() == pytest.approx(one.multiplier, rel=0.01)


def test_fewer_than_8_trials_are_refused() -> None:
    def nothing(present: bool, trials: int) -> np.ndarray:
        return np.zeros(trials)

    with pytest.raises(UserError, match=r"^trials"):
        audit_release("it", nothing, promised_mu=1.0, delta=DELTA, trials=4)


# --- false alarms ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", TWO)
def test_of_200_correct_runs_at_most_5_percent_raise_an_alarm(kind: str) -> None:
    one = mechanism(kind)
    alarms = 0
    for seed in range(200):
        verdicts = step_audit(one, delta=DELTA, trials=512, seed=seed)
        deviations = noise_audit(one, trials=128, seed=seed)
        gates: list[Verdict | Deviation] = [*verdicts, *deviations]
        alarms += not all(gate.passed for gate in gates)
    assert alarms <= 10


def test_noise_exactly_at_the_promise_rarely_raises_an_alarm() -> None:
    rng = np.random.default_rng(0)

    def release(present: bool, trials: int) -> np.ndarray:
        return rng.normal(float(present), 1.0, trials)

    verdicts = [
        audit_release("it", release, promised_mu=1.0, delta=DELTA, trials=512) for _ in range(200)
    ]
    assert sum(not each.passed for each in verdicts) <= 10
    assert np.median([each.mu for each in verdicts]) > 0.4


# --- seeded mistakes -------------------------------------------------------------------------------


def no_noise(tree: PyTree, deviation: float, key: jax.Array) -> PyTree:
    return tree


def too_little(tree: PyTree, deviation: float, key: jax.Array) -> PyTree:
    return add_normal(tree, deviation / math.sqrt(9), key)


def one_key_for_all_leaves(tree: PyTree, deviation: float, key: jax.Array) -> PyTree:
    return jax.tree.map(
        lambda x: x + deviation * jax.random.normal(key, x.shape, jnp.float32), tree
    )


def one_key_for_all_rounds(tree: PyTree, deviation: float, key: jax.Array) -> PyTree:
    return add_normal(tree, deviation, jax.random.key(7))


EACH = {"alone", "opposed", "again"}


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        pytest.param(no_noise, EACH | {"all"}, marks=SLOW),
        pytest.param(too_little, EACH | {"all"}),
        pytest.param(one_key_for_all_leaves, EACH | {"pairs of leaves"}, marks=SLOW),
        pytest.param(one_key_for_all_rounds, {"again", "pairs of rounds"}, marks=SLOW),
    ],
)
def test_a_mistake_in_the_noise_of_examples_fails(
    mistake: Callable, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lepton_jax.training.private, "add_normal", mistake)
    assert failed("examples") >= expected


@SLOW
def test_a_step_that_does_not_fold_its_number_into_the_key_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = jax.random.fold_in

    def forgetful(key: jax.Array, number: Any) -> jax.Array:
        return key if isinstance(number, jax.core.Tracer) else right(key, number)

    monkeypatch.setattr(jax.random, "fold_in", forgetful)
    assert failed("examples") >= {"again", "pairs of rounds"}


def clip_after_the_sum(gradients: PyTree, mask: jax.Array, max_norm: float) -> PyTree:
    total = jax.tree.map(
        lambda x: jnp.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, 0.0).sum(0), gradients
    )
    return trees.scale(total, jnp.minimum(1.0, max_norm / trees.norm(total)))


def clip_each_leaf(gradients: PyTree, mask: jax.Array, max_norm: float) -> PyTree:
    each = lepton_jax.training.private.clipped_sum
    return jax.tree.map(lambda x: each(x, mask, max_norm), gradients)


def no_clip(gradients: PyTree, mask: jax.Array, max_norm: float) -> PyTree:
    return lepton_jax.training.private.clipped_sum(gradients, mask, 100 * max_norm)


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        pytest.param(clip_after_the_sum, {"opposed"}),
        pytest.param(clip_each_leaf, EACH, marks=SLOW),
        pytest.param(no_clip, EACH, marks=SLOW),
    ],
)
def test_a_mistake_in_the_clip_of_examples_fails(
    mistake: Callable, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = lepton_jax.training.private.clipped_sum

    def wrong(gradients: PyTree, mask: jax.Array, max_norm: float) -> PyTree:
        with monkeypatch.context() as patch:
            patch.setattr(lepton_jax.training.private, "clipped_sum", right)
            return mistake(gradients, mask, max_norm)

    monkeypatch.setattr(lepton_jax.training.private, "clipped_sum", wrong)
    assert failed("examples") >= expected


def each_leaf_in_steps(gradients: PyTree, mask: jax.Array, grid: Grid) -> PyTree:
    return jax.tree.map(lambda x: clipped_steps(x, mask, grid), gradients)


def sum_in_steps(gradients: PyTree, mask: jax.Array, grid: Grid) -> PyTree:
    total = clip_after_the_sum(gradients, mask, grid.bound * grid.unit)
    return jax.tree.map(lambda x: jnp.round(x / grid.unit).astype(jnp.int32), total)


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        pytest.param(each_leaf_in_steps, EACH),
        pytest.param(sum_in_steps, {"opposed"}, marks=SLOW),
    ],
)
def test_a_mistake_in_the_clip_on_a_grid_fails(
    mistake: Callable, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lepton_jax.training.private, "clipped_steps", mistake)
    assert failed("secure examples") >= expected


# --- seeded mistakes, of clients -------------------------------------------------------------------


def nothing_drawn(tree: PyTree, sampler: Any, source: Any) -> PyTree:
    return jax.tree.map(lambda x: np.zeros(x.shape, np.int32), tree)


def the_same_for_each_leaf(tree: PyTree, sampler: Any, source: Any) -> PyTree:
    first = jax.tree.leaves(noise_like(tree, sampler, source))[0]
    return jax.tree.map(lambda x: first, tree)


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        pytest.param(nothing_drawn, EACH | {"all"}),
        pytest.param(the_same_for_each_leaf, EACH | {"pairs of leaves"}, marks=SLOW),
    ],
)
def test_a_mistake_in_the_noise_of_clients_fails(
    mistake: Callable, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(federated.privacy.noise, "noise_like", mistake)
    assert failed("clients") >= expected


@SLOW
def test_the_noise_of_a_mean_on_a_sum_of_clients_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        federated.privacy.noise, "rounded_normal", lambda deviation: rounded_normal(deviation / 3)
    )
    assert failed("clients") >= EACH | {"all"}


def test_a_round_whose_noise_comes_from_the_seed_alone_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = federated.parts.seeded_source

    def forgetful(seed: int, number: int, stream: int) -> Any:
        return right(seed, stream)

    monkeypatch.setattr(federated.parts, "seeded_source", forgetful)
    assert failed("clients") >= {"again", "pairs of rounds"}


def each_leaf(right: Stage) -> Stage:
    def encode(state: PyTree, update: PyTree) -> tuple[PyTree, PyTree]:
        parts = {name: right.encode(state, {name: x}) for name, x in update.items()}
        return {name: parts[name][0][name] for name in update}, next(iter(parts.values()))[1]

    return right._replace(encode=encode)


def no_clip_at_all(right: Stage) -> Stage:
    def encode(state: PyTree, update: PyTree) -> tuple[PyTree, PyTree]:
        return trees.scale(update, 0.1), right.encode(state, update)[1]

    return right._replace(encode=encode)


def rounded(tree: PyTree, grid: Grid) -> PyTree:
    """On the grid, whatever its norm."""
    return jax.tree.map(lambda x: jnp.round(x / grid.unit), tree)


@pytest.mark.parametrize("mistake", [pytest.param(each_leaf, marks=SLOW), no_clip_at_all])
def test_a_mistake_in_the_clip_of_clients_fails_unless_the_grid_drops_what_is_too_long(
    mistake: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = federated.stages.make.clip
    monkeypatch.setattr(federated.stages.make, "clip", lambda norm: mistake(right(norm)))
    assert failed("clients") == set()
    monkeypatch.setattr(sys.modules["federated.aggregate"], "on_grid", rounded)
    assert failed("clients") >= EACH


# --- scenarios ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TWO)
def test_the_canary_spreads_over_all_leaves(kind: str) -> None:
    for scenario in scenarios(mechanism(kind)):
        leaves = scenario.direction[0].reshape(LEAVES, -1)
        np.testing.assert_allclose(np.linalg.norm(leaves, axis=1), 1 / math.sqrt(LEAVES))
        assert np.linalg.norm(leaves[0] + leaves[1]) < 1e-12


def test_where_rounds_share_noise_the_canary_is_in_one_of_them() -> None:
    assert [each.name for each in scenarios(mechanism("tree"))] == ["alone", "opposed"]
