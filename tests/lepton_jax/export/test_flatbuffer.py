import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from lepton_jax.config import Interface
from lepton_jax.export.answers import answers
from lepton_jax.export.convert import CONVERTERS
from lepton_jax.export.flatbuffer import add_notes, notes
from lepton_jax.export.interface import phone_model
from lepton_jax.export.quantize import quantize
from tests.lepton_jax.export.conftest import CLASSES, SHAPE, Net


@pytest.fixture(scope="module")
def models(net: Net) -> list[bytes]:
    floats = [phone_model(net.apply, SHAPE, CLASSES, Interface(), name) for name in CONVERTERS]
    first = quantize(floats[0], "int8", interface=Interface(), calibration=net.images)
    return [*floats, first]


def test_notes_are_read_back_and_change_no_answer(models: list[bytes], net: Net) -> None:
    for model in models:
        noted = add_notes(add_notes(model, {"first": "a" * 64}), {"second": "ä"})
        assert "first" not in notes(model)
        found = notes(noted)
        assert (found["first"], found["second"].decode()) == (b"a" * 64, "ä")
        before, after = (answers(each, net.images).scores for each in (model, noted))
        np.testing.assert_array_equal(before, after)
        assert len(noted) - len(model) < 512


def test_tensors_are_aligned_as_the_schema_asks(models: list[bytes]) -> None:
    for content in models:
        model = schema.Model.GetRootAs(content, 0)
        buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
        starts = [each._tab.Vector(each._tab.Offset(4)) for each in buffers if each.DataLength()]
        assert len(starts) > 5
        assert all(start % 16 == 0 for start in starts)
