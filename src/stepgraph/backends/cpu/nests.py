"""Groups of mapped and reduced operations become nests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stepgraph.backends.cpu.chains import block_cuts, panel_cuts
from stepgraph.backends.cpu.fusion import Group, count
from stepgraph.backends.cpu.kernels.nest import (
    IDENTITY,
    NARROW,
    NestSpec,
    Node,
    Operand,
    build_nest,
)
from stepgraph.backends.cpu.layouts import LANES, PANELS, ROWS, STEM, WEIGHTS, Layout, panels_of
from stepgraph.backends.cpu.native.geometry import TASK_ROWS, TILE_ROWS, tile_rows
from stepgraph.backends.cpu.plan import At, Buffer, KernelSource, KernelStep
from stepgraph.backends.cpu.plan import Grid as Tiling
from stepgraph.backends.cpu.walks import Grid, Walk, collapse, place, walk
from stepgraph.graph.dtypes import float32
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import known_shape
from stepgraph.graph.tensor import Tensor

if TYPE_CHECKING:
    from stepgraph.backends.cpu.lower import Lowering

# 16-lane vectors that one task handles: large enough to hide what a task costs, small enough
# that sums over a block stay accurate and that many threads find work.
BLOCK = TILE_ROWS
REDUCTIONS = {
    "reduction_sum": "sum",
    "reduction_maximum": "maximum",
    "reduction_minimum": "minimum",
    "reduction_product": "product",
}


# Ops that change nothing but how an operand is walked.
MOVES = ("broadcast", "reshape", "expand_dims", "squeeze", "identity", "stop_gradient")


@dataclass
class Moved:
    """An operand of a nest: where it lies and how it moves."""

    buffer: Buffer
    walk: Walk


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
    if flat and not (paneled and _cut_before(ctx, inputs)):
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


def _cut_before(ctx: Lowering, tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """Where the launch that makes one of some weights cuts their panels; nothing if none does."""
    made = [t for t in tensors if t.operation.type not in ("constant", "variable", "placeholder")]
    weights = {ctx.value(t, at) for t in made for at in (WEIGHTS, STEM) if ctx.has(t, at)}
    for step in reversed(ctx.steps) if weights else ():
        for buffer in weights.intersection(step.writes):
            grid = step.grid if isinstance(step, KernelStep) else None
            return grid.rows.get(buffer, ()) if grid is not None else ()
    return ()


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
    _emit(ctx, group, operations, moved, outputs, [], grid)


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
    cut = _cut_before(ctx, inputs)
    _emit(ctx, group, operations, moved, stored, sums, grid, cut[1] if cut else 0)


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
    _emit(ctx, group, operations, moved, outputs, sums, grid)


def supported_axes(shape: tuple[int, ...], axes: Sequence[int]) -> bool:
    """Whether one nest reduces over these axes: the last alone, or leading ones in two runs."""
    rank = len(shape)
    if tuple(axes) == (rank - 1,):
        return True
    if rank - 1 in axes or not axes:
        return False
    runs = sum(1 for a in axes if a - 1 not in axes)
    return runs <= 2


# -- emission -------------------------------------------------------------------------------------


def _emit(
    ctx: Lowering,
    group: Group,
    operations: Sequence[Operation],
    moved: Sequence[tuple[Tensor, Moved]],
    outputs: Sequence[tuple[Tensor, Moved]],
    sums: Sequence[Operation],
    grid: Grid,
    cut: int = 0,
) -> None:
    """Adds the launch, and what is left to do of its reductions.

    `cut` is the most positions that a task may take so that it fits what was launched before.
    """
    reduce = ""
    if sums:
        reduce = "lanes" if grid.chunk < 0 else "grid"
    arguments: dict[str, Any] = {}
    ins = tuple(
        _operand(m, t.dtype.name, grid, f"in{k}", arguments) for k, (t, m) in enumerate(moved)
    )
    outs = [
        _operand(m, t.dtype.name, grid, f"out{k}", arguments) for k, (t, m) in enumerate(outputs)
    ]
    nodes, index = _nodes(ctx, operations, [t for t, _ in moved], outputs, sums)
    spec = NestSpec(
        ins,
        nodes,
        tuple((index[t], o) for (t, _), o in zip(outputs, outs, strict=True)),
        tuple((index[op.inputs[0]], REDUCTIONS[op.type]) for op in sums),
        reduce,
        grid.masked,
        grid.chunk,
        bool(outputs) and outputs[0][1].buffer.layout is not ROWS,
        NARROW if grid.lanes <= NARROW and grid.chunk >= 0 and grid.masked else LANES,
    )
    row_block, mid_block = _blocks(grid, reduce, group.shape or ())
    if cut:
        mid_block = tile_rows(cut) or cut
    row_blocks, mid_blocks = -(-grid.rows // row_block), -(-grid.mid // mid_block)
    arguments |= {
        "rows": grid.rows,
        "mid": grid.mid,
        "row_block": row_block,
        "mid_block": mid_block,
    }
    arguments |= {"row_blocks": row_blocks, "mid_blocks": mid_blocks}
    arguments |= {f"outer{k}": size for k, size in enumerate(grid.outer)}
    if grid.masked:
        arguments["lanes"] = grid.lanes
    outer = int(np.prod(grid.outer, dtype=np.int64))
    blocks = row_blocks * mid_blocks
    finals = [_sum_target(ctx, op, grid, blocks, reduce, k, arguments) for k, op in enumerate(sums)]
    step = KernelStep(
        name=_name(group),
        reads=[m.buffer for _, m in moved],
        writes=[m.buffer for _, m in outputs] + [f[0] for f in finals],
        aliases=tuple(_aliases(moved, outputs)),
        source=KernelSource(("nest", spec), lambda: build_nest(spec)),
        kernel="nest",
        arguments=arguments,
        tasks=outer * blocks,
        grid=_tiles([m for _, m in (*moved, *outputs)], len(moved), grid, mid_block),
    )
    ctx.add(step)
    for (partial, final), op in zip(finals, sums, strict=True):
        if final is not None:
            _finish(ctx, partial, final, REDUCTIONS[op.type], blocks)


def _tiles(operands: Sequence[Moved], inputs: int, grid: Grid, block: int) -> Tiling | None:
    """How tasks tile the operands in panels; None if positions are walked in two loops.

    Args:
        operands: in the order of the kernel's arguments.
        inputs: how many of them are read; the others are written.
        grid: the nest's loops.
        block: positions of a task.
    """
    if len(grid.outer) != 1 or grid.chunk != 0 or grid.rows != 1:
        return None
    # Nothing moves along a single position.
    lead = [LANES if grid.mid > 1 else 0] * len(grid.order)
    plain = Walk(lead, grid.mid * LANES, 1)
    labels = [f"in{k}" for k in range(inputs)]
    labels += [f"out{k}" for k in range(len(operands) - inputs)]
    pitches: dict[Buffer, tuple[str, ...]] = {}
    for label, m in zip(labels, operands, strict=True):
        if m.buffer.layout in (PANELS, WEIGHTS, STEM) and m.walk == plain:
            pitches[m.buffer] = (*pitches.get(m.buffer, ()), f"{label}_o0")
    if not pitches:
        return None
    rows = block_cuts(grid.mid, block)
    return Tiling(panel_cuts(grid.outer[0], 1), dict.fromkeys(pitches, rows), pitches)


def _name(group: Group) -> str:
    kinds = [op.type for op in group.operations]
    text = "+".join(dict.fromkeys(kinds))
    return text if len(text) <= 60 else text[:57] + "..."


def _aliases(
    moved: Sequence[tuple[Tensor, Moved]], outputs: Sequence[tuple[Tensor, Moved]]
) -> list[Buffer]:
    """Inputs that an output may overwrite: they move the same way and are as large."""
    if not outputs:
        return []
    first = outputs[0][1]
    found = []
    for _, m in moved:
        same = m.walk == first.walk and m.buffer.layout is first.buffer.layout
        if same and m.buffer.count == first.buffer.count and m.buffer.dtype == first.buffer.dtype:
            found.append(m.buffer)
    return found


def _operand(m: Moved, dtype: str, grid: Grid, label: str, arguments: dict[str, Any]) -> Operand:
    """Fills in an operand's arguments and says how it moves."""
    outer = [0] * len(grid.outer)
    row = mid = 0
    for stride, (kind, k) in zip(m.walk.lead, grid.order, strict=True):
        if kind == "outer":
            outer[k] = stride
        elif kind == "row":
            row = stride
        else:
            mid = stride
    if grid.chunk >= 0:
        outer[grid.chunk] = m.walk.chunk
    else:
        mid = m.walk.chunk
    arguments[label] = At(m.buffer)
    arguments |= {f"{label}_o{k}": s for k, s in enumerate(outer) if s}
    if row:
        arguments[f"{label}_r"] = row
    if mid:
        arguments[f"{label}_m"] = mid
    lane = {0: "one", 1: "next"}.get(m.walk.lane, "stride")
    if lane == "stride":
        arguments[f"{label}_l"] = m.walk.lane
    return Operand(dtype, tuple(bool(s) for s in outer), bool(row), bool(mid), lane)


def _nodes(
    ctx: Lowering,
    operations: Sequence[Operation],
    inputs: Sequence[Tensor],
    outputs: Sequence[tuple[Tensor, Moved]],
    sums: Sequence[Operation],
) -> tuple[tuple[Node, ...], dict[Tensor, int]]:
    """The expression as nodes, without what nothing uses."""
    wanted = {t for t, _ in outputs} | {op.inputs[0] for op in sums}
    live: list[Operation] = []
    for op in reversed([op for op in operations if op.type not in REDUCTIONS]):
        if op.output in wanted:
            live.insert(0, op)
            wanted |= set(op.inputs)
    index: dict[Tensor, int] = {t: k for k, t in enumerate(inputs)}
    nodes: list[Node] = []

    def add(node: Node) -> int:
        nodes.append(node)
        return len(inputs) + len(nodes) - 1

    def number_of(tensor: Tensor) -> int:
        if tensor not in index:
            value = ctx.number(tensor)
            assert value is not None, tensor
            settings = (("dtype", tensor.dtype.name), ("value", value))
            index[tensor] = add(Node("number", (), settings))
        return index[tensor]

    for op in live:
        arguments = tuple(number_of(t) for t in op.inputs)
        settings = tuple(
            sorted((k, str(v) if k == "dtype" else v) for k, v in op.attributes.items())
        )
        if op.type in MOVES:
            index[op.output] = arguments[0]
            continue
        dtypes = tuple(t.dtype.name for t in op.inputs)
        index[op.output] = add(Node(op.type, arguments, settings, dtypes))
    for tensor in wanted:
        number_of(tensor)
    return tuple(nodes), index


def _blocks(grid: Grid, reduce: str, full: tuple[int, ...]) -> tuple[int, int]:
    """Rows and mid positions of one task."""
    if reduce == "lanes":
        return max(1, BLOCK // grid.mid), grid.mid
    if grid.mid >= BLOCK:
        size = (full[1], full[2]) if len(full) == 4 else (1, 1)
        return 1, tile_rows(grid.mid, size) or BLOCK
    if not reduce and grid.chunk == 0 and grid.rows == 1:
        # Cut where products of few positions are cut too, so that they can form chains.
        parts = next(n for n in (4, 2, 1) if grid.mid % (n * TASK_ROWS) == 0 or n == 1)
        return 1, max(grid.mid // parts, 1)
    return max(1, min(grid.rows, BLOCK // max(grid.mid, 1))), max(grid.mid, 1)


def _sum_target(
    ctx: Lowering,
    op: Operation,
    grid: Grid,
    blocks: int,
    reduce: str,
    k: int,
    arguments: dict[str, Any],
) -> tuple[Buffer, Buffer | None]:
    """Where a reduction goes: straight to its result, or to one partial result per block."""
    outer = grid.outer
    if reduce == "lanes":
        result = ctx.output(op.output, ROWS)
        arguments[f"sum{k}"] = At(result)
        stride = grid.rows
        for j in reversed(range(len(outer))):
            arguments[f"sum{k}_o{j}"] = stride
            stride *= outer[j]
        arguments[f"sum{k}_b"] = 1
        return result, None
    lanes = outer[-1] * LANES
    free = int(np.prod(outer[:-1], dtype=np.int64))
    result = ctx.output(op.output, ROWS)
    exact = blocks == 1 and (grid.lanes % LANES == 0 or free == 1)
    target = result
    if not exact:
        target = ctx.scratch((blocks, free, lanes), float32, f"{op.name}/partial")
    arguments[f"sum{k}"] = At(target)
    arguments[f"sum{k}_o{len(outer) - 1}"] = LANES
    stride = lanes if not exact else grid.lanes if free > 1 else lanes
    for j in reversed(range(len(outer) - 1)):
        arguments[f"sum{k}_o{j}"] = stride
        stride *= outer[j]
    arguments[f"sum{k}_b"] = free * lanes
    return target, None if exact else result


def copy_step(source: Buffer, target: Buffer) -> KernelStep:
    """A copy between rows and panels; lanes past the last channel of panels become zeros."""
    shape = source.shape
    walks = [walk(shape, shape, b.layout) for b in (source, target)]
    sizes, _ = collapse(list(shape[:-1]), walks, set())
    grid = place(sizes, shape[-1], set(), False, True)
    block = max(1, min(grid.mid, BLOCK))
    blocks = -(-grid.mid // block)
    arguments: dict[str, Any] = {
        "rows": grid.rows,
        "mid": grid.mid,
        "row_block": grid.rows,
        "mid_block": block,
        "row_blocks": 1,
        "mid_blocks": blocks,
        **{f"outer{k}": size for k, size in enumerate(grid.outer)},
    }
    if grid.masked:
        arguments["lanes"] = grid.lanes
    dtype = source.dtype.name
    read, written = (
        _operand(Moved(buffer, w), dtype, grid, label, arguments)
        for label, buffer, w in zip(("in0", "out0"), (source, target), walks, strict=True)
    )
    zeros = target.layout is PANELS
    spec = NestSpec((read,), (), ((0, written),), (), "", grid.masked, grid.chunk, zeros)
    return KernelStep(
        f"{source.layout} to {target.layout}",
        [source],
        [target],
        source=KernelSource(("nest", spec), lambda: build_nest(spec)),
        kernel="nest",
        arguments=arguments,
        tasks=int(np.prod(grid.outer, dtype=np.int64)) * blocks,
    )


def _finish(ctx: Lowering, partial: Buffer, final: Buffer, kind: str, blocks: int) -> None:
    """Combines the blocks' partial results."""
    _, free, lanes = partial.shape
    channels = final.count // free
    chunks = lanes // LANES
    masked = channels % LANES != 0
    operand = Operand("float32", (free > 1, chunks > 1), False, blocks > 1, "next")
    out = Operand("float32", (free > 1, chunks > 1), False, False, "next")
    if blocks == 1:
        spec = NestSpec((operand,), (), ((0, out),), masked=masked, chunk=1)
    else:
        spec = NestSpec((operand,), (), (), ((0, kind),), "grid", False, 1)
    target = final
    if masked and blocks > 1 and free > 1:
        # Sums are stored 16 lanes at a time: rows that are no multiple of that go through scratch.
        target = ctx.scratch((1, free, lanes), float32, f"{final.name}/whole")
    arguments: dict[str, Any] = {
        "rows": 1,
        "mid": blocks,
        "row_block": 1,
        "mid_block": blocks,
        "row_blocks": 1,
        "mid_blocks": 1,
        "outer0": free,
        "outer1": chunks,
        "in0": At(partial),
    }
    if free > 1:
        arguments["in0_o0"] = lanes
    if chunks > 1:
        arguments["in0_o1"] = LANES
    if blocks > 1:
        arguments["in0_m"] = free * lanes
    row = lanes if target is not final else channels
    if blocks == 1:
        arguments["out0"] = At(target)
        if free > 1:
            arguments["out0_o0"] = row
        if chunks > 1:
            arguments["out0_o1"] = LANES
        if masked:
            arguments["lanes"] = channels
    else:
        arguments |= {"sum0": At(target), "sum0_o0": row, "sum0_o1": LANES, "sum0_b": 0}
    ctx.add(
        KernelStep(
            name=f"{kind} of blocks",
            reads=[partial],
            writes=[target],
            source=KernelSource(("nest", spec), lambda: build_nest(spec)),
            kernel="nest",
            arguments=arguments,
            tasks=free * chunks,
        )
    )
    if target is not final:
        _finish(ctx, target, final, kind, 1)


__all__ = ["IDENTITY", "lower_group", "supported_axes"]
