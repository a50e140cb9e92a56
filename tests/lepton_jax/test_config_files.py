"""What is wrong with a config is told in one line that names the place."""

import copy
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_jax import config_files
from lepton_jax.checks import UserError
from lepton_jax.config import Clip, Run


def refusal(tree: dict) -> str:
    with pytest.raises(UserError) as error:
        config_files.validate(tree)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_typing_error_in_a_key_is_met_with_the_key_that_was_meant() -> None:
    assert "train.epohcs" in refusal({"train": {"epohcs": 3}})
    assert "did you mean epochs?" in refusal({"train": {"epohcs": 3}})


@pytest.mark.parametrize(
    ("tree", "line"),
    [
        ({"train": {"epochs": 0}}, "config: train.epochs: expected int >= 1, got 0"),
        ({"train": {"epochs": "a"}}, "config: train.epochs: expected int, got 'a' (str)"),
        (
            {"model": {"conv": "x"}},
            "config: model.conv: expected one of 'auto', 'lax', 'matmul', 'onednn', got 'x'",
        ),
        (
            {"federated": {"stages": [{"kind": "clop"}]}},
            "config: federated.stages[0].kind: expected one of clip, adaptive_clip, rotate, got 'clop'",
        ),
        (
            {"federated": {"stages": [{"kind": "clip"}]}},
            "config: federated.stages[0].max_norm: expected a value, got nothing; set max_norm",
        ),
        (
            {"train": {"clip_norm": math.inf}},
            "config: train.clip_norm: expected a finite number, got inf; leave the key out for the default",
        ),
    ],
)
def test_the_line_names_place_expectation_and_what_came(tree: dict, line: str) -> None:
    assert refusal(tree) == line


def test_a_run_written_and_read_back_is_the_same_run(tmp_path: Path) -> None:
    run = config_files.load(
        "digits_central",
        [
            'train.optimizer={kind = "adam"}',
            'federated.stages=[{kind = "clip", max_norm = 1.0}]',
            "train.ema=0.9",
        ],
    )
    path = tmp_path / "config.toml"
    path.write_text(config_files.dumps(run))
    assert config_files.load(path) == run


@pytest.mark.parametrize("name", config_files.bundled())
def test_every_bundled_config_is_valid_and_bears_its_own_name(name: str) -> None:
    assert config_files.load(name).name == name


@pytest.mark.parametrize("name", config_files.bundled())
def test_every_bundled_config_opens_with_its_claim_and_command(name: str) -> None:
    text = config_files.bundled()[name].read_text()
    claim = text[: text.index("\nname = ")]
    assert all(line.startswith("#") for line in claim.splitlines() if line)
    assert f" {name}" in claim
    assert "accuracy" in claim


# --- overrides ------------------------------------------------------------------------------------


def test_overrides_apply_in_order_and_before_the_validation() -> None:
    run = config_files.load("digits_central", ["train.epochs=0", "train.epochs=3"])
    assert run.train.epochs == 3


def test_an_override_may_be_toml_a_bare_word_or_none() -> None:
    run = config_files.load(
        "digits_central", ["model.norm=group", "data.image_size=[16, 16]", "train.ema=none"]
    )
    assert (run.model.norm, run.data.image_size, run.train.ema) == ("group", (16, 16), None)


def test_an_override_reaches_into_a_list() -> None:
    stages = [
        'federated.stages=[{kind = "clip", max_norm = 1.0}]',
        "federated.stages[0].max_norm=2.5",
    ]
    run = config_files.load("digits_central", stages)
    assert run.federated.stages == (Clip(max_norm=2.5),)


@pytest.mark.parametrize(
    "override",
    [
        "train.epochs",
        "=3",
        "a..b=1",
        "train.epochs.x=1",
        "data.augment[9].size=1",
        "name[0]=x",
        "x y=1",
    ],
)
def test_an_override_that_leads_nowhere_is_named(override: str) -> None:
    with pytest.raises(UserError) as error:
        config_files.load("digits_central", [override])
    assert "\n" not in str(error.value)


# --- files ----------------------------------------------------------------------------------------


def test_an_unknown_config_is_met_with_the_bundled_ones() -> None:
    with pytest.raises(UserError, match="did you mean digits_central"):
        config_files.load("digits_centrl")


def test_what_is_not_toml_names_its_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("name = 'a'\n[train\n")
    with pytest.raises(UserError, match=r"broken\.toml.*line 2"):
        config_files.load(path)


def test_what_is_not_text_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"binary\.toml"):
        config_files.load(path)


# --- any mutation of a valid config ---------------------------------------------------------------


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Every place below the root where something can be put that can't belong there."""
    if isinstance(value, dict):
        inside = [place for key, item in value.items() for place in places(item, (*path, key))]
        return [*([path] if path else []), *inside]
    if isinstance(value, list):
        return [
            path,
            *(place for i, item in enumerate(value) for place in places(item, (*path, i))),
        ]
    return [path]


FULL = msgspec.to_builtins(
    config_files.validate(
        {
            "data": {"augment": [{"kind": "crop"}, {"kind": "contrast"}], "image_size": [8, 8]},
            "model": {"norm": "group", "dropout": 0.1, "dense": [3]},
            "train": {"clip_norm": 1.0, "ema": 0.9, "patience": 2},
            "federated": {"stages": [{"kind": "clip", "max_norm": 1.0}], "batch_size": "all"},
        }
    )
)
VALID = {
    section: {key: item for key, item in value.items() if item is not None}
    if isinstance(value, dict)
    else value
    for section, value in FULL.items()
}
NONSENSE = [
    {"nonsense": [1]},
    [[["nonsense"]]],
    -1,
    math.nan,
    math.inf,
    b"x".hex() * 40 + " !",
    True,
]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(place=st.sampled_from(places(VALID)), nonsense=st.sampled_from(NONSENSE))
def test_nonsense_anywhere_is_one_line_that_names_its_section(place: tuple, nonsense: Any) -> None:
    tree = copy.deepcopy(VALID)
    *path, last = place
    node = tree
    for step in path:
        node = node[step]
    if node[last] is nonsense or (isinstance(node[last], bool | str) and nonsense is True):
        nonsense = {"nonsense": [1]}
    if place == ("data", "path") or (isinstance(node[last], str) and isinstance(nonsense, str)):
        nonsense = {"nonsense": [1]}
    node[last] = nonsense
    try:
        run = config_files.validate(tree)
    except UserError as error:
        assert "\n" not in str(error)
        assert str(place[0]) in str(error)
    else:  # the few places where such a value is a value
        assert config_files.validate(_plain(run)) == run


@settings(max_examples=100, deadline=None, derandomize=True)
@given(place=st.sampled_from(places(VALID)), key=st.from_regex(r"[a-z]{3,12}", fullmatch=True))
def test_a_key_that_does_not_exist_is_named(place: tuple, key: str) -> None:
    tree = copy.deepcopy(VALID)
    node: Any = tree
    for step in place:
        node = node[step]
    if not isinstance(node, dict) or key in Run.__struct_fields__:
        node, place = tree, ()
    if key in node or (place and key in {"kind"}):
        return
    node[f"{key}_not"] = 1
    assert f"{key}_not" in refusal(tree)


def _plain(run: Run) -> dict:
    import tomllib

    return tomllib.loads(config_files.dumps(run))
