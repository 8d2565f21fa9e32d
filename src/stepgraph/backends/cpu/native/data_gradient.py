"""Gradient of a convolution with respect to its input, over panels.

    dx[c][n, iy, ix] = alpha * sum_{o, ky, kx} dy[o][n, oy, ox] * w[o][c][ky, kx]^T + beta * dx
    where oy * s - p + ky * d == iy, and likewise across

Rows are input positions that are reached from the same taps; columns are input channels. The
taps that reach a position form an arithmetic progression: ky goes up by s / gcd(s, d) while oy goes
down by d / gcd(s, d), which is a walk with a negative stride. So strided and dilated convolutions
cost only what they compute; nothing is filled up with zeros.

Weights lie with output channels contiguous, and the product needs input channels contiguous: each
task transposes the 16 x 16 blocks it is about to use into its thread's scratch memory, at most one
visit's worth (16 KiB per panel), about 60 cycles a block of 256 weights, which a task's rows repay
from some dozen rows on. Products without taps, and taps of few images, hold weights in registers
where there are enough of them (`native.held_weights`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from stepgraph.backends.cpu.native.convolution import Rows, places_of, strips
from stepgraph.backends.cpu.native.emit import Function, Module, Pointer, Value
from stepgraph.backends.cpu.native.geometry import COLUMNS, FIELDS, FLAT, IMAGES
from stepgraph.backends.cpu.native.held_weights import TILE, Places, emit_held, emit_held_parts
from stepgraph.backends.cpu.native.layout import greatest, least, share, transpose_block
from stepgraph.backends.cpu.native.product import PANEL, Product, Walk
from stepgraph.backends.cpu.native.target import Target
from stepgraph.backends.cpu.native.value import f32, i64, pointer

_BLOCK = PANEL * PANEL


@dataclass(frozen=True)
class Axis:
    """One axis of a convolution, as run-time values."""

    stride: Value
    dilation: Value
    pad: Value
    kernel: Value
    out: Value
    tap_step: Value
    out_step: Value


@dataclass(frozen=True)
class Progression:
    """Taps that reach a position: first tap, its output place, how many (0 if none).

    Attributes:
        tap: first tap.
        place: output place that the first tap belongs to.
        count: number of taps whose places exist.
        raw_place: output place of the residue's first tap, before places outside are cut off.
        full: number of taps if no place were outside.
    """

    tap: Value
    place: Value
    count: Value
    raw_place: Value
    full: Value


def taps_reaching(f: Function, axis: Axis, position: Value) -> Progression:
    """The taps k with ``position + pad - k * dilation`` a multiple of the stride in range."""
    padded = position + axis.pad
    none = f.index(-1)
    first = f.variable(none)
    with f.loop(0, least(f, axis.tap_step, axis.kernel)) as k:
        with f.if_((padded - k * axis.dilation) % axis.stride == 0):
            first.set(k)
    found = first.get() >= 0
    tap = greatest(f, first.get(), 0)
    distance = padded - tap * axis.dilation
    raw_place = f.select(distance < 0, none, distance // axis.stride)
    full = (axis.kernel - 1 - tap) // axis.tap_step + 1
    beyond = greatest(f, raw_place - (axis.out - 1), 0)
    skipped = (beyond + axis.out_step - 1) // axis.out_step
    reaching = least(f, full, raw_place // axis.out_step + 1)
    valid = found & (raw_place >= 0)
    count = f.select(valid, greatest(f, reaching - skipped, 0), f.index(0))
    return Progression(
        tap + skipped * axis.tap_step,
        raw_place - skipped * axis.out_step,
        count,
        raw_place,
        f.select(found, full, f.index(0)),
    )


class _DataGradient:
    """The code of one data gradient kernel; `x.y` is dy, `x.x` is dx."""

    def __init__(
        self, f: Function, x: Any, product: Product, scale: Function, transpose: Function,
        held: Function | None,
    ) -> None:  # fmt: skip
        self.f, self.x, self.product, self.scale = f, x, product, scale
        self.transpose, self.held = transpose, held
        most = product.blocking.panels
        group = x.task // x.parts
        self.start, self.stop = share(f, x.units, x.task - group * x.parts, x.parts)
        self.first_panel = group * most
        self.panels = least(f, x.in_panels - self.first_panel, most)
        self.narrow = x.narrow != 0
        self.taps = x.kernel_height * x.kernel_width
        self.x_panel = x.images * x.height * x.width * PANEL
        self.y_panel = x.images * x.out_height * x.out_width * PANEL
        self.dx = x.x + self.first_panel * self.x_panel
        self.scratch = x.scratch + x.thread * x.scratch_size
        self.scratch_panel = x.chunk * self.taps * _BLOCK
        self.down = Axis(
            *(x.stride_y, x.dilation_y, x.pad_y, x.kernel_height, x.out_height),
            *(x.tap_step_y, x.out_step_y),
        )
        self.across = Axis(
            *(x.stride_x, x.dilation_x, x.pad_x, x.kernel_width, x.out_width),
            *(x.tap_step_x, x.out_step_x),
        )
        self.walk = Walk(f)
        self.walk.set(b_panel=self.scratch_panel, c_panel=self.x_panel, alpha=x.alpha)
        self.walk.set(run=PANEL, a3=self.y_panel, b3=self.taps * _BLOCK)

    def emit(self) -> None:
        if self.held is None:
            self._walked()
            return
        self.f.if_else(self.x.held == 0, self._walked, partial(self._held, self.held))

    def _held(self, block: Function) -> None:
        places = Places(self.f)
        self.f.if_else(
            self.x.mode == FLAT,
            lambda: self._held_rows(block, places),
            lambda: self._held_places(block, places),
        )

    def _held_rows(self, block: Function, places: Places) -> None:
        """Tiles of rows; for each all outputs."""
        f, x = self.f, self.x
        place = f.index(0)
        with f.loop(self.start, self.stop, TILE) as first:
            rows = least(f, self.stop - first, TILE)
            places.set(rows=rows)
            c = self.dx + first * PANEL
            with f.if_(x.beta != 0.0, likely=False):
                f.call(self.scale, c, rows, f.index(PANEL), self.panels, self.x_panel, x.beta)
            with f.loop(0, x.out_panels) as out:
                added = f.cast((out > 0) | (x.beta != 0.0), i64)
                a = x.y + (out * self.y_panel + first * PANEL)
                with f.loop(0, self.panels) as panel:
                    w = x.w + (out * x.in_panels + self.first_panel + panel) * _BLOCK
                    to, later = c + panel * self.x_panel, w + x.in_panels * _BLOCK
                    f.call(block, w, later, a, to, place, places.memory, x.alpha, added)

    def _held_places(self, block: Function, places: Places) -> None:
        """Taps with images as rows: each tap's block goes over all places that it reaches."""
        f, x = self.f, self.x
        c_row = x.height * x.width * PANEL
        with f.loop(self.start, self.stop) as unit:
            c = self.dx + unit * PANEL
            f.call(self.scale, c, x.images, c_row, self.panels, self.x_panel, x.beta)
        places.set(rows=x.images, a_row=x.out_height * x.out_width * PANEL, c_row=c_row)
        places.set(a_down=x.out_width * PANEL, a_across=PANEL)
        places.set(c_down=x.stride_y * x.width, c_across=x.stride_x)
        places.set(first=self.start, last=self.stop)
        with f.loop(0, x.out_panels) as out, f.loop(0, self.panels) as panel:
            first = (out * x.in_panels + self.first_panel + panel) * self.taps
            to = self.dx + panel * self.x_panel
            with (
                f.loop(x.used_top, x.used_top + x.used_height) as ky,
                f.loop(x.used_left, x.used_left + x.used_width) as kx,
            ):
                down, across = ky * x.dilation_y - x.pad_y, kx * x.dilation_x - x.pad_x
                oy, height = places_of(f, down, x.stride_y, x.out_height, x.height)
                ox, width = places_of(f, across, x.stride_x, x.out_width, x.width)
                places.set(down=height, across=width)
                place = (oy * x.stride_y + down) * x.width + ox * x.stride_x + across
                a = x.y + (out * self.y_panel + (oy * x.out_width + ox) * PANEL)
                w = x.w + (first + ky * x.kernel_width + kx) * _BLOCK
                operands = (w, w + 2 * _BLOCK, a, to, place, places.memory)
                f.call(block, *operands, x.alpha, f.index(1))

    def _walked(self) -> None:
        f, x = self.f, self.x
        with f.loop(0, x.out_panels, x.chunk) as first:
            count = least(f, x.chunk, x.out_panels - first)
            self._transposed(first, count)
            self.beta = f.select(first == 0, x.beta, 1.0)
            self.walk.set(n3=count, beta=self.beta)
            source = x.y + first * self.y_panel
            f.switch(
                x.mode,
                {
                    FLAT: lambda: self._flat(source),
                    IMAGES: lambda: self._images(source),
                    COLUMNS: lambda: self._columns(source),
                },
            )

    def _transposed(self, first: Value, count: Value) -> None:
        """Fills the scratch memory: [panel][output panel][tap][16 o][16 c], used taps only."""
        f, x = self.f, self.x
        with f.loop(0, self.panels) as panel, f.loop(0, count) as out:
            source = (first + out) * x.in_panels + self.first_panel + panel
            to = self.scratch + (panel * self.scratch_panel + out * self.taps * _BLOCK)
            weights = x.w + source * self.taps * _BLOCK
            with f.loop(0, x.used_height) as row:
                skip = ((x.used_top + row) * x.kernel_width + x.used_left) * _BLOCK
                f.call(self.transpose, weights + skip, to + skip, x.used_width)

    def _flat(self, source: Pointer) -> None:
        f, offset = self.f, self.start * PANEL
        self.walk.set(a_row=PANEL, c_row=PANEL, n1=1, n2=1)
        rows = self.stop - self.start
        args = (source + offset, self.scratch, self.dx + offset, rows, self.panels)
        self.product.call(f, *args, self.walk, self.narrow)

    def _images(self, source: Pointer) -> None:
        f, x = self.f, self.x
        a_row = x.out_height * x.out_width * PANEL
        c_row = x.height * x.width * PANEL
        with f.loop(self.start, self.stop) as unit:
            iy = unit // x.width
            down = taps_reaching(f, self.down, iy)
            across = taps_reaching(f, self.across, unit - iy * x.width)
            rows = Rows(source, self.dx + unit * PANEL, x.images, a_row, c_row)
            self._place(rows, down, across)

    def _columns(self, source: Pointer) -> None:
        f, x = self.f, self.x
        with f.loop(self.start, self.stop) as unit:
            image = unit // x.height
            down = taps_reaching(f, self.down, unit - image * x.height)
            origin = source + image * (x.out_height * x.out_width * PANEL)
            # Positions a stride apart are reached by the same taps from neighbouring places.
            with f.loop(0, least(f, x.stride_x, x.width)) as residue:
                total = (x.width - residue + x.stride_x - 1) // x.stride_x
                # The place of the residue's first position may be negative: count from a position
                # far enough right for every tap.
                shift = (x.kernel_width - 1) * x.dilation_x
                inner = taps_reaching(f, self.across, residue + shift * x.stride_x)
                place = inner.raw_place - shift
                none = inner.full == 0
                low = least(f, greatest(f, (inner.full - 1) * x.out_step_x - place, 0), total)
                high = greatest(f, low, least(f, x.out_width - place, total))
                low = f.select(none, f.index(0), low)
                high = f.select(none, total, high)

                def strip(number: Value, count: Value) -> None:
                    ix = residue + number * x.stride_x
                    across = taps_reaching(f, self.across, ix)
                    c = self.dx + (unit * x.width + ix) * PANEL
                    rows = Rows(origin, c, count, f.index(PANEL), x.stride_x * PANEL)
                    self._place(rows, down, across)

                strips(f, total, low, high, strip)

    def _place(self, rows: Rows, down: Progression, across: Progression) -> None:
        """One product for rows that are all reached by the same taps."""
        f, x, walk = self.f, self.x, self.walk
        walk.set(a_row=rows.a_row, c_row=rows.c_row)

        def compute() -> None:
            walk.set(n1=across.count, a1=-(x.out_step_x * PANEL), b1=x.tap_step_x * _BLOCK)
            walk.set(n2=down.count, a2=-(x.out_step_y * x.out_width * PANEL))
            walk.set(b2=x.tap_step_y * x.kernel_width * _BLOCK)
            a = rows.a + (down.place * x.out_width + across.place) * PANEL
            b = self.scratch + (down.tap * x.kernel_width + across.tap) * _BLOCK
            self.product.call(f, a, b, rows.c, rows.count, self.panels, walk, self.narrow)

        def nothing() -> None:
            sizes = (rows.count, rows.c_row, self.panels, self.x_panel)
            f.call(self.scale, rows.c, *sizes, self.beta)

        f.if_else((down.count > 0) & (across.count > 0), compute, nothing)


def emit_transpose(module: Module, target: Target) -> Function:
    """Adds ``transpose_blocks``: a number of contiguous 16 x 16 blocks, one after the other."""
    arguments = {"source": pointer(f32), "to": pointer(f32), "count": i64}
    with module.function("transpose_blocks", arguments, inline=False) as (f, x):
        with f.loop(0, x.count) as block:
            transpose_block(f, target, x.source + block * _BLOCK, x.to + block * _BLOCK)
    return f


def emit_data_gradient(
    module: Module, product: Product, scale: Function, transpose: Function
) -> None:
    """Adds the kernel ``convolution_data_gradient``; its arguments are `geometry.FIELDS`."""
    held = emit_held(module, product.blocking)
    emit_held_parts(module, held)
    with module.kernel("convolution_data_gradient", FIELDS) as (f, x):
        _DataGradient(f, x, product, scale, transpose, held).emit()
