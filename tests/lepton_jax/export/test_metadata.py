"""What a phone model says of itself is read back as it was written, and changes nothing it computes."""

import io
import math
import random
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lepton_jax.checks import UserError
from lepton_jax.config import Run
from lepton_jax.data.labels import labels
from lepton_jax.export import flatbuffer
from lepton_jax.export.extras import litert, quiet, schema
from lepton_jax.export.flatbuffer import add_notes
from lepton_jax.export.flatbuffer import notes as read_notes
from lepton_jax.export.metadata import Image, Metadata, describe, image_of, read, write
from lepton_jax.export.metadata.content import (
    IDENTIFIER,
    NOTE,
    File,
    Model,
    Subgraph,
    TensorSlot,
)
from lepton_jax.export.metadata.read import files
from lepton_jax.export.outline import Outline, Signature, Tensor, read_outline
from lepton_jax.export.tables import root
from tests.lepton_jax.export.tiny_model import images, tiny

LABELS = {
    "de": ("Katze", "Hund", "Maus"),
    "zh": ("猫", "狗", "老鼠"),
    "pt-BR": ("gato", "cão", "rato"),
}
ABOUT = Metadata(
    name="pets",
    description="Cats, dogs and mice.",
    version="1.2",
    author="Ä. Author",
    licence="Apache-2.0",
    classes=("cat", "dog", "mouse"),
    labels=LABELS,
    files={"model_card.md": "# pets\n", "privacy_card.json": "{}\n"},
)


@pytest.fixture(scope="module")
def model() -> bytes:
    return tiny()


@pytest.fixture(scope="module")
def told(model: bytes) -> bytes:
    return describe(model, ABOUT)


def test_what_was_written_is_read(model: bytes, told: bytes) -> None:
    assert read(told) == ABOUT._replace(image=image_of(read_outline(model)))
    assert list(read(told).labels) == list(LABELS)


def test_nothing_is_said_twice(model: bytes, told: bytes) -> None:
    other = ABOUT._replace(name="other", labels={}, files={})
    assert describe(told, other) == describe(model, other)
    assert describe(told, ABOUT) == told


def test_little_may_be_said(model: bytes) -> None:
    bare = Metadata("m")
    assert read(describe(model, bare)) == bare._replace(image=image_of(read_outline(model)))


def test_the_model_computes_as_before(model: bytes, told: bytes) -> None:
    def run(content: bytes) -> np.ndarray:
        with quiet():
            interpreter = litert().Interpreter(model_content=content)
        interpreter.allocate_tensors()
        classify = interpreter.get_signature_runner("classify")
        return np.stack([classify(image=each[None])["probabilities"] for each in images()])

    np.testing.assert_array_equal(run(told), run(model))


def test_notes_are_kept(model: bytes) -> None:
    told = describe(add_notes(model, {"privacy_card_sha256": "abc"}), ABOUT)
    assert read_notes(told)["privacy_card_sha256"] == b"abc"
    assert read(told).name == "pets"
    assert list(read_notes(describe(told, ABOUT))).count(NOTE) == 1


def test_a_note_replaces_the_one_of_its_name(model: bytes) -> None:
    noted = add_notes(add_notes(model, {"a": "1", "b": "2"}), {"a": "3"})
    assert read_notes(noted) == {"a": b"3", "b": b"2"}


def test_others_unzip_the_files(told: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(told)) as archive:
        assert archive.read("labels_de.txt").decode() == "Katze\nHund\nMaus\n"
        assert archive.read("labels.txt") == b"cat\ndog\nmouse\n"
        assert {each.compress_type for each in archive.infolist()} == {zipfile.ZIP_STORED}
        first = archive.infolist()[0]
    assert told[first.header_offset :][:4] == b"PK\3\4"  # counted from the file's start


def test_nine_locales_and_two_cards_are_small(model: bytes) -> None:
    digits = tuple(str(digit) for digit in range(10))
    named = labels(Run().data, digits)
    assert len(named) == 9
    about = ABOUT._replace(classes=digits, labels=named, files={})
    assert len(describe(model, about)) - len(model) < 5000


@pytest.mark.parametrize(
    ("kind", "colours", "expected"),
    [
        ("uint8", 3, Image("RGB", 0, 1, 0, 255)),
        ("int8", 1, Image("GRAYSCALE", 0, 1, 0, 255)),
        ("float32", 3, Image("RGB", 0, 255, 0, 1)),
    ],
)
def test_normalization_is_that_of_the_input(kind: str, colours: int, expected: Image) -> None:
    content = describe(tiny(kind, colours=colours), Metadata("m", classes=("a", "b", "c")))
    assert read(content).image == expected


def rewritten(change: Callable[[Any], None]) -> bytes:
    """The tiny model with something in it changed."""
    content = flatbuffer.unpack(tiny())
    change(content)
    return flatbuffer.pack(content, 1024)


def test_the_subgraph_of_the_signature_is_described() -> None:
    def second(content: Any) -> None:
        other = flatbuffer.unpack(tiny()).subgraphs[0]
        other.inputs, other.outputs = [0, 1], [1]  # of another function: `train`, say
        content.subgraphs.insert(0, other)
        content.signatureDefs[0].subgraphIndex = 1

    model = rewritten(second)
    told = describe(model, ABOUT)
    assert read(told) == ABOUT._replace(image=image_of(read_outline(model)))
    first, described = root(read_notes(told)[NOTE], IDENTIFIER).tables(Model.SUBGRAPHS)
    assert (
        len(first.tables(Subgraph.INPUTS)) == 2
    )  # as many as the subgraph has, or no reader opens it
    assert first.tables(Subgraph.INPUTS)[0].tables(TensorSlot.UNITS) == ()
    assert len(described.tables(Subgraph.INPUTS)) == 1


@pytest.mark.parametrize(("kind", "expected"), [("INT32", 3), ("FLOAT32", 2)])
def test_numbers_of_classes_are_labelled_by_value(kind: str, expected: int) -> None:
    def numbered(content: Any) -> None:
        (output,) = content.subgraphs[0].outputs
        content.subgraphs[0].tensors[output].type = getattr(schema().TensorType, kind)

    told = describe(rewritten(numbered), ABOUT)
    (described,) = root(read_notes(told)[NOTE], IDENTIFIER).tables(Model.SUBGRAPHS)
    labelled = described.tables(Subgraph.OUTPUTS)[0].tables(TensorSlot.FILES)
    assert [file.number(File.KIND, "<b") for file in labelled] == [expected] * 4
    assert read(told).labels == LABELS


def test_scores_beside_numbers_of_classes_have_no_labels() -> None:
    def ranked(content: Any) -> None:
        graph = content.subgraphs[0]
        numbers = flatbuffer.unpack(tiny()).subgraphs[0].tensors[graph.outputs[0]]
        numbers.type = schema().TensorType.INT32
        graph.tensors.append(numbers)
        graph.outputs = [graph.outputs[0], len(graph.tensors) - 1]

    told = describe(rewritten(ranked), ABOUT)
    (described,) = root(read_notes(told)[NOTE], IDENTIFIER).tables(Model.SUBGRAPHS)
    scores, numbers = described.tables(Subgraph.OUTPUTS)
    assert scores.tables(TensorSlot.FILES) == () and len(numbers.tables(TensorSlot.FILES)) == 4


def _graph(*inputs: Tensor) -> Outline:
    return Outline({"classify": Signature(0, inputs, ())}, (), {}, 0, 0, {})


def test_signed_bytes_are_those_less_128() -> None:
    image = image_of(_graph(Tensor("image", "int8", (1, 8, 8, 3), 1.0, -128)))
    assert image == Image("RGB", 0, 1, -128, 127)


@pytest.mark.parametrize(
    "graph",
    [
        _graph(),
        _graph(Tensor("image", "int32", (1, 8, 8, 3))),
        _graph(Tensor("image", "uint8", (1, 8))),
        _graph(*[Tensor("image", "uint8", (1, 8, 8, 3))] * 2),
        Outline({"train": Signature(0, (), ())}, (), {}, 0, 0, {}),
    ],
)
def test_a_model_that_takes_no_image_is_refused(graph: Outline) -> None:
    with pytest.raises(UserError, match=r"model: expected a signature 'classify' that takes an"):
        image_of(graph)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"de": ("a", "b")}}, r"labels_de\.txt: expected 3 labels, one a class, got 2"),
        ({"labels": {"de": ("a", "b", " ")}}, r"labels_de\.txt: expected labels of one line"),
        ({"labels": {"de": ("a", "b", "c\n")}}, r"labels_de\.txt: expected labels of one line"),
        ({"classes": ("a", "b\udcff", "c")}, r"labels\.txt: expected Unicode text"),
        ({"author": "\udcff"}, r"author: expected Unicode text"),
        ({"description": "x" * 70_000}, r"description: expected at most 65,536 bytes"),
        ({"files": {"a.md": "x" * 2**24}}, r"expected at most 512 files, of 16,777,216 bytes"),
        ({"files": {"labels.txt": ""}}, r"expected plain and different file names, got 'labels"),
        ({"files": {"../x": ""}}, r"expected plain and different file names, got '\.\./x'"),
        ({"files": {"": ""}}, r"expected plain and different file names"),
    ],
)
def test_what_no_reader_could_tell_apart_is_refused(
    change: dict, message: str, model: bytes
) -> None:
    with pytest.raises(UserError, match=message):
        describe(model, ABOUT._replace(**change))


# --- damage ---------------------------------------------------------------------------------------


def test_a_model_without_metadata_says_so(model: bytes) -> None:
    with pytest.raises(UserError, match=r"model: expected metadata in it, got none"):
        read(model)


@pytest.mark.parametrize("content", [b"", b"TFL3", bytes(100), b"\x08\0\0\0TFL3" + bytes(20)])
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(UserError, match=r"model: expected a sound \.tflite file"):
        read_outline(content)


def _read(content: bytes) -> bool:
    """Whether it reads; anything but a UserError fails the test."""
    try:
        read(content)
    except UserError as error:
        assert "\n" not in str(error)
        return False
    return True


def test_damaged_bytes_are_read_or_refused(told: bytes) -> None:
    rng, outcomes = random.Random(0), []
    start = told.index(b"M001") - 100
    for _ in range(150):
        changed = bytearray(told)
        for _ in range(rng.choice((1, 4))):
            at = rng.randrange(start if rng.random() < 0.7 else 0, len(told))
            changed[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        outcomes.append(_read(bytes(changed)))
    assert 10 < sum(outcomes) < 140


@pytest.mark.parametrize("place", range(1, 5))
def test_numbers_that_json_lacks_are_refused(model: bytes, place: int) -> None:
    image = Image("RGB", *(math.nan if place == i else 1.0 for i in range(1, 5)))
    with pytest.raises(UserError, match="no finite number"):
        read(describe(model, ABOUT._replace(image=image)))


def test_every_truncation_is_refused(told: bytes) -> None:
    assert not any(_read(told[:end]) for end in range(0, len(told), 29))


def test_files_that_are_packed_or_too_large_are_refused(model: bytes) -> None:
    for method, size in ((zipfile.ZIP_DEFLATED, 10), (zipfile.ZIP_STORED, 2**24 + 1)):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as archive:
            archive.writestr("a.txt", bytes(size))
        with pytest.raises(UserError, match="a sound archive behind it"):
            files(model + stream.getvalue())


def test_a_directory_that_names_too_many_is_refused_unread(model: bytes) -> None:
    huge = b"PK\5\6" + bytes(8) + (2**30).to_bytes(4, "little") + bytes(6)
    locator = b"PK\6\7" + bytes(16) + b"PK\5\6" + bytes(18)
    for end in (huge, locator):
        with pytest.raises(UserError, match="a directory larger than a model's"):
            files(model + end)


def test_a_large_file_named_often_is_not_read_often(
    model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    often = dict.fromkeys((f"l{i}" for i in range(60)), ("x" * 10**6, "y", "z"))
    about = ABOUT._replace(classes=often["l0"], labels=often, files={})
    monkeypatch.setattr(write, "label_file", lambda locale: "one.txt")
    with pytest.raises(UserError, match="more in it than its size can hold"):
        read(describe(model, about))
    assert read(describe(model, about._replace(labels={}))).classes == often["l0"]
