"""Convolution with 3 x 3 kernels by Winograd's method F(2 x 2, 3 x 3), over panels.

    Y = A^T [ (G g G^T) * (B^T d B) ] A        (* element by element, summed over input channels)

Each 2 x 2 tile of the output is made from a 4 x 4 tile d of the input by 16 multiplications instead
of 36: 2.25 times fewer. The 16 places of a transformed tile do not meet before the end, so there
are 16 matrix products of (tiles x input channels) with (input channels x output channels), which
the usual product computes. The sums on both sides are the price: 32 additions and 16 stores per
tile and vector of channels before, 24 additions after, about 5 cycles of every 100 at 64 channels.
Padding taps are computed here and skipped by the direct kernels, which is why narrow maps gain less
(`winograd_shapes` decides).

Tiles that hang over an odd map's end need fewer places (`winograd_tiles`): 11 x 11 positions take
23 x 23 multiplications, not 24 x 24, and 13 x 13 made from 11 x 11 take 25 x 25 instead of 28 x 28.

Weights change every step, so each step transforms them anew, in a launch of their own: 9 floats
read and 16 written per weight pair. Tiles are taken in blocks whose transformed input stays in the
second-level cache; a task makes a share of the output panels for one block.

The data gradient is the same kernel: dy convolved with the weights turned by 180 degrees, input and
output channels exchanged. Turning g exchanges the first and the last row and column of G g G^T and
leaves the middle ones alone, so the turn costs nothing.

Source: Winograd, Arithmetic Complexity of Computations, 1980; Lavin and Gray, Fast Algorithms for
Convolutional Neural Networks, 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepgraph.backends.cpu.native.emit import Function, Module, Pointer, Value
from stepgraph.backends.cpu.native.layout import least, share, transpose_block
from stepgraph.backends.cpu.native.product import PANEL, Product, Walk
from stepgraph.backends.cpu.native.target import Target
from stepgraph.backends.cpu.native.value import f32, i64, pointer, vector
from stepgraph.backends.cpu.native.winograd_shapes import FORWARD_FIELDS, PLACES
from stepgraph.backends.cpu.native.winograd_tiles import (
    Regions,
    Square,
    Tile,
    Tiles,
    Window,
    transform_tiles,
)

_BLOCK = PANEL * PANEL


def rows_and_columns(make: Any, square: Sequence[Sequence[Value]]) -> Square:
    """Applies a transform of a few values to every column, then to every row."""
    columns = [make([row[j] for row in square]) for j in range(len(square[0]))]
    return [make([column[i] for column in columns]) for i in range(len(columns[0]))]


def input_transform(d: Sequence[Sequence[Value]]) -> Square:
    """B^T d B of a 4 x 4 tile."""
    return rows_and_columns(lambda v: [v[0] - v[2], v[1] + v[2], v[2] - v[1], v[1] - v[3]], d)


def output_transform(m: Sequence[Sequence[Value]]) -> Square:
    """A^T m A: 4 x 4 to 2 x 2."""
    return rows_and_columns(lambda v: [v[0] + v[1] + v[2], v[1] - v[2] - v[3]], m)


def weight_transform(g: Sequence[Sequence[Value]]) -> Square:
    """G g G^T: 3 x 3 to 4 x 4."""

    def make(v: Sequence[Value]) -> list[Value]:
        outer, inner = (v[0] + v[2]) * 0.5, v[1] * 0.5
        return [v[0], outer + inner, outer - inner, v[2]]

    return rows_and_columns(make, g)


def lanes_of(target: Target) -> int:
    """Lanes of the transforms' vectors: with 16 registers, a tile of whole panels would spill."""
    return min(target.lanes, PANEL)


class _Convolution:
    """The code of the kernel; holds what its pieces share."""

    def __init__(self, f: Function, x: Any, product: Product, lanes: int) -> None:
        self.f, self.x, self.product, self.lanes = f, x, product, lanes
        most = product.blocking.panels
        block = x.task // x.parts
        groups = (x.out_panels + (most - 1)) // most
        self.groups = share(f, groups, x.task - block * x.parts, x.parts)
        self.first = block * x.block
        self.count = least(f, x.tiles - self.first, x.block)
        self.x_panel = x.images * x.height * x.width * PANEL
        self.y_panel = x.images * x.out_height * x.out_width * PANEL
        # A line more than the tiles need, so that the 16 places do not fall on one cache set.
        self.v_panel = x.block * PANEL
        self.v_place = x.in_panels * self.v_panel + PANEL
        self.m_tile = most * PANEL
        self.m_place = self.m_tile * x.block + PANEL
        self.v = x.scratch + x.thread * x.scratch_size
        self.m = self.v + self.v_place * PLACES
        self.regions = Regions(f, x)
        self.starts, self.counts = f.stack(i64, PLACES), f.stack(i64, PLACES)
        # What a tile lacks is read from here, and what does not exist is written to `nowhere`.
        self.nothing, self.nowhere = f.stack(f32, PANEL), f.stack(f32, PANEL)
        for place in (self.nothing, self.nowhere):
            place.store(f.constant(vector(f32, PANEL), 0.0))

    def emit(self) -> None:
        f, x = self.f, self.x
        self._inputs()
        self.regions.store_ranges(self.first, self.count, self.starts, self.counts)
        walk = Walk(f)
        u_place = x.in_panels * _BLOCK
        walk.set(a_row=PANEL, c_row=self.m_tile, run=PANEL, a3=self.v_panel, b3=_BLOCK)
        walk.set(b_panel=u_place * PLACES, c_panel=PANEL)
        most = self.product.blocking.panels
        with f.loop(*self.groups) as group:
            first_panel = group * most
            panels = least(f, x.out_panels - first_panel, most)
            u = x.u + first_panel * (u_place * PLACES)
            with f.loop(0, PLACES, nonempty=True) as place:
                start, count = (self.starts + place).load(), (self.counts + place).load()
                v = self.v + (place * self.v_place + start * PANEL)
                c = self.m + (place * self.m_place + start * self.m_tile)
                with f.loop(0, x.in_panels, x.chunk, nonempty=True) as chunk:
                    walk.set(n3=least(f, x.in_panels - chunk, x.chunk))
                    walk.set(beta=f.cast(chunk > 0, f32))
                    a, b = v + chunk * self.v_panel, u + (place * u_place + chunk * _BLOCK)
                    self.product.call(f, a, b, c, count, panels, walk)
            f.if_else(
                x.beta == 0.0,
                lambda: self._outputs(first_panel, panels, False),
                lambda: self._outputs(first_panel, panels, True),
            )

    def _inputs(self) -> None:
        """Scratch [place][input panel][tile][16] of the block's tiles."""
        f, x = self.f, self.x
        size, shift = (x.height, x.width), (x.pad_y, x.pad_x)
        transform_tiles(
            f,
            (self.regions, self.first, self.count),
            (x.x, self.x_panel, x.in_panels, size, shift),
            (self.v, PANEL, self.v_panel, self.v_place),
            (input_transform, 4, self.lanes),
        )

    def _outputs(self, first_panel: Value, panels: Value, added: bool) -> None:
        """Output tiles from the scratch [place][tile][panel][16]."""
        f, x, lanes = self.f, self.x, self.lanes
        alpha, beta = f.splat(x.alpha, lanes), f.splat(x.beta, lanes)
        walk = Tiles(f, self.regions, self.first)
        with f.loop(0, self.count, nonempty=True) as number:
            tile = walk.now()
            window = Window(f, (x.out_height, x.out_width), tile, (0, 0), 2, self.nowhere)

            def transformed(places: Any) -> None:
                # Only tiles that hang over an end lack places, and none of them is whole.
                whole = places == window.inner
                with f.loop(0, panels, nonempty=True) as panel:
                    start = x.y + (first_panel + panel) * self.y_panel
                    to = places(start)
                    window.prefetch(start, write=True)
                    at = self.m + (number * self.m_tile + panel * PANEL)
                    sums = [at + self.m_place * place for place in range(PLACES)]
                    if not whole:
                        sums = [self._or_nothing(tile, *both) for both in enumerate(sums)]
                    for lane in range(0, PANEL, lanes):
                        m = [(one + lane).load(lanes) for one in sums]
                        made = output_transform([m[4 * i : 4 * i + 4] for i in range(4)])
                        for i, row in enumerate(made):
                            for j, value in enumerate(row):
                                place = to[i][j] + lane
                                result = value * alpha
                                if added:
                                    result = f.fma(place.load(lanes), beta, result)
                                place.store(result)

            window.either(transformed)
            walk.advance()

    def _or_nothing(self, tile: Tile, place: int, at: Pointer) -> Pointer:
        """The address of a tile's number, or of zeros if the tile does not need this place."""
        i, j = divmod(place, 4)
        down, across = tile.hangs
        lacks = (down & (self.x.needed_y <= i)) | (across & (self.x.needed_x <= j))
        return self.nothing.select(lacks, at)


def _emit_weights(module: Module, target: Target, turned: bool) -> None:
    """One kernel of weight transforms; a task is one pair of an output and an input panel."""
    name = "winograd_weights_turned" if turned else "winograd_weights"
    fields = {"w": pointer(f32), "u": pointer(f32), "in_panels": i64, "out_panels": i64}
    lanes = lanes_of(target)
    with module.kernel(name, fields) as (f, x):
        out_panel = x.task // x.in_panels
        in_panel = x.task - out_panel * x.in_panels
        source, columns, rows, panels = (
            x.w + x.task * (9 * _BLOCK),
            out_panel,
            in_panel,
            x.in_panels,
        )
        if turned:
            columns, rows, panels = in_panel, out_panel, x.out_panels
            blocks = f.stack(f32, 9 * _BLOCK)
            with f.loop(0, 9, nonempty=True) as tap:
                transpose_block(f, target, source + tap * _BLOCK, blocks + tap * _BLOCK)
            source = blocks
        u_place = panels * _BLOCK
        to = x.u + (columns * u_place * PLACES + rows * _BLOCK)
        order = (3, 1, 2, 0) if turned else (0, 1, 2, 3)
        with f.loop(0, _BLOCK, lanes, nonempty=True) as at:
            g = [
                [(source + (at + (3 * i + j) * _BLOCK)).load(lanes) for j in range(3)]
                for i in range(3)
            ]
            made = weight_transform(g)
            for i in range(4):
                for j in range(4):
                    place = u_place * (4 * order[i] + order[j])
                    (to + (place + at)).store(made[i][j])


def emit_winograd(module: Module, product: Product, target: Target) -> None:
    """Adds ``winograd_weights``, ``winograd_weights_turned`` and ``winograd_convolution``.

    The first two fill u, [columns/16][16 places][rows/16][16 rows][16 columns]: rows are input
    channels and columns output channels, or, turned (for the data gradient), the reverse.
    ``winograd_convolution`` takes `winograd_shapes.FORWARD_FIELDS`.
    """
    _emit_weights(module, target, False)
    _emit_weights(module, target, True)
    with module.kernel("winograd_convolution", FORWARD_FIELDS) as (f, x):
        _Convolution(f, x, product, lanes_of(target)).emit()
