"""An independent reader: MediaPipe's ImageClassifier, which lives in a virtual environment of its own.

It takes RGB images alone, of bytes or of floats, and int8 neither in nor out.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lepton_jax.export.extras import litert, quiet
from lepton_jax.export.metadata import Metadata, describe
from tests.lepton_jax.export.tiny_model import images, tiny

pytestmark = pytest.mark.slow

CLASSES = ("cat", "dog", "mouse")
LABELS = {"de": ("Katze", "Hund", "Mäuse"), "zh": ("猫", "狗", "老鼠")}
STEP = {"uint8": 1e-6, "float32": 1e-6, "int8": 1 / 256}

SCRIPT = """
import json, sys
import mediapipe as mp, numpy as np
from mediapipe.tasks import python as tasks
from mediapipe.tasks.python import vision

path, images, locale = sys.argv[1:]
base = tasks.BaseOptions(model_asset_path=path)
options = vision.ImageClassifierOptions(base_options=base, display_names_locale=locale or None)
found = []
with vision.ImageClassifier.create_from_options(options) as classifier:
    for image in np.load(images):
        told = classifier.classify(mp.Image(image_format=mp.ImageFormat.SRGB, data=image))
        categories = sorted(told.classifications[0].categories, key=lambda each: each.index)
        found.append([[e.score, e.category_name, e.display_name] for e in categories])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has MediaPipe, whose needs are none of ours."""
    folder = tmp_path_factory.mktemp("mediapipe")
    python = folder / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "mediapipe"],
        [str(python), "-c", "import mediapipe.tasks.python.vision"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason"])[-1]
            pytest.skip(f"MediaPipe can't be installed here: {reason}")
    return python


def interpreted(model: bytes, kind: str) -> np.ndarray:
    """What LiteRT says of the images; a byte of a quantized output is its 256th."""
    with quiet():
        interpreter = litert().Interpreter(model_content=model)
    interpreter.allocate_tensors()
    classify = interpreter.get_signature_runner("classify")
    taken = [each / np.float32(255) if kind == "float32" else each for each in images()[:, None]]
    found = np.concatenate([classify(image=each)["probabilities"] for each in taken])
    return found / np.float32(256) if kind == "int8" else found


@pytest.mark.parametrize("kind", ["uint8", "float32", "int8"])
@pytest.mark.parametrize("locale", ["de", "zh", ""])
def test_names_are_localized_and_scores_are_ours(
    kind: str, locale: str, python: Path, tmp_path: Path
) -> None:
    about = Metadata("pets", classes=CLASSES, labels=LABELS, files={"model_card.md": "# pets\n"})
    model = describe(tiny(kind), about)
    (tmp_path / "m.tflite").write_bytes(model)
    np.save(tmp_path / "images.npy", images())
    arguments = [str(tmp_path / "m.tflite"), str(tmp_path / "images.npy"), locale]
    command = [str(python), "-c", SCRIPT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    scores = np.array([[score for score, _, _ in each] for each in found])
    np.testing.assert_allclose(scores, interpreted(model, kind), atol=STEP[kind])
    names = LABELS.get(locale, (None,) * 3)
    assert all(tuple(each[1] for each in image) == CLASSES for image in found)
    assert all(tuple(each[2] for each in image) == names for image in found)
