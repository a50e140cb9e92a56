"""What a page is made of: sections of blocks, and how numbers are written in them."""

import math
from typing import NamedTuple

MISSING = "–"


class Bar(NamedTuple):
    """A table's cell with a bar behind its text; `share` in [0, 1] is the bar's length."""

    text: str
    share: float


Cell = str | Bar


class Prose(NamedTuple):
    """A paragraph."""

    text: str
    kind: str = "prose"


class Points(NamedTuple):
    """A short list under a heading."""

    title: str
    items: tuple[str, ...]
    kind: str = "points"


class Tile(NamedTuple):
    """One figure to be seen at a glance; `note` puts it into proportion."""

    label: str
    value: str
    note: str = ""


class Tiles(NamedTuple):
    """Figures side by side."""

    tiles: tuple[Tile, ...]
    kind: str = "tiles"

    @property
    def columns(self) -> int:
        """How many stand in a row where there is room: all of a few, else about half."""
        return len(self.tiles) if len(self.tiles) <= 5 else min(5, -(-len(self.tiles) // 2))


class Table(NamedTuple):
    """A table.

    Attributes:
      caption: what it shows.
      header: a title per column; those after the first `texts` columns hold numbers.
      rows: cells, as many a row as the header has.
      texts: how many columns hold text, to the left; numbers stand to the right.
      fold: whether it is closed until the reader opens it.
      narrow: whether half of the page's width is enough.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    texts: int = 1
    fold: bool = False
    narrow: bool = False
    kind: str = "table"


class Plot(NamedTuple):
    """A drawing: `svg` is our own markup, `alt` says in words what it shows; PNG under `name`."""

    name: str
    svg: str
    caption: str
    alt: str
    narrow: bool = False
    kind: str = "plot"


class Key(NamedTuple):
    """What colours stand for: a CSS colour and a label each."""

    entries: tuple[tuple[str, str], ...]
    kind: str = "key"


class Matrix(NamedTuple):
    """A confusion matrix as a table of counts, shaded by the share of the true class."""

    caption: str
    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    narrow: bool = False
    kind: str = "matrix"

    @property
    def long(self) -> bool:
        """Whether names are too long to stand over their columns unturned."""
        return any(len(name) > 3 for name in self.names)

    def shade(self, row: int, column: int) -> float:
        """In [0, 1]; the root of the share, so that rare mistakes are seen."""
        return math.sqrt(self.counts[row][column] / (sum(self.counts[row]) or 1))


class Picture(NamedTuple):
    """A test image as a data URI, and what the model made of it."""

    uri: str
    label: str
    predicted: str
    confidence: str
    correct: bool


class Gallery(NamedTuple):
    """Test images side by side."""

    pictures: tuple[Picture, ...]
    kind: str = "gallery"


class Code(NamedTuple):
    """Text as it is, under a line that opens it."""

    title: str
    text: str
    kind: str = "code"


Block = Prose | Points | Tiles | Table | Plot | Key | Matrix | Gallery | Code


class Section(NamedTuple):
    """A part of a page; `id` is what the table of contents links to."""

    id: str
    title: str
    blocks: tuple[Block, ...]


class Page(NamedTuple):
    """A whole page; the headline stands above the sections, and warnings above the headline."""

    title: str
    lead: str
    headline: Tiles
    sections: tuple[Section, ...]
    warnings: tuple[str, ...] = ()


# --- numbers --------------------------------------------------------------------------------------


def percent(share: int | float | None) -> str:
    """A share with two decimals.

    >>> percent(0.97123), percent(None)
    ('97.12%', '–')
    """
    return MISSING if share is None else f"{share:.2%}"


def number(value: int | float | None) -> str:
    """Four digits of a number, all of a whole one.

    >>> number(0.123456), number(78186), number(None)
    ('0.1235', '78,186', '–')
    """
    if value is None:
        return MISSING
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def size(count: int | None) -> str:
    """Bytes in the unit that suits them.

    >>> size(999), size(98_312), size(999_999), size(3_400_000_000)
    ('999 B', '98.3 kB', '1000 kB', '3.4 GB')
    """
    if count is None:
        return MISSING
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{float(f'{count / factor:.3g}'):g} {unit}"
    return f"{count} B"


def duration(seconds: int | float) -> str:
    """A time for people.

    >>> duration(8.32), duration(125), duration(7384)
    ('8.3 s', '2 min 5 s', '2 h 3 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def rated(share: float | None) -> Cell:
    """A share as a table's cell with its bar."""
    return MISSING if share is None else Bar(percent(share), share)


def plural(count: int, what: str) -> str:
    """A number of things.

    >>> plural(1, "round"), plural(30, "client")
    ('1 round', '30 clients')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"
