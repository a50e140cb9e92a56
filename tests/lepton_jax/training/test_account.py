"""The account of a private run: every release counted once or more, and told with what it is."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lepton_jax import config
from lepton_jax.checks import UserError
from lepton_jax.privacy.promise import Promise
from lepton_jax.privacy.terms import Terms
from lepton_jax.training.account import Account, open_account
from lepton_jax.training.ledger import read_ledger


def three_if_again(number: int, again: bool) -> int:
    return 3 if again else 1


def a_promise(
    releases: Callable[[int, bool], int] = three_if_again, price: float = 0.5, **changes: Any
) -> Promise:
    """A release costs `price`; one that is done again counts as three."""
    given: dict[str, Any] = {
        "unit": "client",
        "adjacency": "add-remove",
        "mechanism": "gaussian",
        "noise_multiplier": 2.0,
        "clip_norm": 1.0,
        "sampler": "cyclic",
        "pass_length": 3,
        "delta": 1e-5,
        "accountant": "rdp",
        "accountant_version": "",
        "randomness": "secure",
        "trust": "",
        "covers": (),
        "not_private": ("train", "clients"),
    }
    return Promise(Terms(**(given | changes)), lambda count: price * count, releases)


def opened(folder: Path, *, resume: bool = False, **changes: Any) -> Account:
    return open_account(a_promise(**changes), config.Run(), folder, resume=resume)


def test_a_record_tells_epsilon_and_names_what_no_noise_protects(tmp_path: Path) -> None:
    account = opened(tmp_path)
    account.charge(1)
    account.charge(2)
    told = {"epsilon": 1.0, "delta": 1e-5, "randomness": "secure"}
    assert account.figures(("train", "stages")) == told | {"not_private": ["train", "stages"]}
    assert account.result() == told | {
        "noise_multiplier": 2.0,
        "hypothetical": None,
        "not_private": ["train", "clients"],
        "stopped": None,
    }


def test_a_hypothetical_epsilon_is_called_so_wherever_it_is_told(tmp_path: Path) -> None:
    account = opened(tmp_path, hypothetical=True)
    account.charge(1)
    assert account.figures(())["hypothetical"] is True
    assert account.result()["hypothetical"] is True


def test_a_secure_round_done_again_costs_what_its_promise_says(tmp_path: Path) -> None:
    for number in (1, 2):
        opened(tmp_path, resume=number == 2).charge(number)
    account = opened(tmp_path, resume=True)
    assert account.after(2) == 0.5 * (2 + 3) and account.after(3) == 0.5 * 3
    account.charge(2)
    assert account.figures(())["epsilon"] == 0.5 * 5
    account.charge(2)
    assert account.figures(())["epsilon"] == 0.5 * 8


def test_a_reproducible_round_done_again_is_the_same_release(tmp_path: Path) -> None:
    opened(tmp_path, randomness="reproducible").charge(1)
    account = opened(tmp_path, resume=True, randomness="reproducible")
    assert account.after(1) == 0.5
    account.charge(1)
    account.charge(2)
    assert account.figures(())["epsilon"] == 1.0


def test_a_budget_holds_what_just_fits_and_nothing_beyond(tmp_path: Path) -> None:
    account = opened(tmp_path, budget=1.0)
    for number in (1, 2):
        assert account.affords(number)
        account.charge(number)
    assert account.result()["stopped"] is None
    assert not account.affords(3)
    assert account.result()["stopped"] == "budget"


def test_what_a_killed_round_was_charged_leaves_less_of_the_budget(tmp_path: Path) -> None:
    opened(tmp_path, budget=1.0).charge(1)
    account = opened(tmp_path, resume=True, budget=1.0)
    assert not account.affords(1) and account.affords(2)


@pytest.mark.parametrize(("price", "place"), [(math.inf, "noise multiplier"), (2.0, "epsilon")])
def test_a_promise_that_its_first_release_breaks_is_refused(
    price: float, place: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"^{place}: expected"):
        opened(tmp_path, budget=1.0, price=price)
    assert not read_ledger(tmp_path)


def test_a_run_that_promises_nothing_keeps_no_books(tmp_path: Path) -> None:
    account = open_account(None, config.Run(), tmp_path, resume=False)
    account.charge(1)
    assert account.affords(1) and account.after(1) == math.inf
    assert account.figures(("train",)) == account.result() == account.marks() == {}
    assert not list(tmp_path.iterdir())
