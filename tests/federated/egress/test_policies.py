"""Policies are read whole or refused in one line; whatever the file, nothing else happens."""

import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from federated.policy import Policy, load_policies, read_policies
from lepton_jax import config_files, privacy_verbs
from lepton_jax.checks import UserError

REGIONS = ("africa", "asia", "europe")
EXAMPLES = next(iter(config_files.bundled().values())).parent / "policies"


def tree(region: str = "asia", **changes: Any) -> dict[str, Any]:
    whole = tomllib.loads((EXAMPLES / "asia.toml").read_text())
    whole |= {"region": region, **changes}
    return {key: value for key, value in whole.items() if value is not None}


def write(folder: Path, name: str, **changes: Any) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(tomli_w.dumps(tree(name, **changes)))
    return path


def refusal(read: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as error:
        read()
    line = str(error.value)
    assert line.isprintable() and len(line) < 1000
    return line


# --- what a policy says ---------------------------------------------------------------------------


def test_the_bundled_examples_are_of_the_bundled_federation() -> None:
    run = config_files.load("digits_federated")
    found = load_policies(Path("policies"), run.federated.regions)
    assert tuple(found) == run.federated.regions == REGIONS
    assert {policy.cross_border for policy in found.values()} == {"sum", "updates"}


def test_policies_come_in_the_order_of_the_runs_regions() -> None:
    assert tuple(load_policies(EXAMPLES, REGIONS[::-1])) == REGIONS[::-1]


def test_a_single_file_is_read_as_its_folder_is() -> None:
    assert read_policies(EXAMPLES / "asia.toml")["asia"] == read_policies(EXAMPLES)["asia"]


@pytest.mark.parametrize(
    "language",
    ["en", "sw-KE", "zh-Hant", "zh-Hans-CN", "es-419", "sl-rozaj-biske", "de-CH-1996", "de-DE-u-co-phonebk", "zh-yue-HK", "ast", "en-x-home"],
)  # fmt: skip
def test_tags_of_languages_are_read(tmp_path: Path, language: str) -> None:
    path = write(tmp_path, "asia", language=language)
    assert read_policies(path)["asia"].language == language


@pytest.mark.parametrize(
    "language",
    ["", "e", "english language", "en_GB", "en-", "-en", "en\n", "en-GB-x", "12", "en-u", "én", "en" + "-x" * 40],
)  # fmt: skip
def test_what_is_no_tag_of_a_language_is_refused(tmp_path: Path, language: str) -> None:
    path = write(tmp_path, "asia", language=language)
    assert "language" in refusal(lambda: read_policies(path))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"regoin": "x"}, "regoin: expected one of region, language,"),
        ({"minimum_cohrt": 3}, "did you mean minimum_cohort?"),
        ({"language": None}, "asia.toml: language: expected a value, got nothing; set language"),
        ({"outputs": ["updates"]}, "outputs[0]: expected one of 'update', 'figures', got 'updates'"),
        ({"metrics": ["f1"]}, "metrics[0]: expected one of 'loss', 'accuracy',"),
        ({"metrics": ["loss", "loss"]}, "metrics: expected each value once"),
        ({"cross_border": "all"}, "cross_border: expected one of 'none', 'sum', 'updates', got 'all'"),
        ({"cross_border": "none"}, "cross_border: expected 'sum' or 'updates' with outputs"),
        ({"outputs": ["figures"]}, "cross_border: expected 'none' with outputs = ['figures']"),
        ({"outputs": ["update"]}, "metrics: expected none with outputs = ['update']"),
        ({"metrics": []}, "metrics: expected at least one with outputs"),
        ({"minimum_cohort": 0}, "minimum_cohort: expected int >= 1, got 0"),
        ({"minimum_cohort": 1, "cross_border": "sum"}, "minimum_cohort: expected at least 2"),
        ({"minimum_cohort": True}, "minimum_cohort: expected int, got True"),
        ({"epsilon": 0.0}, "epsilon: expected float > 0.0, got 0.0"),
        ({"epsilon": float("inf")}, "epsilon: expected a finite number, got inf"),
        ({"epsilon": float("nan")}, "epsilon: expected a finite number, got nan"),
        ({"delta": 0.0}, "delta: expected float > 0.0, got 0.0"),
        ({"delta": 1.0}, "delta: expected float < 1.0, got 1.0"),
        ({"delta": None}, "delta: expected both epsilon and delta or neither"),
        ({"epsilon": None}, "delta: expected both epsilon and delta or neither"),
        ({"retention_days": -1}, "retention_days: expected int >= 1, got -1"),
        ({"region": "../asia"}, "region: "),
        ({"region": "africa"}, "region: expected 'asia', got 'africa'; rename the file to africa.toml"),
        ({"a\x1b[2Jb": 1}, r"a\x1b[2Jb: expected one of"),
        ({"region": "x" * 9000}, "region: expected str of length <= 200"),
        ({"x" * 9000: 1}, "xxx: expected one of"),
        ({"outputs": ["update"] * 900}, "outputs: expected each value once"),
        ({"language": ["en"] * 900}, "language: expected str"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(
    tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    path = tmp_path / "asia.toml"
    path.write_text(tomli_w.dumps(tree(**changes)))
    said = refusal(lambda: read_policies(path))
    assert str(path) in said and line in said


# --- files ----------------------------------------------------------------------------------------


def test_a_region_without_a_policy_is_named(tmp_path: Path) -> None:
    write(tmp_path, "asia")
    line = refusal(lambda: load_policies(tmp_path, ("asia", "europe")))
    assert "europe.toml: expected the policy of region europe, got no such file" in line


def test_a_policy_of_an_unknown_region_is_met_with_the_one_that_was_meant(tmp_path: Path) -> None:
    write(tmp_path, "asia")
    write(tmp_path, "eurpoe")
    line = refusal(lambda: load_policies(tmp_path, ("asia", "europe")))
    assert "did you mean europe?" in line


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "asia")
    (tmp_path / "README.md").write_text("policies")
    assert tuple(load_policies(tmp_path, ("asia",))) == ("asia",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"region = asia", "expected a TOML file"),
        (b"\xff\xfe", "expected a TOML file"),
        (b"", "region: expected a value"),
        (b"#" * (64 * 2**10 + 1), "at most 64 KiB"),
        (b"x = " + b"[" * 20_000, "few keys"),
        (b"x = " + b"{a=" * 10_000, "few keys"),
        (b".".join([b"a"] * 20_000) + b" = 1", "few keys"),
        (b"minimum_cohort = " + b"1" * 5000, "expected a TOML file"),
    ],
)
def test_what_is_no_policy_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "asia.toml").write_bytes(content)
    assert said in refusal(lambda: load_policies(tmp_path, ("asia",)))


def test_a_policy_of_64_kib_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "asia")
    path.write_bytes(path.read_bytes() + b"#" * (64 * 2**10 - path.stat().st_size))
    assert read_policies(path)


def test_a_link_leads_nowhere_but_into_its_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "policies", tmp_path / "elsewhere"
    inside.mkdir()
    outside.mkdir()
    (inside / "asia.toml").symlink_to(write(outside, "asia"))
    assert "a link out of it" in refusal(lambda: read_policies(inside))
    (inside / "asia.toml").unlink()
    (inside / "asia.toml").symlink_to(write(inside, "asia").rename(inside / "asia.toml.of-today"))
    assert read_policies(inside)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink(path, path)])
def test_what_is_no_file_is_refused_and_not_waited_for(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "asia.toml")
    assert "expected a file" in refusal(lambda: read_policies(tmp_path))


def test_a_folder_of_nothing_and_no_folder_are_refused(tmp_path: Path) -> None:
    assert "at least one policy" in refusal(lambda: read_policies(tmp_path))
    assert "nothing" in refusal(lambda: load_policies(tmp_path / "none", REGIONS))


def test_the_command_line_shows_policies_and_names_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    privacy_verbs.policy(Path("policies"), json=True)
    shown = json.loads(capsys.readouterr().out)["policies"]
    assert [each["region"] for each in shown] == list(REGIONS)
    privacy_verbs.policy(EXAMPLES / "asia.toml")
    assert "zh-Hans" in capsys.readouterr().out
    line = refusal(lambda: privacy_verbs.policy(write(tmp_path, "asia", minimum_cohort=0)))
    assert "asia.toml: minimum_cohort: expected int >= 1, got 0" in line


# --- any file at all ------------------------------------------------------------------------------

_PIECES = (
    b"\x00", b"\xff", b"\n", b'"', b"[", b"]", b"{", b"=", b"nan", b"inf", b"-1", b"1e999", b"''",
    b"[[x]]", b"[x.y]", b"2020-01-01", b"true", b"\\u001b", b'"\\u202e"', b"region", b"0x7f", b"`",
    "\u2028".encode(), b"9" * 400, b"a.b.c = 1\n",
)  # fmt: skip


def mutated(raw: bytes, rng: np.random.Generator) -> bytes:
    for _ in range(rng.integers(1, 5)):
        at, until = np.sort(rng.integers(0, len(raw) + 1, 2)).tolist()
        piece = _PIECES[rng.integers(len(_PIECES))]
        match rng.integers(6):
            case 0:
                raw = raw[:at] + piece + raw[at:]
            case 1:
                raw = raw[:at] + piece + raw[until:]
            case 2:
                raw = raw[:at] + raw[until:]
            case 3:
                raw = raw[:until] + raw[at:]
            case 4:
                lines = raw.splitlines(keepends=True)
                raw = b"".join(lines[i] for i in rng.permutation(len(lines)))
            case _:
                raw = raw[:at] + bytes(rng.integers(0, 256, 3, np.uint8)) + raw[at:]
    return raw


def test_of_2000_fuzzed_policies_each_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    rng, valid = np.random.default_rng(4), (EXAMPLES / "asia.toml").read_bytes()
    path, refused = tmp_path / "asia.toml", 0
    for i in range(2000):
        raw = rng.bytes(int(rng.integers(0, 300))) if i % 10 == 0 else mutated(valid, rng)
        path.write_bytes(raw)
        try:
            (policy,) = load_policies(tmp_path, ("asia",)).values()
        except UserError as error:
            assert str(error).isprintable() and str(path) in str(error) and len(str(error)) < 1000
            refused += 1
        else:
            assert type(policy) is Policy and policy.region == "asia"
        assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == raw
    assert 1000 < refused < 2000
