"""Depthwise convolutions of multiplier 1 and their gradients, on panels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from stepgraph.backends.cpu.chains import block_cuts, panel_cuts
from stepgraph.backends.cpu.kernels.depthwise import DepthwiseSpec, build_depthwise
from stepgraph.backends.cpu.kernels.depthwise_rows import RowsSpec, build_rows, fits_rows
from stepgraph.backends.cpu.layout_choice import Layouts
from stepgraph.backends.cpu.layouts import LANES, PANELS, ROWS, panels_of
from stepgraph.backends.cpu.lower import Lowering
from stepgraph.backends.cpu.plan import Asking, At, Buffer, Grid, KernelSource, KernelStep
from stepgraph.backends.cpu.registry import lowers, prefers
from stepgraph.graph.dtypes import float32
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import known_shape
from stepgraph.graph.tensor import Tensor
from stepgraph.graph.windows import Window

# Windows that one task looks at, and that one partial sum of a weight gradient is made of.
WINDOWS, SUMMED = 1024, 1024
# The most outputs of a row that are summed together, and of a weight gradient, by what a vector
# register holds: as many as leave room for what they are made of.
OUTPUTS = {16: (8, 4), 8: (4, 2), 4: (4, 2)}


def _tensors(op: Operation) -> tuple[Tensor, Tensor, Tensor]:
    """(source, weights, pooled) tensors of an op, inputs or output."""
    a, b = op.inputs[:2]
    if op.type.endswith("data_gradient"):
        return op.output, b, a
    if op.type.endswith("weights_gradient"):
        return b, op.output, a
    return a, b, op.output


def _fits(op: Operation) -> bool:
    a = op.attributes
    plain = a["data_layout"] == "NHWC" and a["weights_layout"] == "HWIO"
    shape = known_shape(_tensors(op)[1].shape)
    return plain and op.output.dtype == float32 and shape[-1] == 1


_Spec = TypeVar("_Spec", DepthwiseSpec, RowsSpec)

NAMES = (
    "depthwise_convolution_2d",
    "depthwise_convolution_2d_data_gradient",
    "depthwise_convolution_2d_weights_gradient",
)


@prefers(*NAMES)
def _prefer(layouts: Layouts, op: Operation) -> None:
    if _fits(op):
        source, _, pooled = _tensors(op)
        for tensor in (source, pooled):
            layouts.of.setdefault(tensor, PANELS)


@lowers(*NAMES)
def _lower(ctx: Lowering, op: Operation) -> bool:
    if not _fits(op):
        return False
    source, weights, pooled = _tensors(op)
    (n, height, width, channels), (_, rows, columns, _) = map(
        known_shape, (source.shape, pooled.shape)
    )
    kernel = known_shape(weights.shape)[:2]
    if 0 in (n, height, width, channels, rows, columns, *kernel):
        return False
    window = Window.of(kernel, op.attributes)
    (top, _), (left, _) = window.pads((height, width))
    sizes = {"h": height, "w": width, "oh": rows, "ow": columns}
    kind, flipped = "forward", False
    if op.type.endswith("weights_gradient"):
        kind = "weights"
    elif op.type.endswith("data_gradient"):
        flipped = window.strides == (1, 1)
        kind = "forward" if flipped else "scatter"
    if flipped:
        sizes = {"h": rows, "w": columns, "oh": height, "ow": width}
        top, left = window.extent[0] - 1 - top, window.extent[1] - 1 - left
    arguments: dict[str, Any] = {**sizes, "top": top, "left": left, "images": n}
    arguments["channels"] = channels
    if kind == "weights":
        return _weights(ctx, op, window, arguments)
    x, w = ctx.value(op.inputs[0], PANELS), ctx.value(weights, ROWS)
    y = ctx.output(op.output, PANELS)
    arguments |= {"x": At(x), "k": At(w), "y": At(y)}
    if kind == "forward" and fits_rows(window.kernel):
        block = _rows_of_task(n, (sizes["oh"], sizes["ow"]), WINDOWS)
        blocks = -(-n * sizes["oh"] // block)
        strides = (1, 1) if flipped else window.strides
        outputs = _outputs(sizes["ow"])[0]
        rows_spec = RowsSpec(kind, window.kernel, strides, window.dilations, outputs, flipped)
        arguments |= {"block": block, "blocks": blocks}
        grid = _grid(channels, arguments, x, y)
        tasks = panels_of(channels) * blocks
        asking: Asking | None = _asking(y, rows_spec, _rows_source)
        _add(
            ctx, op, _rows_source(rows_spec), [x, w], y, arguments, tasks, "depthwise", grid, asking
        )
        return True
    block, high = max(1, WINDOWS // sizes["ow"]), sizes["oh"]
    if kind == "scatter":
        # Neighbouring blocks both look at the windows between them.
        block, high = max(1, WINDOWS // width, 4 * window.extent[0]), height
    blocks = -(-high // block)
    spec = DepthwiseSpec(kind, window.kernel, window.dilations, flipped)
    arguments |= {"block": block, "blocks": blocks}
    arguments |= {"sh": window.strides[0], "sw": window.strides[1]}
    images: Grid | None = None
    if blocks == 1:
        # A task takes one image of both maps.
        areas = {(y if kind == "scatter" else x): height * width}
        areas[x if kind == "scatter" else y] = rows * columns
        cuts = {b: tuple(k * area for k in range(n + 1)) for b, area in areas.items()}
        images = Grid(panel_cuts(panels_of(channels), 1), cuts)
    tasks = panels_of(channels) * n * blocks
    asking = _asking(x, spec, _source) if kind == "scatter" else None
    _add(ctx, op, _source(spec), [x, w], y, arguments, tasks, "depthwise", images, asking)
    return True


def _outputs(width: int) -> tuple[int, int]:
    """How many outputs are computed together on maps of a width; see `OUTPUTS`."""
    most, most_of_weights = OUTPUTS[_lanes()]
    # Half a block left empty costs as much as a block of half the size saves.
    while most > 1 and most >= 2 * width:
        most //= 2
    return most, min(most, most_of_weights)


def _rows_of_task(images: int, size: tuple[int, int], windows: int) -> int:
    """Rows of windows for one task: of whole images, as many for every task, if they are small."""
    height, width = size
    most = windows // (height * width)
    whole = next((n for n in range(min(images, most), 0, -1) if images % n == 0), 0)
    return whole * height or max(1, windows // width)


def _grid(channels: int, sizes: dict[str, Any], source: Buffer, pooled: Buffer) -> Grid:
    """How tasks tile the pooled map, and the source where they look at whole images."""
    rows, height, width = sizes["images"] * sizes["oh"], sizes["oh"], sizes["ow"]
    cuts = block_cuts(rows, sizes["block"])
    tiled = {pooled: tuple(cut * width for cut in cuts)}
    if sizes["block"] % height == 0:
        image = sizes["h"] * sizes["w"]
        tiled[source] = tuple(cut // height * image for cut in cuts)
    return Grid(panel_cuts(panels_of(channels), 1), tiled)


def _lanes() -> int:
    from stepgraph.backends.cpu.native.target import host_target

    return min(host_target().lanes, LANES)


def _together(taps: int) -> bool:
    """Whether the sums of all taps take at most half of the vector registers."""
    from stepgraph.backends.cpu.native.target import host_target

    return taps * LANES // _lanes() <= host_target().vector_registers // 2


def _source(spec: DepthwiseSpec) -> KernelSource:
    return KernelSource(("depthwise", spec), lambda: build_depthwise(spec))


def _rows_source(spec: RowsSpec) -> KernelSource:
    return KernelSource(("depthwise_rows", spec), lambda: build_rows(spec))


def _asking(pooled: Buffer, spec: _Spec, source: Callable[[_Spec], KernelSource]) -> Asking:
    """How a kernel that goes over the pooled map asks for lines on the way."""
    return pooled, lambda ahead: source(replace(spec, ahead=ahead))


def _weights(ctx: Lowering, op: Operation, window: Window, arguments: dict[str, Any]) -> bool:
    source_tensor, _, pooled = _tensors(op)
    panels, taps = panels_of(arguments["channels"]), window.kernel[0] * window.kernel[1]
    rows = arguments["images"] * arguments["oh"]
    block = _rows_of_task(arguments["images"], (arguments["oh"], arguments["ow"]), SUMMED)
    parts = -(-rows // block)
    x, g = ctx.value(source_tensor, PANELS), ctx.value(pooled, PANELS)
    partial = ctx.scratch((parts, panels, taps, LANES), float32, f"{op.name}/partial")
    arguments |= {"x": At(x), "k": At(g), "y": At(partial), "block": block, "blocks": parts}
    if fits_rows(window.kernel):
        outputs = _outputs(arguments["ow"])[1]
        sizes = (window.kernel, window.strides, window.dilations, outputs)
        spec = RowsSpec("weights", *sizes, together=_together(taps))
        source, asking = _rows_source(spec), _asking(g, spec, _rows_source)
    else:
        asking = None
        source = _source(DepthwiseSpec("weights", window.kernel, window.dilations))
        arguments |= {"sh": window.strides[0], "sw": window.strides[1]}
    grid = _grid(arguments["channels"], arguments, x, g)
    tasks = panels * parts
    _add(ctx, op, source, [x, g], partial, arguments, tasks, "depthwise", grid, asking)
    target = ctx.output(op.output, ROWS)
    totals = {"x": At(partial), "y": At(target), "parts": parts, "panels": panels}
    totals["channels"] = arguments["channels"]
    _add(ctx, op, source, [partial], target, totals, panels, "total")
    return True


def _add(
    ctx: Lowering,
    op: Operation,
    source: KernelSource,
    reads: list[Buffer],
    target: Buffer,
    arguments: dict[str, Any],
    tasks: int,
    kernel: str = "depthwise",
    grid: Grid | None = None,
    asking: Asking | None = None,
) -> None:
    ctx.add(
        KernelStep(
            name=op.type if kernel == "depthwise" else f"{op.type}: total",
            reads=reads,
            writes=[target],
            source=source,
            kernel=kernel,
            arguments=arguments,
            tasks=tasks,
            grid=grid,
            asking=asking,
        )
    )
