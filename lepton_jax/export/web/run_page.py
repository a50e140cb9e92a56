"""A page for browsers from what `lepton export` left in a run folder."""

from pathlib import Path

from lepton_jax import config, config_files
from lepton_jax.checks import UserError
from lepton_jax.export.learning import SIGNATURES
from lepton_jax.export.manifest import read_verified
from lepton_jax.export.web.page import Facts, check_place, write_page
from lepton_jax.training.records import METRICS, read_records
from lepton_jax.untrusted import read_json

_LEARNER = "training.tflite"


def check_run_page(settings: config.Export, out: Path) -> None:
    """Refuses, before anything is exported, what no page can be made of.

    Args:
      settings: of the export.
      out: as of `write_page`.

    Raises:
      UserError: a model that the page could not call, one that trains but lacks a signature, or
        `write_page` could not write to `out`.
    """
    interface = settings.interface
    wanted = (
        ("input", "uint8", interface.input),
        ("output", "probabilities", interface.output),
        ("output_type", "float32", interface.output_type),
        ("batch", 1, interface.batch),
    )
    for key, expected, got in wanted:
        if got != expected:
            remedy = f"set export.interface.{key}={expected}"
            raise UserError(f"export.interface.{key}", f"{expected}, for a page", got, remedy)
    if set(settings.signatures) - {"infer"}:
        _check_learner(settings)
    check_place(out)


def write_run_page(folder: Path, out: Path) -> list[Path]:
    """Writes a page that runs a run's first phone model, and trains where the run has a training file.

    The models are verified first. What training would upload is clipped and noised as the run's
    own updates were, where it clips and noises.

    Args:
      folder: of an exported run.
      out: as of `write_page`.

    Returns:
      The files written.

    Raises:
      UserError: nothing was exported there, a file is not as it was signed, or as `write_page`.
    """
    figures = read_json(folder / "export.json") if (folder / "export.json").exists() else {}
    if not figures.get("variants"):
        raise UserError(str(folder), "an exported run", "no export.json", "run `lepton export`")
    first, learner = figures["variants"][0], folder / _LEARNER
    labels = figures["labels"] or {"en": figures["classes"]}
    return write_page(
        out,
        infer=read_verified(folder / first["file"]),
        training=read_verified(learner) if learner.exists() else None,
        labels={locale: tuple(names) for locale, names in labels.items()},
        facts=_facts(folder, first["accuracy"]),
    )


def _check_learner(settings: config.Export) -> None:
    if set(settings.signatures) != set(SIGNATURES):
        expected, got = "infer alone or all that there are, for a page", settings.signatures
        remedy = f"--signatures {','.join(SIGNATURES)}"
        raise UserError("export.signatures", expected, ", ".join(got), remedy)
    if settings.interface.frame is not None:
        expected = "unset, for a page that trains: its images are as the model's"
        raise UserError("export.interface.frame", expected, list(settings.interface.frame))


def _facts(folder: Path, accuracy: float) -> Facts:
    """What the page tells of a run, and clips and noises by: what bounded the run's last round."""
    run = config_files.load(folder / "config.toml")
    facts = Facts(run.name, accuracy, data=run.data.name)
    norms = [each.max_norm for each in run.federated.stages if isinstance(each, config.Clip)]
    if any(isinstance(each, config.AdaptiveClip) for each in run.federated.stages):
        told = (each.get("clip_norm") for each in reversed(read_records(folder / METRICS)))
        norms += [next((norm for norm in told if norm), facts.clip_norm)]
    if norms:
        facts = facts._replace(clip_norm=min(norms))
    if run.federated.noise is None:
        return facts
    # The config may leave it to be found for an epsilon; the result has it in any case.
    multiplier = read_json(folder / "result.json").get("noise_multiplier")
    return facts if multiplier is None else facts._replace(noise_multiplier=multiplier)
