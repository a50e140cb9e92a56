"""What a converter is given: pure functions by name, with the shapes that they take."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax

from lepton_jax.checks import UserError


class Entry(NamedTuple):
    """One signature of a phone model.

    Attributes:
      name: of the signature.
      function: called with arrays by input name; gives arrays by output name. Pure JAX, its
        variables as NumPy constants.
      inputs: shape and dtype by input name.
    """

    name: str
    function: Callable[..., dict[str, jax.Array]]
    inputs: Mapping[str, jax.ShapeDtypeStruct]


Converter = Callable[[Sequence[Entry]], bytes]
_HARD = re.compile(r"\b(?:chlo|stablehlo)\.(?:case|cholesky|erf|fft|if|lgamma|sort|top_k|while)\b")


def check(entries: Sequence[Entry]) -> None:
    """Refuses what some interpreter can't take.

    Raises:
      UserError: no entry, two of the same name, or a scalar among the inputs or outputs.
    """
    names = [entry.name for entry in entries]
    if not names or len(set(names)) != len(names):
        raise UserError("entries", "at least one, each with a name of its own", names or "none")
    for entry in entries:
        given = jax.eval_shape(entry.function, **entry.inputs)
        for name, each in (*entry.inputs.items(), *given.items()):
            if not each.shape:  # the arm64 interpreter crashes on them
                where = f"{entry.name}.{name}"
                raise UserError(where, "an array of at least one axis", "a scalar", "use shape [1]")


def refusal(entries: Sequence[Entry], told: str) -> UserError:
    """What to say where a converter fails, by whatever it told.

    A kernel of JAX' own is named by neither converter, and sometimes nothing is, so such are looked
    for in what JAX lowers to.
    """
    lowered = [jax.jit(entry.function).lower(**entry.inputs).as_text() for entry in entries]
    kernels = (re.search(r"custom_call @[\w$.]+", text) for text in lowered)
    op = next((kernel for kernel in kernels if kernel), None) or re.search(
        r"'[\w.]+' op .*|\b(?:tfl|stablehlo|tf)\.\w+", told
    )
    if op is None or "XlaCallModule" in op[0]:  # which is all of the function
        op = next((hard for hard in (_HARD.search(text) for text in lowered) if hard), op)
    return UserError("model", "only ops that TFLite has", op[0] if op else told[:200])
