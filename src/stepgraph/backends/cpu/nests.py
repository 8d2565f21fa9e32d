"""Groups of mapped and reduced operations become nests: in which layout, walked in which way.

Three ways: flat where all operands move alike, by output channels where they are weights, and over
the group's own axes otherwise. What is launched then is the business of `nest_steps.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stepgraph.backends.cpu.fusion import Group, count
from stepgraph.backends.cpu.layouts import LANES, PANELS, ROWS, STEM, WEIGHTS, Layout, panels_of
from stepgraph.backends.cpu.nest_steps import MOVES, REDUCTIONS, Moved, cut_before, emit
from stepgraph.backends.cpu.walks import Grid, Walk, collapse, place, walk
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import known_shape
from stepgraph.graph.tensor import Tensor

if TYPE_CHECKING:
    from stepgraph.backends.cpu.lower import Lowering


def lower_group(ctx: Lowering, group: Group) -> None:
    """Adds the steps of a group of mapped and reduced operations."""
    operations, inputs = ctx.fusion.expression(group)
    sums = [op for op in group.operations if op.type in REDUCTIONS]
    if not group.stored and not sums:
        return
    full = group.shape or ()
    layout = ctx.layout_of_group(group, inputs)
    paneled = layout in (WEIGHTS, STEM) and _by_output_channel(ctx, group, inputs, sums, layout)
    flat = _flat(ctx, full, inputs, group, sums, layout)
    if flat and not (paneled and cut_before(ctx, inputs)):
        _lower_flat(ctx, group, operations, inputs, layout)
        return
    if paneled:
        _lower_weights(ctx, group, operations, inputs, sums, layout)
        return
    if layout not in (PANELS, ROWS) or not full:
        layout = ROWS
    _lower_general(ctx, group, operations, inputs, sums, layout)


# -- flat: every operand has the same layout or is one number -------------------------------------


def _flat(
    ctx: Lowering,
    full: tuple[int, ...],
    inputs: Sequence[Tensor],
    group: Group,
    sums: Sequence[Operation],
    layout: Layout,
) -> bool:
    size = int(np.prod(full, dtype=np.int64))
    if sums or any(count(t) not in (1, size) for t in inputs):
        return False
    if layout is not ROWS and not _keeps_zero(ctx, group, full, layout):
        return False
    same = [t for t in inputs if count(t) == size and size > 1]
    return all(known_shape(t.shape) == full or layout is ROWS for t in same)


def _keeps_zero(ctx: Lowering, group: Group, full: tuple[int, ...], layout: Layout) -> bool:
    """Whether lanes of zeros stay zeros: tried out on numbers."""
    if layout.count(full) == int(np.prod(full, dtype=np.int64)):
        return True
    operations, inputs = ctx.fusion.expression(group)
    size = int(np.prod(full, dtype=np.int64))
    values: dict[Tensor, Any] = {}
    for k, tensor in enumerate(inputs):
        number = 0.0 if count(tensor) == size else 0.37 + 0.11 * k
        known = ctx.number(tensor)
        values[tensor] = np.asarray(known if known is not None else number, tensor.dtype.numpy)
    with np.errstate(all="ignore"):
        for op in operations:
            if op.type in REDUCTIONS:
                continue
            if op.type in MOVES:
                values[op.output] = values[op.inputs[0]]
                continue
            reference = op.definition.reference
            assert reference is not None
            arrays = [values[t] for t in op.inputs]
            values[op.output] = reference(*arrays, **op.attributes)
    made = [t.operation.inputs[0] if t.operation.type in REDUCTIONS else t for t in group.stored]
    return all(not np.any(values[t]) for t in made)


def _lower_flat(
    ctx: Lowering,
    group: Group,
    operations: Sequence[Operation],
    inputs: Sequence[Tensor],
    layout: Layout,
) -> None:
    full = group.shape or ()
    size = int(np.prod(full, dtype=np.int64))
    moved: list[tuple[Tensor, Moved]] = []
    for tensor in inputs:
        if ctx.number(tensor) is not None:
            continue
        whole = count(tensor) == size and size > 1
        buffer = ctx.value(tensor, layout if whole else ROWS)
        moved.append((tensor, Moved(buffer, Walk([], LANES, 1) if whole else Walk([], 0, 0))))
    outputs = []
    for tensor in group.stored:
        outputs.append((tensor, Moved(ctx.output(tensor, layout), Walk([], LANES, 1))))
    total = layout.count(full)
    grid = Grid([], 1, -(-total // LANES), LANES, -1, [])
    emit(ctx, group, operations, moved, outputs, [], grid)


# -- weights: as panels of their output channels --------------------------------------------------


def _by_output_channel(
    ctx: Lowering,
    group: Group,
    inputs: Sequence[Tensor],
    sums: Sequence[Operation],
    layout: Layout,
) -> bool:
    """Whether weights meet nothing but numbers and vectors of a number per output channel.

    They may be summed for each output channel too: zeros that fill up panels add nothing.
    """
    full = group.shape or ()

    def fits(tensor: Tensor) -> bool:
        shape = known_shape(tensor.shape)
        vector = bool(shape) and shape[-1] == count(tensor) == full[-1]
        return shape == full or count(tensor) == 1 or vector

    summed = [op.type == "reduction_sum" for op in sums]
    whole = not sums or (all(summed) and group.axes == tuple(range(len(full) - 1)))
    plain = len(full) in (2, 4) and whole and all(fits(t) for t in inputs)
    return plain and _keeps_zero(ctx, group, full, layout)


def _lower_weights(
    ctx: Lowering,
    group: Group,
    operations: Sequence[Operation],
    inputs: Sequence[Tensor],
    sums: Sequence[Operation],
    layout: Layout,
) -> None:
    """Whatever the order of taps and input channels, outputs lie in panels of 16."""
    full = group.shape or ()
    outputs = full[-1]
    rows = (layout.count(full) // (panels_of(outputs) * LANES), outputs)
    moved: list[tuple[Tensor, Moved]] = []
    for tensor in inputs:
        if ctx.number(tensor) is not None:
            continue
        if known_shape(tensor.shape) == full:
            moved.append((tensor, Moved(ctx.value(tensor, layout), walk(rows, rows, PANELS))))
        else:
            shape = known_shape(tensor.shape)[-1:]
            moved.append((tensor, Moved(ctx.value(tensor, ROWS), walk(shape, rows, ROWS))))
    stored = [
        (tensor, Moved(ctx.output(tensor, layout), walk(rows, rows, PANELS)))
        for tensor in group.stored
        if tensor.operation.type not in REDUCTIONS
    ]
    walks = [m.walk for _, m in (*moved, *stored)]
    sizes, reduced = collapse([rows[0]], walks, {0} if sums else set())
    grid = place(sizes, outputs, reduced, False, True)
    cut = cut_before(ctx, inputs)
    emit(ctx, group, operations, moved, stored, sums, grid, cut[1] if cut else 0)


# -- general --------------------------------------------------------------------------------------


def _lower_general(
    ctx: Lowering,
    group: Group,
    operations: Sequence[Operation],
    inputs: Sequence[Tensor],
    sums: Sequence[Operation],
    layout: Layout,
) -> None:
    full = group.shape or (1,)
    moved: list[tuple[Tensor, Moved]] = []
    for tensor in inputs:
        if ctx.number(tensor) is not None:
            continue
        shape = known_shape(tensor.shape)
        last_broadcast = not shape or (shape[-1] == 1 and full[-1] != 1)
        at = ctx.any_value(tensor, (ROWS,) if last_broadcast else (PANELS, ROWS), layout)
        moved.append((tensor, Moved(at, walk(shape, full, at.layout))))
    outputs = []
    for tensor in group.stored:
        if tensor.operation.type in REDUCTIONS:
            continue
        buffer = ctx.output(tensor, layout)
        outputs.append((tensor, Moved(buffer, walk(full, full, layout))))
    walks = [m.walk for _, m in (*moved, *outputs)]
    rank = len(full)
    axes = set(group.axes or ())
    lanes_reduced = bool(sums) and axes == {rank - 1}
    reduced = set() if lanes_reduced else {a for a in axes if a != rank - 1}
    sizes, reduced = collapse(list(full[:-1]), walks, reduced)
    grid = place(sizes, full[-1], reduced, lanes_reduced, layout is PANELS)
    emit(ctx, group, operations, moved, outputs, sums, grid)


def supported_axes(shape: tuple[int, ...], axes: Sequence[int]) -> bool:
    """Whether one nest reduces over these axes: the last alone, or leading ones in two runs."""
    rank = len(shape)
    if tuple(axes) == (rank - 1,):
        return True
    if rank - 1 in axes or not axes:
        return False
    runs = sum(1 for a in axes if a - 1 not in axes)
    return runs <= 2
