"""From runs to a page's HTML and the PNG files of its plots."""

from collections.abc import Sequence

from lepton_jax.report import comparison, federation, headline, page, phone, plots, results, style
from lepton_jax.report.blocks import Page, Tile, Tiles
from lepton_jax.report.files import RunFiles
from lepton_jax.report.lookup import look_up
from lepton_jax.report.privacy import privacy

Document = tuple[str, dict[str, bytes]]


def of_run(files: RunFiles) -> Document:
    """The page on one run: its HTML, and PNG files by name."""
    found = look_up(files)
    figures = plots.of_run(files, found.classes)
    svgs = {name: style.svg(figure, name) for name, figure in figures.items()}
    sections = (
        *results.curves(files, svgs),
        *results.classes(files, found, svgs),
        *results.samples(files, found),
        *federation.served(files, svgs),
        *federation.held(files, found, svgs),
        *federation.traffic(files),
        *privacy(files, svgs),
        *phone.section(files),
        results.configuration(files),
    )
    tiles = Tiles(headline.tiles(files, found))
    made = Page(files.config.name, headline.lead(files), tiles, sections)
    return page.render(made), {name: style.png(figure) for name, figure in figures.items()}


def of_runs(runs: Sequence[RunFiles]) -> Document:
    """The page that compares runs: its HTML, and PNG files by name."""
    names = plots.titles(runs)
    found = [look_up(files) for files in runs]
    figures = comparison.drawings(runs, names)
    svgs = {name: style.svg(figure, name) for name, figure in figures.items()}
    sections = comparison.sections(runs, found, names, svgs)
    tiles = Tiles(tuple(_summary(files, name) for files, name in zip(runs, names, strict=True)))
    made = Page("Comparison", f"{len(runs)} runs side by side.", tiles, sections)
    return page.render(made), {name: style.png(figure) for name, figure in figures.items()}


def _summary(files: RunFiles, name: str) -> Tile:
    accuracy = f"{files.result.test_accuracy:.2%}" if files.result else "unfinished"
    return Tile(name, accuracy, headline.lead(files))
