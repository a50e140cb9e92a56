"""ResNet-50 on photographs: which memory each converter needs, and that the graph is fused."""

import pytest

from benchmarks.phones import conversion


@pytest.mark.slow
@pytest.mark.parametrize(("converter", "most"), [("litert", 2.5 * 2**30), ("jax2tf", 16 * 2**30)])
def test_resnet50_converts(converter: str, most: float) -> None:
    told = conversion("resnet50", converter)
    assert told["bytes"] <= 4.1 * told["parameters"] + 8192
    assert told["ops"]["CONV_2D"] == 53
    # The standardization of pixels is one scaling; BatchNorm is none.
    assert told["ops"]["DEPTHWISE_CONV_2D"] == 1
    assert not {"BROADCAST_TO", "SUB", "MUL"} & set(told["ops"])
    assert told["peak_bytes"] < most
