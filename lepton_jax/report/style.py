"""How plots look: one style, figures without pyplot's state, SVG that follows the page's theme."""

import re
from collections.abc import Callable
from io import BytesIO
from typing import Any, TypeVar

import matplotlib.style
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

Drawing = TypeVar("Drawing", bound=Callable[..., Any])

# Okabe and Ito (2008): told apart by people with any kind of colour vision.
BLUE, ORANGE, GREEN, PINK = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
AMBER, SKY = "#e69f00", "#56b4e9"
SERIES = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY)
# Tol (2021), "muted": ten classes side by side.
CLASSES = (
    *("#332288", "#88ccee", "#44aa99", "#117733", "#999933"),
    *("#ddcc77", "#cc6677", "#882255", "#aa4499", "#bbbbbb"),
)
INK, MUTED, LINE, SURFACE = "#1b2026", "#5a6472", "#dfe3e8", "#ffffff"
_THEME = {  # what the page's CSS calls these colours
    **{INK: "ink", MUTED: "muted", LINE: "line", SURFACE: "surface"},
    **{colour: f"series-{i}" for i, colour in enumerate(SERIES)},
    **{colour: f"class-{i}" for i, colour in enumerate(CLASSES)},
}

_FONT = "DejaVu Sans"  # comes with Matplotlib, so that a plot looks the same everywhere
_RC: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "figure.facecolor": SURFACE,
    "font.family": _FONT,
    "font.size": 9,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "lines.linewidth": 2.0,
    "lines.markersize": 4.5,
    "lines.solid_capstyle": "round",
    "savefig.facecolor": SURFACE,
    "svg.fonttype": "none",  # text stays text: searchable, and in the reader's own fonts
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$a$"
    "xtick.color": MUTED,
    "xtick.labelsize": 8.5,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.color": MUTED,
    "ytick.labelsize": 8.5,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}
_DPI = 180


def styled(function: Drawing) -> Drawing:
    """Draws in the house style, whatever the reader's own matplotlibrc says."""
    return matplotlib.style.context(["default", _RC])(function)


def figure(width: float = 4.6, height: float = 2.8) -> Figure:
    """An empty figure of so many inches, known to nobody else."""
    made = Figure(figsize=(width, height))
    FigureCanvasAgg(made)
    return made


def percents(axis: Any) -> None:
    """Labels an axis of shares in percent."""
    axis.set_major_formatter(PercentFormatter(1))


def whole(axis: Any) -> None:
    """Puts an axis' ticks on whole numbers."""
    axis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))


def logarithmic(axes: Axes) -> None:
    """A logarithmic y axis with plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def label(name: str, fallback: str) -> str:
    """A user's word as the plot's font can draw it, cut to 18 characters; else the fallback.

    >>> label("cat", "class 3"), label("猫", "class 3"), label("_cat", "class 3")
    ('cat', 'class 3', 'class 3')
    """
    known = font_manager.get_font(font_manager.findfont(_FONT)).get_charmap()
    drawable = name.isprintable() and all(ord(letter) in known for letter in name)
    if not drawable or name.startswith("_"):  # which Matplotlib keeps out of legends
        return fallback
    return name if len(name) <= 18 else f"{name[:17]}…"


@styled
def svg(drawn: Figure, name: str) -> str:
    """A figure as an SVG element to stand in a page, whose CSS variables colour it.

    Args:
      drawn: the figure.
      name: of it; ids in the markup depend on nothing else, and differ between figures of a page.
    """
    buffer = BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": name}):
        drawn.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # nothing refers to them, and figures share them
    text = re.sub(
        r'<svg .*?viewBox="([^"]*)".*?>', r'<svg viewBox="\1">', text, count=1, flags=re.DOTALL
    )
    for colour, variable in _THEME.items():
        text = text.replace(f": {colour}", f": var(--{variable})")
    return text


@styled
def png(drawn: Figure) -> bytes:
    """A figure as a PNG file's content, without the date and version that would tell runs apart."""
    buffer = BytesIO()
    drawn.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()
