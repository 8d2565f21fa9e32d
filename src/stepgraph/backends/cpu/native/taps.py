"""What every kernel position sees, side by side, so that a convolution becomes a flat product.

    y[c, ky, kx][n, oy, ox] = x[c][n, oy * s - p + ky * d, ...], 0 outside the map; 16 channels each

On small maps of few images the direct kernel's rows are single places between two borders, and a
row uses each of the weights it reads once. Gathered, all positions are rows of one product, and
the weights, which lie as ``[O/16][C/16][taps][16][16]``, need not move: the taps become channels.
Costs 4 bytes read and written per position, channel and tap, against as many multiply-adds for
each output channel; so it is lost among them from some ten channels on.
"""

from __future__ import annotations

import math

from stepgraph.backends.cpu.native.emit import Function, Module, Pointer, Value
from stepgraph.backends.cpu.native.geometry import Convolution
from stepgraph.backends.cpu.native.product import PANEL
from stepgraph.backends.cpu.native.value import f32, i64, pointer, vector

_SIZES = (
    *("images", "height", "width", "out_height", "out_width", "kernel_height", "kernel_width"),
    *("stride_y", "stride_x", "dilation_y", "dilation_x", "pad_y", "pad_x"),
)
FIELDS = {**{name: pointer(f32) for name in ("x", "y")}, **dict.fromkeys(_SIZES, i64)}

# Maps up to this width, positions of all images together, and the least share of the gathered
# numbers that must lie inside the map: taps that see only padding cost the direct kernel nothing.
WIDEST, MOST_POSITIONS, LEAST_INSIDE = 8, 256, 0.6
# The same for so few positions that reading the weights once decides: 16 of 36 on 2 x 2 places.
FEW_POSITIONS, LEAST_INSIDE_FEW = 12, 0.4
# Rows along images are as good as gathered ones from this many images on.
ENOUGH_IMAGES = 8
# Multiply-adds below which another launch costs more than it wins: some ten microseconds of them.
LEAST_WORK = 1 << 20


def suits_gathering(shape: Convolution) -> bool:
    """Whether a forward pass is expected to be faster over gathered taps."""
    height, width = shape.out_size
    positions = shape.images * height * width
    small = width <= WIDEST and 1 < positions <= MOST_POSITIONS
    if shape.rows or shape.pointwise or not small or shape.images >= ENOUGH_IMAGES:
        return False
    if shape.channels[0] % PANEL:
        return False
    whole = positions * shape.taps * shape.in_panels * PANEL * shape.out_panels * PANEL
    inside = LEAST_INSIDE_FEW if positions <= FEW_POSITIONS else LEAST_INSIDE
    return shape.multiply_adds() >= max(LEAST_WORK, inside * whole)


def gathered(shape: Convolution) -> Convolution:
    """The flat product that is left: its channels are those of every tap."""
    positions = shape.images * math.prod(shape.out_size)
    channels = (shape.channels[0] * shape.taps, shape.channels[1])
    return Convolution(positions, (1, 1), channels, (1, 1))


def gathering(shape: Convolution) -> tuple[dict[str, int], int]:
    """Sizes for ``gather_taps``, and its number of tasks: one for each kernel row of a panel."""
    values = (
        *(shape.images, *shape.size, *shape.out_size, *shape.kernel),
        *(*shape.stride, *shape.dilation, shape.padding[0], shape.padding[2]),
    )
    return dict(zip(_SIZES, values, strict=True)), shape.in_panels * shape.kernel[0]


def _copy(f: Function, inside: Value, source: Pointer, to: Pointer) -> None:
    """Writes 16 channels of a place, or zeros where it is none."""
    zero = f.constant(vector(f32, PANEL), 0.0)
    f.if_else(inside, lambda: to.store(source.load(PANEL)), lambda: to.store(zero))


def emit_gather_taps(module: Module) -> None:
    """Adds the kernel ``gather_taps``; its arguments are `FIELDS`."""
    with module.kernel("gather_taps", FIELDS) as (f, x):
        panel = x.task // x.kernel_height
        ky = x.task - panel * x.kernel_height
        source = x.x + panel * (x.images * x.height * x.width * PANEL)
        tap = x.images * x.out_height * x.out_width * PANEL
        with f.loop(0, x.kernel_width) as kx:
            to = x.y + (x.task * x.kernel_width + kx) * tap
            with f.loop(0, x.images) as image, f.loop(0, x.out_height) as oy:
                iy = oy * x.stride_y - x.pad_y + ky * x.dilation_y
                row = source + (image * x.height + iy) * x.width * PANEL
                out = to + (image * x.out_height + oy) * x.out_width * PANEL
                down = (iy >= 0) & (iy < x.height)
                with f.loop(0, x.out_width) as ox:
                    ix = ox * x.stride_x - x.pad_x + kx * x.dilation_x
                    inside = down & (ix >= 0) & (ix < x.width)
                    _copy(f, inside, row + ix * PANEL, out + ox * PANEL)
