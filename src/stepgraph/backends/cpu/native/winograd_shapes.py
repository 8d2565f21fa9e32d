"""Which convolutions Winograd's method computes, and what its kernels are told about them."""

from __future__ import annotations

from dataclasses import dataclass

from stepgraph.backends.cpu.native.geometry import Convolution
from stepgraph.backends.cpu.native.product import PANEL, Blocking
from stepgraph.backends.cpu.native.value import f32, i64, pointer

# Places of a transformed tile: 4 x 4.
PLACES = 16

_COMMON = (
    *("images", "height", "width", "out_height", "out_width", "pad_y", "pad_x"),
    *("in_panels", "out_panels", "tiles_y", "tiles_x", "tiles", "needed_y", "needed_x"),
)
FORWARD_FIELDS = {
    **{name: pointer(f32) for name in ("x", "u", "y", "scratch")},
    **dict.fromkeys((*_COMMON, "block", "chunk", "parts", "scratch_size"), i64),
    **dict.fromkeys(("alpha", "beta"), f32),
}
GRADIENT_FIELDS = {
    **{name: pointer(f32) for name in ("x", "y", "w", "scratch")},
    **dict.fromkeys((*_COMMON, "block", "in_group", "out_group", "parts", "scratch_size"), i64),
    **dict.fromkeys(("alpha", "beta"), f32),
}

# Floats of transformed input that a block of tiles may fill: 192 KiB, part of the second-level
# cache, or `FEW_TILES` where that is less; and how many tiles may make a block: with 18 all that is
# done once per block and place is 3 % of the work in 32 channels.
BLOCK_FLOATS = 48 * 1024
LEAST_TILES, FEW_TILES, MOST_TILES = 18, 24, 48
# How many blocks are wanted, and how many tasks: for these alone, input is transformed more than
# once, which is a tenth of the work with 64 output channels.
BLOCKS, TASKS = 32, 16
# Input panels summed by one accumulator. Transformed numbers are of mixed sign and a result adds up
# sixteen sums of them, so rounding errors weigh more than in a direct sum: with chains of 64 terms
# the error is that of the direct kernel (chains of 256), with 256 it is twice as large.
CHUNK = 4

# The weight gradient: tiles between two visits of a sum; and ways to cut it up, the first that
# makes tasks enough: panels of each side per task (fewer are transformed more often), and the
# fewest tiles worth a part of their own (whose result is written, read again and added: 72 bytes
# per weight against 16 multiply-adds per tile).
GRADIENT_TILES = 48
GRADIENT_CUTS = ((4, 128), (2, 128), (2, 64), (2, 32))
GRADIENT_TASKS, ENOUGH_TASKS = 64, 8


@dataclass(frozen=True)
class Costs:
    """What a pass by Winograd's method costs, in multiply-adds of the direct kernel.

    Attributes:
        product: per multiplication of transformed numbers.
        channel: per tile and channel that is transformed, on the way in or out.
        weight: per weight pair (and part, in the weight gradient).
    """

    product: float
    channel: float
    weight: float


# Fitted to some 190 shapes (1, 8, 64 images, maps of 4 x 4 to 28 x 28, 16 to 512 channels) on an
# AVX-512 machine with 1 MiB of second-level cache per core: 11 % standard deviation. The weights'
# transform is bound by memory, which more threads share, so its price is rounded up.
# The direct data gradient is slower than the direct forward kernel, so there everything costs less.
COSTS = {
    "forward": Costs(product=1.1, channel=45, weight=160),
    "data": Costs(product=1.0, channel=42, weight=150),
    "weights": Costs(product=1.1, channel=110, weight=50),
}
# Price of a weight pair that was transformed before: sixteen numbers are read instead of nine. On
# one picture through twelve layers, whose weights no cache held, the ratios of 8 x 8 x 256 (1.5),
# 4 x 4 x 512 (1.0) and 7 x 7 x 512 (1.1) are met within a tenth by it.
PREPARED = 24
# Below this the estimate's errors, and the memory taken, outweigh what is won.
LEAST_GAIN = 1.1


def suits_winograd(shape: Convolution, kind: str, prepared: bool = False) -> bool:
    """Whether Winograd's method is expected to be faster than the direct kernel.

    It is, by 1.3 to 2 times, on even maps of 6 x 6 and more where there are enough tiles to repay
    the transform of the weights; by less on 4 x 4 and 7 x 7 maps, of whose taps the direct kernels
    skip 31 % and 18 % in the padding; hardly at 16 channels, where too little is multiplied between
    the transforms.

    Args:
        shape: the convolution.
        kind: ``forward``, ``data`` or ``weights``: which pass.
        prepared: whether weights are transformed once, not in every run.
    """
    plain = shape.kernel == (3, 3) and shape.stride == shape.dilation == (1, 1)
    if not plain or shape.rows or max(shape.padding) > 2:
        return False
    return LEAST_GAIN * winograd_cost(shape, kind, prepared) < shape.multiply_adds()


def winograd_cost(shape: Convolution, kind: str, prepared: bool = False) -> float:
    """What a pass costs by Winograd's method, in multiply-adds of the direct kernels."""
    sizes = Winograd(shape).sizes(kind == "data")
    tiles = sizes["tiles"]
    multiplied = shape.images
    for axis in "yx":
        multiplied *= 4 * (sizes[f"tiles_{axis}"] - 1) + sizes[f"needed_{axis}"]
    inputs, outputs = shape.in_panels * PANEL, shape.out_panels * PANEL
    channels, times = inputs + outputs, 1
    if kind == "weights":
        cuts, _ = Winograd(shape).weight_gradient()
        in_group, out_group = cuts["in_group"] * PANEL, cuts["out_group"] * PANEL
        channels = inputs * -(-outputs // out_group) + outputs * -(-inputs // in_group)
        times = cuts["parts"]
    costs = COSTS[kind]
    work = multiplied * inputs * outputs * costs.product + tiles * channels * costs.channel
    return work + inputs * outputs * (PREPARED if prepared else costs.weight * times)


def _needed(out: int, size: int, pad: int) -> int:
    """How many of the four rows (columns) of places the last tile needs; see `winograd_tiles`."""
    if out % 2 == 0:
        return 4
    return 1 if out - pad >= size else 3


@dataclass(frozen=True)
class Winograd:
    """One pass over a convolution that has a 3 x 3 kernel, stride 1 and no dilation.

    Attributes:
        shape: the convolution.
    """

    shape: Convolution

    def sizes(self, turned: bool) -> dict[str, int]:
        """What all its kernels are told; `turned` for the data gradient."""
        shape = self.shape
        (height, width), (top, left) = shape.size, shape.padding[::2]
        out_height, out_width = shape.out_size
        in_panels, out_panels = shape.in_panels, shape.out_panels
        if turned:
            height, width, out_height, out_width = out_height, out_width, height, width
            top, left = 2 - top, 2 - left
            in_panels, out_panels = out_panels, in_panels
        tiles_y, tiles_x = -(-out_height // 2), -(-out_width // 2)
        return {
            "images": shape.images,
            "height": height,
            "width": width,
            "out_height": out_height,
            "out_width": out_width,
            "pad_y": top,
            "pad_x": left,
            "in_panels": in_panels,
            "out_panels": out_panels,
            "tiles_y": tiles_y,
            "tiles_x": tiles_x,
            "tiles": shape.images * tiles_y * tiles_x,
            "needed_y": _needed(out_height, height, top),
            "needed_x": _needed(out_width, width, left),
        }

    def convolution(self, blocking: Blocking, turned: bool) -> tuple[dict[str, int], int]:
        """Sizes for ``winograd_convolution``, and its number of tasks.

        Args:
            blocking: the product's.
            turned: for the data gradient: from dy to dx.
        """
        sizes = self.sizes(turned)
        groups = -(-sizes["out_panels"] // blocking.panels)
        fitting = BLOCK_FLOATS // (PLACES * PANEL * sizes["in_panels"])
        most = min(MOST_TILES, max(fitting, FEW_TILES))
        block = min(most, max(LEAST_TILES, -(-sizes["tiles"] // BLOCKS)))
        blocks = -(-sizes["tiles"] // block)
        block = -(-sizes["tiles"] // blocks)
        parts = max(1, min(groups, -(-TASKS // blocks)))
        v_place = sizes["in_panels"] * block * PANEL + PANEL
        m_place = blocking.panels * block * PANEL + PANEL
        sizes |= {"block": block, "chunk": CHUNK, "parts": parts}
        sizes["scratch_size"] = PLACES * (v_place + m_place)
        return sizes, blocks * parts

    def weight_gradient(self) -> tuple[dict[str, int], int]:
        """Sizes for ``winograd_weight_gradient``, and its number of tasks.

        With more than one of ``parts``, results are partial: one after the other, to be summed.
        """
        sizes = self.sizes(False)
        for most, least in GRADIENT_CUTS:
            in_group, out_group = (min(most, sizes[n]) for n in ("in_panels", "out_panels"))
            groups = -(-sizes["in_panels"] // in_group) * -(-sizes["out_panels"] // out_group)
            parts = max(1, min(-(-GRADIENT_TASKS // groups), sizes["tiles"] // least))
            if groups * parts >= ENOUGH_TASKS:
                break
        block = GRADIENT_TILES
        places = [block * (group * PANEL) + PANEL for group in (in_group, out_group)]
        sums = in_group * out_group * PANEL * PANEL + PANEL
        sizes |= {"block": block, "in_group": in_group, "out_group": out_group, "parts": parts}
        sizes["scratch_size"] = PLACES * (sum(places) + sums)
        return sizes, groups * parts

    @property
    def u_size(self) -> int:
        """Floats of transformed weights."""
        return self.shape.in_panels * self.shape.out_panels * PLACES * PANEL * PANEL

    @property
    def weight_tasks(self) -> int:
        """Tasks of the weights' transform."""
        return self.shape.in_panels * self.shape.out_panels
