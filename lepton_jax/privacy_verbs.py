"""The verbs of `lepton privacy`: figures for noise, and what a run's promise is worth."""

from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from lepton_jax import console
from lepton_jax.arguments import Folder, Json, Set

Accountant = Literal["pld", "rdp"]
Adjacency = Annotated[
    Literal["add-remove", "replace-one"], arg(help="what two neighbours differ by")
]
Delta = Annotated[float, arg(help="probability that the guarantee fails", metavar="D")]
Rate = Annotated[
    float, arg(help="chance that a client or an example takes part in a step", metavar="Q")
]
Steps = Annotated[int, arg(help="number of rounds or steps", metavar="T")]


def epsilon(
    sampling_rate: Rate,
    noise_multiplier: Annotated[float, arg(help="noise / sensitivity", metavar="S")],
    steps: Steps,
    delta: Delta = 1e-5,
    accountant: Accountant = "pld",
    adjacency: Adjacency = "add-remove",
    json: Json = False,
) -> None:
    """Tell the epsilon that some noise gives.

    Example: lepton privacy epsilon --sampling-rate 0.01 --noise-multiplier 1 --steps 1000
    """
    from lepton_jax.privacy import accounting

    asked: dict[str, Any] = {
        "noise_multiplier": noise_multiplier,
        "sampling_rate": sampling_rate,
        "steps": steps,
        "delta": delta,
        "accountant": accountant,
        "adjacency": adjacency,
    }
    found = accounting.epsilon(**asked)
    console.say({"epsilon": found, **asked}, json, f"epsilon {found:.4f} at delta {delta:g}")


def noise(
    epsilon: Annotated[float, arg(help="the target", metavar="E")],
    sampling_rate: Rate,
    steps: Steps,
    delta: Delta = 1e-5,
    accountant: Accountant = "pld",
    adjacency: Adjacency = "add-remove",
    json: Json = False,
) -> None:
    """Tell the least noise multiplier that keeps a target epsilon.

    Example: lepton privacy noise --epsilon 2 --sampling-rate 0.01 --steps 1000
    """
    from lepton_jax.privacy import accounting

    asked: dict[str, Any] = {
        "epsilon": epsilon,
        "sampling_rate": sampling_rate,
        "steps": steps,
        "delta": delta,
        "accountant": accountant,
        "adjacency": adjacency,
    }
    found = accounting.noise_multiplier(**asked)
    console.say({"noise_multiplier": found, **asked}, json, f"noise multiplier {found:.4f}")


def audit(
    target: Positional[Annotated[str, arg(help="a run folder or a config", metavar="RUN|CONFIG")]],
    /,
    out: Annotated[Path | None, arg(help="default: the run folder", metavar="DIR")] = None,
    set_: Set = (),
    json: Json = False,
) -> None:
    """Attack a run or a config: gates by valid bounds, and estimates; exit code 1 if a gate fails.

    Example: lepton privacy audit runs/digits_federated
    """
    from lepton_jax.startup import start_jax

    start_jax()
    from federated.privacy.audits import audit as attack

    found = attack(target, overrides=set_, out=out)
    console.say(found, json, console.audit(found))
    failed = [f"{gate['audit']} ({gate['name']})" for gate in found["gates"] if not gate["passed"]]
    if failed:
        console.note(f"lepton: the audit failed: {', '.join(failed)}")
        raise SystemExit(1)


def policy(
    path: Positional[Annotated[Path, arg(help="policies, or one of them", metavar="FOLDER|FILE")]],
    /,
    json: Json = False,
) -> None:
    """Check what may leave each region, and show it.

    Example: lepton privacy policy policies
    """
    from msgspec import to_builtins

    from federated.policy import read_policies

    rows = [to_builtins(policy) for policy in read_policies(path).values()]
    console.say({"policies": rows}, json, console.table(rows))


def verify(
    run: Positional[Folder],
    /,
    public_key: Annotated[
        str | None, arg(help="of who ran it, from the card (default: this user's)", metavar="HEX")
    ] = None,
    json: Json = False,
) -> None:
    """Check a private run's ledger, card, checkpoints and epsilon.

    Example: lepton privacy verify runs/digits_private
    """
    from lepton_jax.startup import start_jax

    start_jax()
    from lepton_jax.training.verify import public_key_of, verify_run

    key = None if public_key is None else public_key_of(public_key)
    found = verify_run(run, public_key=key)
    console.say({"run": str(run), **found._asdict()}, json, console.verification(run, found))
