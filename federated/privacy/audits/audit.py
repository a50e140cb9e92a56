"""The audit of a config or of a finished run: gates by valid bounds, and estimates by attacks."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from federated.privacy.audits import attacks, picture
from federated.privacy.audits.canaries import (
    CanaryRun,
    client_canaries,
    estimate,
    example_canaries,
)
from federated.privacy.audits.mechanisms import Mechanism, of_clients, of_examples
from federated.privacy.audits.noise import noise_audit
from federated.privacy.audits.one_run import canary_scores, one_run_audit
from federated.privacy.audits.step import step_audit
from federated.privacy.promise import promise
from federated.sampling import make_sampler
from lepton_jax import config, config_files
from lepton_jax.data.load import load
from lepton_jax.data.splits import Splits
from lepton_jax.training.card import CARD, add_audit
from lepton_jax.training.private_run import private_promise
from lepton_jax.training.records import write_bytes, write_json
from lepton_jax.training.runs import SavedRun, load_run

REPORT, PICTURE = "audit.json", "inversion.png"
NOTHING = "nothing is promised: the config has no noise"
Json = dict[str, Any]


class _Subject(NamedTuple):
    """A mechanism, the canaries of a whole run of it where there are some, and at which delta."""

    mechanism: Mechanism
    canaries: CanaryRun | None
    delta: float


def audit(
    target: str | Path,
    *,
    overrides: tuple[str, ...] = (),
    out: Path | None = None,
    seed: int = 0,
) -> Json:
    """Attacks what a config promises or what a finished run has left.

    *Guarantee.* Each kind of gate fails a correct mechanism with a probability of at most 1 %. What
    is called an estimate is none: neither an upper nor a lower bound.

    | target                     | gates                         | estimates                          |
    |----------------------------|-------------------------------|------------------------------------|
    | a config with noise        | step, noise, one run          | canaries, inversion                |
    | a config without noise     | none: nothing is promised     | inversion                          |
    | a finished run             | likewise, by its kind         | likewise, and membership           |
    | a model with BatchNorm,    |                               | no inversion, and why              |
    | large images or models     |                               |                                    |

    Args:
      target: a run folder, a bundled config's name or a TOML file.
      overrides: of a config, as of `config_files.load`.
      out: a folder for `audit.json` and `inversion.png`, which leaves a run as it is; None: the run
        folder, whose card then tells of the audit, or for a config none.
      seed: of all that is drawn for the audit, but for noise of the system's entropy.

    Returns:
      What is written as `audit.json`; `passed` is whether every gate was.

    Raises:
      UserError: no such config or run, an extra is missing, or the run's card is damaged or was
        signed with another key.
    """
    picture.check_drawing()
    saved = load_run(Path(target)) if Path(target).is_dir() else None
    run = saved.config if saved else config_files.load(target, overrides)
    splits = load(run.data)
    subjects = _subjects(run, saved, splits, seed)
    gates = [gate for subject in subjects for gate in _gates(subject, seed)]
    seen = attacks.inversion_of(run, splits, _noise(run, subjects), seed)
    report: Json = _plain(
        {
            "audited": str(target),
            "kind": saved.kind if saved else "config",
            "promised": [_promised(each) for each in subjects] or NOTHING,
            "gates": gates,
            "estimates": _estimates(subjects, saved, splits, seed)
            | {"inversion_decibels": attacks.summary(seen)},
            "passed": all(gate["passed"] for gate in gates),
        }
    )
    folder = out or (saved.folder if saved else None)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / REPORT, report)
        if not isinstance(seen, str):
            write_bytes(folder / PICTURE, picture.picture(seen))
    if saved is not None and out is None and (saved.folder / CARD).exists():
        add_audit(saved.folder, {key: value for key, value in report.items() if key != "audited"})
    return report


def _estimates(subjects: list[_Subject], saved: SavedRun | None, splits: Splits, seed: int) -> Json:
    """Epsilon by the canaries, and of a finished run membership inference."""
    found: Json = {
        "canaries": {
            each.mechanism.name: estimate(each.canaries)._asdict()
            for each in subjects
            if each.canaries is not None
        }
    }
    if saved is None:
        return found
    told = attacks.membership_of(saved, splits, seed)
    attacked = {"loss": told.loss._asdict(), "likelihood": told.likelihood._asdict()}
    return {**found, "membership": {**told._asdict(), **attacked}}


def _subjects(run: config.Run, saved: SavedRun | None, splits: Splits, seed: int) -> list[_Subject]:
    """The mechanisms of a config, or of that of its two halves which a run used."""
    found = []
    central, count = run.train.privacy, len(splits.train.labels)
    if central is not None and (saved is None or saved.kind == "train"):
        multiplier = private_promise(run, count).terms.noise_multiplier
        rate = min(1.0, run.train.batch_size / count)
        mechanism = of_examples(central, multiplier, batch_size=run.train.batch_size)
        canaries = example_canaries(run, multiplier, rate=rate, seed=seed)
        found.append(_Subject(mechanism, canaries, central.delta))
    if saved is not None and saved.kind == "train":
        return found
    federated, local = run.federated, run.federated.example_privacy
    if federated.noise is not None:
        found.append(_Subject(of_clients(run), client_canaries(run, seed=seed), federated.delta))
    if local is not None and isinstance(federated.batch_size, int):
        promised = promise(federated, make_sampler(federated, run.seed), 0.0)
        if promised is not None:
            mechanism = of_examples(
                msgspec.structs.replace(local, randomness="secure"),  # on a grid in either case
                promised.terms.noise_multiplier,
                batch_size=federated.batch_size,
                name="federated.example_privacy",
            )
            found.append(_Subject(mechanism, None, local.delta))
    return found


def _gates(subject: _Subject, seed: int) -> list[Json]:
    mechanism, canaries, delta = subject
    common = {"mechanism": mechanism.name}
    steps = step_audit(mechanism, delta=delta, seed=seed)
    gates = [{**common, "audit": "step", **each._asdict(), "passed": each.passed} for each in steps]
    gates += [
        {**common, "audit": "noise", **each._asdict(), "passed": each.passed}
        for each in noise_audit(mechanism, seed=seed)
    ]
    if canaries is not None:
        one = one_run_audit(
            canary_scores(canaries),
            canaries.included,
            promised_epsilon=canaries.promised_epsilon,
            delta=canaries.delta,
        )
        gates.append(
            {
                **common,
                "audit": "one run",
                "name": "canaries",
                **one._asdict(),
                "passed": one.passed,
            }
        )
    return gates


def _promised(subject: _Subject) -> Json:
    mechanism = subject.mechanism
    return {
        "mechanism": mechanism.name,
        "unit": mechanism.unit,
        "noise_multiplier": mechanism.multiplier,
        "delta": subject.delta,
    }


def _noise(run: config.Run, subjects: list[_Subject]) -> tuple[float, float] | None:
    """The clip norm of one gradient, and the noise multiplier, of the first mechanism."""
    if not subjects:
        return None
    mechanism = subjects[0].mechanism
    for name, privacy in (
        ("train.privacy", run.train.privacy),
        ("federated.example_privacy", run.federated.example_privacy),
    ):
        if mechanism.name == name and privacy is not None:
            return privacy.clip_norm, mechanism.multiplier
    # An update of one step is the gradient times the learning rate.
    norms = [getattr(each, "max_norm", math.inf) for each in run.federated.stages]
    norms += [getattr(each, "initial", math.inf) for each in run.federated.stages]
    return min(norms) / run.federated.client.learning_rate, mechanism.multiplier


def _plain(value: Any) -> Any:
    """JSON has no infinity."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
