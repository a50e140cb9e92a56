from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lepton_jax.checks import UserError
from lepton_jax.export.answers import answers
from lepton_jax.export.verify import verify
from tests.lepton_jax.export.conftest import SHAPE, Net
from tests.lepton_jax.export.made import made


def logits(net: Net) -> np.ndarray:
    return np.asarray(net.apply(jnp.asarray(net.images)))


def model(net: Net, form: str, dtype: str = "uint8", batch: int = 1) -> bytes:
    def function(image: jax.Array) -> dict[str, jax.Array]:
        taken: dict[str, Callable[[], jax.Array]] = {
            "uint8": lambda: image,
            "int8": lambda: image.astype(jnp.float32) + 128.0,
            "float32": lambda: image * 255.0,
        }
        z = net.apply(taken[dtype]())
        if form == "logits":
            return {"logits": z}
        p = jax.nn.softmax(z)
        best = jnp.argmax(z, axis=-1, keepdims=True).astype(jnp.int32)
        first = {"scores": p.max(axis=-1, keepdims=True), "classes": best}
        return first if form == "scores" else {"probabilities": p}

    return made(function, (batch, *SHAPE), dtype)


@pytest.mark.parametrize(
    ("form", "dtype", "batch"),
    [("probabilities", "float32", 1), ("logits", "int8", 1), ("scores", "uint8", 7)],
)
def test_every_form_of_model_gives_the_same_choices(
    net: Net, form: str, dtype: str, batch: int
) -> None:
    content = model(net, form, dtype, batch)
    found = answers(content, net.images)
    assert found.form == form
    np.testing.assert_array_equal(found.choices, net.probabilities.argmax(-1))
    assert len(found.scores) == len(net.images)
    assert len(found.seconds) == -(-len(net.images) // batch)
    agreement = verify(content, net.images, found.choices.astype(np.int32), logits(net))
    assert agreement.top1_agreement == agreement.accuracy == 1
    assert agreement.max_abs_diff < 1e-5
    assert agreement.logit_diff is not None and agreement.logit_diff < 1e-5


def test_other_images_are_refused(net: Net) -> None:
    content = model(net, "logits")
    for wrong in (net.images[:, :7], net.images[:0]):
        with pytest.raises(UserError, match=r"images: expected uint8 \[N, 8, 8, 3\], N at least 1"):
            answers(content, wrong)


def test_another_output_is_refused(net: Net) -> None:
    content = made(lambda image: {"features": net.apply(image)}, (1, *SHAPE), "uint8")
    with pytest.raises(UserError, match="model: expected an output among probabilities, logits"):
        answers(content, net.images)
