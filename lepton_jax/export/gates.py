"""What a phone model must be like to be kept: small, fused, of plain ops, and saying what JAX says.

Bounds of agreement and size are those of rounding, with room: halves keep 11 bits, 8-bit weights
lose 0.1 to 0.3 points of a small ResNet's accuracy. 4-bit weights lose 1.9 to 2.6, and at 1.9 7 % of
the answers differ, for better or worse: so they may lose 3 points, and differ in 15 %. A byte a
weight is what int8 needs, half a byte int4; the rest is for scales, biases and the graph itself.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

from lepton_jax.checks import UserError
from lepton_jax.export.facts import Facts
from lepton_jax.export.graph import Graph, read
from lepton_jax.export.verify import Agreement, GroupAgreement

_NAMES = """
    ABS ADD ADD_N ARG_MAX AVERAGE_POOL_2D BATCH_MATMUL BROADCAST_TO CAST CONCATENATION CONV_2D
    DEPTHWISE_CONV_2D DEQUANTIZE DIV EQUAL EXP EXPAND_DIMS FILL FLOOR FULLY_CONNECTED GATHER
    GREATER GREATER_EQUAL LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC
    MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL NEG NOT_EQUAL ONE_HOT PACK PAD PADV2 POW QUANTIZE
    REDUCE_MAX REDUCE_MIN RELU RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR
    REVERSE_V2 RSQRT SELECT SELECT_V2 SHAPE SLICE SOFTMAX SPLIT SPLIT_V SQRT SQUARE
    SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH TILE TOPK_V2 TRANSPOSE UNPACK
    ZEROS_LIKE
"""
OPS = frozenset(_NAMES.split())  # that every phone's interpreter has built in
VARIABLE_OPS = frozenset(("ASSIGN_VARIABLE", "CALL_ONCE", "READ_VARIABLE", "VAR_HANDLE"))
_ENOUGH = 256  # images, to speak of a share of agreement
_HEAD = 8 * 1024  # bytes of a file beside its numbers
_NORM = 2 * 1024  # bytes of the dozen ops that a norm leaves which can't be folded
_LOGITS = 1e-4  # of the largest logit: float32's rounding through a deep net
_AGREE = {"float32": 1.0, "float16": 0.995, "int8": 0.97, "int8-qat": 0.97, "int4": 0.85}
_AGREE |= dict.fromkeys(("dynamic", "weight-only", "16x8"), 0.985)
_LOSE = {"int8": 0.01, "int8-qat": 0.01, "int4": 0.03}
_LOSE_BY_GROUP = dict.fromkeys(_AGREE, 0.01) | {"int4": 0.03}
_BYTES = dict.fromkeys(_AGREE, 1.25) | {"float32": 4.1, "float16": 2.1, "int4": 0.75}
_FALSE_ALARM = 0.01  # that any of a model's groups is called worse by chance alone


class Gate(NamedTuple):
    """One thing that a phone model must be.

    Attributes:
      name: `ops`, `convolutions`, `fused`, `logits`, `agreement`, `accuracy`, `size`, `regions` or
        `clients`.
      found: what it is.
      limit: what it may be.
      passed: whether it is.
    """

    name: str
    found: str
    limit: str
    passed: bool


def judge(variant: str, model: bytes, found: Agreement, facts: Facts) -> tuple[Gate, ...]:
    """Holds a model against the bounds of its variant.

    Args:
      variant: `float32`, `float16`, `dynamic`, `weight-only`, `int8`, `int8-qat`, `16x8` or `int4`.
      model: the content of the .tflite file, of the signature `classify`.
      found: how it compares with JAX.
      facts: of the JAX function that it was made of.

    Raises:
      UserError: an unknown variant.
    """
    if variant not in _AGREE:
        raise UserError("variant", f"one of {', '.join(_AGREE)}", repr(variant))
    graph = read(model)
    gates = [judge_ops(found.ops), _convolutions(graph, facts), _fused(graph, facts)]
    if variant == "float32" and found.logit_diff is not None:
        gates.append(_logits(found.logit_diff))
    gates.append(_agreement(variant, found))
    if variant in _LOSE:
        gates.append(_accuracy(variant, found))
    return (*gates, _size(variant, found, facts))


def judge_groups(name: str, variant: str, groups: Mapping[str, GroupAgreement]) -> Gate:
    """Holds the group that loses most against what its variant may lose.

    A group may lose one point of accuracy (`int4`: three) and what chance adds to that. Of n
    images, a model whose answers differ from JAX's on a share q of all images loses k net, whose
    standard deviation is at most sqrt(n q); so k may be up to n/100 + z sqrt(n q) + 1, where q is
    at least 0.01, z holds the chance of a false alarm over all groups to 1 % (Bonferroni), and the
    1 makes up for images being whole. The margin vanishes for large groups.

    Args:
      name: `regions` or `clients`.
      variant: as `judge` takes it.
      groups: at least one, of at least one image each.
    """
    images = sum(each.images for each in groups.values())
    differ = sum(each.images * (1 - each.agreement) for each in groups.values()) / images
    z = NormalDist().inv_cdf(1 - _FALSE_ALARM / len(groups))
    allowed = _LOSE_BY_GROUP[variant]

    def limit(n: int) -> float:
        return allowed + z * math.sqrt(max(differ, 0.01) / n) + 1 / n

    worst = max(groups, key=lambda each: groups[each].loss - limit(groups[each].images))
    loss, bound = groups[worst].loss, limit(groups[worst].images)
    count = groups[worst].images
    return Gate(
        name,
        f"{loss * 100:+.2f} points lost by {worst!r} ({_images(count)})",
        f"at most {bound * 100:.2f}: {allowed * 100:.1f}, and what chance adds among {len(groups)}",
        loss <= bound,
    )


def check(gates: Mapping[str, Sequence[Gate]]) -> None:
    """Returns in silence if every model passed.

    Args:
      gates: by variant.

    Raises:
      UserError: one line that names each gate that a model failed.
    """
    failed = [
        f"{variant} {gate.name} {gate.found} (limit: {gate.limit})"
        for variant, own in gates.items()
        for gate in own
        if not gate.passed
    ]
    if failed:
        remedy = "nothing was written; an override keeps such models all the same"
        raise UserError("gates", "phone models that pass", "; ".join(failed), remedy)


# --- each -----------------------------------------------------------------------------------------


def judge_ops(found: Iterable[str], allowed: Collection[str] = OPS) -> Gate:
    """Whether a model has builtin ops of a list alone.

    Args:
      found: its ops.
      allowed: `OPS`; with `VARIABLE_OPS` for a file that a phone trains.
    """
    foreign = [op for op in found if op not in allowed]
    limit = f"builtin ops, {len(allowed)} of them"
    return Gate("ops", ", ".join(foreign) or "no other", limit, not foreign)


def _is_scale(graph: Graph, number: int) -> bool:
    """Whether a depthwise convolution of 1x1 is what became of a product."""
    op = graph.ops[number]
    return op.name == "DEPTHWISE_CONV_2D" and graph.tensors[op.inputs[1]].shape[1:3] == (1, 1)


def _convolutions(graph: Graph, facts: Facts) -> Gate:
    count = sum(
        op.name in ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV") and not _is_scale(graph, i)
        for i, op in enumerate(graph.ops)
    )
    limit = f"{facts.convolutions}, as in JAX"
    return Gate("convolutions", str(count), limit, count == facts.convolutions)


def _fused(graph: Graph, facts: Facts) -> Gate:
    """Of a model without statistics of its images, nothing but normalization is left by itself."""
    counts = Counter(op.name for op in graph.ops)
    if facts.norms:
        return Gate("fused", "a norm that takes each image's statistics", "not asked of such", True)
    scales = sum(_is_scale(graph, i) for i in range(len(graph.ops)))
    arithmetic = sum(counts[name] for name in ("MUL", "SUB", "DIV", "ADD"))
    stray = arithmetic + scales - facts.additions
    alone = [name for name in ("BROADCAST_TO", "RELU", "RELU6", "MAXIMUM", "RSQRT") if counts[name]]
    # Scale and shift; floats on 0..1 and signed bytes are taken to bytes before.
    allowed = 2 if graph.tensors[graph.inputs[0]].kind == "UINT8" else 3
    told = [f"{stray} for normalization", *(f"{counts[name]} {name}" for name in alone)]
    limit = f"at most {allowed} MUL, ADD, SUB or DIV beside {facts.additions} residual additions"
    return Gate("fused", ", ".join(told), limit, stray <= allowed and not alone)


def _logits(difference: float) -> Gate:
    limit = f"a difference of at most {_LOGITS:g} of the largest"
    return Gate("logits", f"{difference:.2g}", limit, difference <= _LOGITS)


def _agreement(variant: str, found: Agreement) -> Gate:
    few = "" if found.images >= _ENOUGH else f", fewer than {_ENOUGH}"
    limit = f"at least {_AGREE[variant]:.1%} of {_images(found.images)}{few}"
    share = found.top1_agreement
    differ = _images(round((1 - share) * found.images))
    told = f"{share:.2%}: another answer to {differ}"
    return Gate("agreement", told, limit, share >= _AGREE[variant])


def _accuracy(variant: str, found: Agreement) -> Gate:
    loss = round(found.jax_accuracy - found.accuracy, 6)
    limit = f"at most {_LOSE[variant] * 100:.1f} below JAX"
    return Gate("accuracy", f"{loss * 100:+.2f} points lost", limit, loss <= _LOSE[variant])


def _size(variant: str, found: Agreement, facts: Facts) -> Gate:
    numbers, what, more = facts.parameters, "parameters", ""
    if facts.norms:  # their matrices are in the file as weights are, though they were not learned
        numbers, what = facts.numbers, "parameters and norms' numbers"
        more = f" and 2 for each of {facts.norms} norms"
    most = int(_BYTES[variant] * numbers + _HEAD + _NORM * facts.norms)
    each = f"{_BYTES[variant]:g} for each of {numbers:,} {what}"
    limit = f"at most {most:,}: {each}, 8 KiB{more}"
    return Gate("size", f"{found.bytes:,} bytes", limit, found.bytes <= most)


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"
