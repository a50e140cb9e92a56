"""The model card inside a phone model: what it is, how good, and what for (Mitchell et al., 2019)."""

from collections.abc import Mapping
from typing import Any, Literal

from lepton_jax import __version__
from lepton_jax.checks import one_line
from lepton_jax.config import Run

MODEL_CARD = "model_card.md"
_CLIENTS = ", on clients that kept theirs (simulated)"
_USE = "Images like the training data, where errors cost little; no decisions about people."


def model_card(figures: Mapping[str, Any], config: Run, kind: Literal["train", "simulate"]) -> str:
    """A model's card in Markdown, the same one in all files of an export.

    It holds no size and no latency: those of the file that it is in would change with it.

    Args:
      figures: as in `export.json`: `params_sha256`, `input`, `classes`, `test_images`,
        `calibration`, and `variants` with `name`, `accuracy`, `jax_accuracy` and `top1_agreement`;
        `privacy_card_sha256` where there is one.
      config: of the run.
      kind: which verb made the run.

    Returns:
      About a kilobyte.
    """
    about, variants = config.export.about, figures["variants"]
    shape = " x ".join(str(side) for side in figures["input"]["shape"][1:])
    lines = [
        f"# {one_line(config.name)}",
        "",
        f"{one_line(about.description) or 'An image classifier for phones.'}",
        "",
        f"- Takes: {figures['input']['dtype']}, {shape}; tells {len(figures['classes'])} classes",
        f"- Model: {config.model.name}, parameters {figures['params_sha256'][:16]}, lepton-jax {__version__}",
        f"- Data: {config.data.name}{_CLIENTS if kind == 'simulate' else ''}",
        f"- Author: {one_line(about.author) or 'not given'}; "
        f"licence: {one_line(about.licence) or 'not given'}; version: {one_line(about.version)}",
        f"- For: {_USE}",
        f"- Privacy: {_privacy(figures)}",
        "",
        *_accuracy(figures, variants),
    ]
    return "\n".join(lines) + "\n"


def _privacy(figures: Mapping[str, Any]) -> str:
    sha256 = figures.get("privacy_card_sha256")
    if sha256 is None:
        return "no noise was added; training images may be guessed from the model."
    return f"differential privacy as in privacy_card.json, {sha256[:16]}"


def _accuracy(figures: Mapping[str, Any], variants: list[Mapping[str, Any]]) -> list[str]:
    calibration = figures["calibration"]
    lines = [
        f"On {figures['test_images']} test images, JAX: {variants[0]['jax_accuracy']:.2%}. Integers' "
        f"ranges: from {calibration['images']} images ({calibration['split']}).",
        "",
        "| variant | accuracy | as JAX |",
        "|---|---|---|",
    ]
    return lines + [
        f"| {each['name']} | {each['accuracy']:.2%} | {each['top1_agreement']:.2%} |"
        for each in variants
    ]
