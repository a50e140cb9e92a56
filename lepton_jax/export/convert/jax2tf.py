"""JAX to TFLite through TensorFlow: a SavedModel, the only form that keeps signatures' names."""

from collections.abc import Sequence
from errno import ENOSPC
from pathlib import Path
from typing import Any

import jax

from lepton_jax.export.convert.entry import Entry, refusal
from lepton_jax.export.extras import quiet, tensorflow
from lepton_jax.export.files import scratch
from lepton_jax.export.flatbuffer import shorten_names


def convert(entries: Sequence[Entry]) -> bytes:
    """Converts functions by jax2tf and TensorFlow's converter.

    Raises:
      UserError: an op that TFLite lacks, or TensorFlow is not installed.
    """
    tf = tensorflow()
    with quiet():
        module = tf.Module()
        for entry in entries:
            setattr(module, entry.name, _function(tf, entry))
    from tensorflow.lite.python.convert import ConverterError

    try:
        return convert_module(module, [entry.name for entry in entries])
    except (ConverterError, NotImplementedError) as error:  # the latter of JAX: a Python callback
        raise refusal(entries, str(error)) from error


def convert_module(module: Any, signatures: Sequence[str]) -> bytes:
    """Converts a `tf.Module`, which may hold variables that its functions assign.

    Args:
      module: has a `tf.function` with an input signature by each name; it gives tensors by name.
      signatures: the names.

    Returns:
      The content of a .tflite file.

    Raises:
      UserError: TensorFlow is not installed, or the disk is full.
      ConverterError: of TensorFlow, where TFLite lacks an op.
    """
    tf = tensorflow()
    with quiet(), scratch() as folder:
        _save(tf, module, folder, signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            str(folder), signature_keys=list(signatures)
        )
        converter.experimental_enable_resource_variables = True
        return shorten_names(converter.convert())


def _save(tf: Any, module: Any, folder: Path, signatures: Sequence[str]) -> None:
    functions = {name: getattr(module, name) for name in signatures}
    full = (tf.errors.OutOfRangeError, tf.errors.ResourceExhaustedError)
    try:
        tf.saved_model.save(module, str(folder), functions)
    except full as error:  # TensorFlow's own word for a file too large, or a full disk
        raise OSError(ENOSPC, error.message.rpartition("; ")[2].partition(" [")[0]) from error


def _function(tf: Any, entry: Entry) -> Any:
    from jax.experimental import jax2tf

    names = list(entry.inputs)

    def positional(*arrays: jax.Array) -> dict[str, jax.Array]:
        return entry.function(**dict(zip(names, arrays, strict=True)))

    # Lowered for a CPU wherever JAX runs: TFLite converts no GPU kernels.
    lowered = jax2tf.convert(
        positional, with_gradient=False, native_serialization_platforms=("cpu",)
    )
    specs = [
        tf.TensorSpec(each.shape, tf.as_dtype(each.dtype), name=name)
        for name, each in entry.inputs.items()
    ]
    return tf.function(lambda *arrays: lowered(*arrays), input_signature=specs, autograph=False)
