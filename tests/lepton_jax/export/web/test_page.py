import json
import resource
from pathlib import Path
from typing import Any

import pytest
from ai_edge_litert import schema_py_generated as schema

from lepton_jax import config_files
from lepton_jax.checks import UserError
from lepton_jax.export.flatbuffer import pack
from lepton_jax.export.web import Facts, page, run_page, write_page
from lepton_jax.export.web.signatures import signatures

CLASSES, IMAGE = 3, ("UINT8", (1, 8, 8, 1))
LABELS = {"en": ("one", "two", "three"), "de": ("eins", "zwei", "drei")}
FACTS = Facts("Digits", 0.9, data="digits")
_BATCH: dict[str, Any] = {
    "image": ("UINT8", (4, 8, 8, 1)),
    "label": ("INT32", (4,)),
    "weight": ("FLOAT32", (4,)),
}
_ONE, _ALL = ("FLOAT32", (1,)), ("FLOAT32", (7,))
INFER: dict[str, Any] = {
    "classify": ({"image": IMAGE}, {"probabilities": ("FLOAT32", (1, CLASSES))})
}
FLOATS, PROBABILITIES = {"image": ("FLOAT32", (1, 8, 8, 1))}, INFER["classify"][1]
TRAINING: dict[str, Any] = {
    "infer": INFER["classify"],
    "train": ({**_BATCH, "learning_rate": _ONE}, {"loss": _ONE}),
    "evaluate": (_BATCH, {"loss": _ONE, "correct": _ONE, "weight": _ONE}),
    "get_weights": ({}, {"weights": _ALL}),
    "set_weights": ({"weights": _ALL}, {"done": _ONE}),
}


def make(wanted: dict[str, Any]) -> bytes:
    """A .tflite file without ops that has these signatures."""
    content = schema.ModelT()
    content.version, content.buffers, content.operatorCodes = 3, [schema.BufferT()], []
    content.subgraphs, content.signatureDefs = [], []
    for name, sides in wanted.items():
        graph, signature = schema.SubGraphT(), schema.SignatureDefT()
        graph.tensors, graph.operators, graph.inputs, graph.outputs = [], [], [], []
        signature.inputs, signature.outputs = [], []
        signature.signatureKey, signature.subgraphIndex = name, len(content.subgraphs)
        for side, maps in zip(sides, (signature.inputs, signature.outputs), strict=True):
            for key, (dtype, shape) in side.items():
                tensor, entry = schema.TensorT(), schema.TensorMapT()
                tensor.type, tensor.shape = getattr(schema.TensorType, dtype), list(shape)
                tensor.name, entry.name, entry.tensorIndex = key, key, len(graph.tensors)
                graph.tensors.append(tensor)
                maps.append(entry)
        content.subgraphs.append(graph)
        content.signatureDefs.append(signature)
    return pack(content, 1024)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    for name in page._BUNDLED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def _write(out: Path, bundle: Path, **changed: Any) -> list[Path]:
    given = {"infer": make(INFER), "training": make(TRAINING), "labels": LABELS, "facts": FACTS}
    return write_page(out, bundle=bundle, **(given | changed))


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_page_holds_what_it_says(tmp_path: Path, bundle: Path) -> None:
    written = _write(tmp_path / "out", bundle)
    assert written == sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["labels"] == {locale: list(names) for locale, names in LABELS.items()}
    assert settings["image"] == [8, 8, 1]
    assert (tmp_path / "out" / settings["infer"]["file"]).read_bytes() == make(INFER)
    assert (tmp_path / "out" / settings["training"]["file"]).read_bytes() == make(TRAINING)
    named = settings["training"]["signatures"]["train"]
    assert named.pop("signature") == "train"
    assert set(named) == {"image", "label", "weight", "learning_rate", "loss"}


def test_a_page_without_training_has_no_such_file(tmp_path: Path, bundle: Path) -> None:
    _write(tmp_path / "out", bundle)
    _write(tmp_path / "out", bundle, training=None)  # the earlier page is replaced, whole
    assert "training.tflite" not in _files(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["training"] is None


def test_the_same_page_has_the_same_bytes(tmp_path: Path, bundle: Path) -> None:
    for name in "ab":
        _write(tmp_path / name, bundle)
    assert _files(tmp_path / "a") == _files(tmp_path / "b")


def test_colour_images_are_not_drawn(tmp_path: Path, bundle: Path) -> None:
    colour = ("UINT8", (1, 8, 8, 3))
    infer = make({"classify": ({"image": colour}, INFER["classify"][1])})
    _write(tmp_path / "out", bundle, infer=infer, training=None)
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["pen"] is None


def test_an_unbuilt_bundle_says_how_to_build_it(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(UserError, match=r"bundle.*got nothing; run `make web`"):
        _write(tmp_path / "out", tmp_path / "none")
    (bundle / "app.js").unlink()
    with pytest.raises(UserError, match=r"got none of app\.js; run `make web`"):
        _write(tmp_path / "out", bundle)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["notes.txt", "settings.json"])
def test_other_content_is_not_replaced(tmp_path: Path, bundle: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("[1]")
    with pytest.raises(UserError, match=rf"an earlier page, got other files: {name}"):
        _write(out, bundle)
    assert _files(out) == {name: b"[1]"}


def test_a_page_with_a_strange_file_is_not_replaced(tmp_path: Path, bundle: Path) -> None:
    _write(tmp_path / "out", bundle)
    (tmp_path / "out" / "wasm" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"got other files: wasm/mine\.txt"):
        _write(tmp_path / "out", bundle)


def test_a_file_or_link_is_not_replaced(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("file", "link"):
        with pytest.raises(UserError, match="expected a folder, got something else"):
            _write(tmp_path / name, bundle)
    assert (tmp_path / "file").read_text() == "mine"


def test_what_a_kill_left_is_no_part_of_the_next_page(tmp_path: Path, bundle: Path) -> None:
    _write(tmp_path / "page", bundle)
    for kind in ("tmp", "old"):
        (tmp_path / f".page.{kind}").mkdir()
        (tmp_path / f".page.{kind}" / "stray").write_text("half")
    assert set(_write(tmp_path / "page", bundle)) == {
        path for path in (tmp_path / "page").rglob("*") if path.is_file()
    }
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "page"}


def test_a_full_disk_leaves_the_earlier_page(tmp_path: Path, bundle: Path) -> None:
    _write(tmp_path / "out", bundle)
    before = _files(tmp_path / "out")
    (bundle / "wasm/litert_wasm_internal.wasm").write_bytes(bytes(2**20))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, limit[1]))
    try:
        with pytest.raises(UserError, match="a folder that can be written, got File too large"):
            _write(tmp_path / "out", bundle)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert _files(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "out"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"infer": b"no model"}, r"infer: expected a sound \.tflite file"),
        (
            {"infer": make({"classify": (FLOATS, PROBABILITIES)})},
            "infer: .* got float32 -> float32",
        ),
        (
            {"infer": make({"other": INFER["classify"]})},
            r"infer: expected the signature classify\(image\)",
        ),
        ({"training": make(INFER)}, r"training: expected the signature infer\(image\)"),
        ({"labels": {}}, "labels: expected the classes' names in one locale at least"),
        ({"labels": {"de": ("eins",)}}, r"labels\.de: expected 3 names, .* got 1"),
        ({"facts": FACTS._replace(accuracy=2.0)}, r"facts\.accuracy: expected .* got 2"),
        ({"facts": FACTS._replace(clip_norm=0.0)}, r"facts\.clip_norm: .* above 0, got 0"),
        ({"facts": FACTS._replace(noise_multiplier=float("nan"))}, "noise_multiplier: .*got nan"),
        ({"facts": FACTS._replace(learning_rate=float("inf"))}, "learning_rate: .*got inf"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, bundle: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        _write(tmp_path / "out", bundle, **changed)
    assert not (tmp_path / "out").exists()


def test_types_that_browsers_lack_are_named(tmp_path: Path, bundle: Path) -> None:
    label = {**_BATCH, "label": ("INT64", (4,)), "learning_rate": _ONE}
    training = make({**TRAINING, "train": (label, {"loss": _ONE})})
    with pytest.raises(UserError, match="got train's label of int64"):
        _write(tmp_path / "out", bundle, training=training)


def test_a_model_of_other_images_is_refused(tmp_path: Path, bundle: Path) -> None:
    infer = make({"classify": ({"image": ("UINT8", (1, 9, 9, 1))}, INFER["classify"][1])})
    with pytest.raises(UserError, match="a model of the same images and classes"):
        _write(tmp_path / "out", bundle, infer=infer)


def test_signatures_are_read_as_they_are() -> None:
    found = signatures(make(TRAINING), "training")
    assert list(found) == list(TRAINING)
    assert found["train"].inputs["image"][:3] == ("image", "uint8", (4, 8, 8, 1))
    assert found["get_weights"].inputs == {}


def test_every_language_of_the_page_says_everything() -> None:
    folder = page.BUNDLE.parent / "src" / "locales"
    words = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    assert len(words) == 9
    for said in words.values():
        assert list(said) == list(words["en"])
        assert all(text.strip() for text in said.values())


_EPSILON = ["federated.epsilon=2.0", "federated.noise={kind='gaussian'}"]


@pytest.mark.parametrize(
    ("stages", "clip_norm"),
    [
        ("{kind='clip', max_norm=0.2}, {kind='clip', max_norm=3.0}", 0.2),
        ("{kind='adaptive_clip', initial=0.1}", 0.37),
    ],
)
def test_updates_are_clipped_and_noised_as_the_runs_last(
    tmp_path: Path, stages: str, clip_norm: float
) -> None:
    private = ["federated.sampling=poisson", "federated.weights=uniform", *_EPSILON]
    stages = f"federated.stages=[{stages}]"
    run = config_files.load(
        "digits_federated", [*private, stages, "data.normalization=unit", "model.norm=group"]
    )
    (tmp_path / "config.toml").write_text(config_files.dumps(run))
    (tmp_path / "metrics.jsonl").write_text('{"clip_norm": 0.1}\n{"clip_norm": 0.37}\n{}\n')
    (tmp_path / "result.json").write_text('{"noise_multiplier": 1.7}')
    facts = run_page._facts(tmp_path, 0.9)
    assert (facts.clip_norm, facts.noise_multiplier) == (clip_norm, 1.7)


def test_the_lock_file_names_no_registry() -> None:
    locked = json.loads((page.BUNDLE.parent / "package-lock.json").read_text())
    assert "http" not in json.dumps(locked["packages"]).replace("https://github.com", "")
    assert not any("resolved" in package for package in locked["packages"].values())
    assert all("integrity" in each for name, each in locked["packages"].items() if name)
