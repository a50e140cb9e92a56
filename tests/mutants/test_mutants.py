"""Every seeded privacy bug is noticed: by a test, the audit, a refusal or a type.

Each bug is put into a copy of the source, and what is to notice it runs there, alone. That it finds
nothing in the copy without the bug is seen, too.
"""

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.mutants import account_bugs, book_bugs, border_bugs, client_bugs, example_bugs
from tests.mutants.mutant import Audit, Law, Mutant, Refusal
from tests.mutants.source import ROOT, Source

_TABLES = (example_bugs, client_bugs, account_bugs, book_bugs, border_bugs)
MUTANTS = tuple(each for table in _TABLES for each in table.BUGS)
_AT_ONCE = 2
# What ends a test at once is no sign that it notices the bug: the mutant itself is broken.
_BROKEN = re.compile(
    r"(ModuleNotFound|Import|Name|Syntax|Indentation|Attribute|UnboundLocal)Error|fixture"
)
Outcomes = dict[str, tuple[int, str]]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """What became of each bug that was asked for: they are tried two at a time."""
    names = [getattr(item, "callspec", None) for item in request.session.items]
    asked = [each.params["mutant"] for each in names if each and "mutant" in each.params]
    return _tried(asked, tmp_path_factory.mktemp("source"))


def _tried(mutants: Iterable[Mutant], folder: Path) -> Outcomes:
    free: SimpleQueue[Source] = SimpleQueue()

    def attempt(mutant: Mutant) -> tuple[str, tuple[int, str]]:
        source = free.get()
        try:
            source.change(mutant)
            return mutant.bug, source.catch(mutant.caught_by)
        finally:
            source.restore(mutant)
            free.put(source)

    with Source(folder / "one") as one, Source(folder / "two") as two:
        for each in (one, two):
            free.put(each)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return dict(pool.map(attempt, mutants))


def test_there_are_enough_and_none_is_out_of_date() -> None:
    assert len(MUTANTS) >= 30 and len({each.bug for each in MUTANTS}) == len(MUTANTS)
    for each in MUTANTS:
        found = (ROOT / each.file).read_text().count(each.text)
        assert found == 1, f"out of date: {each.bug}: its text stands {found} times in {each.file}"
        assert each.text != each.instead


@pytest.mark.slow
def test_what_is_to_notice_them_finds_nothing_without_them(tmp_path: Path) -> None:
    catchers = {each.caught_by for each in MUTANTS}
    nodes = sorted(each.node for each in catchers if isinstance(each, Law))
    with Source(tmp_path / "source") as source:
        status, said = source.test(*nodes)
        assert status == 0, said
        for each in catchers:
            if not isinstance(each, Law):
                status, said = source.catch(each)
                assert status == 0 and not (isinstance(each, Audit) and said.strip()), said


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.bug)
def test_a_seeded_bug_is_noticed(mutant: Mutant, outcomes: Outcomes) -> None:
    status, said = outcomes[mutant.bug]
    by = mutant.caught_by
    if isinstance(by, Audit):
        assert status == 0, f"the mutant is broken\n{said}"
        assert said.strip(), "survived the audit"
        return
    assert status == 1, f"survived, or {by} didn't run\n{said}"
    if isinstance(by, Law):
        (told,) = re.findall(r"^FAILED \S.*? - (.*)$", said, re.MULTILINE)
        assert not _BROKEN.match(told), f"the mutant is broken\n{said}"
    else:
        words = f"UserError: {by.words}" if isinstance(by, Refusal) else by.words
        assert words in said, said
