"""Nests become steps: which operands a launch takes, how it is cut into tasks, what sums are left.

A nest over weights is cut as the launch that makes their gradient, so that both run as one chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stepgraph.backends.cpu.chains import block_cuts, panel_cuts
from stepgraph.backends.cpu.fusion import Group
from stepgraph.backends.cpu.kernels.nest import NARROW, NestSpec, Node, Operand, build_nest
from stepgraph.backends.cpu.layouts import LANES, PANELS, ROWS, STEM, WEIGHTS
from stepgraph.backends.cpu.native.geometry import TASK_ROWS, TILE_ROWS, tile_rows
from stepgraph.backends.cpu.plan import At, Buffer, KernelSource, KernelStep
from stepgraph.backends.cpu.plan import Grid as Tiling
from stepgraph.backends.cpu.walks import Grid, Walk, collapse, place, walk
from stepgraph.graph.dtypes import float32
from stepgraph.graph.operation import Operation
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


def emit(
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


def cut_before(ctx: Lowering, tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """Where the launch that makes one of some weights cuts their panels; nothing if none does."""
    made = [t for t in tensors if t.operation.type not in ("constant", "variable", "placeholder")]
    weights = {ctx.value(t, at) for t in made for at in (WEIGHTS, STEM) if ctx.has(t, at)}
    for step in reversed(ctx.steps) if weights else ():
        for buffer in weights.intersection(step.writes):
            grid = step.grid if isinstance(step, KernelStep) else None
            return grid.rows.get(buffer, ()) if grid is not None else ()
    return ()


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
