"""What the command line shows: progress on stderr, figures and tables on stdout."""

import errno
import json as json_module
import os
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_jax.checks import UserError, one_line

if TYPE_CHECKING:
    from lepton_jax.training.runs import Progress, Result
    from lepton_jax.training.verify import Verified

_BROKEN_PIPE = 128 + 13  # as shells tell of a process that SIGPIPE ended
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def show(progress: "Generator[Progress, None, Result]") -> "Result":
    """Runs to the end behind a progress bar on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.fields[unit]} {task.completed}/{task.total}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[figures]}"),
        TextColumn("eta"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None, unit="", figures="starting")
        while True:
            try:
                now = next(progress)
            except StopIteration as end:
                return end.value
            figures = (
                f"loss {now.loss:.4f}  accuracy {now.accuracy:.2%}  "
                f"{now.images_per_second:,.0f} images/s  {now.note}"
            )
            bar.update(task, completed=now.done, total=now.total, unit=now.unit, figures=figures)


@contextmanager
def one_line_errors(program: str) -> Iterator[None]:
    """Ends the process with one line on stderr where the user made a mistake: exit code 2.

    Where nobody reads on, as behind `| head`, it ends in silence, as other tools do.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack a label's letters
    try:
        try:
            try:
                yield
            finally:
                _tell("")
        except UserError as error:
            note(f"{program}: {error}")
            raise SystemExit(2) from None
        except OSError as error:
            if error.errno not in _FULL:
                raise
            where = f"{error.filename}: " if error.filename else ""
            note(f"{program}: {where}{error.strerror}; make room, then go on with --resume")
            raise SystemExit(2) from None
    except BrokenPipeError:
        _drop_output()
        raise SystemExit(_BROKEN_PIPE) from None


def note(line: str) -> None:
    """Tells something on stderr, where progress goes."""
    print(line, file=sys.stderr, flush=True)


def say(figures: dict[str, Any], json: bool, text: str) -> None:
    """Ends a verb on stdout: its figures as one JSON object, or as text for people."""
    _tell((json_module.dumps(figures) if json else text) + "\n")


def _tell(text: str) -> None:
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_output()
        raise UserError("stdout", "room for what is told", error.strerror) from error


def _drop_output() -> None:
    """What is still to be written goes nowhere: Python would complain of it at its end."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
            continue
        with suppress(AttributeError, OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def summary(result: "Result") -> str:
    """One line on how a run ended."""
    how = f"{result.rounds} rounds" if result.kind == "simulate" else f"{result.steps} steps"
    line = (
        f"{result.run}: test accuracy {result.test_accuracy:.2%}, loss {result.test_loss:.4f} "
        f"after {how} in {result.seconds:.0f} s ({result.images_per_second:,.0f} images/s"
    )
    if result.seconds_to_first_step is not None:
        line += f", first step after {result.seconds_to_first_step:.1f} s"
    line += ")"
    if result.epsilon is not None:
        name = "hypothetical epsilon" if result.hypothetical else "epsilon"
        line += f", {name} {result.epsilon:.3f} at delta {result.delta:g}"
    if result.stopped is not None:
        line += f", stopped by its {result.stopped}"
    if result.randomness == "reproducible":
        line += "; reproducible noise, not for release"
    if result.rounds_to_target is not None:
        line += f", target reached in round {result.rounds_to_target}"
    return line


def evaluation(figures: dict[str, Any]) -> str:
    """The headline figures of an evaluation, and those of its regions and clients."""
    test = figures["test"]
    names = ("accuracy", "top5_accuracy", "loss", "precision_macro", "recall_macro", "f1_macro")
    lines = [f"{name:<16} {test[name]:.4f}" for name in names]
    if "regions" in figures:
        lines += ["", table(figures["regions"])]
    spread = figures.get("client_percentiles", {}).get("accuracy")  # withheld where policies are
    if spread:
        lines += ["", "accuracy over clients"]
        lines += [f"{name:<16} {value:.4f}" for name, value in spread.items()]
    return "\n".join(lines)


def verification(run: Path, found: "Verified") -> str:
    """What was verified of a private run, after what has to be seen first."""
    from lepton_jax.privacy.card import HYPOTHETICAL

    epsilon = "hypothetical epsilon" if HYPOTHETICAL in found.stamps else "epsilon"
    state = "finished" if found.finished else "not finished"
    lines = [
        *found.stamps,
        f"{run}: nothing was changed; {state}",
        f"{found.entries} ledger entries, {found.releases:,} releases charged, head {found.head}",
        f"{epsilon} {found.epsilon:.4f} at delta {found.delta:g}, told anew from the ledger",
        f"{found.checkpoints} checkpoints, signed by {found.public_key}",
    ]
    return "\n".join(lines)


def phone_figures(run: Path, figures: dict[str, Any]) -> dict[str, Any]:
    """What `--json` tells of an export: `latency_ms` is the median of one image."""
    kept = ("name", "file", "bytes", "max_abs_diff", "top1_agreement", "accuracy")
    variants = [
        {
            **{key: each[key] for key in kept},
            "latency_ms": each["latency_ms"]["median"],
            "pareto": each["pareto"],
            "within_tolerance": each["within_tolerance"],
        }
        for each in figures["variants"]
    ]
    return {"run": str(run), "converter": figures["converter"], "variants": variants}


def phone_table(figures: dict[str, Any]) -> str:
    """The variants of an export, a row each; those that no other one beats have a star."""
    rows = [
        {
            "name": each["name"],
            "bytes": each["bytes"],
            "accuracy": each["accuracy"],
            "as JAX": each["top1_agreement"],
            "worst region": _worst(each["groups"]),
            "latency_ms": each["latency_ms"]["median"],
            "best": "*" if each["pareto"] else "",
            "gates": "passed" if each["within_tolerance"] else "FAILED, kept all the same",
        }
        for each in figures["variants"]
    ]
    if not any(row["worst region"] for row in rows):
        rows = [{key: row[key] for key in row if key != "worst region"} for row in rows]
    lines = [table(rows), f"converted by {figures['converter']}"]
    if "training" in figures:
        told = figures["training"]
        lines.append(f"{told['file']} trains on a phone: {', '.join(told['signatures'])}")
    return "\n".join(lines)


def _worst(groups: dict[str, Any] | None) -> str:
    worst = groups and groups["worst_region"]
    return f"{worst['name']} {-100 * worst['loss'] + 0.0:+.2f} points" if worst else ""


def listing(figures: dict[str, Any]) -> str:
    """Nested figures, a line each; what a file says of itself neither ends one nor steers the terminal."""
    lines = []
    for key, value in figures.items():
        name = one_line(str(key))
        if isinstance(value, dict):
            lines += [name, *(f"  {line}" for line in listing(value).splitlines())]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            rows = (" ".join(map(str, each.values())) for each in value)
            lines += [name, *(f"  {one_line(row)}" for row in rows)]
        else:
            told = (
                ", ".join(map(_cell, map(str, value))) if isinstance(value, list) else _cell(value)
            )
            lines.append(f"{name}: {told}")
    return "\n".join(lines)


def audit(figures: dict[str, Any]) -> str:
    """An audit's gates, a row each, and its estimates."""
    rows = [
        {
            "audit": gate["audit"],
            "of": gate["mechanism"],
            "gate": gate["name"],
            **_bounds(gate),
            "passed": "yes" if gate["passed"] else "NO",
        }
        for gate in figures["gates"]
    ]
    estimates = [
        f"estimate {name}: {_cell(each)}" for name, each in figures["estimates"].items() if each
    ]
    promised = table(rows) if rows else str(figures["promised"])
    return "\n".join([promised, "", *estimates])


def _bounds(gate: dict[str, Any]) -> dict[str, Any]:
    """What a gate found, and what it holds that against."""
    match gate["audit"]:
        case "step":
            return {"found": f"mu >= {gate['mu']:.3f}", "promised": f"<= {gate['promised_mu']:.3f}"}
        case "noise":
            return {"found": f"deviation <= {gate['at_most']:.3f}", "promised": ">= 1"}
        case _:
            found, promised = gate["epsilon"], gate["promised_epsilon"]
            most = "infinite" if promised is None else f"<= {promised:.3f}"
            return {"found": f"epsilon >= {found:.3f}", "promised": most}


def table(rows: list[dict[str, Any]]) -> str:
    """Plain columns, numbers to the right."""
    if not rows:
        return "nothing"
    names = list(rows[0])
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    numeric = [isinstance(rows[0][name], int | float) for name in names]
    return "\n".join(
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in cells
    )


def _cell(value: Any) -> str:
    match value:
        case float():
            return f"{value:.4g}"
        case int():
            return f"{value:,}"
        case list() | tuple():
            return " ".join(_cell(each) for each in value)
        case dict():
            return " ".join(f"{key}:{_cell(each)}" for key, each in value.items())
        case _:
            return "-" if value is None else one_line(str(value))
