"""The story of `lepton report`: run folders in, one page and its plots out."""

from collections.abc import Sequence
from pathlib import Path

from lepton_jax.checks import UserError
from lepton_jax.report.files import read


def report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Writes a page on a run, or one that compares several; beside a run's its privacy card, if any.

    The same folders give the same bytes. A run that is not finished, or not exported, has a page
    without those sections.

    Args:
      folders: of runs, at least one.
      out: the HTML file; its plots go to a folder `plots` beside it. None: `report.html` in the
        run's folder, `comparison.html` here for several runs.

    Returns:
      The page's path.

    Raises:
      UserError: no run folder, a damaged file, the extra `report` is not installed, or `out` can't
        be written.
    """
    _check(folders)
    runs = [read(folder) for folder in folders]
    from lepton_jax.report import card, document  # matplotlib and jinja2 are optional

    alone = len(runs) == 1
    path = out or (folders[0] / "report.html" if alone else Path("comparison.html"))
    page, plots = document.of_run(runs[0]) if alone else document.of_runs(runs)
    try:
        folder = path.parent / "plots"
        _no_link(folder).mkdir(parents=True, exist_ok=True)
        for name, content in plots.items():
            _no_link(folder / f"{name}.png").write_bytes(content)
        _no_link(path).write_text(page, encoding="utf-8")
        shown = card.read_card(folders[0]) if alone else None
        if shown is not None:
            _no_link(path.parent / card.PAGE).write_text(card.card_page(shown), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {path}", "a file to write", error.strerror or "an error") from error
    return path


def _no_link(path: Path) -> Path:
    """The same path, where a link was removed: a run folder of others may lead out by one."""
    if path.is_symlink():
        path.unlink()
    return path


def _check(folders: Sequence[Path]) -> None:
    if not folders:
        raise UserError("report", "at least one run folder", "none", "lepton report runs/NAME")
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(
            "report", "jinja2 and matplotlib", str(error), "pip install 'lepton-jax[report]'"
        ) from error
