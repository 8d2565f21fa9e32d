"""Optimizer steps (MPSGraphOptimizerOps)."""

from __future__ import annotations

from stepgraph.backends.mps.lowering.emitter import Emitter, Value, lowering
from stepgraph.backends.mps.lowering.table import Lowering
from stepgraph.graph.operation import Operation


def _descent(
    e: Emitter, operation: Operation, learning_rate: Value, values: Value, gradient: Value
) -> Value:
    return e.send(
        "stochasticGradientDescentWithLearningRateTensor:valuesTensor:gradientTensor:name:",
        e.reshape(learning_rate, (1,)),
        values,
        gradient,
        shape=values.shape,
        dtype=values.dtype,
    )


LOWERINGS: dict[str, Lowering] = {"stochastic_gradient_descent": lowering(_descent)}

DECOMPOSED: dict[str, str] = {
    "adam": "adam's first result is called the update, and used as the new value: "
    "spelt out it means one thing, and fuses as well",
}
