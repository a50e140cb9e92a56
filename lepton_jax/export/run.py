"""The story of `lepton export`: a finished run in; checked, signed phone models and their figures out."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import msgspec
import numpy as np

from lepton_jax import __version__, config, data, models, trees
from lepton_jax.checks import UserError
from lepton_jax.data import Splits
from lepton_jax.data.labels import labels
from lepton_jax.export import learning, manifest, metadata
from lepton_jax.export.appraise import Reference, appraise, gates_of, settle
from lepton_jax.export.calibration import Images, calibration_images
from lepton_jax.export.convert import choose
from lepton_jax.export.facts import facts_of
from lepton_jax.export.files import write_all
from lepton_jax.export.fine_tune import FineTuned
from lepton_jax.export.flatbuffer import add_notes, ops
from lepton_jax.export.frames import behind_frames, framed
from lepton_jax.export.gates import OPS, VARIABLE_OPS, check, judge_ops
from lepton_jax.export.groups import FIGURES as GROUP_FIGURES
from lepton_jax.export.groups import Groups
from lepton_jax.export.interface import phone_model
from lepton_jax.export.interpreter import SIGNATURE
from lepton_jax.export.metadata.model_card import MODEL_CARD, model_card
from lepton_jax.export.outline import Tensor, read_outline
from lepton_jax.export.settings import VARIANTS, settled
from lepton_jax.export.variants import Made, make_variants
from lepton_jax.export.verify import verify
from lepton_jax.training.card import CARD, card_of
from lepton_jax.training.evaluate import predict
from lepton_jax.training.runs import SavedRun, load_run
from lepton_jax.typing import Classifier, Logits, Pixels, Variables

_FIGURES, _TRAINING, _CARD_NOTE = "export.json", "training.tflite", "privacy_card_sha256"

# (the run's settings, its data) -> its clients' examples; None where it has no clients
FindGroups = Callable[[config.Run, Splits], Groups | None]


class _Source(NamedTuple):
    """What phone models are made of."""

    saved: SavedRun
    splits: Splits
    model: Classifier
    labels: Mapping[str, tuple[str, ...]]
    converter: str


def export(
    folder: Path,
    *,
    variants: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    groups: FindGroups | None = None,
    override: bool = False,
) -> dict[str, Any]:
    """Writes a run as TFLite models that were checked against JAX on the whole test split.

    They compute in what their variant says whatever `model.dtype` is, and are compared with JAX in
    float32. Each has metadata, with the model card and, of a private run, the privacy card; each
    has a signed manifest beside it. The same run and settings give the same files.

    Args:
      folder: of a finished run.
      variants: as `export.variants`, or `all`; None: as the run's config says.
      overrides: `export.about.author=...` each, of sections `export` and `data.labels`.
      groups: finds whose examples are whose, so that regions and clients are compared one by one.
      override: keeps models that fail a gate; their figures say so.

    Returns:
      The content of `export.json`: the signature with its input and output, the class names and
      labels, for each variant what `appraise` and `settle` say of it, and of a private run
      `not_private`: those of these figures that no epsilon covers.

    Raises:
      UserError: no finished run there, settings that can't be, an extra is not installed, a model
        fails a gate, or the disk is full; then the folder is as it was.
    """
    saved = settled(load_run(folder), overrides, variants)
    source = _source(saved)
    against = _reference(source, groups)
    split, images = calibration_images(saved, source.splits)
    made = _make(source, images)
    card = card_of(folder)
    figures = {
        **_describe(source, made),
        "calibration": {"split": split, "images": len(images)},
        **({} if card is None else {_CARD_NOTE: card}),
        **_not_private(saved, against),
    }
    files, told = _judged(source, made, against, figures, override=override)
    figures["variants"] = told
    if set(saved.config.export.signatures) - {"infer"}:
        learner, figures["training"] = _learner(source)
        files[_TRAINING] = _finished(learner, figures, _about(source, figures))
    _write(folder, files, figures)
    return figures


def _judged(
    source: _Source,
    made: Mapping[config.Variant, Made],
    against: Reference,
    figures: Mapping[str, Any],
    *,
    override: bool,
) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """The models with all that their files say, by file name, and the figures of each."""
    test = against.test
    found = {
        name: verify(each.content, np.asarray(test.images), test.labels, against.logits)
        for name, each in made.items()
    }
    told = [{"name": name, **each._asdict()} for name, each in found.items()]
    about = _about(source, {**figures, "variants": told})
    finished = {name: _finished(each.content, figures, about) for name, each in made.items()}
    judged = [appraise(name, finished[name], found[name], against) for name in made]
    if not override:
        check({each["name"]: gates_of(each) for each in judged})
    variants = [
        {**each, "fine_tuning": _tuning(made[each["name"]].tuned)}
        for each in settle(judged, override=override)
    ]
    return {f"{name}.tflite": content for name, content in finished.items()}, variants


def _tuning(tuned: FineTuned | None) -> dict[str, Any] | None:
    if tuned is None:
        return None
    return {key: value for key, value in tuned._asdict().items() if key != "variables"}


def _source(saved: SavedRun) -> _Source:
    run = saved.config
    converter = choose(run.export.converter)
    splits = data.load(run.data)
    info, shape = splits.info, splits.test.images.shape[1:]
    names = labels(run.data, info.classes, run.export.about.locales)
    # TFLite computes in no bfloat16; the parameters are float32 anyway.
    settings = msgspec.structs.replace(run.model, dtype="float32")
    model = models.build(settings, shape, len(info.classes), mean=info.mean, std=info.std)
    return _Source(saved, splits, model, names, converter)


def _apply(source: _Source, variables: Variables) -> Callable[[Pixels], Logits]:
    return partial(source.model.apply, jax.tree.map(np.asarray, variables))


def _reference(source: _Source, find: FindGroups | None) -> Reference:
    saved, splits = source.saved, source.splits
    facts = facts_of(
        _apply(source, saved.variables),
        splits.test.images.shape[1:],
        trees.size(saved.variables.params),
    )
    groups = find(saved.config, splits) if find is not None and saved.kind == "simulate" else None
    frame = saved.config.export.interface.frame
    if groups is not None:
        groups = groups._replace(examples=framed(groups.examples, frame))
    test = framed(splits.test, frame)
    model = behind_frames(source.model, splits.test.images.shape[1:], frame)
    # On an accelerator a float32 product is not one by default, and differs by 1e-3.
    with jax.default_matmul_precision("highest"):
        logits = predict(model, saved.variables, test.images)
        theirs = None if groups is None else predict(model, saved.variables, groups.examples.images)
    return Reference(facts, test, logits, groups, theirs)


def _make(source: _Source, calibration: Images) -> dict[config.Variant, Made]:
    saved, splits = source.saved, source.splits

    def convert(variables: Variables) -> bytes:
        return phone_model(
            _apply(source, variables),
            splits.test.images.shape[1:],
            len(splits.info.classes),
            saved.config.export.interface,
            source.converter,
        )

    return make_variants(saved, splits, convert, calibration)


def _describe(source: _Source, made: Mapping[config.Variant, Made]) -> dict[str, Any]:
    saved, info = source.saved, source.splits.info
    first = read_outline(next(iter(made.values())).content).signatures[SIGNATURE]
    return {
        "run": saved.config.name,
        "params_sha256": saved.result["params_sha256"],
        "converter": source.converter,
        "signature": SIGNATURE,
        "input": _tensor(first.inputs[0]),
        "output": _tensor(first.outputs[0]),
        "classes": list(info.classes),
        "labels": {locale: list(names) for locale, names in source.labels.items()},
        "test_images": len(source.splits.test.images),
    }


def _not_private(saved: SavedRun, against: Reference) -> dict[str, list[str]]:
    """What comes from the clients' own data, which a private run's epsilon doesn't cover."""
    private, logits = saved.result.get("epsilon") is not None, against.group_logits
    told = private and logits is not None and len(logits) > 0
    return {"not_private": list(GROUP_FIGURES)} if told else {}


def _tensor(each: Tensor) -> dict[str, Any]:
    return {"name": each.name, "dtype": each.dtype, "shape": list(each.shape)}


def _about(source: _Source, figures: Mapping[str, Any]) -> metadata.Metadata:
    saved = source.saved
    about = saved.config.export.about
    files = {MODEL_CARD: model_card(figures, saved.config, saved.kind)}
    if _CARD_NOTE in figures:
        files[CARD] = (saved.folder / CARD).read_text(encoding="utf-8")
    return metadata.Metadata(
        saved.config.name,
        about.description,
        about.version,
        about.author,
        about.licence,
        source.splits.info.classes,
        source.labels,
        files,
    )


def _finished(content: bytes, figures: Mapping[str, Any], about: metadata.Metadata) -> bytes:
    if _CARD_NOTE in figures:
        content = add_notes(content, {_CARD_NOTE: figures[_CARD_NOTE]})
    return metadata.describe(content, about)


def _learner(source: _Source) -> tuple[bytes, dict[str, Any]]:
    """The file that a phone trains, and its figures."""
    saved, splits = source.saved, source.splits
    settings = saved.config.export
    params = jax.tree.map(np.asarray, saved.variables.params)
    shape = splits.test.images.shape[1:]
    learner = learning.make_learner(saved.config, splits.info, shape, params)
    content = learning.training_model(
        learner, settings.training, settings.signatures, settings.interface
    )
    gate = judge_ops(ops(content), OPS | VARIABLE_OPS)
    if not gate.passed:
        raise UserError(_TRAINING, gate.limit, gate.found, "nothing was written")
    figures = {
        "file": _TRAINING,
        "signatures": [SIGNATURE, *settings.signatures],
        "batch_size": settings.training.batch_size,
        "momentum": settings.training.momentum,
        "weights": trees.size(saved.variables.params),
        "ops": ops(content),
    }
    return content, figures


def _write(folder: Path, contents: Mapping[str, bytes], figures: Mapping[str, Any]) -> None:
    """All of it or nothing; files of an export before that are of no use any more go."""
    facts = {key: figures[key] for key in ("run", "params_sha256", "converter")}
    facts["version"] = __version__
    files: dict[str, bytes] = {}
    for name, content in contents.items():
        files |= {name: content, manifest.manifest_name(name): manifest.sign(name, content, facts)}
    files[_FIGURES] = (json.dumps(figures, indent=1, allow_nan=False) + "\n").encode()
    former = [*(f"{name}.tflite" for name in VARIANTS), _TRAINING]
    former += [manifest.manifest_name(name) for name in former]
    write_all(folder, files, without=former)
