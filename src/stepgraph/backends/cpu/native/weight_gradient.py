"""Gradient of a convolution with respect to its weights, over panels.

    dw[o][c][ky, kx] = alpha * sum_{n, oy, ox} x[c][n, iy, ix] * dy[o][n, oy, ox] + beta * dw

Rows are 16 input channels (times neighbouring taps, which lie side by side: 21 rows for a 7-wide
kernel over 3 channels), columns are output channels, and the walk goes over positions; both
operands are read in place. With alpha = -lr, beta = 1 and dw the weights themselves, this *is* the
step of plain gradient descent: no gradient is stored and no pass updates anything.

Where a dense layer's input lies in rows, all of a row's channels are side by side in both operands,
and any number of them are rows of one product.

Per task: a group of output panels, a share of (input panel, kernel row), and, where that makes few
tasks, a share of the positions, whose partial result `partials` adds to the others. Positions are
taken in blocks small enough for the first-level cache; each block of dy is used for all of the
task's units before the next is read. A unit's part of C (16 x 16 floats a tap) is visited once per
block.
"""

from __future__ import annotations

from typing import Any

from stepgraph.backends.cpu.native.convolution import places_of, strips, taps_at
from stepgraph.backends.cpu.native.emit import Function, Module, Pointer, Value
from stepgraph.backends.cpu.native.geometry import COLUMNS, FIELDS, FLAT, IMAGES
from stepgraph.backends.cpu.native.layout import greatest, least, share
from stepgraph.backends.cpu.native.product import PANEL, Product, Walk


class _WeightGradient:
    """The code of one weight gradient kernel; `x.w` is dw, `x.y` is dy."""

    def __init__(self, f: Function, x: Any, product: Product, scale: Function) -> None:
        self.f, self.x, self.product, self.scale = f, x, product, scale
        most = product.blocking.panels
        share_number = x.task // x.splits
        split = x.task - share_number * x.splits
        group = share_number // x.parts
        self.start, self.stop = share(f, x.units, share_number - group * x.parts, x.parts)
        first_panel = group * most
        self.panels = least(f, x.out_panels - first_panel, most)
        self.narrow = x.narrow != 0
        self.image = x.height * x.width * x.channel_width
        self.out_image = x.out_height * x.out_width * PANEL
        self.x_panel = x.images * self.image
        self.y_panel = x.images * self.out_image
        self.tap = x.channel_width * PANEL
        self.w_panel = x.kernel_height * x.kernel_width * self.tap
        self.w_group = x.w_pitch
        positions = x.images * x.height * x.width
        total = f.select(x.mode == FLAT, positions, x.images)
        self.first, self.last = share(f, total, split, x.splits)
        self.dw = x.w + (split * x.out_panels + first_panel) * self.w_group
        self.dy = x.y + first_panel * self.y_panel
        self.walk = Walk(f)
        self.walk.set(a_row=1, c_row=PANEL, b_panel=self.y_panel, c_panel=self.w_group)
        self.walk.set(alpha=x.alpha, beta=1)

    def emit(self) -> None:
        f, x = self.f, self.x
        f.if_else(x.mode == FLAT, self._flat, self._mapped)

    def _flat(self) -> None:
        f, x = self.f, self.x
        self.walk.set(a_k=x.channel_width, b_k=PANEL)
        with f.loop(self.first, self.last, x.chunk) as first:
            count = least(f, x.chunk, self.last - first)
            self.walk.set(run=count, beta=f.select(first == self.first, x.beta, 1.0))
            a, b = x.x + first * x.channel_width, self.dy + first * PANEL

            def call(a: Pointer, c: Pointer, rows: Value, b: Pointer = b) -> None:
                self.product.call(f, a, b, c, rows, self.panels, self.walk, self.narrow)

            def panels(a: Pointer = a) -> None:
                with f.loop(self.start, self.stop) as unit:
                    call(a + unit * self.x_panel, self.dw + unit * self.w_panel, x.channel_width)

            def channels(a: Pointer = a) -> None:
                c = self.dw + self.start * PANEL
                call(a + self.start, c, self.stop - self.start)

            f.if_else(x.channel_width > PANEL, channels, panels)

    def _mapped(self) -> None:
        f, x = self.f, self.x
        # Where nothing changes C, taps that see only padding need not be touched at all.
        scaled = x.beta != 1.0
        with f.loop(self.first, self.last, x.chunk) as first:
            self.count = least(f, x.chunk, self.last - first)
            with f.loop(self.start, self.stop) as unit:
                in_panel = unit // x.kernel_height
                ky = unit - in_panel * x.kernel_height
                dw = self.dw + unit * x.kernel_width * self.tap
                with f.if_((first == self.first) & scaled):
                    rows = x.kernel_width * x.channel_width
                    sizes = (rows, f.index(PANEL), self.panels, self.w_group, x.beta)
                    f.call(self.scale, dw, *sizes)
                down = ky * x.dilation_y - x.pad_y
                oy, self.heights = places_of(f, down, x.stride_y, x.out_height, x.height)
                iy = oy * x.stride_y + down
                a = x.x + (in_panel * self.x_panel + first * self.image)
                a = a + iy * x.width * x.channel_width
                b = self.dy + (first * self.out_image + oy * x.out_width * PANEL)
                with f.if_(self.heights > 0):
                    f.if_else(
                        x.dilation_x == 1,
                        lambda: self._merged_taps(a, b, dw),
                        lambda: self._single_taps(a, b, dw),
                    )

    def _merged_taps(self, a: Pointer, b: Pointer, dw: Pointer) -> None:
        """Output columns that see the same taps together; those taps' channels are the rows."""
        f, x = self.f, self.x
        low = least(f, (x.pad_x + x.stride_x - 1) // x.stride_x, x.out_width)
        reach = x.width - x.kernel_width + x.pad_x
        high = f.select(reach < 0, f.index(0), reach // x.stride_x + 1)
        high = greatest(f, low, least(f, high, x.out_width))

        def strip(ox: Value, count: Value) -> None:
            left = ox * x.stride_x - x.pad_x
            across = taps_at(f, left, x.dilation_x, x.kernel_width, x.width)
            start = a + (left + across.first) * x.channel_width
            c = dw + across.first * self.tap
            # Rows that are channels which do not exist are left out where they are many.
            whole = x.in_width == x.channel_width
            calls = f.select(whole, least(f, across.count, 1), across.count)
            rows = f.select(whole, across.count * x.channel_width, x.in_width)
            with f.loop(0, calls) as tap:
                at = start + tap * x.channel_width
                self._tile(at, b + ox * PANEL, c + tap * self.tap, rows, count)

        strips(f, x.out_width, low, high, strip)

    def _single_taps(self, a: Pointer, b: Pointer, dw: Pointer) -> None:
        f, x = self.f, self.x
        with f.loop(0, x.kernel_width) as kx:
            left = kx * x.dilation_x - x.pad_x
            ox, widths = places_of(f, left, x.stride_x, x.out_width, x.width)
            with f.if_(widths > 0):
                start = a + (ox * x.stride_x + left) * x.channel_width
                c = dw + kx * self.tap
                self._tile(start, b + ox * PANEL, c, x.in_width, widths)

    def _tile(self, a: Pointer, b: Pointer, c: Pointer, rows: Value, widths: Value) -> None:
        """Sums over a rectangle of places of each image; the longest way round goes innermost."""
        f, x, walk = self.f, self.x, self.walk
        column = (x.stride_x * x.channel_width, f.index(PANEL))
        row = (x.stride_y * x.width * x.channel_width, x.out_width * PANEL)
        image = (self.image, self.out_image)

        def images() -> None:
            walk.set(run=self.count, a_k=image[0], b_k=image[1])
            walk.set(n1=widths, a1=column[0], b1=column[1])
            walk.set(n2=self.heights, a2=row[0], b2=row[1])

        def columns() -> None:
            walk.set(run=widths, a_k=column[0], b_k=column[1])
            walk.set(n1=self.heights, a1=row[0], b1=row[1])
            walk.set(n2=self.count, a2=image[0], b2=image[1])

        f.switch(x.mode, {IMAGES: images, COLUMNS: columns})
        self.product.call(f, a, b, c, rows, self.panels, walk, self.narrow)


def emit_weight_gradient(module: Module, product: Product, scale: Function) -> None:
    """Adds the kernel ``convolution_weight_gradient``; its arguments are `geometry.FIELDS`."""
    with module.kernel("convolution_weight_gradient", FIELDS) as (f, x):
        _WeightGradient(f, x, product, scale).emit()
