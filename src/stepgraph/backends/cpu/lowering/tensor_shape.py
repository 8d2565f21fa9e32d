"""Reshapes that move nothing, and copies of what does move."""

from __future__ import annotations

import numpy as np

from stepgraph.backends.cpu.kernels.copy import TYPES
from stepgraph.backends.cpu.layouts import LANES, PANELS, ROWS, Layout
from stepgraph.backends.cpu.lower import Lowering
from stepgraph.backends.cpu.plan import Buffer
from stepgraph.backends.cpu.registry import lowers
from stepgraph.backends.cpu.views import (
    any_view,
    constant,
    copies,
    copy,
    lead_view,
    split_view,
    view,
)
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import known_shape
from stepgraph.graph.tensor import Tensor


@lowers("reshape", "expand_dims", "squeeze", "flatten_2d", "identity", "stop_gradient")
def _lower_view(ctx: Lowering, op: Operation) -> bool:
    """The same memory under another shape; panels stay panels while the channels stay."""
    source = op.inputs[0]
    old, new = known_shape(source.shape), known_shape(op.output.shape)
    same_channels = bool(old) and bool(new) and old[-1] == new[-1]
    layout = PANELS if same_channels and ctx.has(source, PANELS) else ROWS
    buffer = ctx.value(source, layout)
    ctx.alias(op.output, buffer)
    return True


def layout_apart(ctx: Lowering, tensor: Tensor) -> Layout:
    """Panels if the tensor lies in them already, for an op that leaves its last axis alone."""
    shape = known_shape(tensor.shape)
    return PANELS if shape and ctx.has(tensor, PANELS) else ROWS


@lowers("permute")
def _lower_permute(ctx: Lowering, op: Operation) -> bool:
    """A copy; straight between panels and rows where channels fill their panels."""
    x, order = op.inputs[0], list(op.attributes["permutation"])
    shape, rank = known_shape(x.shape), len(op.attributes["permutation"])
    if not rank or x.dtype.name not in TYPES:
        return False
    full = [size % LANES == 0 for size in shape]
    same_last = order[-1] == rank - 1
    inside = PANELS if (full[-1] or same_last) and ctx.has(x, PANELS) else ROWS
    wanted = PANELS if full[order[-1]] and ctx.layouts.get(op.output) is PANELS else ROWS
    if same_last and inside is PANELS:
        source, target = ctx.value(x, PANELS), ctx.output(op.output, PANELS)
        moved = lead_view(source).permuted([0, *(a + 1 for a in order)])
        copy(ctx, moved, lead_view(target), op.type)
        return True
    source, target = ctx.value(x, inside), ctx.output(op.output, wanted)
    split = {rank - 1} if inside is PANELS else set()
    split |= {order[-1]} if wanted is PANELS else set()
    old = split_view(source) if rank - 1 in split else view(source)
    new = split_view(target) if order[-1] in split else view(target)
    # Axes that one side has in two parts, the other gets in two parts as well.
    for axis in sorted(split - {rank - 1}):
        old = old.split(axis, (shape[axis] // LANES, LANES))
    for axis in sorted(split - {order[-1]}):
        new = new.split(order.index(axis), (shape[axis] // LANES, LANES))
    starts: dict[int, list[int]] = {}
    for axis in range(rank):
        first = sum(map(len, starts.values()))
        starts[axis] = [first, first + 1] if axis in split else [first]
    copy(ctx, old.permuted([part for a in order for part in starts[a]]), new, op.type)
    return True


@lowers("broadcast", "cast")
def _lower_spread(ctx: Lowering, op: Operation) -> bool:
    """What no fused loop takes: other element types."""
    source = ctx.value(op.inputs[0], ROWS)
    target = Buffer(known_shape(op.output.shape), op.output.dtype, ROWS, "")
    if not copies(source, target):
        return False
    target = ctx.output(op.output, ROWS)
    copy(ctx, view(source).broadcast(target.shape), view(target), op.type)
    return True


@lowers("reverse")
def _lower_reverse(ctx: Lowering, op: Operation) -> bool:
    x, axes = op.inputs[0], op.attributes["axes"]
    rank = x.rank
    layout = ROWS if rank - 1 in axes else layout_apart(ctx, x)
    source, target = ctx.value(x, layout), ctx.output(op.output, layout)
    moved = any_view(source)
    for axis in axes:
        moved = moved.reversed(axis + (layout is PANELS))
    copy(ctx, moved, any_view(target), op.type)
    return True


@lowers("tile")
def _lower_tile(ctx: Lowering, op: Operation) -> bool:
    x, multiples = op.inputs[0], list(op.attributes["multiples"])
    layout = layout_apart(ctx, x) if multiples and multiples[-1] == 1 else ROWS
    source, target = any_view(ctx.value(x, layout)), any_view(ctx.output(op.output, layout))
    if layout is PANELS:
        multiples = [1, *multiples]
    for axis in reversed(range(len(multiples))):
        source = source.split(axis, (1, source.sizes[axis]))
        target = target.split(axis, (multiples[axis], source.sizes[axis + 1]))
    copy(ctx, source.broadcast(target.sizes), target, op.type)
    return True


@lowers("coordinate_along_axis")
def _lower_coordinate(ctx: Lowering, op: Operation) -> bool:
    shape, axis = op.attributes["shape"], op.attributes["axis"] % len(op.attributes["shape"])
    target = ctx.output(op.output, ROWS)
    line = constant(np.arange(shape[axis], dtype=np.int32), f"{op.name}/line")
    sizes = [shape[axis] if a == axis else 1 for a in range(len(shape))]
    copy(ctx, view(line, sizes).broadcast(shape), view(target), op.type)
    return True
