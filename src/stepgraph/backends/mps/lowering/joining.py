"""Tensors put together (MPSGraphTensorShapeOps)."""

from __future__ import annotations

from stepgraph.backends.mps.lowering.emitter import Emitter, Value, lowering
from stepgraph.backends.mps.lowering.table import Lowering
from stepgraph.backends.mps.messages import numbers
from stepgraph.graph.operation import Operation


def _concat(e: Emitter, operation: Operation, *tensors: Value | None) -> Value:
    parts = [t for t in tensors if t is not None]
    return e.concat(parts, operation.attributes["axis"])


def _tile(e: Emitter, operation: Operation, x: Value) -> Value:
    multiples = operation.attributes["multiples"]
    if all(n == 1 for n in multiples):
        return x
    shape = tuple(size * n for size, n in zip(x.shape, multiples, strict=True))
    selector = "tileTensor:withMultiplier:name:"
    return e.send(selector, x, numbers(multiples), shape=shape, dtype=x.dtype)


LOWERINGS: dict[str, Lowering] = {
    "concat": lowering(_concat, takes_empty=True),
    "tile": lowering(_tile),
}

DECOMPOSED: dict[str, str] = {
    "concat_gradient": "a slice once the sizes are known",
    "tile_gradient": "tileGradient reads outside the gradient: a reshape and a sum",
}
