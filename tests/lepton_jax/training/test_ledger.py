"""The ledger: what was charged stays charged through any kill, and no edit goes unseen."""

import itertools
import json
import math
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lepton_jax.checks import UserError
from lepton_jax.training import chain, ledger, signing
from lepton_jax.training.ledger import (
    Ledger,
    open_ledger,
    read_ledger,
    releases,
    reopen_ledger,
    verify_ledger,
)
from lepton_jax.training.signing import Signer

SECURE = {"randomness": "secure", "noise_multiplier": 1.5, "delta": 1e-5}
REPRODUCIBLE = {**SECURE, "randomness": "reproducible"}
RUN = "ab" * 32
LOG, HEAD = chain.LEDGER, chain.HEAD


def begin(folder: Path, terms: dict[str, Any] = SECURE, *, resume: bool = False) -> Ledger:
    folder.mkdir(exist_ok=True)
    return open_ledger(folder, terms, RUN, resume=resume)


def stranger(seed: int = 7) -> Signer:
    """The key of somebody else."""
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return Signer(key.public_key().public_bytes_raw(), key.sign)


@pytest.fixture(autouse=True)
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes that would have been brought to the disk, which takes long."""
    inodes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: inodes.append(os.fstat(file).st_ino))
    return inodes


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A ledger with every kind of entry."""
    folder = tmp_path / "run"
    made = begin(folder)
    for number in range(1, 6):
        made.charge(number, number, clients=10, share=0.25)
    made = begin(folder, resume=True)
    made.charge(5, 5, clients=10, share=0.25)
    made.note("stop", reason="budget")
    made.note("end", params_sha256="cd" * 32)
    return folder


# --- what is charged ------------------------------------------------------------------------------


def test_charges_add_up_and_are_read_back(written: Path) -> None:
    entries = verify_ledger(written)
    kinds = [entry.kind for entry in entries]
    assert kinds == ["begin", *["release"] * 5, "resume", "release", "stop", "end"]
    assert releases(entries) == 1 + 2 + 3 + 4 + 5 + 5
    assert [msgspec.to_builtins(entry) for entry in entries] == read_ledger(written)
    assert entries[0].body["terms"] == SECURE and entries[0].body["run_sha256"] == RUN
    assert entries[3].body == {"number": 3, "releases": 3, "clients": 10, "share": 0.25}


def test_a_charge_is_on_disk_before_it_returns(tmp_path: Path, synced: list[int]) -> None:
    made = begin(tmp_path)
    for number in range(1, 4):
        synced.clear()
        made.charge(number, 2)
        in_turn = (tmp_path / LOG, tmp_path / HEAD, tmp_path)
        assert synced == [path.stat().st_ino for path in in_turn]
        found = verify_ledger(tmp_path)
        assert releases(found) == made.charged() == 2 * number
        assert found[-1].hash == made.head()


def test_a_secure_round_done_again_is_charged_again(tmp_path: Path) -> None:
    begin(tmp_path).charge(1, 3)
    made = begin(tmp_path, resume=True)
    made.charge(1, 3)
    assert made.charged() == 6


def test_a_reproducible_round_done_again_is_the_same_release(tmp_path: Path) -> None:
    made = begin(tmp_path, REPRODUCIBLE)
    made.charge(1, 3)
    made.charge(2, 3)
    made = begin(tmp_path, REPRODUCIBLE, resume=True)
    made.charge(2, 3)
    assert made.charged() == 6
    made.charge(2, 3, clients=9)  # with another body it is not the same
    assert made.charged() == 9


def test_where_nothing_tells_of_randomness_a_round_is_charged_again(tmp_path: Path) -> None:
    made = begin(tmp_path, {"delta": 1e-5})
    made.charge(1, 1)
    made.charge(1, 1)
    assert made.charged() == 2


@pytest.mark.parametrize("bad", [-1, 0.5, math.nan, math.inf, True, None, "1"])
@pytest.mark.parametrize("place", ["number", "releases"])
def test_what_is_no_count_is_refused_and_nothing_is_written(
    tmp_path: Path, bad: Any, place: str
) -> None:
    made = begin(tmp_path)
    with pytest.raises(Exception, match=place):  # of the types that the tests check, another one
        made.charge(**{"number": 1, "releases": 1, place: bad})
    assert len(verify_ledger(tmp_path)) == 1


def test_rounds_are_numbered_from_1_and_may_cost_nothing(tmp_path: Path) -> None:
    made = begin(tmp_path)
    with pytest.raises(ValueError, match="number"):
        made.charge(0, 1)
    made.charge(1, 0)
    assert made.charged() == 0 and len(verify_ledger(tmp_path)) == 2


def test_a_body_with_nan_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    made = begin(tmp_path)
    with pytest.raises(ValueError):
        made.charge(1, 1, norm=math.nan)
    made.charge(1, 1)
    assert made.charged() == 1 == releases(verify_ledger(tmp_path))


@pytest.mark.parametrize("kind", ["begin", "release"])
def test_a_note_charges_nothing(tmp_path: Path, kind: Any) -> None:
    with pytest.raises(ValueError, match="a kind of note"):
        begin(tmp_path).note(kind, releases=0)


def test_a_ledger_holds_the_hashes_of_its_entries_alone(tmp_path: Path) -> None:
    made = begin(tmp_path)
    before = made.head()
    made.charge(1, 1)
    assert made.holds(before) and made.holds(made.head()) and not made.holds("00" * 32)


def test_secure_ledgers_differ_and_reproducible_ones_are_equal(tmp_path: Path) -> None:
    made = {}
    for name, terms in itertools.product("ab", (SECURE, REPRODUCIBLE)):
        folder = tmp_path / f"{name}-{terms['randomness']}"
        begin(folder, terms).charge(1, 1)
        made[folder.name] = (folder / LOG).read_bytes()
    assert made["a-secure"] != made["b-secure"]
    assert made["a-reproducible"] == made["b-reproducible"]


# --- beginning again ------------------------------------------------------------------------------


def test_a_ledger_is_not_begun_twice(written: Path) -> None:
    with pytest.raises(UserError, match="expected no ledger yet"):
        begin(written)


def test_resuming_where_nothing_is_begins(tmp_path: Path) -> None:
    begin(tmp_path, resume=True).charge(1, 1)
    assert len(verify_ledger(tmp_path)) == 2


@pytest.mark.parametrize("left", ["metrics.jsonl", "checkpoints/3/host.json"])
@pytest.mark.parametrize("lost", [(LOG, HEAD), (LOG,), (HEAD,)])
def test_a_run_that_was_trained_does_not_begin_its_ledger_anew(
    tmp_path: Path, left: str, lost: tuple[str, ...]
) -> None:
    begin(tmp_path)
    (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / left).write_text("{}\n")
    for name in lost:
        (tmp_path / name).unlink()
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(UserError, match=LOG.replace(".", "\\.")):
        begin(tmp_path, resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_other_terms_and_other_runs_are_refused(written: Path) -> None:
    with pytest.raises(UserError, match=r"noise_multiplier: expected 1\.5 as it began with"):
        open_ledger(written, {**SECURE, "noise_multiplier": 1.4}, RUN, resume=True)
    with pytest.raises(UserError, match="line 1: unit: expected None"):
        open_ledger(written, {**SECURE, "unit": "client"}, RUN, resume=True)
    with pytest.raises(UserError, match="expected the run abababababab"):
        open_ledger(written, SECURE, "cd" * 32, resume=True)
    assert len(verify_ledger(written)) == 10


def test_tuples_in_the_terms_are_the_lists_that_they_became(tmp_path: Path) -> None:
    begin(tmp_path, {**SECURE, "covers": ("models",)})
    begin(tmp_path, {**SECURE, "covers": ("models",)}, resume=True)


def test_another_user_does_not_go_on(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEPTON_KEY_DIR", str(tmp_path / "another"))
    with pytest.raises(UserError, match="the unknown key"):
        begin(written, resume=True)


def test_a_later_note_needs_no_terms(written: Path) -> None:
    reopen_ledger(written).note("card", sha256="ef" * 32)
    assert verify_ledger(written)[-1].body == {"sha256": "ef" * 32}


# --- kills ----------------------------------------------------------------------------------------


class Recorder:
    """Every state that the disk passes through while a ledger is written, and what was charged."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.charged = folder, 0
        self.moments: list[tuple[dict[str, bytes], int]] = []
        self._write, self._append = ledger.write_bytes, ledger.append
        monkeypatch.setattr(ledger, "write_bytes", self.write_bytes)
        monkeypatch.setattr(ledger, "append", self.append)

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def write_bytes(self, path: Path, content: bytes) -> None:
        before = self.files()
        temporary = f".{path.name}.tmp"
        for size in (0, len(content) // 2, len(content)):  # then it is renamed, in one stroke
            self.moments.append(({**before, temporary: content[:size]}, self.charged))
        self._write(path, content)

    def append(self, path: Path, record: dict[str, Any]) -> None:
        before = self.files()
        self._append(path, record)
        content, old = path.read_bytes(), before[path.name]
        for size in range(len(old), len(content) + 1):
            self.moments.append(({**before, path.name: content[:size]}, self.charged))


@pytest.mark.parametrize(
    ("terms", "step"),
    [(SECURE, 4), (REPRODUCIBLE, 9), pytest.param(SECURE, 1, marks=pytest.mark.slow)],
)
def test_a_kill_at_any_byte_never_leaves_fewer_than_what_was_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terms: dict[str, Any], step: int
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with monkeypatch.context() as patch:
        recorder = Recorder(folder, patch)
        made = begin(folder, terms)
        for number in (1, 2):
            made.charge(number, 5)
            recorder.charged += 5
        begin(folder, terms, resume=True)
    assert len(recorder.moments) > 800
    for i, (files, charged) in enumerate(recorder.moments[::step]):
        killed = tmp_path / str(i)
        killed.mkdir()
        for name, content in files.items():
            (killed / name).write_bytes(content)
        went_on = begin(killed, terms, resume=True)
        assert charged <= went_on.charged() <= charged + 5
        if i % 10 == 0:  # and it can be charged further, whatever was mended
            went_on.charge(3, 5)
            assert releases(verify_ledger(killed)) == went_on.charged()
        shutil.rmtree(killed)


_CHARGING = """
import sys
from pathlib import Path
from lepton_jax.training.ledger import open_ledger
ledger = open_ledger(Path(sys.argv[1]), {"randomness": "secure"}, "ab" * 32, resume=True)
for number in range(1, 10**6):
    ledger.charge(number, 1)
    print(ledger.charged(), flush=True)
"""


@pytest.mark.slow
def test_what_a_killed_process_was_told_is_in_its_ledger(tmp_path: Path) -> None:
    rng = random.Random(0)
    for _ in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", _CHARGING, str(tmp_path)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            said = process.stdout.readline()  # it has begun
            time.sleep(rng.uniform(0, 0.2))
            process.kill()
            *whole, _ = (said + process.stdout.read()).split(b"\n")  # a torn number is another one
        told = int(whole[-1])
        assert told <= begin(tmp_path, {"randomness": "secure"}, resume=True).charged() <= told + 1


def test_a_kill_while_a_kill_is_mended_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    made = begin(folder)
    old = (folder / HEAD).read_bytes()
    made.charge(1, 5)
    (folder / HEAD).write_bytes(old)  # killed between the entry and the head
    with monkeypatch.context() as patch:
        recorder = Recorder(folder, patch)
        begin(folder, resume=True)
    for i, (files, _) in enumerate(recorder.moments[::3] + recorder.moments[-1:]):
        killed = tmp_path / str(i)
        killed.mkdir()
        for name, content in files.items():
            (killed / name).write_bytes(content)
        assert begin(killed, resume=True).charged() == 5
        verify_ledger(killed)


def test_a_torn_line_is_reported_and_then_mended(written: Path) -> None:
    with (written / LOG).open("ab") as file:
        file.write(b'{"body": {"num')
    with pytest.raises(UserError, match="line 11: expected a whole line, got a torn one; resume"):
        verify_ledger(written)
    assert begin(written, resume=True).charged() == 20
    assert len(verify_ledger(written)) == 11


def test_two_entries_beyond_the_head_are_no_kill(tmp_path: Path) -> None:
    made = begin(tmp_path)
    old = (tmp_path / HEAD).read_bytes()
    made.charge(1, 1)
    made.charge(2, 1)
    (tmp_path / HEAD).write_bytes(old)
    with pytest.raises(UserError, match="line 2: expected 1 entries as in"):
        begin(tmp_path, resume=True)


# --- edits ----------------------------------------------------------------------------------------

Edit = Callable[[random.Random, list[bytes], bytes], tuple[list[bytes], bytes]]


def _another_byte(rng: random.Random, raw: bytes) -> bytes:
    spot = rng.randrange(len(raw))
    return raw[:spot] + bytes([raw[spot] ^ rng.randrange(1, 256)]) + raw[spot + 1 :]


def _byte_of_a_line(rng: random.Random, lines: list[bytes], head: bytes) -> Any:
    i = rng.randrange(len(lines))
    return [*lines[:i], _another_byte(rng, lines[i]), *lines[i + 1 :]], head


def _byte_of_the_head(rng: random.Random, lines: list[bytes], head: bytes) -> Any:
    return lines, _another_byte(rng, head)


def _dropped(rng: random.Random, lines: list[bytes], head: bytes) -> Any:
    i = rng.randrange(len(lines))
    return lines[:i] + lines[i + 1 :], head


def _swapped(rng: random.Random, lines: list[bytes], head: bytes) -> Any:
    i, j = rng.sample(range(len(lines)), 2)
    lines[i], lines[j] = lines[j], lines[i]
    return lines, head


def _doubled(rng: random.Random, lines: list[bytes], head: bytes) -> Any:
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines) + 1)
    return [*lines[:j], lines[i], *lines[j:]], head


def _truncated(rng: random.Random, lines: list[bytes], head: bytes) -> Any:
    content = b"".join(lines)
    return [content[: rng.randrange(len(content))]], head


def _appended(rng: random.Random, lines: list[bytes], head: bytes) -> Any:
    tails = (b"\n", b" ", b"{}\n", b"null\n", b"[" * 5000 + b"\n", b"\xff\n", rng.randbytes(9))
    return [*lines, rng.choice(tails)], head


def _inserted(rng: random.Random, lines: list[bytes], head: bytes) -> Any:
    i, spot = rng.randrange(len(lines)), rng.randrange(len(lines[0]))
    more = rng.choice((b" ", b"\n", b"\t", b"\r", b"0", b'"'))
    return [*lines[:i], lines[i][:spot] + more + lines[i][spot:], *lines[i + 1 :]], head


def _spaced(rng: random.Random, lines: list[bytes], head: bytes) -> Any:
    """The same JSON, written otherwise."""
    i = rng.randrange(len(lines))
    compact = json.dumps(json.loads(lines[i]), separators=(",", ":")).encode() + b"\n"
    return [*lines[:i], compact, *lines[i + 1 :]], head


def _rehashed(rng: random.Random, lines: list[bytes], head: bytes) -> Any:
    """One body changed and every hash after it made right, by who lacks the key."""
    i = rng.randrange(len(lines))
    own = stranger(rng.randrange(256))
    entries = [msgspec.json.decode(line, type=chain.Entry) for line in lines]
    sign = rng.choice(("keep", "own"))
    made: list[chain.Entry] = entries[:i]
    for old in entries[i:]:
        body = {**old.body, "releases": 0} if old.index == i else old.body
        new = chain.entry(made[-1] if made else None, old.kind, body, own)
        kept = msgspec.structs.replace(new, signature=old.signature)
        made.append(new if sign == "own" else kept)
    said = json.loads(head) | {"hash": made[-1].hash}
    forged = f"{chain.canonical(said)}\n".encode()
    return [chain.line(each) for each in made], forged if sign == "keep" else chain.head(made, own)


EDITS: tuple[Edit, ...] = (
    *(_byte_of_a_line, _byte_of_the_head, _dropped, _swapped, _doubled),
    *(_truncated, _appended, _inserted, _spaced, _rehashed),
)


def test_a_thousand_random_edits_are_all_found(written: Path) -> None:
    lines = (written / LOG).read_bytes().splitlines(keepends=True)
    head = (written / HEAD).read_bytes()
    rng, seen = random.Random(0), 0
    while seen < 1000:
        edited, new_head = EDITS[seen % len(EDITS)](rng, list(lines), head)
        if edited == lines and new_head == head:
            continue
        (written / LOG).write_bytes(b"".join(edited))
        (written / HEAD).write_bytes(new_head)
        with pytest.raises(UserError, match="ledger\\."):
            verify_ledger(written)
        seen += 1
    (written / LOG).write_bytes(b"".join(lines))
    (written / HEAD).write_bytes(head)
    assert len(verify_ledger(written)) == 10


_HOSTILE = (
    *(b"1" * 5000, b"1e400", b"NaN", b"-0", b"1E5", b"18446744073709551616", b'"\\ud800"', b"true"),
    *(b"[" * depth + b"]" * depth for depth in (100, 500, 900, 950, 990, 1000, 9000)),
)


@pytest.mark.parametrize("place", [b'"releases": 5', b'"index": 5', b'"body": '])
def test_values_that_no_ledger_has_are_found(written: Path, place: bytes) -> None:
    content = (written / LOG).read_bytes()
    key = place.partition(b":")[0]
    for value in _HOSTILE:
        (written / LOG).write_bytes(content.replace(place, key + b": " + value, 1))
        with pytest.raises(UserError, match=r"ledger\.jsonl, line"):
            verify_ledger(written)


def test_the_line_of_an_edit_is_named(written: Path) -> None:
    lines = (written / LOG).read_bytes().splitlines(keepends=True)
    for i in range(len(lines)):
        edited = lines[i].replace(b'"index": ', b'"index":  ')
        (written / LOG).write_bytes(b"".join([*lines[:i], edited, *lines[i + 1 :]]))
        with pytest.raises(UserError, match=f"line {i + 1}: expected an entry as it was written"):
            verify_ledger(written)


def test_a_missing_entry_is_told_by_its_number(written: Path) -> None:
    lines = (written / LOG).read_bytes().splitlines(keepends=True)
    (written / LOG).write_bytes(b"".join(lines[:3] + lines[4:]))
    with pytest.raises(UserError, match="line 4: expected entry 3, got entry 4"):
        verify_ledger(written)


def test_entries_of_another_ledger_of_the_same_key_are_found(written: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    made = begin(other)
    for number in range(1, 10):
        made.charge(number, 1)
    mine, theirs = (
        (folder / LOG).read_bytes().splitlines(keepends=True) for folder in (written, other)
    )
    shutil.copy(other / HEAD, written / HEAD)
    (written / LOG).write_bytes(b"".join(mine[:4] + theirs[4:]))
    with pytest.raises(UserError, match="line 5: expected the hash of the entry before"):
        verify_ledger(written)


def test_cut_off_entries_are_found_by_the_head(written: Path) -> None:
    lines = (written / LOG).read_bytes().splitlines(keepends=True)
    for kept in range(1, len(lines)):
        (written / LOG).write_bytes(b"".join(lines[:kept]))
        with pytest.raises(UserError, match=f"line {kept + 1}: expected an entry, one of the 10"):
            verify_ledger(written)
        with pytest.raises(UserError, match="one of the 10"):
            begin(written, resume=True)


def test_a_head_of_another_run_is_found(written: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    made = begin(other)
    for number in range(1, 10):
        made.charge(number, 1)
    shutil.copy(other / HEAD, written / HEAD)
    with pytest.raises(UserError, match="the head of this ledger, got that of another one"):
        verify_ledger(written)


def test_a_ledger_that_another_key_signed_is_told_as_such(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = signing.signer().public
    monkeypatch.setenv("LEPTON_KEY_DIR", str(tmp_path / "another"))
    with pytest.raises(UserError, match="no key of this user here; give it by --public-key"):
        verify_ledger(written)
    signing.signer()
    with pytest.raises(UserError, match=f"line 1: .* the unknown key {theirs.hex()[:16]}"):
        verify_ledger(written)
    with pytest.raises(UserError, match="the unknown key"):
        verify_ledger(written, public_key=stranger().public)
    assert len(verify_ledger(written, public_key=theirs)) == 10


@pytest.mark.parametrize("name", [LOG, HEAD])
def test_a_missing_file_is_found(written: Path, name: str) -> None:
    (written / name).unlink()
    with pytest.raises(UserError, match=name.replace(".", "\\.")):
        verify_ledger(written)


def test_an_empty_ledger_is_found(written: Path) -> None:
    (written / LOG).write_bytes(b"")
    with pytest.raises(UserError, match="line 1: expected the entry `begin`, got nothing"):
        verify_ledger(written)


def test_resuming_mends_no_edit(written: Path) -> None:
    lines = (written / LOG).read_bytes().splitlines(keepends=True)
    rng = random.Random(1)
    before = releases(verify_ledger(written))
    for _ in range(100):
        edited, _ = _byte_of_a_line(rng, list(lines), b"")
        (written / LOG).write_bytes(b"".join(edited))
        with pytest.raises(UserError):
            begin(written, resume=True)
    (written / LOG).write_bytes(b"".join(lines))
    assert begin(written, resume=True).charged() == before
