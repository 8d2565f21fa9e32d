"""Shapes of one convolution, and what its kernels are told about them.

The three kernels (forward, data gradient, weight gradient) share one argument list, filled here;
`tasks` decides how each is cut up. Partition follows from shapes and the target alone, so threads
change no result: an element is summed by one walk, or in parts that are added in their order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from stepgraph.backends.cpu.native.emit import Arguments
from stepgraph.backends.cpu.native.product import NARROW, PANEL, Blocking
from stepgraph.backends.cpu.native.value import f32, i64, pointer
from stepgraph.errors import ShapeError, describe

# How rows of a product are found among positions.
FLAT, IMAGES, COLUMNS = 0, 1, 2

_SIZES = (
    *("images", "height", "width", "out_height", "out_width", "kernel_height", "kernel_width"),
    *("stride_y", "stride_x", "dilation_y", "dilation_x", "pad_y", "pad_x"),
    *("channel_width", "in_width", "in_panels", "out_panels", "chunk", "mode", "units", "parts"),
    *("splits", "narrow", "w_pitch"),
    *("tap_step_y", "tap_step_x", "out_step_y", "out_step_x"),
    *("used_top", "used_height", "used_left", "used_width", "scratch_size", "held"),
)
FIELDS = {
    **{name: pointer(f32) for name in ("x", "w", "y", "scratch")},
    **dict.fromkeys(_SIZES, i64),
    **dict.fromkeys(("alpha", "beta"), f32),
}
ARGUMENTS = Arguments(FIELDS)

# Depth (k steps) of a product between two visits of C: a panel of B this deep is 16 KiB and stays
# in the first-level cache while all rows of a task go over it.
DEPTH = 256
# A flat product's task of at most so many rows goes over the whole depth in one visit: each weight
# is used a few times only, and need not stay in the first-level cache for that.
FEW_TASK_ROWS = 64
# Channels up to which the rest of their panel is left out of sums.
FEW_CHANNELS = 8
# Multiply-adds that a task should at least do: some ten microseconds, a hundred times its overhead.
TASK_WORK = 1 << 19
# The same where there are few tasks: about a microsecond.
LEAST_TASK_WORK = 1 << 16
# Fewest rows a task should have, so that what it reads of B is used often enough; and how many
# tasks are plenty for any number of threads (beyond that, B is only read more often).
TASK_ROWS = 32
TASKS = 192
# Fewest input channels in a task of a weight gradient that reads rows.
TASK_CHANNELS = 48
# Most lines of 64 bytes, of a power of two, that may divide a row that products read in place: rows
# a multiple of 4 KiB apart share one set of the first-level cache.
ROW_LINES = 2
# A data gradient of fewer tasks than this is cut further than would be best for few threads.
ENOUGH_TASKS = 16
# A data gradient with taps holds its weights (`native.held_weights`) up to so many images, whose
# results it visits once a tap, of so many places. That pays where weights come from afar and few
# images use them; with 64 images it is slower.
HELD_IMAGES, HELD_PLACES = 16, 36
# A weight gradient of fewer tasks than this is split by positions too, into partial results of at
# least so many positions each: a weight's part is written, read and added, 8 bytes against one
# multiply-add per position. With ample positions on wide maps, which no cache holds, that is faster
# by 10 to 25 % than tasks by input panels and kernel rows, of which each reads all of dy.
SPLIT_TASKS, SPLIT_POSITIONS, AMPLE_POSITIONS = 64, 512, 1 << 14
# Most numbers that a task of a weight gradient should write for others to read: with three of a
# variable's slots as large they stay in the second-level cache.
TASK_RESULTS = 1 << 15

# Positions that launches cut their work by where they can, so that one's tasks fit another's.
TILE_ROWS = 1024


def tile_rows(positions: int, size: tuple[int, int] = (1, 1)) -> int:
    """The most positions up to `TILE_ROWS` that divide the map's; all if few, 0 if odd.

    Whole images, or an even number of rows of one, come before other numbers: poolings cut maps
    nowhere else.

    Args:
        positions: of all images.
        size: height and width of an image.
    """
    if positions <= TILE_ROWS:
        return positions
    height, width = size
    image = height * width
    if image > 1 and positions % image == 0:
        unit, count = (image, positions // image) if image <= TILE_ROWS else (width, height)
        even = 2 if unit == width and height % 2 == 0 else 1
        most = next((n for n in range(TILE_ROWS // unit, 0, -1) if count % n == n % even == 0), 0)
        if 4 * most * unit >= TILE_ROWS:
            return most * unit
    tiles = range(-(-positions // TILE_ROWS), positions * 2 // TILE_ROWS + 1)
    return next((positions // n for n in tiles if positions % n == 0), 0)


@dataclass(frozen=True)
class Convolution:
    """A two-dimensional convolution, NHWC positions, channels in panels.

    Attributes:
        images: how many.
        size: input height and width.
        channels: input and output channels.
        kernel: height and width.
        stride: down, across.
        dilation: down, across.
        padding: zeros above, below, left, right.
        rows: the input is an array [images, height, width, channels] instead of panels: for
            a first layer of few channels, which panels of 16 would inflate, or a dense layer on
            what is there in rows (see `fits_rows`).
    """

    images: int
    size: tuple[int, int]
    channels: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    rows: bool = False

    def __post_init__(self) -> None:
        positive = (self.images, *self.size, *self.channels, *self.kernel)
        if min(*positive, *self.stride, *self.dilation) < 1 or min(self.padding) < 0:
            raise ShapeError(describe("convolution", "sizes must be positive", got=vars(self)))
        if min(self.out_size) < 1:
            raise ShapeError(
                describe(
                    "convolution", "the kernel is larger than the padded input", got=vars(self)
                )
            )

    @property
    def out_size(self) -> tuple[int, int]:
        """Output height and width."""
        padded = (sum(self.padding[:2]), sum(self.padding[2:]))
        values = zip(self.size, padded, self.kernel, self.stride, self.dilation, strict=True)
        height, width = (
            (size + pad - (kernel - 1) * dilation - 1) // stride + 1
            for size, pad, kernel, stride, dilation in values
        )
        return height, width

    @property
    def channel_width(self) -> int:
        """Floats from one input position to the next."""
        return self.channels[0] if self.rows else PANEL

    @property
    def in_width(self) -> int:
        """Floats of an input position that are read: the channels of a panel that is half empty.

        A panel's other channels are zero. Leaving them out saves their multiply-adds, but breaks up
        the run of neighbouring taps.
        """
        return self.channels[0] if self.channels[0] <= FEW_CHANNELS else self.channel_width

    @property
    def in_panels(self) -> int:
        """Panels of input channels."""
        return -(-self.channels[0] // self.channel_width)

    @property
    def out_panels(self) -> int:
        """Panels of output channels."""
        return -(-self.channels[1] // PANEL)

    @property
    def taps(self) -> int:
        """Kernel positions."""
        return self.kernel[0] * self.kernel[1]

    @property
    def pointwise(self) -> bool:
        """A matrix product of positions and channels: 1 x 1, stride 1, no padding."""
        return self.taps == 1 and self.stride == (1, 1) and not any(self.padding)

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of the input's memory."""
        if self.rows:
            return (self.images, *self.size, self.channels[0])
        return (self.in_panels, self.images * math.prod(self.size), PANEL)

    @property
    def y_shape(self) -> tuple[int, ...]:
        """Shape of the output's memory."""
        return (self.out_panels, self.images * math.prod(self.out_size), PANEL)

    @property
    def w_shape(self) -> tuple[int, ...]:
        """Shape of the weights' memory."""
        return (self.out_panels, self.in_panels, self.taps, self.channel_width, PANEL)

    @property
    def fits_rows(self) -> bool:
        """Whether a product reads rows as fast as panels, with weights that lie the same.

        Channels must fill their panels, and neighbouring rows must not compete for the same places
        of the first-level cache.
        """
        lines, rest = divmod(self.channels[0], PANEL)
        return self.pointwise and not rest and lines > 1 and math.gcd(lines, 64) <= ROW_LINES

    def multiply_adds(self) -> int:
        """What one pass computes, taps in the padding not counted (up to strips' borders).

        A data gradient of few channels computes whole panels all the same.
        """
        reached = 1
        for axis in (0, 1):
            places = range(self.out_size[axis])
            reached *= sum(
                0
                <= place * self.stride[axis] - self.padding[2 * axis] + tap * self.dilation[axis]
                < self.size[axis]
                for place in places
                for tap in range(self.kernel[axis])
            )
        width = self.in_panels * self.in_width * self.out_panels * PANEL
        return self.images * reached * width

    def _mode(self, across: int, widest: int) -> int:
        """Rows along the images on maps up to `widest`, else along the columns of one image.

        Columns break at the borders into rows of one place, of which narrow maps have many; images
        lie far apart, which wide maps make worse for the cache, and there may be few of them.
        """
        if self.pointwise:
            return FLAT
        return IMAGES if across <= widest and self.images >= min(across, 8) else COLUMNS

    def _arguments(
        self, columns: int, mode: int, units: int, parts: int, chunk: int
    ) -> dict[str, int]:
        steps = [s // math.gcd(s, d) for s, d in zip(self.stride, self.dilation, strict=True)]
        outs = [d // math.gcd(s, d) for s, d in zip(self.stride, self.dilation, strict=True)]
        values = (
            *(self.images, *self.size, *self.out_size, *self.kernel),
            *(*self.stride, *self.dilation, self.padding[0], self.padding[2]),
            *(self.channel_width, self.in_width, self.in_panels, self.out_panels),
            *(chunk, mode, units, parts, 1, int(columns <= NARROW), math.prod(self.w_shape[1:])),
            *(*steps, *outs, *self._used(0), *self._used(1), 0, 0),
        )
        return dict(zip(_SIZES, values, strict=True))

    def _used(self, axis: int) -> tuple[int, int]:
        """First tap along an axis that ever sees the input, and how many up to the last one."""
        pad, step, extent = self.padding[2 * axis], self.stride[axis], self.size[axis]
        reaching = [
            tap
            for tap in range(self.kernel[axis])
            for offset in [tap * self.dilation[axis] - pad]
            if max(0, -(offset // step)) < self.out_size[axis]
            and max(0, -(offset // step)) * step + offset < extent
        ]
        return (reaching[0], reaching[-1] + 1 - reaching[0]) if reaching else (0, 0)

    def _tiled(self, parts: int, most: int, units: int, size: tuple[int, int]) -> int:
        """A number of parts near the one given, at whose ends tiles of positions end too."""
        positions = self.images * math.prod(size)
        tile = tile_rows(positions, size)
        tiles = positions // tile if tile else 1
        if tiles == 1 or units % tiles:
            return parts
        if parts >= tiles:
            return parts // tiles * tiles
        fitting = [n for n in range(parts, tiles + 1) if tiles % n == 0 and n <= most]
        return fitting[0] if fitting else parts

    def _work_parts(self, groups: int) -> int:
        """Into how many parts each of some groups may be cut so that a task has enough to do.

        Three tasks cannot be dealt evenly to two threads, so few tasks may be smaller ones.
        """
        work = self.multiply_adds() // groups
        fine = min(work // LEAST_TASK_WORK, -(-ENOUGH_TASKS // groups))
        return max(1, work // TASK_WORK, fine)

    def _row_parts(self, groups: int, units: int, rows_per_unit: int) -> int:
        by_work = self._work_parts(groups)
        by_rows = units * rows_per_unit // TASK_ROWS
        return max(1, min(by_work, by_rows, units, -(-TASKS // groups)))

    def forward(self, blocking: Blocking) -> tuple[dict[str, int], int]:
        """Sizes for ``convolution_forward``, and its number of tasks."""
        height, width = self.out_size
        # Rows along a first layer's images lie far apart, and their results farther. They pay where
        # padding leaves places that are rows of their own, and sums have few terms.
        shallow = any(self.padding) and self.taps * self.channels[0] < 16
        mode = self._mode(width, (32 if shallow else 7) if self.rows else 16)
        units, rows = {
            FLAT: (self.images * height * width, 1),
            IMAGES: (height * width, self.images),
            COLUMNS: (self.images * height, width),
        }[mode]
        groups = -(-self.out_panels // blocking.panels)
        parts = self._row_parts(groups, units, rows)
        if mode != IMAGES:
            parts = self._tiled(parts, units, units, (height, width))
        chunk = max(1, round(DEPTH / (self.taps * self.channel_width)))
        if mode == FLAT and units <= FEW_TASK_ROWS * parts:
            chunk = self.in_panels
        return self._arguments(self.channels[1], mode, units, parts, chunk), groups * parts

    def data_gradient(self, blocking: Blocking) -> tuple[dict[str, int], int]:
        """Sizes for ``convolution_data_gradient``, and its number of tasks.

        ``scratch_size`` is the floats of scratch memory that each thread needs.

        Raises:
            ShapeError: the input is rows; a gradient needs panels.
        """
        if self.rows:
            raise ShapeError(
                describe(
                    "convolution gradient",
                    "an input of rows has no data gradient kernel",
                    fix="convert the input to panels",
                )
            )
        height, width = self.size
        mode = self._mode(width, 16)
        units, rows = {
            FLAT: (self.images * height * width, 1),
            IMAGES: (height * width, self.images),
            COLUMNS: (self.images * height, width),
        }[mode]
        groups = -(-self.in_panels // blocking.panels)
        # Each task transposes the weights for itself: that pays from some hundred rows on, unless
        # threads would have nothing to do.
        most = self._row_parts(groups, units, rows)
        parts = max(1, most // 4, min(most, -(-ENOUGH_TASKS // groups)))
        if mode != IMAGES:
            parts = self._tiled(parts, most, units, (height, width))
        chunk = min(self.out_panels, max(1, round(DEPTH / (self.taps * PANEL))))
        arguments = self._arguments(self.channels[0], mode, units, parts, chunk)
        few = mode == IMAGES and self.images <= HELD_IMAGES and height * width <= HELD_PLACES
        wide = self.channels[0] > NARROW
        arguments["held"] = int(bool(blocking.held) and wide and (mode == FLAT or few))
        if not arguments["held"]:
            arguments["scratch_size"] = chunk * self.taps * PANEL * PANEL * blocking.panels
        return arguments, groups * parts

    def weight_gradient(
        self, blocking: Blocking, stored: bool = False
    ) -> tuple[dict[str, int], int]:
        """Sizes for ``convolution_weight_gradient``, and its number of tasks.

        With more than one of ``splits``, results are partial: one after the other, to be summed.

        Args:
            blocking: of the product.
            stored: whether the gradient itself is wanted, and not a step of descent. Tasks are then
                small and of one size, so that what reads it can be cut alike (`chains`).
        """
        height, width = self.out_size
        mode = self._mode(width, 7)
        groups = -(-self.out_panels // blocking.panels)
        units = self.in_panels * self.kernel[0]
        by_work = self._work_parts(groups)
        if mode == FLAT and self.channel_width > PANEL:
            units = self.channel_width
            by_work = max(1, min(by_work, units // TASK_CHANNELS))
        positions = self.images * height * width
        rooms = positions if mode == FLAT else self.images
        wanted = -(-SPLIT_TASKS // groups)
        ample = mode == COLUMNS and positions >= AMPLE_POSITIONS
        splits = max(1, min(wanted, by_work, rooms, positions // 2048)) if ample else 1
        parts = units if splits == 1 else -(-wanted // splits)
        parts = max(1, min(parts, units, by_work // splits))
        more = min(-(-wanted // parts), by_work // parts, rooms, positions // SPLIT_POSITIONS)
        splits = max(splits, more)
        if parts == 1 and mode == COLUMNS:
            # Images in equal shares, if there are nearly as many: chains cut maps there.
            equal = max(n for n in range(1, splits + 1) if self.images % n == 0)
            splits = equal if 2 * equal >= splits else splits
        if stored and splits == 1:
            parts = self._even_parts(parts, units, blocking)
        # Positions per visit of C; in whole images unless positions are flat. A step of descent
        # that visits its weights once writes them at once, which is worth a deeper visit.
        flat = positions if positions <= 2 * DEPTH else DEPTH
        chunk = flat if mode == FLAT else max(1, 2 * DEPTH // (height * width))
        arguments = self._arguments(self.channels[1], mode, units, parts, chunk)
        return arguments | {"splits": splits}, groups * parts * splits

    def _even_parts(self, parts: int, units: int, blocking: Blocking) -> int:
        """About as many parts of units, or as many as a task's result asks for, of one size."""
        group = min(blocking.panels, self.out_panels) * math.prod(self.w_shape[1:])
        wanted = max(parts, min(units, group // TASK_RESULTS))
        even = (n for n in range(1, units + 1) if units % n == 0)
        nearest = min(even, key=lambda n: max(n / wanted, wanted / n))
        return nearest if wanted < 2 * nearest < 4 * wanted else wanted

    def weight_visits(self, sizes: dict[str, int]) -> int:
        """How often the weight gradient's kernel adds to an element of its result, at most.

        Args:
            sizes: what `weight_gradient` gave.
        """
        height, width = self.out_size
        if sizes["mode"] == FLAT:
            return -(-self.images * height * width // sizes["chunk"])
        return height * width * -(-self.images // sizes["chunk"])
