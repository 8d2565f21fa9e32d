"""Maximum and average over a sliding window, and their gradients (MPSGraphPoolingOps)."""

from __future__ import annotations

from stepgraph.backends.mps.lowering import windows
from stepgraph.backends.mps.lowering.emitter import Emitter, Rule, Value, known, lowering
from stepgraph.backends.mps.lowering.table import Lowering
from stepgraph.graph.operation import Operation


def _pool(stem: str) -> Rule:
    def rule(e: Emitter, operation: Operation, source: Value) -> Value:
        return e.send(
            f"{stem}WithSourceTensor:descriptor:name:",
            source,
            windows.pooling(e, operation.attributes, source.shape),
            shape=known(operation.output.shape),
            dtype=source.dtype,
        )

    return rule


def _gradient(stem: str) -> Rule:
    def rule(e: Emitter, operation: Operation, incoming: Value, source: Value) -> Value:
        return e.send(
            f"{stem}GradientWithGradientTensor:sourceTensor:descriptor:name:",
            incoming,
            source,
            windows.pooling(e, operation.attributes, source.shape),
            shape=source.shape,
            dtype=incoming.dtype,
        )

    return rule


LOWERINGS: dict[str, Lowering] = {
    "max_pooling_2d": lowering(_pool("maxPooling2D")),
    "max_pooling_2d_gradient": lowering(
        _gradient("maxPooling2D"), note="which of equal maxima gets it is not documented"
    ),
    "avg_pooling_2d": lowering(_pool("avgPooling2D")),
    "avg_pooling_2d_gradient": lowering(_gradient("avgPooling2D")),
}

DECOMPOSED: dict[str, str] = {"max_pooling_2d_at_maximum": "MPSGraph has none"}
