"""Branches and counted loops."""

from __future__ import annotations

from typing import Any

import numpy as np

import stepgraph as sg
from tests.ops.onnx_import import Node, gap, rule


@rule("If")
def branch(n: Node) -> list[sg.Tensor]:
    then, other = n.attribute("then_branch"), n.attribute("else_branch")
    if not n.importer.depth and n[0] not in n.importer.feeds:
        # A question about shapes: the branches need not agree on theirs.
        return n.importer.inside(then if n.importer.value(n[0]).item() else other, nested=False)
    made = n.graph.if_(n[0], lambda: n.importer.inside(then), lambda: n.importer.inside(other))
    return [made] if isinstance(made, sg.Tensor) else list(made)


@rule("Loop")
def loop(n: Node) -> list[sg.Tensor]:
    """A loop that runs its full count; what each trip hands out is put into a tensor of its own."""
    g, body = n.graph, n.attribute("body")
    count, going = n.static(0), n.static(1)
    carried = [n[i] for i in range(2, len(n))]
    if count is None or not _never_stops(body) or (going is not None and not going.item()):
        raise gap("dynamic")
    trips = int(count.item())
    scanned = body.output[1 + len(carried) :]
    boards = [_board(g, trips, value) for value in scanned]

    def trip(index: sg.Tensor, *values: sg.Tensor) -> list[sg.Tensor]:
        inner = [g.cast(index, "int64"), g.constant(np.array(True)), *values[: len(carried)]]
        _, *made = n.importer.inside(body, inner)
        rows = values[len(carried) :]
        for i, row in enumerate(rows):
            here = g.equal(g.coordinate_along_axis(row.shape, 0), index)
            made[len(carried) + i] = g.select(here, made[len(carried) + i], row)
        return made

    results = g.for_loop(trips, [*carried, *boards], trip)
    return [results] if isinstance(results, sg.Tensor) else list(results)


def _board(graph: sg.Graph, trips: int, value: Any) -> sg.Tensor:
    import onnx

    kind = value.type.tensor_type
    sizes = [d.dim_value for d in kind.shape.dim]
    if not kind.HasField("shape") or 0 in sizes:
        raise gap("dynamic")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    return graph.constant(np.zeros((trips, *sizes), dtype))


def _never_stops(body: Any) -> bool:
    """Whether the condition that a body gives back is the one it got."""
    name = body.output[0].name
    makers = {out: node for node in body.node for out in node.output}
    while name in makers and makers[name].op_type == "Identity":
        name = makers[name].input[0]
    return bool(name == body.input[1].name)
