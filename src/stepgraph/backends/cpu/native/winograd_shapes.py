"""Which convolutions Winograd's method computes, and what its kernels are told about them."""

from __future__ import annotations

from dataclasses import dataclass

from stepgraph.backends.cpu.native.geometry import Convolution
from stepgraph.backends.cpu.native.product import PANEL, Blocking
from stepgraph.backends.cpu.native.value import f32, i64, pointer

# Places of a transformed tile: 4 x 4.
PLACES = 16

_SIZES = (
    *("images", "height", "width", "out_height", "out_width", "pad_y", "pad_x"),
    *("in_panels", "out_panels", "tiles_y", "tiles_x", "tiles", "block", "chunk", "parts"),
    "scratch_size",
)
FORWARD_FIELDS = {
    **{name: pointer(f32) for name in ("x", "u", "y", "scratch")},
    **dict.fromkeys(_SIZES, i64),
    **dict.fromkeys(("alpha", "beta"), f32),
}

# Floats of transformed input that a block of tiles may fill: 384 KiB, part of the second-level
# cache; and the fewest and most tiles worth a block (multiples of every blocking's rows).
BLOCK_FLOATS = 96 * 1024
LEAST_TILES, MOST_TILES = 24, 96
TASKS = 96
# Input panels summed by one accumulator. Transformed numbers are of mixed sign and a result adds up
# sixteen sums of them, so rounding errors weigh more than in a direct sum: with chains of 64 terms
# the error is that of the direct kernel (chains of 256), with 256 it is twice as large.
CHUNK = 4


@dataclass(frozen=True)
class Winograd:
    """One pass over a convolution that has a 3 x 3 kernel, stride 1 and no dilation.

    Attributes:
        shape: the convolution.
    """

    shape: Convolution

    def _sizes(self, turned: bool) -> dict[str, int]:
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
        }

    def convolution(self, blocking: Blocking, turned: bool) -> tuple[dict[str, int], int]:
        """Sizes for ``winograd_convolution``, and its number of tasks.

        Args:
            blocking: the product's.
            turned: for the data gradient: from dy to dx.
        """
        sizes = self._sizes(turned)
        fitting = BLOCK_FLOATS // (PLACES * PANEL * sizes["in_panels"]) // LEAST_TILES * LEAST_TILES
        block = min(max(fitting, LEAST_TILES), MOST_TILES)
        blocks = -(-sizes["tiles"] // block)
        groups = -(-sizes["out_panels"] // blocking.panels)
        parts = max(1, min(groups, -(-TASKS // blocks)))
        v_place = sizes["in_panels"] * block * PANEL + PANEL
        m_place = blocking.panels * block * PANEL + PANEL
        sizes |= {"block": block, "chunk": CHUNK, "parts": parts}
        sizes["scratch_size"] = PLACES * (v_place + m_place)
        return sizes, blocks * parts

    @property
    def u_size(self) -> int:
        """Floats of transformed weights."""
        return self.shape.in_panels * self.shape.out_panels * PLACES * PANEL * PANEL

    @property
    def weight_tasks(self) -> int:
        """Tasks of the weights' transform."""
        return self.shape.in_panels * self.shape.out_panels
