from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lepton_jax.checks import UserError
from lepton_jax.export.facts import Facts, facts_of
from lepton_jax.export.gates import Gate, check, judge, judge_groups
from lepton_jax.export.verify import Agreement, GroupAgreement
from tests.lepton_jax.export.conftest import SHAPE, Net
from tests.lepton_jax.export.made import classifier, made

VARIANTS = ("float32", "float16", "dynamic", "weight-only", "int8", "int8-qat", "16x8", "int4")
FOUND = Agreement(
    bytes=100,
    images=1000,
    max_abs_diff=0.0,
    logit_diff=0.0,
    top1_agreement=1.0,
    accuracy=0.9,
    jax_accuracy=0.9,
    latency_ms={"median": 0.1, "p95": 0.2},
    ops={"CONV_2D": 2, "SOFTMAX": 1},
)


def model_of(apply: Callable[[Any], jax.Array]) -> bytes:
    return made(lambda x: {"probabilities": jax.nn.softmax(apply(x))}, (1, *SHAPE), "uint8")


@pytest.fixture(scope="module")
def facts(net: Net) -> Facts:
    return facts_of(net.apply, SHAPE, 500)


@pytest.fixture(scope="module")
def model(net: Net) -> bytes:
    return model_of(net.apply)


def failed(gates: tuple[Gate, ...]) -> list[str]:
    return [gate.name for gate in gates if not gate.passed]


# --- what JAX computes ----------------------------------------------------------------------------


def test_facts_are_those_of_the_architecture() -> None:
    _, apply, shape = classifier("resnet8")
    found = facts_of(apply, shape, 78_186)
    assert found[2:] == (9, 3, 0)  # a stem, 3 blocks of two, 2 shortcuts; an addition a block
    assert found.parameters == 78_186 <= found.numbers < 79_000


def test_a_norm_over_the_image_is_told_from_one_that_folds(net: Net) -> None:
    def normalized(pixels: Any) -> jax.Array:
        z = net.apply(pixels)
        return z * jax.lax.rsqrt(jnp.square(z).mean() + 1.0)[None, None]

    assert facts_of(net.apply, SHAPE, 1).norms == 0
    assert facts_of(normalized, SHAPE, 1).norms == 1


# --- each gate ------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_good_model_passes(variant: str, model: bytes, facts: Facts) -> None:
    gates = judge(variant, model, FOUND, facts)
    assert failed(gates) == []
    names = {"ops", "convolutions", "fused", "agreement", "size"}
    names |= {"logits"} if variant == "float32" else set()
    assert {gate.name for gate in gates} >= names


def test_a_custom_op_is_named(model: bytes, facts: Facts) -> None:
    found = FOUND._replace(ops={"CONV_2D": 2, "FlexErf": 1, "STABLEHLO_SORT": 1})
    gates = judge("float32", model, found, facts)
    assert failed(gates) == ["ops"]
    assert gates[0].found == "FlexErf, STABLEHLO_SORT"


def test_another_count_of_convolutions_fails(model: bytes, facts: Facts) -> None:
    for count in (1, 3):
        other = facts._replace(convolutions=count)
        assert failed(judge("float32", model, FOUND, other)) == ["convolutions"]


def test_a_scale_that_did_not_fold_fails(net: Net, facts: Facts) -> None:
    def unfused(pixels: Any) -> jax.Array:
        spread = np.linspace(0.5, 1.5, 3, dtype=np.float32)[None, None, None]
        x = jnp.maximum(pixels.astype(jnp.float32) * spread + spread, 3.0) * spread - spread
        return net.apply(jnp.minimum(x, 200.0))

    gates = judge("float32", model_of(unfused), FOUND, facts)
    assert failed(gates) == ["fused"]


def test_residual_additions_are_no_strays(model: bytes, facts: Facts) -> None:
    _, apply, shape = classifier("resnet8")
    content = made(lambda x: {"logits": apply(x)}, (1, *shape), "uint8")
    own = facts_of(apply, shape, 78_186)
    found = FOUND._replace(bytes=len(content))
    assert failed(judge("float32", content, found, own)) == []
    fewer = own._replace(additions=2)
    assert failed(judge("float32", content, found, fewer)) == ["fused"]


@pytest.mark.parametrize(("difference", "passed"), [(9e-5, True), (2e-4, False), (np.nan, False)])
def test_logits_differ_by_rounding_only(
    model: bytes, facts: Facts, difference: float, passed: bool
) -> None:
    found = FOUND._replace(logit_diff=float(difference))
    assert failed(judge("float32", model, found, facts)) == ([] if passed else ["logits"])


LEAST = {"float32": 1.0, "float16": 0.995, "dynamic": 0.985, "weight-only": 0.985}
LEAST |= {"16x8": 0.985, "int8": 0.97, "int8-qat": 0.97, "int4": 0.85}


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_agrees_as_often_as_it_must(variant: str, model: bytes, facts: Facts) -> None:
    enough = FOUND._replace(top1_agreement=LEAST[variant])
    assert failed(judge(variant, model, enough, facts)) == []
    fewer = FOUND._replace(top1_agreement=LEAST[variant] - 0.001)
    assert failed(judge(variant, model, fewer, facts)) == ["agreement"]


def test_few_images_are_said_to_be_few(model: bytes, facts: Facts) -> None:
    def limit(images: int) -> str:
        gates = judge("int8", model, FOUND._replace(images=images), facts)
        return next(gate.limit for gate in gates if gate.name == "agreement")

    assert limit(256) == "at least 97.0% of 256 images"
    assert limit(255) == "at least 97.0% of 255 images, fewer than 256"


@pytest.mark.parametrize(("variant", "most"), [("int8", 0.01), ("int8-qat", 0.01), ("int4", 0.03)])
def test_integers_lose_no_more_than_they_may(
    variant: str, most: float, model: bytes, facts: Facts
) -> None:
    enough = FOUND._replace(accuracy=0.9 - most)
    assert failed(judge(variant, model, enough, facts)) == []
    fewer = FOUND._replace(accuracy=0.9 - most - 0.001)
    assert failed(judge(variant, model, fewer, facts)) == ["accuracy"]


RATIOS = {"float32": 4.1, "float16": 2.1, "int8": 1.25, "dynamic": 1.25, "weight-only": 1.25}


@pytest.mark.parametrize("variant", RATIOS)
def test_a_file_is_as_small_as_it_must_be(variant: str, model: bytes, facts: Facts) -> None:
    most = int(RATIOS[variant] * 500 + 8192)
    assert failed(judge(variant, model, FOUND._replace(bytes=most), facts)) == []
    assert failed(judge(variant, model, FOUND._replace(bytes=most + 1), facts)) == ["size"]


def test_a_norm_that_stays_may_take_its_matrices_and_ops(model: bytes, facts: Facts) -> None:
    norms = facts._replace(norms=3, numbers=600)
    most = int(1.25 * 600 + 8192 + 3 * 2048)
    assert failed(judge("int8", model, FOUND._replace(bytes=most), norms)) == []
    assert failed(judge("int8", model, FOUND._replace(bytes=most + 1), norms)) == ["size"]


def test_an_unknown_variant_is_refused(model: bytes, facts: Facts) -> None:
    with pytest.raises(UserError, match="variant: expected one of float32, float16"):
        judge("int2", model, FOUND, facts)


def test_all_that_failed_is_told_in_one_line() -> None:
    good, bad = Gate("ops", "no other", "builtin ops", True), Gate("size", "9", "at most 8", False)
    check({"float32": (good,), "int8": (good, good)})
    with pytest.raises(UserError, match=r"got int8 size 9 .limit: at most 8.; int4 size 9") as told:
        check({"float32": (good,), "int8": (good, bad), "int4": (bad,)})
    assert "\n" not in str(told.value) and "float32" not in str(told.value)


# --- groups ---------------------------------------------------------------------------------------


def group(images: int, lost: int, differ: int | None = None) -> GroupAgreement:
    differ = abs(lost) if differ is None else differ
    loss = lost / images
    return GroupAgreement(images, 0.9 - loss, 0.9, loss, 1 - differ / images)


def test_a_large_group_may_lose_about_a_point() -> None:
    assert judge_groups("regions", "int8", {"a": group(100_000, 1_000)}).passed
    assert not judge_groups("regions", "int8", {"a": group(100_000, 1_200)}).passed
    assert judge_groups("regions", "int4", {"a": group(100_000, 3_000)}).passed


def test_a_small_group_may_lose_an_image_by_chance_but_not_half_of_them() -> None:
    rest = group(5000, 20)
    assert judge_groups("clients", "int8", {"a": group(10, 1), "b": rest}).passed
    assert not judge_groups("clients", "int8", {"a": group(10, 5), "b": rest}).passed


def test_the_group_that_is_most_beyond_its_limit_is_named() -> None:
    groups = {"small": group(10, 1), "large": group(5000, 400), "none": group(3000, -5)}
    found = judge_groups("regions", "int8", groups)
    assert not found.passed
    assert found.found == "+8.00 points lost by 'large' (5,000 images)"


def test_a_model_that_treats_groups_alike_is_rarely_called_unfair() -> None:
    """3 % of answers differ, 1.8 % for the worse and 1.2 % for the better."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(500):
        sizes = rng.integers(20, 2000, size=12)
        groups = {}
        for i, n in enumerate(sizes):
            worse, better, _ = rng.multinomial(n, (0.018, 0.012, 0.97))
            groups[str(i)] = group(int(n), int(worse - better), int(worse + better))
        alarms += not judge_groups("clients", "int8", groups).passed
    assert alarms <= 10


def test_a_region_that_is_served_worse_is_found() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        fair = {str(i): group(1000, 3, 30) for i in range(7)}
        lost = int(rng.binomial(1000, 0.06))
        assert not judge_groups("regions", "int8", {**fair, "far": group(1000, lost)}).passed
