"""What an export is asked for: the run's own settings, changed for once, and refused in time."""

from collections.abc import Sequence
from typing import get_args

import msgspec

from lepton_jax import config, config_files
from lepton_jax.checks import UserError
from lepton_jax.export import learning
from lepton_jax.export.fine_tune import untunable
from lepton_jax.training.runs import SavedRun

VARIANTS: tuple[config.Variant, ...] = get_args(config.Variant)
_INTEGERS = ("int8", "int8-qat")
_MAY_CHANGE = ("export.", "data.labels.")


def settled(
    saved: SavedRun, overrides: Sequence[str] = (), variants: Sequence[str] | None = None
) -> SavedRun:
    """A run whose `export` and `data.labels` are those that were asked for.

    Args:
      saved: as its folder has it.
      overrides: `export.about.author=...` each.
      variants: in place of `export.variants`; `all` is every one that this run can have.

    Raises:
      UserError: another section is changed, or a combination that can't be.
    """
    for override in overrides:
        if not f"{override.partition('=')[0]}.".startswith(_MAY_CHANGE):
            expected = "a key of export or data.labels: the rest is how the run was trained"
            raise UserError(f"--set {override}", expected, repr(override.partition("=")[0]))
    run = config_files.load(saved.folder / "config.toml", overrides) if overrides else saved.config
    if variants is not None:
        export = msgspec.structs.replace(run.export, variants=_chosen(saved, variants))
        run = msgspec.structs.replace(run, export=export)
    _check(saved, run)
    return saved._replace(config=run)


def _chosen(saved: SavedRun, variants: Sequence[str]) -> tuple[config.Variant, ...]:
    every = [each for each in VARIANTS if each != "int8-qat" or untunable(saved) is None]
    wanted = every if "all" in variants else variants
    chosen = tuple(variant for variant in VARIANTS if variant in wanted)
    if not chosen or set(chosen) != set(wanted):
        expected = f"all, or some of {', '.join(VARIANTS)}"
        raise UserError("variants", expected, ", ".join(variants) or "none")
    return chosen


def _check(saved: SavedRun, run: config.Run) -> None:
    export, interface = run.export, run.export.interface
    _chosen(saved, export.variants)
    if "int8-qat" in export.variants and (why := untunable(saved)) is not None:
        expected = "a run whose training images may be trained on again, for int8-qat"
        raise UserError("export.variants", expected, why, "leave int8-qat out")
    floats = [variant for variant in export.variants if variant not in _INTEGERS]
    for key in ("input", "output_type"):
        kind = getattr(interface, key)
        if floats and kind == "int8":
            remedy = f"export {' or '.join(_INTEGERS)} alone, or set export.interface.{key}=uint8"
            raise UserError(f"export.interface.{key}", f"a type that {floats[0]} has", kind, remedy)
    learning.check(export, run.model)
