"""Poolings and their gradients, on panels."""

from __future__ import annotations

from typing import Any

from stepgraph.backends.cpu.chains import panel_cuts
from stepgraph.backends.cpu.kernels.pooling import PoolingSpec, build_pooling
from stepgraph.backends.cpu.kernels.windows import UNROLLED
from stepgraph.backends.cpu.layout_choice import Layouts
from stepgraph.backends.cpu.layouts import PANELS, panels_of
from stepgraph.backends.cpu.lower import Lowering
from stepgraph.backends.cpu.plan import At, Grid, KernelSource, KernelStep
from stepgraph.backends.cpu.registry import lowers, prefers
from stepgraph.graph.dtypes import float32
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.pooling_numpy import pooling_window
from stepgraph.graph.shapes import known_shape
from stepgraph.graph.tensor import Tensor

# Pixels that one task handles: enough to hide what a task costs.
PIXELS = 512
# Op to the kind of kernel, and which tensors are of the source's shape and of the pooled one's.
KINDS = {
    "max_pooling_2d": "max",
    "avg_pooling_2d": "avg",
    "max_pooling_2d_at_maximum": "at_maximum",
    "max_pooling_2d_gradient": "max_gradient",
    "avg_pooling_2d_gradient": "avg_gradient",
}


def _fits(op: Operation) -> bool:
    return op.attributes["data_layout"] == "NHWC" and op.output.dtype == float32


def _read(op: Operation) -> list[Tensor]:
    return [t for k, t in enumerate(op.inputs) if k not in op.definition.shape_only]


@prefers(*KINDS)
def _prefer(layouts: Layouts, op: Operation) -> None:
    if _fits(op):
        for tensor in (*_read(op), op.output):
            layouts.of.setdefault(tensor, PANELS)


@lowers(*KINDS)
def _lower(ctx: Lowering, op: Operation) -> bool:
    kind = KINDS[op.type]
    backward = kind.endswith("_gradient")
    source, pooled = (op.output, op.inputs[0]) if backward else (op.inputs[-1], op.output)
    n, height, width, channels = known_shape(source.shape)
    _, rows, columns, _ = known_shape(pooled.shape) if _fits(op) else (0, 0, 0, 0)
    if 0 in (n, height, width, channels, rows, columns):
        return False
    window = pooling_window(op.attributes)
    counted = bool(op.attributes.get("include_zero_pad_to_average", False))
    (top, _), (left, _) = window.pads((height, width))
    kh, kw = window.kernel
    disjoint = (
        kind != "at_maximum"
        and window.strides == window.kernel
        and (top, left) == (0, 0)
        and (rows * kh <= height and columns * kw <= width and kh * kw <= UNROLLED)
    )
    spec = PoolingSpec(kind, window.kernel, counted, disjoint)
    block = max(1, PIXELS // width)
    if backward and disjoint:
        block = -(-block // kh) * kh
    elif backward:
        # Neighbouring blocks both look at the windows between them.
        block = max(block, 4 * window.kernel[0])
    blocks = -(-(height if backward else rows) // block)
    reads = [ctx.value(t, PANELS) for t in _read(op)]
    target = ctx.output(op.output, PANELS)
    arguments: dict[str, Any] = dict(zip(spec.reads, map(At, reads), strict=True))
    arguments |= {"y": At(target), "h": height, "w": width, "oh": rows, "ow": columns}
    arguments |= {"sh": window.strides[0], "sw": window.strides[1], "top": top, "left": left}
    arguments |= {"block": block, "blocks": blocks}
    ctx.add(
        KernelStep(
            name=op.type,
            reads=reads,
            writes=[target],
            # A window's pixels are all read before one of them is written.
            aliases=(reads[1],) if kind == "max_gradient" and disjoint else (),
            source=KernelSource(("pooling", spec), lambda: build_pooling(spec)),
            kernel="pool",
            arguments=arguments,
            tasks=panels_of(channels) * n * blocks,
            grid=_grid(ctx, op, backward, spec, block, blocks),
        )
    )
    return True


def _grid(
    ctx: Lowering, op: Operation, backward: bool, spec: PoolingSpec, block: int, blocks: int
) -> Grid | None:
    """How tasks tile both maps: by images, or by rows of windows that do not touch."""
    if blocks > 1 and not spec.disjoint:
        return None
    source, pooled = (op.output, op.inputs[0]) if backward else (op.inputs[-1], op.output)
    tiled = {}
    for tensor, step in ((source, spec.kernel[0]), (pooled, 1)):
        images, height, width, channels = known_shape(tensor.shape)
        rows = block * step // (spec.kernel[0] if backward else 1)
        cuts = [
            (image * height + min(number * rows, height)) * width
            for image in range(images)
            for number in range(blocks)
        ]
        tiled[ctx.value(tensor, PANELS)] = (*cuts, images * height * width)
    return Grid(panel_cuts(panels_of(channels), 1), tiled)
