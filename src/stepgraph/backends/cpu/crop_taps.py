"""Kernel positions that see nothing but padding are cut off the weights.

A 3 x 3 kernel over a map of one place uses the ninth of its weights in the middle, which lie far
apart; cut out and kept, they are a matrix. Done only where weights are prepared (`prepared`): in a
step that trains them, cutting them out would be work of every run.
"""

from __future__ import annotations

from stepgraph.backends.cpu.prepared import fixed_operations
from stepgraph.compiler.program import Program, Rewriter
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import known_shape
from stepgraph.graph.tensor import Tensor
from stepgraph.graph.windows import resolve_padding


def crop_taps(program: Program) -> Program:
    """Cuts what can be cut."""
    fixed = fixed_operations(program)
    cuts = {op: cut for op in program.operations() if _fits(op, fixed) and (cut := _cut(op))}
    if not cuts:
        return program

    def visit(rewriter: Rewriter, op: Operation) -> list[Tensor] | None:
        if op not in cuts:
            return None
        graph, (data, weights) = rewriter.graph, rewriter.inputs(op)
        for axis, (first, count, _) in enumerate(cuts[op]):
            if count < known_shape(weights.shape)[axis]:
                weights = graph.slice(weights, axis, first, count)
        padding = tuple(pads for _, _, pads in cuts[op])
        attributes = {**op.attributes, "padding": "explicit", "explicit_padding": padding}
        return [graph._one(op.definition, (data, weights), attributes, name=op.name)]

    return Rewriter(program).run(visit)


def _fits(op: Operation, fixed: set[Operation]) -> bool:
    if op.type != "convolution_2d":
        return False
    plain = op.attributes["data_layout"] == "NHWC" and op.attributes["weights_layout"] == "HWIO"
    sizes = [*known_shape(op.inputs[0].shape), *known_shape(op.output.shape)]
    return plain and op.inputs[1].operation in fixed and 0 not in sizes


def _cut(op: Operation) -> list[tuple[int, int, tuple[int, int]]] | None:
    """(first tap, taps, padding that is left) down and across; None if every tap sees something."""
    a = op.attributes
    size, kernel = known_shape(op.inputs[0].shape)[1:3], known_shape(op.inputs[1].shape)[:2]
    out = known_shape(op.output.shape)[1:3]
    pads = resolve_padding(
        (size[0], size[1]),
        (kernel[0], kernel[1]),
        strides=a["strides"],
        dilations=a["dilations"],
        padding=a["padding"],
        explicit_padding=a["explicit_padding"],
    )
    found = []
    for axis in (0, 1):
        stride, dilation, before = a["strides"][axis], a["dilations"][axis], pads[axis][0]
        used = [
            tap
            for tap in range(kernel[axis])
            if any(
                0 <= place * stride - before + tap * dilation < size[axis]
                for place in range(out[axis])
            )
        ]
        if not used:
            return None
        first, count = used[0], used[-1] - used[0] + 1
        left = before - first * dilation
        extent = (count - 1) * dilation + 1
        right = max(0, (out[axis] - 1) * stride + extent - size[axis] - left)
        if left < 0 or (size[axis] + left + right - extent) // stride + 1 != out[axis]:
            return None
        found.append((first, count, (left, right)))
    same = all(count == taps for (_, count, _), taps in zip(found, kernel, strict=True))
    return None if same else found
