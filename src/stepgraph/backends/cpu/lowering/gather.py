"""Gather and scatter along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from stepgraph.backends.cpu.kernels.copy import TYPES
from stepgraph.backends.cpu.kernels.gather import GatherSpec, build_gather
from stepgraph.backends.cpu.layouts import LANES, PANELS, ROWS, Layout, panels_of
from stepgraph.backends.cpu.lower import Lowering
from stepgraph.backends.cpu.plan import At, Buffer, KernelSource, KernelStep, PythonStep
from stepgraph.backends.cpu.registry import lowers
from stepgraph.backends.cpu.views import any_view, constant, copy, view
from stepgraph.graph.definition import Array
from stepgraph.graph.dtypes import int64
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.gather import check_indices
from stepgraph.graph.shapes import known_shape
from stepgraph.graph.tensor import Tensor

# Elements that one task of a gather copies; tasks that a scatter is cut into along `behind`.
ELEMENTS = 8192
PARTS = 64


def _checked(ctx: Lowering, op: Operation, indices: Tensor, size: int, axis: int) -> Buffer:
    """The indices as int32 or int64, refused when one is outside the axis."""
    if indices.operation.type == "constant":
        value: Array = indices.operation.attributes["value"]
        check_indices(op.type, value, size, axis)
        return constant(np.ascontiguousarray(value).astype(np.int64), f"{op.name}/indices")
    given = ctx.value(indices, ROWS)

    def check(arrays: Sequence[Array]) -> Sequence[Array]:
        check_indices(op.type, arrays[0], size, axis)
        return ()

    ctx.add(PythonStep(f"{op.type}: check indices", [given], [], function=check))
    if given.dtype.name in ("int32", "int64"):
        return given
    wide = ctx.scratch(given.shape, int64, f"{op.name}/indices")
    copy(ctx, view(given), view(wide), f"{op.type}: widen indices")
    return wide


def _laid_out(shape: tuple[int, ...], axis: int, layout: Layout) -> tuple[tuple[int, ...], int]:
    """A shape and an axis of it, as rows; panels are one more axis in front."""
    if layout is PANELS:
        return (panels_of(shape[-1]), *shape[:-1], LANES), axis + 1
    return shape, axis


@lowers("gather")
def _lower_gather(ctx: Lowering, op: Operation) -> bool:
    x, indices = op.inputs
    axis, batch = op.attributes["axis"], op.attributes["batch_dimensions"]
    shape = known_shape(x.shape)
    if x.dtype.name not in TYPES or 0 in shape:
        return False
    apart = axis < len(shape) - 1 and not batch
    layout = PANELS if apart and ctx.has(x, PANELS) else ROWS
    checked = _checked(ctx, op, indices, shape[axis], axis)
    source, target = ctx.value(x, layout), ctx.output(op.output, layout)
    shape, axis = _laid_out(shape, axis, layout)
    count = prod(known_shape(indices.shape)[batch:])
    before, behind = prod(shape[:axis]), prod(shape[axis + 1 :])
    block = max(1, ELEMENTS // max(behind, 1))
    sizes = {"before": before, "inner": prod(shape[batch:axis]), "size": shape[axis]}
    sizes |= {"behind": behind, "count": count, "block": block, "blocks": 1}
    _move(ctx, op, "gather", (source, checked, target), sizes, -(-before * count // block))
    return True


@lowers("scatter")
def _lower_scatter(ctx: Lowering, op: Operation) -> bool:
    data, updates, indices = op.inputs
    axis, mode = op.attributes["axis"], op.attributes["mode"]
    shape, name = known_shape(data.shape), data.dtype.name
    if name not in TYPES or name == "bool" or 0 in shape:
        return False
    if mode == "div" and not data.dtype.is_float:
        return False
    if mode in ("min", "max") and data.dtype.kind == "uint":
        return False
    moved = [updates] if ctx.number(data) is not None else [data, updates]
    line = len(known_shape(indices.shape)) == 1
    panels = axis < len(shape) - 1 and line and all(ctx.has(t, PANELS) for t in moved)
    layout = PANELS if panels and not ctx.number(data) else ROWS
    checked = _checked(ctx, op, indices, shape[axis], axis)
    number = ctx.number(data)
    count = prod(known_shape(indices.shape))
    if number is not None:
        target = ctx.output(op.output, layout)
        one = constant(np.array(number, data.dtype.numpy), f"{op.name}/value")
        whole = any_view(target)
        copy(ctx, view(one).broadcast(whole.sizes), whole, f"{op.type}: fill")
    else:
        old = ctx.value(data, layout)
        target = ctx.output(op.output, layout)
        copy(ctx, any_view(old), any_view(target), f"{op.type}: data", over=True)
    if not count:
        return True
    source = ctx.value(updates, layout)
    shape, axis = _laid_out(shape, axis, layout)
    before, behind = prod(shape[:axis]), prod(shape[axis + 1 :])
    block = -(-behind // PARTS // LANES) * LANES or LANES
    blocks = -(-behind // block)
    sizes = {"before": before, "inner": before, "size": shape[axis], "behind": behind}
    sizes |= {"count": count, "block": block, "blocks": blocks}
    _move(ctx, op, mode, (source, checked, target), sizes, before * blocks)
    return True


def _move(
    ctx: Lowering,
    op: Operation,
    kind: str,
    buffers: tuple[Buffer, Buffer, Buffer],
    sizes: dict[str, int],
    tasks: int,
) -> None:
    source, indices, target = buffers
    spec = GatherSpec(kind, target.dtype.name, indices.dtype.name)
    arguments: dict[str, Any] = {"x": At(source), "indices": At(indices), "y": At(target), **sizes}
    ctx.add(
        KernelStep(
            name=op.type,
            reads=[source, indices],
            writes=[target],
            source=KernelSource(("gather", spec), lambda: build_gather(spec)),
            kernel="move",
            arguments=arguments,
            tasks=tasks,
            accumulates=kind != "gather",
        )
    )
