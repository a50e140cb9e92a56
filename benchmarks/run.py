"""Measures lepton-jax beside its peers: `python -m benchmarks.run W2 --against torch,pfl --json`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from benchmarks import secure, special, table
from benchmarks.job import images, write_job
from benchmarks.measure import rehearse, say, take_turns
from benchmarks.result import OURS, make_result
from benchmarks.sides import Side, python_of, variants
from benchmarks.workloads import Workload, choose_peers, find
from lepton_jax.checks import UserError
from lepton_jax.console import one_line_errors


def main(arguments: Sequence[str]) -> None:
    """Runs the workloads one after another; with `--json` each leaves one line on stdout.

    Raises:
      UserError: an unknown name, a peer without an environment, or a runner that died.
    """
    options = _parse(arguments)
    plans = [(name, choose_peers(name, options.against)) for name in options.workloads]
    for _, chosen in plans:
        for peer in chosen:
            python_of(peer)
    for name, chosen in plans:
        say(f"--- {name}: {', '.join((OURS, *chosen))}")
        result = {**measure(name, chosen, options.repetitions), "command": _command(arguments)}
        print(table.text(result), file=sys.stderr if options.json else sys.stdout)
        if options.json:
            print(json.dumps(result), flush=True)


def measure(name: str, chosen: tuple[str, ...], repetitions: int) -> dict[str, Any]:
    """One workload's result, as `benchmarks.result` says."""
    match name:
        case "cold-start":
            return special.cold_start(chosen, repetitions)
        case "clients":
            return special.clients(repetitions)
        case "roofline":
            return special.roofline(repetitions)
        case "secure-aggregation" | "secure-aggregation-dropouts":
            return secure.secure_sums(name, chosen, repetitions)
        case "secure-aggregation-large":
            return secure.large_sums(repetitions)
    return contest(find(name), chosen, repetitions)


def contest(workload: Workload, chosen: tuple[str, ...], repetitions: int) -> dict[str, Any]:
    """lepton-jax and the chosen peers in turns, on the same job."""
    work, rounds = images(workload), 1 + repetitions * workload.rounds
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_job(folder, workload, rounds)
        sides = [
            Side(each, variant, folder, workload.rounds, work)
            for each in (OURS, *chosen)
            for variant in variants(each)
        ]
        rehearse(sides[0])
        outcomes = take_turns(sides, repetitions)
    return make_result(workload.name, "images_per_second", outcomes, rounds=rounds, images=work)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, like everything else here."""

    def error(self, message: str) -> NoReturn:
        raise UserError("benchmarks.run", "arguments as in --help", message)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("workloads", nargs="+", metavar="WORKLOAD", help="see benchmarks/README.md")
    parser.add_argument(
        "--against", metavar="PEER,...", help="torch where it takes part, by default"
    )
    parser.add_argument("--repetitions", type=int, default=7, metavar="N", help="of each side: 7")
    parser.add_argument("--json", action="store_true", help="end stdout with a JSON line each")
    options = parser.parse_args(arguments)
    if options.repetitions < 1:
        raise UserError("--repetitions", "a whole number of at least 1", options.repetitions)
    return options


def _command(arguments: Sequence[str]) -> str:
    return " ".join(["python -m benchmarks.run", *arguments])


if __name__ == "__main__":
    with one_line_errors("benchmarks"):
        main(sys.argv[1:])
