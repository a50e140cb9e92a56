"""A small private run's folder, as it stands when it has ended, without any training."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import msgspec

from lepton_jax import config, config_files, trees
from lepton_jax.privacy import accounting
from lepton_jax.privacy.terms import Terms
from lepton_jax.training.card import Outcome, checkpoint_marks, write_card
from lepton_jax.training.checkpoints import open_checkpoints
from lepton_jax.training.ledger import Ledger, open_ledger
from lepton_jax.training.records import append, write_json, write_text
from lepton_jax.training.runs import Result
from lepton_jax.typing import Variables

ROUNDS = 3
EVALUATION = {
    "test": {"accuracy": 0.75, "loss": 0.5, "examples": 40},
    "regions": [
        {"region": "north", "clients": 6, "examples": 9, "loss": 0.4, "accuracy": 0.8, "f1_macro": 0.7},
        {"region": "south", "clients": 4, "examples": 0, "loss": None, "accuracy": None, "f1_macro": None},
    ],
}  # fmt: skip


def make_terms(**changes: Any) -> Terms:
    """DP-FedAvg with central noise over Poisson cohorts; RDP, which answers at once."""
    fields: dict[str, Any] = {
        "unit": "client",
        "adjacency": "add-remove",
        "mechanism": "gaussian",
        "noise_multiplier": 1.5,
        "clip_norm": 0.1,
        "sampler": "poisson",
        "sampling_rate": 0.2,
        "delta": 1e-5,
        "accountant": "rdp",
        "accountant_version": accounting.accountant_version(),
        "randomness": "secure",
        "trust": "the server adds the noise",
        "covers": ("the model after each round",),
        "not_private": ("training loss",),
    }
    return Terms(**{**fields, **changes})


def make_config() -> config.Run:
    return config.Run(name="private", federated=config.Federated(rounds=ROUNDS))


def make_variables(number: int) -> Variables:
    return Variables({"bias": jnp.full(4, number, jnp.float32)}, {"mean": jnp.float32(number)})


def begin(folder: Path, terms: Terms, *, resume: bool = False) -> Ledger:
    """Config and ledger."""
    folder.mkdir(exist_ok=True)
    run = make_config()
    write_text(folder / "config.toml", config_files.dumps(run))
    fingerprint = config_files.fingerprint(run)
    return open_ledger(folder, msgspec.to_builtins(terms), fingerprint, resume=resume)


def go_to(folder: Path, terms: Terms, ledger: Ledger, last: int) -> None:
    """Charges, records and checkpoints of the rounds that are missing, as a simulation leaves them."""
    spent = accounting.spending(terms)
    with open_checkpoints(folder / "checkpoints", keep=2) as checkpoints:
        for number in range(1, last + 1):
            ledger.charge(number, 1)
            append(folder / "metrics.jsonl", {"round": number, "epsilon": spent(ledger.charged())})
            host = {"round": number, **checkpoint_marks(terms, ledger)}
            checkpoints.save(number, make_variables(number)._asdict(), host, None)


def end(folder: Path, terms: Terms, ledger: Ledger, **changes: Any) -> str:
    """Card and result; the card's hash. `changes` are of the outcome."""
    fields: dict[str, Any] = {
        "run": make_config(),
        "kind": "simulate",
        "epsilon": accounting.spending(terms)(ledger.charged()),
        "params_sha256": trees.sha256(make_variables(ROUNDS)),
        "evaluation": EVALUATION,
    }
    outcome = Outcome(**{**fields, **changes})
    sha256 = write_card(folder, terms, ledger, outcome)
    result = Result(
        run="private",
        kind="simulate",
        test_accuracy=0.75,
        test_loss=0.5,
        steps=None,
        rounds=ROUNDS,
        seconds=1.0,
        images_per_second=1.0,
        params_sha256=outcome.params_sha256,
        epsilon=outcome.epsilon,
        delta=terms.delta,
        noise_multiplier=terms.noise_multiplier,
        randomness=terms.randomness,
        hypothetical=terms.hypothetical or None,
        not_private=list(terms.not_private),
    )
    write_json(folder / "result.json", result.to_json())
    return sha256


def make_run(folder: Path, **changes: Any) -> Terms:
    """A finished run in a new folder; its terms."""
    terms = make_terms(**changes)
    ledger = begin(folder, terms)
    go_to(folder, terms, ledger, ROUNDS)
    end(folder, terms, ledger)
    return terms
