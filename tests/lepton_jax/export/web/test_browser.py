import base64
import contextlib
import functools
import http.server
import io
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import stats

from lepton_jax.export.convert import Entry, convert
from lepton_jax.export.web import Facts, page, write_page
from tests.lepton_jax.export.web.conftest import WORDS
from tests.lepton_jax.export.web.digit_model import BATCH, Digits, evaluate, logits, train

pytestmark = pytest.mark.slow

_PACKAGES = page.BUNDLE.parent
_IMAGES, _EXAMPLES, _EPOCHS, _RATE = 200, 20, 10, 0.05
# A three, as a hand would draw it, in parts of the pad.
_POINTS = "30,25 40,15 55,14 66,24 60,38 45,46 60,50 70,64 62,80 45,86 30,78"
_THREE = [[float(part) / 100 for part in point.split(",")] for point in _POINTS.split()]


def _chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if found is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    if shutil.which("node") is None:
        pytest.skip("needs Node 20 or newer")
    if not (page.BUNDLE / "app.js").exists() or not (_PACKAGES / "node_modules").exists():
        pytest.skip("needs the page's bundle and its packages: make web")
    return found


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def _drive(origin: str, **task: Any) -> dict[str, Any]:
    given = {"packages": str(_PACKAGES), "chromium": _chromium(), "url": f"{origin}index.html"}
    told = subprocess.run(
        ["node", str(Path(__file__).with_name("drive.mjs"))],
        input=json.dumps(given | task),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


def _png(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture(scope="module")
def origin(
    tmp_path_factory: pytest.TempPathFactory, infer: bytes, training: bytes
) -> Iterator[str]:
    _chromium()
    out = tmp_path_factory.mktemp("page")
    facts = Facts("Digits", 0.9, data="digits", learning_rate=_RATE, epochs=_EPOCHS)
    write_page(out, infer=infer, training=training, labels=WORDS, facts=facts)
    with _served(out) as address:
        yield address


@pytest.fixture(scope="module")
def seen(origin: str, digits: Digits) -> dict[str, Any]:
    examples = [
        {"image": image.ravel().tolist(), "label": int(label)} for image, label in _examples(digits)
    ]
    return _drive(
        origin,
        locale="de-CH",
        locales=["en", "ar"],
        images=digits.images[:_IMAGES].reshape(_IMAGES, -1).tolist(),
        examples=examples,
        epochs=_EPOCHS,
        rate=_RATE,
        strokes=[_THREE],
        label=3,
        pictures=[_png(_photo()), _png(np.full((30, 40), 200, np.uint8))],
    )


def _photo() -> np.ndarray:
    """A small dark three somewhere on grey paper."""
    paper = Image.new("L", (300, 240), 190)
    points = [(180 + 80 * x, 20 + 80 * y) for x, y in _THREE]
    ImageDraw.Draw(paper).line(points, fill=40, width=12, joint="curve")
    return np.asarray(paper)


def _examples(digits: Digits) -> list[tuple[np.ndarray, int]]:
    """Those that the model finds hardest, so that there is something to learn."""
    values = np.asarray(evaluate_each(digits))
    hardest = np.argsort(values, kind="stable")[::-1][:_EXAMPLES]
    return [(digits.images[i], int(digits.labels[i])) for i in hardest]


def evaluate_each(digits: Digits) -> np.ndarray:
    own = np.asarray(logits(jnp.asarray(digits.weights), jnp.asarray(digits.images)))
    own = own - np.log(np.exp(own).sum(-1, keepdims=True))
    return -own[np.arange(len(own)), digits.labels]


def _train_in_jax(digits: Digits) -> tuple[float, float, np.ndarray]:
    examples = _examples(digits)
    batches = []
    for start in range(0, _EXAMPLES, BATCH):
        part = examples[start : start + BATCH]
        image = np.zeros((BATCH, *digits.images.shape[1:]), np.uint8)
        label, weight = np.zeros(BATCH, np.int32), np.zeros(BATCH, np.float32)
        for i, (own, which) in enumerate(part):
            image[i], label[i], weight[i] = own, which, 1
        batches.append((jnp.asarray(image), jnp.asarray(label), jnp.asarray(weight)))
    flat = jnp.asarray(digits.weights)
    trace, rate = jnp.zeros_like(flat), jnp.full((1,), _RATE, jnp.float32)

    def loss() -> float:
        return float(sum(evaluate(flat, *batch)["loss"][0] for batch in batches)) / _EXAMPLES

    before = loss()
    for _ in range(_EPOCHS):
        for batch in batches:
            flat, trace, _ = train(flat, trace, *batch, rate)
    return before, loss(), np.asarray(flat)


def test_the_browser_chooses_as_jax_does(seen: dict[str, Any], digits: Digits) -> None:
    ours = np.asarray(logits(jnp.asarray(digits.weights), jnp.asarray(digits.images[:_IMAGES])))
    theirs = np.array(seen["probabilities"])
    np.testing.assert_array_equal(theirs.argmax(-1), ours.argmax(-1))
    exact = np.exp(ours - ours.max(-1, keepdims=True))
    np.testing.assert_allclose(theirs, exact / exact.sum(-1, keepdims=True), atol=1e-5)


def test_training_in_the_browser_is_training_in_jax(seen: dict[str, Any], digits: Digits) -> None:
    before, after, weights = _train_in_jax(digits)
    told = seen["trained"]
    assert after < 0.8 * before
    np.testing.assert_allclose(told["before"]["loss"], before, atol=1e-3)
    np.testing.assert_allclose(told["after"]["loss"], after, atol=1e-3)
    np.testing.assert_allclose(told["weights"], weights, atol=1e-4)


def test_what_was_learnt_is_forgotten_on_demand(seen: dict[str, Any]) -> None:
    told = seen["trained"]
    np.testing.assert_allclose(told["restored"]["loss"], told["before"]["loss"], atol=1e-6)
    assert (seen["kept"], seen["forgotten"]) == (1, 0)


def test_no_request_leaves_the_origin(seen: dict[str, Any], origin: str) -> None:
    made = [url for url in seen["requests"] if "elsewhere.invalid" not in url]
    assert {url.removeprefix(origin) for url in made} >= {"model.tflite", "training.tflite"}
    assert [url for url in made if not url.startswith((origin, f"blob:{origin}"))] == []


def test_the_page_may_not_ask_elsewhere(seen: dict[str, Any]) -> None:
    assert str(seen["refused"]).startswith("http://elsewhere.invalid")


def test_a_drawn_three_is_a_three_in_each_language(seen: dict[str, Any]) -> None:
    assert seen["first"] == {"lang": "de", "best": "drei", "rows": 3}
    assert seen["en"] == {"best": "three", "direction": "ltr"}
    assert seen["ar"] == {"best": "ثلاثة", "direction": "rtl"}
    assert seen["errors"] == []


def test_what_would_be_uploaded_is_shown(seen: dict[str, Any], digits: Digits) -> None:
    assert f"{len(digits.weights):,}" in seen["after"]["summary"]
    assert seen["after"]["charts"] == 2


def test_an_update_is_clipped_to_its_norm(seen: dict[str, Any]) -> None:
    assert seen["upload"]["norm"] == 5
    np.testing.assert_allclose(seen["upload"]["sent"], [1.2, 0, 1.6], rtol=1e-6)


def test_noise_is_normal(seen: dict[str, Any]) -> None:
    noise = np.array(seen["noise"])
    assert len(noise) == 20_000
    assert stats.kstest(noise, "norm").pvalue > 1e-6
    assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 5 / np.sqrt(len(noise))


def test_a_photo_of_handwriting_becomes_a_digit_like_the_others(
    seen: dict[str, Any], digits: Digits
) -> None:
    photo, blank = seen["pictures"]
    image = np.array(photo, np.uint8).reshape(1, 8, 8, 1)
    assert int(logits(jnp.asarray(digits.weights), jnp.asarray(image)).argmax()) == 3
    assert (image[0, 0].max(), image[0, -1].max()) > (100, 100)  # it fills its box
    assert blank == []


def test_a_colour_picture_arrives_as_it_is(tmp_path: Path) -> None:
    _chromium()
    shape = (6, 6, 3)

    def classify(image: jax.Array) -> dict[str, jax.Array]:
        return {"probabilities": jax.nn.softmax(image.astype(jnp.float32).mean((1, 2)) / 32.0)}

    infer = convert(
        [Entry("classify", classify, {"image": jax.ShapeDtypeStruct((1, *shape), jnp.uint8)})]
    )
    facts = Facts("Colours", 1.0)
    labels = {"en": ("red", "green", "blue")}
    write_page(tmp_path, infer=infer, training=None, labels=labels, facts=facts)
    image = np.random.default_rng(0).integers(256, size=shape).astype(np.uint8)
    wide = np.concatenate([image[:, :2] * 0, image, image[:, :2] * 0], axis=1)
    images = [image.ravel().tolist()]
    with _served(tmp_path) as address:
        seen = _drive(address, locale="fr", images=images, pictures=[_png(image), _png(wide)])
    for found in seen["pictures"]:
        np.testing.assert_array_equal(np.array(found).reshape(shape), image)
    expected = classify(jnp.asarray(image)[None])["probabilities"][0]
    np.testing.assert_allclose(seen["probabilities"][0], expected, atol=1e-5)
    assert seen["errors"] == []
