"""A run's account: charges each round or epoch to the ledger, and tells what is spent and left."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from lepton_jax import config_files
from lepton_jax.checks import UserError
from lepton_jax.config import Run
from lepton_jax.privacy.promise import Promise
from lepton_jax.training.card import Outcome, check_marks, checkpoint_marks, write_card
from lepton_jax.training.ledger import open_ledger, read_ledger


class Account(NamedTuple):
    """What a private run keeps books of; of a run that promises nothing, all of it does nothing.

    Attributes:
      charge: number -> None: charges a round or epoch, on disk before it returns.
      affords: number -> whether the budget holds that round or epoch, too.
      after: number -> epsilon after that round or epoch, were it the next; inf without a promise.
      figures: names of raw figures -> what a record says of privacy.
      marks: () -> what a checkpoint says of terms and ledger.
      check: (path of a checkpoint, what it says) -> None: refuses one of other terms or books.
      result: () -> what the run's result says of privacy.
      close: (kind of run, fingerprint of the model, evaluation) -> None: writes the card, and the
        ledger's end.
    """

    charge: Callable[[int], None]
    affords: Callable[[int], bool]
    after: Callable[[int], float]
    figures: Callable[[Sequence[str]], dict[str, Any]]
    marks: Callable[[], dict[str, str]]
    check: Callable[[Path, Mapping[str, Any]], None]
    result: Callable[[], dict[str, Any]]
    close: Callable[[str, str, Mapping[str, Any]], None]


def no_account() -> Account:
    """That of a run which promises nothing."""
    return Account(
        charge=lambda number: None,
        affords=lambda number: True,
        after=lambda number: math.inf,
        figures=lambda names: {},
        marks=lambda: {},
        check=lambda path, host: None,
        result=lambda: {},
        close=lambda kind, params_sha256, evaluation: None,
    )


def open_account(promise: Promise | None, run: Run, folder: Path, *, resume: bool) -> Account:
    """Opens a run's ledger and keeps its books there.

    *Guarantee.* What `spent` says of the ledger's charges is never below what was released: a round
    is charged before it is made. With secure noise a round that is done again is another release,
    and is charged again; a reproducible one is the same release, bit by bit.

    Args:
      promise: what the run promises; None: nothing.
      run: the configuration.
      folder: of the run.
      resume: go on with the ledger that is there.

    Raises:
      UserError: the budget holds not even the first number, noise keeps no finite epsilon, or the
        ledger is damaged or another run's.
    """
    if promise is None:
        return no_account()
    terms, spent = promise.terms, promise.spent
    _refuse_nothing(promise)
    fingerprint = config_files.fingerprint(run)
    ledger = open_ledger(folder, msgspec.to_builtins(terms), fingerprint, resume=resume)
    entries = read_ledger(folder)
    seen = {each["body"]["number"] for each in entries if each["kind"] == "release"}
    repeats = terms.randomness == "reproducible"
    stopped, latest = False, 0

    def cost(number: int) -> int:
        return promise.releases(number, number in seen and not repeats)

    def charge(number: int) -> None:
        nonlocal latest
        ledger.charge(number, cost(number))
        seen.add(number)
        latest = number

    def after(number: int) -> float:
        done = number in seen and repeats
        return spent(ledger.charged() + (0 if done else cost(number)))

    def affords(number: int) -> bool:
        nonlocal stopped
        stopped = terms.budget is not None and after(number) > terms.budget
        return not stopped

    def figures(names: Sequence[str]) -> dict[str, Any]:
        # A reproducible run tells after each number what it would have told uninterrupted.
        earlier = (promise.releases(number, False) for number in range(1, latest + 1))
        told = {
            "epsilon": spent(sum(earlier) if repeats and latest else ledger.charged()),
            "delta": terms.delta,
            "randomness": terms.randomness,
            "not_private": list(names),
        }
        return told | ({"hypothetical": True} if terms.hypothetical else {})

    def result() -> dict[str, Any]:
        return {
            "epsilon": spent(ledger.charged()),
            "delta": terms.delta,
            "noise_multiplier": terms.noise_multiplier,
            "randomness": terms.randomness,
            "hypothetical": terms.hypothetical or None,
            "not_private": list(terms.not_private),
            "stopped": "budget" if stopped else None,
        }

    def close(kind: Any, params_sha256: str, evaluation: Mapping[str, Any]) -> None:
        if stopped:
            ledger.note("stop", reason="budget")
        epsilon = spent(ledger.charged())
        write_card(folder, terms, ledger, Outcome(run, kind, epsilon, params_sha256, evaluation))

    return Account(
        charge,
        affords,
        after,
        figures,
        marks=lambda: checkpoint_marks(terms, ledger),
        check=lambda path, host: check_marks(path, host, terms, ledger),
        result=result,
        close=close,
    )


def _refuse_nothing(promise: Promise) -> None:
    """Refuses noise that promises nothing, and a budget that holds no release."""
    terms, spent = promise.terms, promise.spent
    first = spent(max(1, promise.releases(1, False)))
    if first == math.inf:
        raise UserError(
            "noise multiplier",
            f"one that keeps epsilon finite at delta = {terms.delta}",
            terms.noise_multiplier,
            "raise it; `lepton privacy noise` tells how far",
        )
    if terms.budget is not None and first > terms.budget:
        raise UserError(
            "epsilon",
            f"at least {first:.4g}, which the first release spends",
            terms.budget,
            "raise the noise multiplier or epsilon",
        )
