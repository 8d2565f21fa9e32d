"""Gradient of a 3 x 3 convolution with respect to its weights by Winograd's method.

    dg = alpha * G^T [ sum_tiles (A dY A^T) * (B^T d B) ] G + beta * dg

The transpose of `winograd`'s algorithm: 16 multiplications per tile of 2 x 2 output gradients and
weight pair instead of 36. The input's transform is the forward one; dY goes from 2 x 2 to 4 x 4 by
12 additions; each of the 16 places is a product of (input channels x tiles) with (tiles x output
channels), summed in the task's scratch memory; and its 4 x 4 results become 3 x 3 at the very end,
once per weight. The last row and column of A dY A^T are -y; they are kept as y, and the sign is put
right at the end.

Per task: some input panels, some output panels, a share of the tiles. Each side is transformed once
per group of panels of the other, 4 panels by default: about 8 cycles of every 100.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepgraph.backends.cpu.native.emit import Function, Module, Value
from stepgraph.backends.cpu.native.layout import least, share
from stepgraph.backends.cpu.native.product import PANEL, Product, Walk
from stepgraph.backends.cpu.native.target import Target
from stepgraph.backends.cpu.native.value import f32, i64
from stepgraph.backends.cpu.native.winograd import input_transform, lanes_of, rows_and_columns
from stepgraph.backends.cpu.native.winograd_shapes import GRADIENT_FIELDS, PLACES
from stepgraph.backends.cpu.native.winograd_tiles import Regions, Square, transform_tiles

_BLOCK = PANEL * PANEL


def gradient_transform(y: Sequence[Sequence[Value]]) -> Square:
    """A y A^T of a 2 x 2 tile, but for the signs of the last row and column."""
    return rows_and_columns(lambda v: [v[0], v[0] + v[1], v[0] - v[1], v[1]], y)


def weight_gradient_transform(u: Sequence[Sequence[Value]]) -> Square:
    """G^T u G with those signs: 4 x 4 to 3 x 3."""

    def make(v: Sequence[Value]) -> list[Value]:
        both = (v[1] + v[2]) * 0.5
        return [v[0] + both, (v[1] - v[2]) * 0.5, both - v[3]]

    return rows_and_columns(make, u)


class _WeightGradient:
    """The code of the kernel; holds what its pieces share."""

    def __init__(self, f: Function, x: Any, product: Product, lanes: int) -> None:
        self.f, self.x, self.product, self.lanes = f, x, product, lanes
        out_groups = (x.out_panels + x.out_group - 1) // x.out_group
        pair = x.task // x.parts
        self.part = x.task - pair * x.parts
        in_group = pair // out_groups
        self.first_in = in_group * x.in_group
        self.first_out = (pair - in_group * out_groups) * x.out_group
        self.ins = least(f, x.in_panels - self.first_in, x.in_group)
        self.outs = least(f, x.out_panels - self.first_out, x.out_group)
        # Scratch: v [place][tile][in_group * 16], d [place][output panel][tile][16] and
        # sums [place][output panel][in_group * 16][16]; a line more keeps places off one cache set.
        self.v_tile = x.in_group * PANEL
        self.v_place = x.block * self.v_tile + PANEL
        self.d_panel = x.block * PANEL
        self.d_place = x.out_group * self.d_panel + PANEL
        self.sum_panel = x.in_group * _BLOCK
        self.sum_place = x.out_group * self.sum_panel + PANEL
        self.v = x.scratch + x.thread * x.scratch_size
        self.d = self.v + self.v_place * PLACES
        self.sums = self.d + self.d_place * PLACES
        self.regions = Regions(f, x)
        self.starts, self.counts = f.stack(i64, PLACES), f.stack(i64, PLACES)

    def emit(self) -> None:
        f, x = self.f, self.x
        walk = Walk(f)
        walk.set(a_row=1, c_row=PANEL, a_k=self.v_tile, b_k=PANEL)
        walk.set(b_panel=self.d_panel, c_panel=self.sum_panel)
        most = self.product.blocking.panels
        start, stop = share(f, x.tiles, self.part, x.parts)
        with f.loop(start, stop, x.block) as first:
            count = least(f, stop - first, x.block)
            self._transformed(first, count)
            self.regions.store_ranges(first, count, self.starts, self.counts)
            walk.set(beta=f.cast(first > start, f32))
            with f.loop(0, PLACES, nonempty=True) as place:
                skipped = (self.starts + place).load()
                walk.set(run=(self.counts + place).load())
                with f.loop(0, self.outs, most, nonempty=True) as out:
                    panels = least(f, self.outs - out, most)
                    b = self.d + (place * self.d_place + out * self.d_panel + skipped * PANEL)
                    c = self.sums + (place * self.sum_place + out * self.sum_panel)
                    a = self.v + (place * self.v_place + skipped * self.v_tile)
                    self.product.call(f, a, b, c, self.ins * PANEL, panels, walk)
        f.if_else(
            x.beta == 0.0,
            lambda: self._results(False),
            lambda: self._results(True),
        )

    def _transformed(self, first: Value, count: Value) -> None:
        f, x = self.f, self.x
        size, out_size = (x.height, x.width), (x.out_height, x.out_width)
        x_panel = x.images * x.height * x.width * PANEL
        y_panel = x.images * x.out_height * x.out_width * PANEL
        transform_tiles(
            f,
            (self.regions, first, count),
            (x.x + self.first_in * x_panel, x_panel, self.ins, size, (x.pad_y, x.pad_x)),
            (self.v, self.v_tile, PANEL, self.v_place),
            (input_transform, 4, self.lanes),
        )
        transform_tiles(
            f,
            (self.regions, first, count),
            (x.y + self.first_out * y_panel, y_panel, self.outs, out_size, (0, 0)),
            (self.d, PANEL, self.d_panel, self.d_place),
            (gradient_transform, 2, self.lanes),
        )

    def _results(self, added: bool) -> None:
        """Weights [out panel][in panel][9][16][16] from the sums."""
        f, x, lanes = self.f, self.x, self.lanes
        alpha, beta = f.splat(x.alpha, lanes), f.splat(x.beta, lanes)
        whole = x.out_panels * x.in_panels * (9 * _BLOCK)
        with f.loop(0, self.outs) as out, f.loop(0, self.ins) as panel:
            pair = (self.first_out + out) * x.in_panels + self.first_in + panel
            to = x.w + (self.part * whole + pair * (9 * _BLOCK))
            source = self.sums + (out * self.sum_panel + panel * _BLOCK)
            with f.loop(0, _BLOCK, lanes, nonempty=True) as at:
                u = [
                    [(source + (self.sum_place * (4 * i + j) + at)).load(lanes) for j in range(4)]
                    for i in range(4)
                ]
                made = weight_gradient_transform(u)
                for tap, value in enumerate(value for row in made for value in row):
                    place = to + (at + tap * _BLOCK)
                    result = value * alpha
                    if added:
                        result = f.fma(place.load(lanes), beta, result)
                    place.store(result)


def emit_winograd_gradient(module: Module, product: Product, target: Target) -> None:
    """Adds the kernel ``winograd_weight_gradient``; see `winograd_shapes.GRADIENT_FIELDS`."""
    with module.kernel("winograd_weight_gradient", GRADIENT_FIELDS) as (f, x):
        _WeightGradient(f, x, product, lanes_of(target)).emit()
