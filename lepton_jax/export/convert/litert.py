"""JAX to TFLite without TensorFlow: StableHLO straight to LiteRT's own converter."""

from collections.abc import Sequence
from typing import Any

import jax
from jax import export

from lepton_jax.checks import UserError
from lepton_jax.export.convert.entry import Entry, refusal
from lepton_jax.export.extras import litert_converter, quiet
from lepton_jax.export.flatbuffer import ops, shorten_names

_FOREIGN = ("STABLEHLO_", "VHLO_")  # written into the file, but run by no phone


def convert(entries: Sequence[Entry]) -> bytes:
    """Converts functions by the package litert-converter, which is young and has no documentation.

    Raises:
      UserError: an op that TFLite lacks, or litert-converter is not installed.
    """
    api, ir, passmanager, stablehlo = litert_converter()
    # The portable form, which any release of JAX writes and the converter's older MLIR reads.
    exported = {entry.name: _export(entry) for entry in entries}
    with quiet(), ir.Context() as context, ir.Location.unknown():
        api.prepare_mlir_context(context)
        parts = []
        for entry in entries:
            content = exported[entry.name].mlir_module_serialized
            try:
                part = stablehlo.deserialize_portable_artifact(context, content)
            except ValueError as error:
                raise refusal([entry], str(error)) from error
            _sign(api, ir, part, entry, exported[entry.name])
            parts.append(part)
        whole = api.merge_modules(parts) if len(parts) > 1 else parts[0]
        try:
            passes = passmanager.PassManager()
            api.run_convert_to_tfl_passes(whole, passes, api.ConvertToTFLConfig())
            model = api.export_flatbuffer_to_bytes(whole.operation)
        except (RuntimeError, ValueError) as error:
            raise refusal(entries, str(error)) from error
    foreign = [op for op in ops(model) if op.startswith(_FOREIGN) or not op.isupper()]
    if foreign:
        raise UserError("model", "only ops that TFLite has", ", ".join(foreign).lower())
    return shorten_names(model)


def _export(entry: Entry) -> export.Exported:
    function = jax.jit(entry.function, keep_unused=True)
    try:
        return export.export(function, platforms=["cpu"])(**entry.inputs)
    except (NotImplementedError, ValueError) as error:  # a kernel that no other program can call
        raise refusal([entry], str(error)) from error


def _sign(api: Any, ir: Any, part: Any, entry: Entry, exported: export.Exported) -> None:
    """Names the function, its inputs and its outputs; JAX orders both by name."""
    outputs = jax.tree.unflatten(exported.out_tree, list(range(len(exported.out_avals))))
    api.set_signature(part.operation, entry.name, sorted(entry.inputs), sorted(outputs))
    for operation in part.body.operations:
        name = operation.operation.attributes["sym_name"]
        if ir.StringAttr(name).value == "main":  # the name that each part has
            operation.operation.attributes["sym_name"] = ir.StringAttr.get(entry.name)
