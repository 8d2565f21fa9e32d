"""Softmax, and its cross entropy with the gradient of that."""

from __future__ import annotations

from math import prod
from typing import Any

from stepgraph.backends.cpu.kernels.softmax import SoftmaxSpec, build_softmax
from stepgraph.backends.cpu.layouts import LANES, PANELS, ROWS, panels_of
from stepgraph.backends.cpu.lower import Lowering
from stepgraph.backends.cpu.plan import At, Buffer, KernelSource, KernelStep
from stepgraph.backends.cpu.registry import lowers
from stepgraph.graph.dtypes import float32
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import known_shape

# Elements that one task normalises.
ELEMENTS = 1024
KINDS = {
    "softmax": "softmax",
    "softmax_cross_entropy": "loss",
    "softmax_cross_entropy_gradient": "gradient",
}


@lowers(*KINDS)
def _lower(ctx: Lowering, op: Operation) -> bool:
    kind = KINDS[op.type]
    source = op.inputs[1] if kind == "gradient" else op.inputs[0]
    shape = known_shape(source.shape)
    if source.dtype != float32 or 0 in shape:
        return False
    axis = op.attributes["axis"] % len(shape)
    length, inner = shape[axis], prod(shape[axis + 1 :])
    others = prod(shape) // length
    # One line after the other where lines are rows, 16 side by side where they stand upright.
    across = inner > 1 or (axis != len(shape) - 1 and length == 1)
    reduction = op.attributes.get("reduction", "none")
    values: dict[str, Buffer] = {}
    for name, tensor in zip(SoftmaxSpec(kind).reads, op.inputs, strict=True):
        rows_only = across or name == "g" or axis != len(shape) - 1
        values[name] = (
            ctx.value(tensor, ROWS) if rows_only else ctx.any_value(tensor, (PANELS, ROWS), PANELS)
        )
    partial = kind == "loss" and reduction != "none"
    panels = not across and axis == len(shape) - 1 and ctx.layouts.get(op.output) is PANELS
    layout = PANELS if panels and kind != "loss" else ROWS
    spec = SoftmaxSpec(kind, across, partial, layout is PANELS, reduction == "none")
    target = ctx.output(op.output, layout)
    lines, chunks = others, panels_of(length)
    if across:
        lines, chunks = others // inner * panels_of(inner), length
    block = max(1, ELEMENTS // (chunks * LANES))
    tasks = -(-lines // block)
    count = float(others) if reduction == "mean" else 1.0
    written = ctx.scratch((tasks,), float32, f"{op.name}/partial") if partial else target
    arguments: dict[str, Any] = {
        "lines": lines,
        "block": block,
        "chunks": chunks,
        "lanes": inner if across else length,
        "parts": panels_of(inner),
    }
    for name, buffer in (*values.items(), ("y", written)):
        arguments[name] = At(buffer)
        if name == "g" or (name == "y" and kind == "loss"):
            continue
        line, chunk = length, LANES
        if across:
            line, chunk = length * inner, inner
        elif buffer.layout is PANELS:
            line, chunk = LANES, others * LANES
        arguments |= {f"{name}_line": line, f"{name}_chunk": chunk}
    if kind == "gradient":
        arguments["count"] = count
    module = KernelSource(("softmax", spec), lambda: build_softmax(spec))
    # Each line is read whole before any of it is written: the input's memory can be taken over.
    alone = "t" not in values or values["t"].root is not values["x"].root
    same = [values["x"]] if kind != "loss" and values["x"].layout is layout and alone else []
    ctx.add(
        KernelStep(
            name=op.type,
            reads=list(values.values()),
            writes=[written],
            aliases=tuple(same),
            source=module,
            kernel="softmax",
            arguments=arguments,
            tasks=tasks,
        )
    )
    if partial:
        ctx.add(
            KernelStep(
                name=f"{op.type}: {reduction}",
                reads=[written],
                writes=[target],
                source=module,
                kernel="total",
                arguments={"x": At(written), "y": At(target), "n": tasks, "count": count},
                tasks=1,
            )
        )
    return True
