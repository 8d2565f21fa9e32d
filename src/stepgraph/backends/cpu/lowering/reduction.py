"""Reductions beside the fused loops' own: other element types, positions, running sums."""

from __future__ import annotations

from math import prod
from typing import Any

from stepgraph.backends.cpu.kernels.copy import TYPES
from stepgraph.backends.cpu.kernels.reduce import COMBINE, ReduceSpec, build_reduce
from stepgraph.backends.cpu.layouts import LANES, ROWS
from stepgraph.backends.cpu.lower import Lowering
from stepgraph.backends.cpu.plan import At, KernelSource, KernelStep
from stepgraph.backends.cpu.registry import lowers
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import known_shape

# Elements that one task reads.
ELEMENTS = 8192


@lowers(*(f"reduction_{kind}" for kind in COMBINE))
def _lower_reduction(ctx: Lowering, op: Operation) -> bool:
    axes = op.attributes["axes"]
    # Scattered axes were rewritten; what has none left is a copy.
    if not axes or tuple(axes) != tuple(range(axes[0], axes[-1] + 1)):
        return False
    return _reduce(ctx, op, op.type.removeprefix("reduction_"), axes[0], axes[-1] + 1)


@lowers("reduction_arg_maximum", "reduction_arg_minimum")
def _lower_argument(ctx: Lowering, op: Operation) -> bool:
    axis = op.attributes["axis"] % op.inputs[0].rank
    return _reduce(ctx, op, op.type.removeprefix("reduction_"), axis, axis + 1)


@lowers("cumulative_sum")
def _lower_cumulative(ctx: Lowering, op: Operation) -> bool:
    axis = op.attributes["axis"] % op.inputs[0].rank
    return _reduce(ctx, op, "cumulative", axis, axis + 1)


def _reduce(ctx: Lowering, op: Operation, kind: str, first: int, last: int) -> bool:
    x = op.inputs[0]
    shape, name = known_shape(x.shape), x.dtype.name
    ordered = kind.removeprefix("arg_") in ("maximum", "minimum")
    if name not in TYPES or 0 in shape or (ordered and (name[0] == "u" or name == "bool")):
        return False
    before, length, behind = prod(shape[:first]), prod(shape[first:last]), prod(shape[last:])
    source, target = ctx.value(x, ROWS), ctx.output(op.output, ROWS)
    spec = ReduceSpec(kind, name, bool(op.attributes.get("exclusive", False)))
    block = min(-(-behind // LANES) * LANES, max(LANES, ELEMENTS // length // LANES * LANES))
    blocks = -(-behind // block)
    rows = max(1, ELEMENTS // (length * min(block, behind)))
    backwards = bool(op.attributes.get("reverse", False))
    arguments: dict[str, Any] = {"x": At(source), "y": At(target), "length": length}
    arguments |= {"behind": behind, "block": block, "blocks": blocks, "rows": rows}
    arguments |= {"before": before, "start": (length - 1) * behind if backwards else 0}
    arguments["step"] = -behind if backwards else behind
    ctx.add(
        KernelStep(
            name=op.type,
            reads=[source],
            writes=[target],
            source=KernelSource(("reduce", spec), lambda: build_reduce(spec)),
            kernel="reduce",
            arguments=arguments,
            tasks=-(-before // rows) * blocks,
        )
    )
    return True
