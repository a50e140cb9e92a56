"""Flatbuffers read within bounds: damaged or hostile bytes cost little and raise ValueError alone.

The generated readers follow whatever offsets a file holds. Here every access is checked against the
content's end, and what may be visited and copied in all is limited, since tables may be shared: a
small file could else spell out a huge tree.
"""

import struct
from typing import NamedTuple

VISITS = 1_000_000  # tables, texts and numbers; ResNet-50 has about 10,000
TEXT_BYTES = 2**16


class Budget:
    """What may still be read of a content; `spend` raises ValueError where it is used up."""

    def __init__(self, size: int) -> None:
        self.visits, self.copied = VISITS, 2**20 + size

    def spend(self, visits: int = 1, copied: int = 0) -> None:
        """Takes off `visits` and bytes to be `copied`."""
        self.visits -= visits
        self.copied -= copied
        if self.visits < 0 or self.copied < 0:
            raise ValueError("more in it than its size can hold")


class Table(NamedTuple):
    """A table of a flatbuffer, its fields by slot, as the schema numbers them from 0.

    Attributes:
      content: all of the flatbuffer.
      at: where the table starts.
      budget: of all the content's tables together.
    """

    content: bytes
    at: int
    budget: Budget

    def number(self, slot: int, form: str = "<i", default: float = 0) -> int:
        """A scalar field; `form` is a struct's, of a whole number."""
        place = _field(self, slot)
        return int(default) if place is None else _unpack(self, form, place)

    def text(self, slot: int) -> str:
        """A string field, "" where it is missing."""
        return _text(self, *_vector(self, slot, 1))

    def texts(self, slot: int) -> tuple[str, ...]:
        """A field of strings."""
        return tuple(_text(self, *_span(self, place, 1)) for place in _offsets(self, slot))

    def data(self, slot: int) -> bytes:
        """A vector of bytes."""
        start, count = _vector(self, slot, 1)
        self.budget.spend(copied=count)
        return self.content[start : start + count]

    def length(self, slot: int) -> int:
        """How many bytes a vector of them has."""
        return _vector(self, slot, 1)[1]

    def numbers(self, slot: int, form: str = "<i") -> tuple[int, ...]:
        """A vector of whole numbers; `form` is a struct's."""
        return _scalars(self, slot, form)

    def reals(self, slot: int) -> tuple[float, ...]:
        """A vector of float32."""
        return _scalars(self, slot, "<f")

    def table(self, slot: int) -> "Table | None":
        """A table in a field, None where it is missing."""
        place = _field(self, slot)
        return None if place is None else _follow(self, place)

    def tables(self, slot: int) -> "tuple[Table, ...]":
        """A vector of tables."""
        return tuple(_follow(self, place) for place in _offsets(self, slot))


def root(content: bytes, identifier: bytes) -> Table:
    """The root table of a flatbuffer.

    Args:
      content: bytes of any origin.
      identifier: of the schema, four bytes.

    Raises:
      ValueError: it has another identifier, or ends before its root; so do the table's functions
        where an offset leads outside.
    """
    if content[4:8] != identifier:
        raise ValueError(f"no flatbuffer {identifier.decode()}")
    return _follow(Table(content, 0, Budget(len(content))), 0)


def _unpack(table: Table, form: str, place: int) -> int:
    table.budget.spend()
    if not 0 <= place <= len(table.content) - struct.calcsize(form):
        raise ValueError(f"an offset to byte {place} of {len(table.content)}")
    return struct.unpack_from(form, table.content, place)[0]


def _follow(table: Table, place: int) -> Table:
    return Table(table.content, place + _unpack(table, "<I", place), table.budget)


def _field(table: Table, slot: int) -> int | None:
    """Where a field is: the table starts with the way back to its list of fields."""
    fields = table.at - _unpack(table, "<i", table.at)
    entry, size = 4 + 2 * slot, _unpack(table, "<H", fields)
    if size < 4:
        raise ValueError(f"no table at byte {table.at}")
    if entry + 2 > size:
        return None
    offset = _unpack(table, "<H", fields + entry)
    return table.at + offset if offset else None


def _vector(table: Table, slot: int, size: int) -> tuple[int, int]:
    """Where a vector's elements of `size` bytes start, and how many there are."""
    place = _field(table, slot)
    return (0, 0) if place is None else _span(table, place, size)


def _span(table: Table, place: int, size: int) -> tuple[int, int]:
    start = place + _unpack(table, "<I", place)
    count = _unpack(table, "<I", start)
    if start + 4 + count * size > len(table.content):
        raise ValueError(f"{count} elements beyond the end")
    return start + 4, count


def _scalars(table: Table, slot: int, form: str) -> tuple:
    start, count = _vector(table, slot, struct.calcsize(form))
    table.budget.spend(count)
    return struct.unpack_from(f"<{count}{form[-1]}", table.content, start) if count else ()


def _text(table: Table, start: int, count: int) -> str:
    if count > TEXT_BYTES:
        raise ValueError(f"a text of {count} bytes")
    table.budget.spend(copied=count)
    return table.content[start : start + count].decode("utf-8")


def _offsets(table: Table, slot: int) -> range:
    """Where the offsets stand that a vector of tables or of texts is made of."""
    start, count = _vector(table, slot, 4)
    return range(start, start + 4 * count, 4)
