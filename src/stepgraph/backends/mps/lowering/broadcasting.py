"""Elements repeated, reversed, cast (MPSGraphTensorShapeOps)."""

from __future__ import annotations

from stepgraph.backends.mps.lowering.emitter import Emitter, Value, known, lowering
from stepgraph.backends.mps.lowering.table import Lowering
from stepgraph.graph.operation import Operation


def _broadcast(e: Emitter, operation: Operation, x: Value) -> Value:
    return e.broadcast(x, known(operation.attributes["shape"]))


def _cast(e: Emitter, operation: Operation, x: Value) -> Value:
    return e.cast(x, operation.attributes["dtype"])


def _reverse(e: Emitter, operation: Operation, x: Value) -> Value:
    return e.reverse(x, operation.attributes["axes"])


def _coordinate_along_axis(e: Emitter, operation: Operation) -> Value:
    return e.coordinate(known(operation.attributes["shape"]), operation.attributes["axis"])


LOWERINGS: dict[str, Lowering] = {
    "broadcast": lowering(_broadcast),
    "cast": lowering(_cast, note="values are brought into the range of a smaller integer first"),
    "reverse": lowering(_reverse),
    "coordinate_along_axis": lowering(_coordinate_along_axis),
}

DECOMPOSED: dict[str, str] = {"shape_of": "a constant once the sizes are known"}
