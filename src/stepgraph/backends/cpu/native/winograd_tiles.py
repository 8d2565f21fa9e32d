"""Tiles of a map for Winograd's method: which there are, where they lie, which places they need.

The last tile of an odd map hangs over its end. Only the first row of its output exists, to which
the last row of places adds nothing, and the weight gradient's dY is zero there. If what it reads
ends after the first row too, as in the gradient of a convolution without padding, it fills the
first row of places alone: B^T (a, 0, 0, 0) = (a, 0, 0, 0). Likewise across. So each place has a
*slot* for every tile that needs it, and its product is that much smaller.

What a tile touches is asked for while the tile above it is at work: maps come from the third-level
cache or from memory, in lines too far apart for the processor to foresee.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepgraph.backends.cpu.native.emit import Function, Pointer, Value
from stepgraph.backends.cpu.native.layout import greatest
from stepgraph.backends.cpu.native.product import PANEL
from stepgraph.backends.cpu.native.value import f32, i64, vector

Square = list[list[Value]]
# Kinds of the four rows (columns) of places: a tile needs both in the middle or neither.
_ALIKE = (0, 1, 1, 2)


@dataclass(frozen=True)
class Tile:
    """A 2 x 2 tile of the output.

    Attributes:
        image: which.
        row: its first.
        column: its first.
        slots: for every place, how many tiles before this one need it.
        needed: for every place, whether this one does.
    """

    image: Value
    row: Value
    column: Value
    slots: list[Value]
    needed: list[Value]


class Tiles:
    """Goes over consecutive tiles of a map, image by image, row by row; counts who needs what."""

    def __init__(self, f: Function, x: Any, first: Value) -> None:
        self.f, self.x = f, x
        per_image = x.tiles_y * x.tiles_x
        image = first // per_image
        rest = first - image * per_image
        row = rest // x.tiles_x
        self.image, self.row = f.variable(image), f.variable(row)
        self.column = f.variable(rest - row * x.tiles_x)
        self.slots = [[f.variable(f.index(0)) for _ in range(3)] for _ in range(3)]

    def now(self) -> Tile:
        """The tile at hand."""
        image, row, column = self.image.get(), self.row.get() * 2, self.column.get() * 2
        needed = self._needed()
        slots = [self.slots[i][j].get() for i in _ALIKE for j in _ALIKE]
        return Tile(image, row, column, slots, [needed[i][j] for i in _ALIKE for j in _ALIKE])

    def _needed(self) -> list[list[Value]]:
        """Whether the tile at hand needs the places of each kind: rows, columns."""
        x = self.x
        by_axis = []
        for at, tiles, needed in (
            (self.row, x.tiles_y, x.needed_y),
            (self.column, x.tiles_x, x.needed_x),
        ):
            inner = at.get() + 1 < tiles
            by_axis.append([inner | (needed > number) for number in (0, 1, 3)])
        return [[row & column for column in by_axis[1]] for row in by_axis[0]]

    def advance(self) -> None:
        """Moves on by one."""
        f, x = self.f, self.x
        for slots, row in zip(self.slots, self._needed(), strict=True):
            for slot, needed in zip(slots, row, strict=True):
                slot.set(slot.get() + f.cast(needed, i64))
        column = self.column.get() + 1
        wrapped = column == x.tiles_x
        self.column.set(f.select(wrapped, f.index(0), column))
        row = self.row.get() + f.cast(wrapped, i64)
        below = row == x.tiles_y
        self.row.set(f.select(below, f.index(0), row))
        self.image.set(self.image.get() + f.cast(below, i64))

    def store_counts(self, to: Pointer) -> None:
        """Writes how many tiles need each place, at least 1.

        Where none does, the first slot holds what the last tile would have there: zeros times
        numbers that exist.
        """
        for place, (i, j) in enumerate((i, j) for i in _ALIKE for j in _ALIKE):
            (to + place).store(greatest(self.f, self.slots[i][j].get(), 1))


class Window:
    """Addresses of a square of positions of a map, where those outside have one of their own.

    Where a window crosses a border, an address outside is replaced by that of `elsewhere` (zeros to
    be read, a place to be written and forgotten); nothing branches on single places.
    """

    def __init__(
        self, f: Function, size: tuple[Value, Value], tile: Tile, shift: tuple[Value | int, ...],
        side: int, elsewhere: Pointer,
    ) -> None:  # fmt: skip
        self.f, self.elsewhere, self.side = f, elsewhere, side
        height, width = size
        self.width = width
        top, left = tile.row - shift[0], tile.column - shift[1]
        rows = [(top + i >= 0) & (top + i < height) for i in range(side)]
        columns = [(left + j >= 0) & (left + j < width) for j in range(side)]
        start = ((tile.image * height + top) * width + left) * PANEL
        self.inside = [[row & column for column in columns] for row in rows]
        self.whole = rows[0] & rows[-1] & columns[0] & columns[-1]
        self.below = start + (side * PANEL * width)
        self.offset = [[start + (width * i + j) * PANEL for j in range(side)] for i in range(side)]

    def inner(self, base: Pointer) -> list[list[Pointer]]:
        """The same where all are inside."""
        rows = [base + row[0] for row in self.offset]
        return [[row + j * PANEL for j in range(self.side)] for row in rows]

    def either(self, body: Any) -> None:
        """Emits the body for windows inside as a whole and for others; hands it its addresses."""
        self.f.if_else(self.whole, lambda: body(self.inner), lambda: body(self.places))

    def prefetch(self, base: Pointer, *, write: bool = False) -> None:
        """Asks for what the tile below touches and this one does not."""
        for row in range(2):
            for column in range(self.side - 2, self.side):
                line = base + (self.below + (self.width * row + column) * PANEL)
                line.prefetch(write=write)

    def places(self, base: Pointer) -> list[list[Pointer]]:
        """Addresses within the panel that starts at `base`."""
        return [
            [
                (base + self.offset[i][j]).select(self.inside[i][j], self.elsewhere)
                for j in range(self.side)
            ]
            for i in range(self.side)
        ]


def transform_tiles(
    f: Function,
    x: Any,
    tiles: tuple[Value, Value],
    source: tuple[Pointer, Value, Value, tuple[Value, Value], tuple[Value | int, ...]],
    to: tuple[Pointer, Value | int, Value | int, Value],
    transform: tuple[Any, int, int],
    counts: Pointer,
) -> None:
    """Reads the tiles of a map, panel by panel, and writes what a transform makes of each.

    Args:
        f: the function.
        x: has ``tiles_y`` and ``tiles_x``.
        tiles: the first, and how many.
        source: first panel of the map, floats between panels, number of panels, height and width,
            and by how many rows and columns a tile starts before its output tile.
        to: where the first tile's first place goes, floats between tiles, panels, places.
        transform: a function of a square of vectors, its side, and lanes of the vectors.
        counts: where to write how many tiles each place has.
    """
    base, base_panel, panels, size, shift = source
    target, to_tile, to_panel, to_place = to
    make, side, lanes = transform
    zeros = f.stack(f32, PANEL)
    zeros.store(f.constant(vector(f32, PANEL), 0.0))
    walk = Tiles(f, x, tiles[0])
    with f.loop(0, tiles[1], nonempty=True):
        tile = walk.now()
        window = Window(f, size, tile, shift, side, zeros)
        # A tile that does not need a place writes where the next that does will.
        slots = [
            target + (to_place * number + slot * to_tile) for number, slot in enumerate(tile.slots)
        ]

        def transformed(places: Any) -> None:
            with f.loop(0, panels, nonempty=True) as panel:
                start = base + panel * base_panel
                at = places(start)
                window.prefetch(start)
                for lane in range(0, PANEL, lanes):
                    square = [[(one + lane).load(lanes) for one in row] for row in at]
                    values = [value for row in make(square) for value in row]
                    for slot, value in zip(slots, values, strict=True):
                        (slot + (panel * to_panel + lane)).store(value)

        window.either(transformed)
        walk.advance()
    walk.store_counts(counts)
