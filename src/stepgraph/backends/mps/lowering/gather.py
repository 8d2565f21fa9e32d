"""Slices and elements picked by an index tensor (MPSGraphGatherOps)."""

from __future__ import annotations

from stepgraph.backends.mps.lowering.emitter import Emitter, Value, known, lowering
from stepgraph.backends.mps.lowering.table import Lowering
from stepgraph.graph.operation import Operation


def _gather(e: Emitter, operation: Operation, x: Value, indices: Value) -> Value:
    axis, batch = operation.attributes["axis"], operation.attributes["batch_dimensions"]
    if batch and batch == len(operation.inputs[1].shape):
        # One index for each batch: an axis for it, dropped again.
        indices = e.reshape(indices, (*indices.shape, 1))
    made = e.gather(x, indices, axis, batch)
    return e.reshape(made, known(operation.output.shape))


def _gather_along_axis(e: Emitter, operation: Operation, x: Value, indices: Value) -> Value:
    axis, places = operation.attributes["axis"], e.as_indices(indices)

    def move(v: Value) -> Value:
        selector = "gatherAlongAxis:withUpdatesTensor:indicesTensor:name:"
        return e.send(selector, axis, v, places, shape=places.shape, dtype=v.dtype)

    return e.moved(move, x)


_NOTE = "integers of 32 bits and more travel as floats of the same bits"

LOWERINGS: dict[str, Lowering] = {
    "gather": lowering(_gather, note=_NOTE),
    "gather_along_axis": lowering(
        _gather_along_axis,
        note=_NOTE,
    ),
}

DECOMPOSED: dict[str, str] = {
    "gather_gradient": "a scatter",
    "gather_along_axis_gradient": "a scatter",
    "gather_nd": "gatherND was seen to give wrong elements: a gather of rows",
    "gather_nd_gradient": "a scatter",
}
