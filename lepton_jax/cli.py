"""The command line `lepton`: each verb is one public function away, and `--json` ends in one object.

Nothing heavy is imported before a verb needs it, so that `lepton --help` answers at once.
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from lepton_jax import __version__, console, phone_verbs, privacy_verbs
from lepton_jax.arguments import Config, Folder, Json, Out, Resume, Set, Target, parsed
from lepton_jax.checks import UserError, suggestion

if TYPE_CHECKING:
    from lepton_jax.config import Run

# --- the verbs ------------------------------------------------------------------------------------


def train(
    config: Positional[Config],
    /,
    out: Out = None,
    resume: Resume = False,
    set_: Set = (),
    target_accuracy: Target = None,
    json: Json = False,
) -> None:
    """Train a CNN or ResNet on one machine.

    Example: lepton train mnist_cnn --set train.epochs=2
    """
    run = _configure(config, set_)
    _start_jax()
    from lepton_jax.training import train as training

    folder = out or Path("runs") / run.name
    result = console.show(training(run, folder, resume=resume, target_accuracy=target_accuracy))
    console.say(result.to_json(), json, console.summary(result))


def simulate(
    config: Positional[Config],
    /,
    out: Out = None,
    resume: Resume = False,
    set_: Set = (),
    target_accuracy: Target = None,
    devices: Annotated[bool, arg(help="clients are TFLite interpreters, as on phones")] = False,
    json: Json = False,
) -> None:
    """Train across client and region shards; raw data stay where they are.

    Example: lepton simulate digits_federated --set federated.rounds=5
    """
    run = _configure(config, set_)
    _start_jax()
    import federated

    begin = federated.simulate_on_devices if devices else federated.simulate
    folder = out or Path("runs") / run.name
    result = console.show(begin(run, folder, resume=resume, target_accuracy=target_accuracy))
    console.say(result.to_json(), json, console.summary(result))


def evaluate(run: Positional[Folder], /, json: Json = False) -> None:
    """Measure a finished run; a federated one by client and region too.

    Example: lepton evaluate runs/digits_federated
    """
    _start_jax()
    from federated import evaluate_run

    figures = evaluate_run(run)
    console.say({"run": str(run), **figures}, json, console.evaluation(figures))


def report(
    runs: Positional[Annotated[tuple[Path, ...], arg(help="run folders", metavar="RUN...")]],
    /,
    out: Annotated[Path | None, arg(help="the page to write", metavar="HTML")] = None,
    json: Json = False,
) -> None:
    """Write one self-contained page for a run, or a comparison of several.

    Example: lepton report runs/digits_central runs/digits_federated
    """
    if not runs:
        raise UserError("report", "at least one run folder", "none", "lepton report runs/NAME")
    from lepton_jax.report import report as reporting

    page = reporting(runs, out)
    console.say({"report": str(page), "runs": [str(run) for run in runs]}, json, f"wrote {page}")


def models(
    name: Positional[Annotated[str | None, arg(help="a preset", metavar="NAME")]] = None,
    /,
    image: Annotated[tuple[int, int, int] | None, arg(metavar="H W F", help="image shape")] = None,
    classes: Annotated[int, arg(help="number of classes", metavar="K")] = 10,
    json: Json = False,
) -> None:
    """List the models, or show one's layers, parameters and multiply-adds.

    Example: lepton models resnet20
    """
    from lepton_jax import models as catalogue
    from lepton_jax.config import Model

    if name is None:
        rows = [catalogue.describe(each)._asdict() for each in catalogue.names()]
        console.say({"models": rows}, json, console.table(rows))
        return
    shape = image or catalogue.describe(name).image_shape
    summary = catalogue.summary(Model(name=name), shape, classes)
    rows = [row._asdict() for row in summary.rows]
    total = {"parameters": summary.parameters, "multiply_adds": summary.multiply_adds}
    figures = {"model": name, "image_shape": list(shape), "classes": classes, **total}
    footer = (
        f"{total['parameters']:,} parameters, {total['multiply_adds']:,} multiply-adds an image"
    )
    console.say({**figures, "layers": rows}, json, f"{console.table(rows)}\n{footer}")


def data_list(json: Json = False) -> None:
    """List the data sets that are ready here.

    Example: lepton data list
    """
    from lepton_jax.data import available

    rows = [each._asdict() for each in available()]
    console.say({"data": rows}, json, console.table(rows))


def data_prepare(
    name: Positional[Annotated[str, arg(help="a TFDS name, such as mnist", metavar="NAME")]],
    /,
    data_dir: Annotated[
        Path | None, arg(help="default: TFDS_DATA_DIR, else TFDS' own", metavar="DIR")
    ] = None,
    json: Json = False,
) -> None:
    """Download and prepare a TFDS image set.

    Example: lepton data prepare mnist
    """
    from lepton_jax.data import prepare

    folder = prepare(name, data_dir)
    console.say({"name": name, "path": str(folder)}, json, f"prepared {folder}")


def data_partition(config: Positional[Config], /, set_: Set = (), json: Json = False) -> None:
    """Show what each client of a federated run holds, by counts.

    Example: lepton data partition digits_federated
    """
    run = _configure(config, set_)
    from federated import shards
    from lepton_jax import data

    splits = data.load(run.data)
    clients = shards.partition(run.federated, splits.train, splits.info)
    rows = shards.describe(clients, splits.train.labels, splits.info)
    console.say({"clients": rows}, json, console.table(rows))


def demo(
    out: Annotated[Path, arg(help="folder of the runs", metavar="DIR")] = Path("runs/demo"),
    json: Json = False,
) -> None:
    """Train centrally and federated on embedded digits, export, check, report.

    Example: lepton demo
    """
    _start_jax()
    from lepton_jax.demo import demo as demonstration

    shown = demonstration(out, show=console.show, note=console.note)
    figures = {
        "central": shown.central.to_json(),
        "federated": shown.federated.to_json(),
        "export": console.phone_figures(out / "central", shown.phone),
        "report": str(shown.page),
    }
    lines = [
        console.summary(shown.central),
        console.summary(shown.federated),
        console.phone_table(shown.phone),
        f"wrote {shown.page}",
    ]
    console.say(figures, json, "\n".join(lines))


# --- what the verbs share -------------------------------------------------------------------------


def _configure(config: str, overrides: tuple[str, ...]) -> "Run":
    from lepton_jax.config_files import load

    return load(config, overrides)


def _start_jax() -> None:
    from lepton_jax.startup import start_jax

    start_jax()


# --- the roof -------------------------------------------------------------------------------------


VERBS: dict[str, Callable[..., None]] = {
    "train": train,
    "simulate": simulate,
    "evaluate": evaluate,
    "export": phone_verbs.export,
    "inspect": phone_verbs.inspect,
    "report": report,
    "models": models,
    "data list": data_list,
    "data prepare": data_prepare,
    "data partition": data_partition,
    "privacy epsilon": privacy_verbs.epsilon,
    "privacy noise": privacy_verbs.noise,
    "privacy policy": privacy_verbs.policy,
    "privacy verify": privacy_verbs.verify,
    "privacy audit": privacy_verbs.audit,
    "demo": demo,
}


def main() -> None:
    """Parses the command line and runs one verb."""
    try:
        with console.one_line_errors("lepton"):
            _run(sys.argv[1:])
    except KeyboardInterrupt:
        console.note("lepton: interrupted; what is checkpointed is kept: go on with --resume")
        raise SystemExit(130) from None


def _run(words: list[str]) -> None:
    if words in ([], ["--help"], ["-h"], ["help"]):
        print(_help())
    elif words == ["--version"]:
        print(f"lepton-jax {__version__}")
    else:
        _run_verb(words)


def _run_verb(words: list[str]) -> None:
    length = 2 if " ".join(words[:2]) in VERBS else 1
    verb, rest = " ".join(words[:length]), words[length:]
    if verb not in VERBS:
        if rest in (["--help"], ["-h"]) and _inside(verb):
            print(_help(_inside(verb)))
            return
        raise _unknown(verb)
    parsed(VERBS[verb], verb, rest)()


def _inside(group: str) -> list[str]:
    """The verbs of a group, such as those of `data`."""
    return [verb for verb in VERBS if verb.startswith(f"{group} ")]


def _help(verbs: Iterable[str] = VERBS) -> str:
    lines = [(f"  {verb:<16}", (VERBS[verb].__doc__ or "").splitlines()[0]) for verb in verbs]
    return "\n".join(
        [
            f"lepton-jax {__version__}: vision models, trained centrally or federated, for phones",
            "",
            "usage: lepton VERB ... (lepton VERB --help tells more; --json ends in one object)",
            "",
            *(name + what for name, what in lines),
            "",
            "Example: lepton train digits_central --set train.epochs=3 --out runs/mine",
        ]
    )


def _unknown(verb: str) -> UserError:
    known = _inside(verb) or list(VERBS)
    remedy = suggestion(verb, known, "see lepton --help")
    return UserError("lepton", f"one of {', '.join(known)}", repr(verb), remedy)


if __name__ == "__main__":
    main()
