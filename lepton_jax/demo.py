"""The whole path on embedded real data: central, federated, phone models, report."""

import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple

from federated import simulate
from federated.groups import groups_of
from lepton_jax.config_files import load
from lepton_jax.export import export
from lepton_jax.report import report
from lepton_jax.training import train
from lepton_jax.training.runs import Progress, Result, finish


class Demo(NamedTuple):
    """What the demo made.

    Attributes:
      central: how centralized training ended.
      federated: how federated training ended.
      phone: the central model's `export.json`.
      page: the report that compares both.
    """

    central: Result
    federated: Result
    phone: dict
    page: Path


def demo(
    out: Path,
    *,
    show: Callable[[Generator[Progress, None, Result]], Result] = finish,
    note: Callable[[str], None] = print,
) -> Demo:
    """Trains ResNet-8 on the digits in one place and over 3 regions, exports, checks and reports.

    Args:
      out: the folder of the runs; an older demo there is replaced.
      show: runs a training to its end, for example behind a progress bar.
      note: is told each stage as it begins.

    Returns:
      What was made.

    Raises:
      UserError: `out` can't be written, or an extra is not installed.
    """
    central, together = out / "central", out / "federated"
    for folder in (central, together):
        if (folder / "config.toml").is_file():
            shutil.rmtree(folder)
    note("1/4 ResNet-8, all data in one place")
    first = show(train(load("digits_central"), central))
    note("2/4 ResNet-8, 30 unequal clients in 3 regions, each keeping its data")
    second = show(simulate(load("digits_federated"), together))
    note("3/4 phone models, each checked against JAX")
    phone = export(central)
    export(together, groups=groups_of)
    note("4/4 report")
    for folder in (central, together):
        report([folder])
    return Demo(first, second, phone, report([central, together], out / "report.html"))
