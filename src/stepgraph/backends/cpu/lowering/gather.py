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
from stepgraph.graph.dtypes import DType, int64
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.gather import check_indices
from stepgraph.graph.ops.gather_nd import nd_flat
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


def _flat(ctx: Lowering, op: Operation, x: Tensor, indices: Tensor) -> Buffer:
    """Tuples of indices as row numbers, checked and computed by the reference's own code."""
    shape, batch = known_shape(x.shape), op.attributes["batch_dimensions"]
    if indices.operation.type == "constant":
        value: Array = indices.operation.attributes["value"]
        return constant(nd_flat(shape, value, batch, op.type), f"{op.name}/rows")
    given = ctx.value(indices, ROWS)
    flat = ctx.scratch((prod(given.shape[:-1]),), int64, f"{op.name}/rows")
    ctx.add(
        PythonStep(
            f"{op.type}: check indices",
            [given],
            [flat],
            function=lambda arrays: [nd_flat(shape, arrays[0], batch, op.type)],
        )
    )
    return flat


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


@lowers("gather_nd")
def _lower_gather_nd(ctx: Lowering, op: Operation) -> bool:
    x, indices = op.inputs
    shape = known_shape(x.shape)
    if x.dtype.name not in TYPES or 0 in shape:
        return False
    split = op.attributes["batch_dimensions"] + known_shape(indices.shape)[-1]
    flat = _flat(ctx, op, x, indices)
    source, target = ctx.value(x, ROWS), ctx.output(op.output, ROWS)
    behind = prod(shape[split:])
    block = max(1, ELEMENTS // behind)
    sizes = {"before": 1, "inner": 1, "size": prod(shape[:split]), "behind": behind}
    sizes |= {"count": flat.count, "block": block, "blocks": 1}
    _move(ctx, op, "gather", (source, flat, target), sizes, -(-flat.count // block))
    return True


def _combines(dtype: DType, mode: str) -> bool:
    """Whether there is a kernel for a scatter."""
    if dtype.name not in TYPES or dtype.is_bool:
        return False
    if mode == "div" and not dtype.is_float:
        return False
    return mode not in ("min", "max") or dtype.kind != "uint"


@lowers("scatter")
def _lower_scatter(ctx: Lowering, op: Operation) -> bool:
    data, updates, indices = op.inputs
    axis, mode = op.attributes["axis"], op.attributes["mode"]
    shape = known_shape(data.shape)
    if not _combines(data.dtype, mode) or 0 in shape:
        return False
    number = ctx.number(data)
    moved = [updates] if number is not None else [data, updates]
    line = len(known_shape(indices.shape)) == 1
    panels = axis < len(shape) - 1 and line and all(ctx.has(t, PANELS) for t in moved)
    layout = PANELS if panels and not number else ROWS
    checked = _checked(ctx, op, indices, shape[axis], axis)
    target = _started(ctx, op, layout)
    count = prod(known_shape(indices.shape))
    if count:
        source = ctx.value(updates, layout)
        shape, axis = _laid_out(shape, axis, layout)
        sizes = {"before": prod(shape[:axis]), "size": shape[axis], "count": count}
        _combine(ctx, op, (source, checked, target), sizes, prod(shape[axis + 1 :]))
    return True


@lowers("scatter_nd")
def _lower_scatter_nd(ctx: Lowering, op: Operation) -> bool:
    data, updates, indices = op.inputs
    shape = known_shape(data.shape)
    if not _combines(data.dtype, op.attributes["mode"]) or 0 in shape:
        return False
    split = op.attributes["batch_dimensions"] + known_shape(indices.shape)[-1]
    flat = _flat(ctx, op, data, indices)
    target = _started(ctx, op, ROWS)
    if flat.count:
        source = ctx.value(updates, ROWS)
        sizes = {"before": 1, "size": prod(shape[:split]), "count": flat.count}
        _combine(ctx, op, (source, flat, target), sizes, prod(shape[split:]))
    return True


def _started(ctx: Lowering, op: Operation, layout: Layout) -> Buffer:
    """The result of a scatter before anything is scattered: the data."""
    data = op.inputs[0]
    number = ctx.number(data)
    if number is None:
        old = ctx.value(data, layout)
        target = ctx.output(op.output, layout)
        copy(ctx, any_view(old), any_view(target), f"{op.type}: data", over=True)
        return target
    target = ctx.output(op.output, layout)
    one = constant(np.array(number, data.dtype.numpy), f"{op.name}/value")
    whole = any_view(target)
    copy(ctx, view(one).broadcast(whole.sizes), whole, f"{op.type}: fill")
    return target


def _combine(
    ctx: Lowering,
    op: Operation,
    buffers: tuple[Buffer, Buffer, Buffer],
    sizes: dict[str, int],
    behind: int,
) -> None:
    block = -(-behind // PARTS // LANES) * LANES or LANES
    blocks = -(-behind // block)
    sizes |= {"inner": sizes["before"], "behind": behind, "block": block, "blocks": blocks}
    _move(ctx, op, op.attributes["mode"], buffers, sizes, sizes["before"] * blocks)


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
