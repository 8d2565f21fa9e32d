"""Forward convolution over panels, and what it shares with its gradients.

    y[o][n, oy, ox] = alpha * sum_{c, ky, kx} x[c][n, oy * s - p + ky * d, ...] * w[o][c][ky, kx]
                      + beta * y

The product's rows are positions that see the same taps, its columns output channels. Which
positions form rows depends on the map (`geometry`): all of them (1 x 1 kernels), the same place of
every image (narrow maps), or columns of one map row between the borders. Taps that see only
padding are left out of the walk: a 3 x 3 kernel over 3 x 3 maps does 49 of 81 products.

Per task: a group of output panels and a share of the positions. The depth is cut so that the
weights of one visit stay in the first-level cache while the task's rows go over them; they are
read once from memory per task, the input once per group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepgraph.backends.cpu.native.emit import Function, Module, Pointer, Value
from stepgraph.backends.cpu.native.geometry import COLUMNS, FIELDS, FLAT, IMAGES
from stepgraph.backends.cpu.native.layout import greatest, least, share
from stepgraph.backends.cpu.native.product import PANEL, Product, Walk
from stepgraph.backends.cpu.native.value import f32, i64, pointer, vector


@dataclass(frozen=True)
class Taps:
    """A range of kernel positions along one axis, at run time: first and count (may be <= 0)."""

    first: Value
    count: Value


def taps_at(f: Function, origin: Value, dilation: Value, kernel: Value, size: Value) -> Taps:
    """Kernel positions that fall on the input, when the first one falls on `origin`."""
    before = greatest(f, 0, -origin)
    first = (before + dilation - 1) // dilation
    room = greatest(f, 0, size - origin)
    last = least(f, kernel, (room + dilation - 1) // dilation)
    return Taps(first, last - first)


def places_of(
    f: Function, offset: Value, stride: Value, out: Value, size: Value
) -> tuple[Value, Value]:
    """First and number of output places whose input, ``place * stride + offset``, exists."""
    first = (greatest(f, 0, -offset) + stride - 1) // stride
    room = size - 1 - offset
    last = f.select(room < 0, f.index(0), least(f, out, room // stride + 1))
    return first, last - first


def strips(f: Function, total: Value, low: Value, high: Value, body: Any) -> None:
    """Calls body(first, count) for single places below `low`, [low, high) at once, and the rest."""
    with f.loop(0, low + 1 + (total - high)) as number:
        middle = number == low
        first = f.select(number > low, high + (number - low - 1), number)
        count = f.select(middle, high - low, f.index(1))
        with f.if_(count > 0):
            body(first, count)


def emit_scale(module: Module) -> Function:
    """Adds ``scale``: C = beta * C for rows of panels; where beta is 0, C is not read."""
    arguments = {"c": pointer(f32), "rows": i64, "c_row": i64, "panels": i64, "c_panel": i64}
    with module.function("scale", {**arguments, "beta": f32}, inline=False) as (f, x):
        with f.loop(0, x.panels) as panel, f.loop(0, x.rows) as row:
            place = x.c + (panel * x.c_panel + row * x.c_row)
            zero = f.constant(vector(f32, PANEL), 0.0)
            f.if_else(
                x.beta == 0.0,
                lambda: place.store(zero),
                lambda: place.store(place.load(PANEL) * x.beta),
            )
    return f


@dataclass(frozen=True)
class Rows:
    """Places that become rows of a product: where they start, how many, how far apart."""

    a: Pointer
    c: Pointer
    count: Value
    a_row: Value
    c_row: Value


class _Forward:
    """The code of one forward kernel; holds what its pieces share."""

    def __init__(self, f: Function, x: Any, product: Product, scale: Function) -> None:
        self.f, self.x, self.product, self.scale = f, x, product, scale
        most = product.blocking.panels
        group = x.task // x.parts
        self.start, self.stop = share(f, x.units, x.task - group * x.parts, x.parts)
        first_panel = group * most
        self.panels = least(f, x.out_panels - first_panel, most)
        self.narrow = x.narrow != 0
        self.x_panel = x.images * x.height * x.width * x.channel_width
        self.y_panel = x.images * x.out_height * x.out_width * PANEL
        self.tap = x.channel_width * PANEL
        self.w_panel = x.kernel_height * x.kernel_width * self.tap
        self.weights = x.w + first_panel * x.in_panels * self.w_panel
        self.y = x.y + first_panel * self.y_panel
        self.walk = Walk(f)
        self.walk.set(b_panel=x.in_panels * self.w_panel, c_panel=self.y_panel, alpha=x.alpha)
        self.walk.set(a3=self.x_panel, b3=self.w_panel)

    def emit(self) -> None:
        f, x = self.f, self.x
        with f.loop(0, x.in_panels, x.chunk) as first:
            beta = f.select(first == 0, x.beta, 1.0)
            self.beta = beta
            self.walk.set(n3=least(f, x.chunk, x.in_panels - first), beta=beta)
            source = x.x + first * self.x_panel
            weights = self.weights + first * self.w_panel
            f.switch(
                x.mode,
                {
                    FLAT: lambda: self._flat(source, weights),
                    IMAGES: lambda: self._images(source, weights),
                    COLUMNS: lambda: self._columns(source, weights),
                },
            )

    def _flat(self, source: Pointer, weights: Pointer) -> None:
        f, x = self.f, self.x
        self.walk.set(a_row=x.channel_width, c_row=PANEL, run=x.in_width, n1=1, n2=1)
        a, c = source + self.start * x.channel_width, self.y + self.start * PANEL
        self.product.call(
            f, a, weights, c, self.stop - self.start, self.panels, self.walk, self.narrow
        )

    def _images(self, source: Pointer, weights: Pointer) -> None:
        f, x = self.f, self.x
        image = x.height * x.width * x.channel_width
        out_image = x.out_height * x.out_width * PANEL
        with f.loop(self.start, self.stop) as unit:
            oy = unit // x.out_width
            ox = unit - oy * x.out_width
            rows = Rows(source, self.y + unit * PANEL, x.images, image, out_image)
            self._place(rows, weights, oy, ox)

    def _columns(self, source: Pointer, weights: Pointer) -> None:
        f, x = self.f, self.x
        # Between low and high a kernel row lies inside the input as a whole.
        low = least(f, (x.pad_x + x.stride_x - 1) // x.stride_x, x.out_width)
        reach = x.width - 1 - (x.kernel_width - 1) * x.dilation_x + x.pad_x
        high = f.select(reach < 0, f.index(0), reach // x.stride_x + 1)
        high = greatest(f, low, least(f, high, x.out_width))
        with f.loop(self.start, self.stop) as unit:
            image = unit // x.out_height
            oy = unit - image * x.out_height
            origin = source + image * (x.height * x.width * x.channel_width)

            def strip(ox: Value, count: Value) -> None:
                c = self.y + (unit * x.out_width + ox) * PANEL
                a_row = x.stride_x * x.channel_width
                self._place(Rows(origin, c, count, a_row, f.index(PANEL)), weights, oy, ox)

            strips(f, x.out_width, low, high, strip)

    def _place(self, rows: Rows, weights: Pointer, oy: Value, ox: Value) -> None:
        """One product for rows that all see what output position (oy, ox) sees."""
        f, x, walk = self.f, self.x, self.walk
        top = oy * x.stride_y - x.pad_y
        left = ox * x.stride_x - x.pad_x
        down = taps_at(f, top, x.dilation_y, x.kernel_height, x.height)
        across = taps_at(f, left, x.dilation_x, x.kernel_width, x.width)
        walk.set(a_row=rows.a_row, c_row=rows.c_row, n2=down.count)

        def compute() -> None:
            iy = top + down.first * x.dilation_y
            ix = left + across.first * x.dilation_x
            # Neighbouring taps are neighbours in memory, in both operands, so they are one run,
            # unless their panel is half empty.
            dense = (x.dilation_x == 1) & (x.in_width == x.channel_width)
            merged = f.select(dense, across.count, f.index(1))
            walk.set(run=merged * x.in_width, n1=across.count // merged)
            walk.set(a1=x.dilation_x * x.channel_width, b1=self.tap)
            walk.set(a2=x.dilation_y * x.width * x.channel_width, b2=x.kernel_width * self.tap)
            a = rows.a + (iy * x.width + ix) * x.channel_width
            b = weights + (down.first * x.kernel_width + across.first) * self.tap
            self.product.call(f, a, b, rows.c, rows.count, self.panels, walk, self.narrow)

        def nothing() -> None:
            sizes = (rows.count, rows.c_row, self.panels, self.y_panel)
            f.call(self.scale, rows.c, *sizes, self.beta)

        f.if_else((down.count > 0) & (across.count > 0), compute, nothing)


def emit_forward(module: Module, product: Product, scale: Function) -> None:
    """Adds the kernel ``convolution_forward``; its arguments are `geometry.FIELDS`."""
    with module.kernel("convolution_forward", FIELDS) as (f, x):
        _Forward(f, x, product, scale).emit()
