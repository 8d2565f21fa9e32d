"""Tiles of a map for Winograd's method: which there are, where they lie, which places they need.

The last tile of an odd map hangs over its end. Only the first row of its output exists, to which
the last row of places adds nothing, and the weight gradient's dY is zero there. If what it reads
ends after the first row too, as in the gradient of a convolution without padding, it fills the
first row of places alone: B^T (a, 0, 0, 0) = (a, 0, 0, 0). Likewise across.

So tiles are taken in an order in which those that need a place stand together, whichever it is,
and its product leaves the others out: first, of all images, those that hang over the lower end
alone; then those that do not hang; then those over the right end alone; then the corners.

What a tile touches is asked for while the tile above it is at work: maps come from the third-level
cache or from memory, in lines too far apart for the processor to foresee.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepgraph.backends.cpu.native.emit import Function, Pointer, Value
from stepgraph.backends.cpu.native.layout import greatest, least
from stepgraph.backends.cpu.native.product import PANEL
from stepgraph.backends.cpu.native.value import f32, i64, vector
from stepgraph.backends.cpu.native.winograd_shapes import PLACES

Square = list[list[Value]]


@dataclass(frozen=True)
class Tile:
    """A 2 x 2 tile of the output.

    Attributes:
        image: which.
        row: its first.
        column: its first.
        hangs: whether it hangs over the lower end, and over the right one.
    """

    image: Value
    row: Value
    column: Value
    hangs: tuple[Value, Value]


class Regions:
    """How many tiles there are of each kind; what every walk and every range is made from."""

    def __init__(self, f: Function, x: Any) -> None:
        self.f, self.x = f, x
        # Rows (columns) of tiles that hang over the end, and the others.
        self.over = [f.cast(needed < 4, i64) for needed in (x.needed_y, x.needed_x)]
        self.inner = [x.tiles_y - self.over[0], x.tiles_x - self.over[1]]
        down, right = self.over
        high, wide = self.inner
        self.ends = [x.images * down * wide]
        for size in (high * wide, high * right, down * right):
            self.ends.append(self.ends[-1] + x.images * size)

    def store_ranges(self, first: Value, count: Value, starts: Pointer, counts: Pointer) -> None:
        """Writes which of some tiles need each place: from where on, and how many, at least 1.

        Where none does, one is taken that gives zeros there.
        """
        f, x = self.f, self.x
        lower, plain, right, end = self.ends
        for place in range(PLACES):
            i, j = divmod(place, 4)
            # Whether tiles that hang down, or to the right, leave this place out.
            down, across = x.needed_y <= i, x.needed_x <= j
            low = f.select(down, lower, 0) - first
            high = f.select(across, plain, f.select(down, right, end)) - first
            start = least(f, greatest(f, low, 0), count - 1)
            (starts + place).store(start)
            (counts + place).store(greatest(f, least(f, high, count) - start, 1))


class Tiles:
    """Goes over consecutive tiles: region by region, image by image, row by row."""

    def __init__(self, f: Function, regions: Regions, first: Value) -> None:
        self.f, self.regions, self.number = f, regions, f.variable(first)
        zero, no = f.index(0), f.index(0) > 0
        self.image, self.row, self.column = (f.variable(zero) for _ in range(3))
        self.top, self.bottom, self.left, self.right = (f.variable(zero) for _ in range(4))
        self.end = f.variable(zero)
        self.hangs = f.variable(no), f.variable(no)
        self._enter()

    def _enter(self) -> None:
        """Finds the region and the place of the tile whose number it is."""
        f, regions, number = self.f, self.regions, self.number.get()
        lower, plain, right, end = regions.ends
        down = (number < lower) | (number >= right)
        across = number >= plain
        start = f.select(across, f.select(down, right, plain), f.select(down, f.index(0), lower))
        self.end.set(f.select(across, f.select(down, end, right), f.select(down, lower, plain)))
        borders, sizes = [], []
        for over, inner, hangs in zip(regions.over, regions.inner, (down, across), strict=True):
            borders.append(f.select(hangs, inner, 0))
            # At least 1: behind the last tile there is no region.
            sizes.append(greatest(f, f.select(hangs, over, inner), 1))
        line = (number - start) // sizes[1]
        image = line // sizes[0]
        self.image.set(image)
        self.row.set(borders[0] + line - image * sizes[0])
        self.column.set(borders[1] + number - start - line * sizes[1])
        self.top.set(borders[0])
        self.bottom.set(borders[0] + sizes[0])
        self.left.set(borders[1])
        self.right.set(borders[1] + sizes[1])
        for variable, hangs in zip(self.hangs, (down, across), strict=True):
            variable.set(hangs)

    def now(self) -> Tile:
        """The tile at hand."""
        hangs = (self.hangs[0].get(), self.hangs[1].get())
        return Tile(self.image.get(), self.row.get() * 2, self.column.get() * 2, hangs)

    def advance(self) -> None:
        """Moves on by one."""
        f = self.f
        column = self.column.get() + 1
        wrapped = column == self.right.get()
        self.column.set(f.select(wrapped, self.left.get(), column))
        row = self.row.get() + f.cast(wrapped, i64)
        below = row == self.bottom.get()
        self.row.set(f.select(below, self.top.get(), row))
        self.image.set(self.image.get() + f.cast(below, i64))
        self.number.set(self.number.get() + 1)
        with f.if_(self.number.get() == self.end.get(), likely=False):
            self._enter()


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
    tiles: tuple[Regions, Value, Value],
    source: tuple[Pointer, Value, Value, tuple[Value, Value], tuple[Value | int, ...]],
    to: tuple[Pointer, Value | int, Value | int, Value],
    transform: tuple[Any, int, int],
) -> None:
    """Reads the tiles of a map, panel by panel, and writes what a transform makes of each.

    Args:
        f: the function.
        tiles: all, the first, and how many.
        source: first panel of the map, floats between panels, number of panels, height and width,
            and by how many rows and columns a tile starts before its output tile.
        to: where the first tile's first place goes, floats between tiles, panels, places.
        transform: a function of a square of vectors, its side, and lanes of the vectors.
    """
    base, base_panel, panels, size, shift = source
    target, to_tile, to_panel, to_place = to
    make, side, lanes = transform
    zeros = f.stack(f32, PANEL)
    zeros.store(f.constant(vector(f32, PANEL), 0.0))
    regions, first, count = tiles
    walk = Tiles(f, regions, first)
    with f.loop(0, count, nonempty=True) as tile:
        window = Window(f, size, walk.now(), shift, side, zeros)

        def transformed(places: Any) -> None:
            with f.loop(0, panels, nonempty=True) as panel:
                start = base + panel * base_panel
                at = places(start)
                window.prefetch(start)
                place = target + (tile * to_tile + panel * to_panel)
                for lane in range(0, PANEL, lanes):
                    square = [[(one + lane).load(lanes) for one in row] for row in at]
                    values = [value for row in make(square) for value in row]
                    for number, value in enumerate(values):
                        (place + (to_place * number + lane)).store(value)

        window.either(transformed)
        walk.advance()
