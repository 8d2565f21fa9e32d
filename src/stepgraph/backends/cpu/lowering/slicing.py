"""Slices, joins and padding: copies of parts, within panels where channels stay in theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stepgraph.backends.cpu.layouts import LANES, PANELS, ROWS, Layout, panels_of
from stepgraph.backends.cpu.lower import Lowering
from stepgraph.backends.cpu.registry import lowers
from stepgraph.backends.cpu.views import View, any_view, constant, copy, view
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import known_shape
from stepgraph.graph.slices import Range, resolve_slices
from stepgraph.graph.tensor import Tensor


def _whole_panels(ranges: Sequence[Range], shape: tuple[int, ...]) -> bool:
    """Whether a part's channels are whole panels, or reach the end from the start of one."""
    if not shape:
        return False
    last, channels = ranges[-1], shape[-1]
    end = last.start + (last.length or 0)
    ends_well = end == channels or end % LANES == 0
    return last.stride == 1 and last.start % LANES == 0 and ends_well


def _part(whole: View, ranges: Sequence[Range]) -> View:
    """The elements of a view that a slice means; its axes may be those of panels."""
    panels = len(whole.sizes) - len(ranges)
    for axis, r in enumerate(ranges):
        length = r.length or 0
        if not panels:
            whole = whole.sliced(axis, r.start, length, r.stride)
        elif axis < len(ranges) - 1:
            whole = whole.sliced(axis + 1, r.start, length, r.stride)
        else:
            whole = whole.sliced(0, r.start // LANES, panels_of(length))
    return whole


def _slice(ctx: Lowering, op: Operation, ranges: Sequence[Range], squeezed: Sequence[bool]) -> bool:
    x = op.inputs[0]
    shape = known_shape(x.shape)
    panels = _whole_panels(ranges, shape) and not any(squeezed[-1:]) and ctx.has(x, PANELS)
    layout = PANELS if panels else ROWS
    part = _part(any_view(ctx.value(x, layout)), ranges)
    target = ctx.output(op.output, layout)
    copy(ctx, part, any_view(target, [r.length or 0 for r in ranges]), op.type)
    return True


@lowers("slice")
def _lower_slice(ctx: Lowering, op: Operation) -> bool:
    shape, a = known_shape(op.inputs[0].shape), op.attributes
    dimension = a["dimension"]
    start = a["start"] + shape[dimension] if a["start"] < 0 else a["start"]
    ranges = [Range(0, size, 1) for size in shape]
    ranges[dimension] = Range(start, a["length"], 1)
    return _slice(ctx, op, ranges, [False] * len(shape))


@lowers("strided_slice")
def _lower_strided(ctx: Lowering, op: Operation) -> bool:
    shape = known_shape(op.inputs[0].shape)
    squeezed = op.attributes["squeeze_mask"] or (False,) * len(shape)
    return _slice(ctx, op, resolve_slices(shape, **op.attributes), squeezed)


@lowers("slice_update")
def _lower_update(ctx: Lowering, op: Operation) -> bool:
    data, update = op.inputs
    shape = known_shape(data.shape)
    if not shape:
        return False
    ranges = resolve_slices(shape, **op.attributes)
    layout = _where(ctx, [data, update]) if _whole_panels(ranges, shape) else ROWS
    number = ctx.number(data)
    if number and shape[-1] % LANES:
        layout = ROWS  # lanes past the last channel stay zero
    if number is not None:
        target = ctx.output(op.output, layout)
        _fill(ctx, any_view(target), number, op)
    else:
        old = ctx.value(data, layout)
        target = ctx.output(op.output, layout)
        copy(ctx, any_view(old), any_view(target), f"{op.type}: data", over=True)
    new = ctx.value(update, layout)
    lengths = [r.length or 0 for r in ranges]
    copy(ctx, any_view(new, lengths), _part(any_view(target), ranges), op.type, part=True)
    return True


def _fill(ctx: Lowering, whole: View, number: Any, op: Operation, part: bool = False) -> None:
    one = constant(np.array(number, whole.buffer.dtype.numpy), f"{op.name}/value")
    copy(ctx, view(one).broadcast(whole.sizes), whole, f"{op.type}: fill", part=part)


def _where(ctx: Lowering, tensors: Sequence[Tensor]) -> Layout:
    """Panels if any of the tensors lies in them."""
    return PANELS if any(ctx.has(t, PANELS) for t in tensors) else ROWS


# -- joins ----------------------------------------------------------------------------------------


@lowers("concat")
def _lower_concat(ctx: Lowering, op: Operation) -> bool:
    tensors = [t for t in op.inputs if 0 not in known_shape(t.shape)]
    rank = op.output.rank
    axis = op.attributes["axis"] % rank
    layout = _where(ctx, tensors)
    # Channels can be joined panel by panel while all but the last tensor fill theirs.
    if axis == rank - 1 and any(known_shape(t.shape)[-1] % LANES for t in tensors[:-1]):
        layout = ROWS
    at = (0 if axis == rank - 1 else axis + 1) if layout is PANELS else axis
    parts = [any_view(ctx.value(t, layout)) for t in tensors]
    target = any_view(ctx.output(op.output, layout))
    start = 0
    for part in parts:
        to = target.sliced(at, start, part.sizes[at])
        copy(ctx, part, to, op.type, part=start > 0)
        start += part.sizes[at]
    return True


# -- padding --------------------------------------------------------------------------------------


@lowers("pad")
def _lower_pad(ctx: Lowering, op: Operation) -> bool:
    x, a = op.inputs[0], op.attributes
    paddings = a["paddings"]
    if a["mode"] != "constant" or not paddings:
        return False
    shape, value = known_shape(x.shape), np.asarray(a["value"]).astype(x.dtype.numpy).item()
    layout = _where(ctx, [x])
    if any(paddings[-1]) or (value and shape[-1] % LANES):
        layout = ROWS
    if 0 in shape:
        _fill(ctx, any_view(ctx.output(op.output, layout)), value, op)
        return True
    source = any_view(ctx.value(x, layout))
    inner = target = any_view(ctx.output(op.output, layout))
    shift = layout is PANELS
    first = True
    # Axis by axis, what lies before and behind in the part that is left: nothing is written twice.
    for axis, (before, after) in enumerate(paddings):
        at = axis + shift
        if axis == len(paddings) - 1 and shift:
            break
        for start, length in ((0, before), (inner.sizes[at] - after, after)):
            if length:
                _fill(ctx, inner.sliced(at, start, length), value, op, part=not first)
                first = False
        inner = inner.sliced(at, before, shape[axis])
    assert target.buffer is inner.buffer
    copy(ctx, source, inner, op.type, part=not first)
    return True
