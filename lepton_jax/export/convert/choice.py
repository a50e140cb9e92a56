"""Which converter: the one asked for, or the first that is installed."""

import importlib.util
import logging
from collections.abc import Sequence
from typing import Literal, get_args

from lepton_jax.checks import UserError
from lepton_jax.export.convert import jax2tf, litert
from lepton_jax.export.convert.entry import Converter, Entry, check

Name = Literal["jax2tf", "litert"]
CONVERTERS: tuple[Name, ...] = get_args(Name)
_LOG = logging.getLogger(__name__)
_MODULES = {"jax2tf": "tensorflow", "litert": "litert_converter"}
_MAKE: dict[str, Converter] = {"jax2tf": jax2tf.convert, "litert": litert.convert}
_INSTALL = (
    "pip install 'lepton-jax[export]' for jax2tf, or --no-deps -r constraints/litert.txt for litert"
)


def choose(converter: str = "auto") -> Name:
    """The converter that will be used; says by logging which one `auto` took.

    Args:
      converter: `jax2tf`, TensorFlow's; `litert`, without TensorFlow; `auto`, the first of them
        that is installed.

    Raises:
      UserError: an unknown converter, or one that is not installed.
    """
    if converter not in (*CONVERTERS, "auto"):
        raise UserError("export.converter", f"one of auto, {', '.join(CONVERTERS)}", converter)
    wanted = CONVERTERS if converter == "auto" else (converter,)
    for name in CONVERTERS:
        if name in wanted and importlib.util.find_spec(_MODULES[name]) is not None:
            if converter == "auto":
                _LOG.info("converter: %s, the first of %s that is installed", name, CONVERTERS)
            return name
    missing = " or ".join(_MODULES[name] for name in wanted)
    raise UserError("export.converter", f"{missing} to be installed", "none", _INSTALL)


def convert(entries: Sequence[Entry], converter: str = "auto") -> bytes:
    """Converts functions to a TFLite model of built-in ops, with a signature each.

    The same entries give the same bytes. The tensors of a signature are called as it calls them,
    all others are numbered.

    Args:
      entries: at least one.
      converter: as `choose` takes it.

    Returns:
      The content of a .tflite file, in float32 wherever the functions compute in it.

    Raises:
      UserError: as `choose`; a scalar input or output; an op that TFLite lacks, by its name.
    """
    make = _MAKE[choose(converter)]
    check(entries)
    return make(entries)
