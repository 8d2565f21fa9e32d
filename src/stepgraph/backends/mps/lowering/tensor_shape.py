"""The same elements along other axes (MPSGraphTensorShapeOps)."""

from __future__ import annotations

from stepgraph.backends.mps.lowering.emitter import Emitter, Value, known, lowering
from stepgraph.backends.mps.lowering.table import Lowering
from stepgraph.graph.operation import Operation


def _reshape(e: Emitter, operation: Operation, x: Value) -> Value:
    return e.reshape(x, known(operation.output.shape))


def _permute(e: Emitter, operation: Operation, x: Value) -> Value:
    return e.permute(x, operation.attributes["permutation"] or (0,))


LOWERINGS: dict[str, Lowering] = {
    "reshape": lowering(_reshape),
    "permute": lowering(_permute),
}

DECOMPOSED: dict[str, str] = {
    "expand_dims": "a reshape",
    "squeeze": "a reshape",
    "flatten_2d": "a reshape",
}
