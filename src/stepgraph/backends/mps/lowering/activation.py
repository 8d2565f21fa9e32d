"""Activations (MPSGraphActivationOps)."""

from __future__ import annotations

from stepgraph.backends.mps.lowering.emitter import Emitter, Value, lowering
from stepgraph.backends.mps.lowering.table import Lowering
from stepgraph.graph.operation import Operation


def _relu(e: Emitter, operation: Operation, x: Value) -> Value:
    return e.binary("maximumWithNaNPropagation", x, e.constant(0, x.dtype))


def _relu_gradient(e: Emitter, operation: Operation, incoming: Value, source: Value) -> Value:
    selector = "reLUGradientWithIncomingGradient:sourceTensor:name:"
    return e.send(selector, incoming, source, shape=source.shape, dtype=source.dtype)


def _leaky_relu(e: Emitter, operation: Operation, x: Value) -> Value:
    alpha = operation.attributes["alpha"]
    return e.send("leakyReLUWithTensor:alpha:name:", x, alpha, shape=x.shape, dtype=x.dtype)


def _sigmoid(e: Emitter, operation: Operation, x: Value) -> Value:
    return e.unary("sigmoid", x)


def _softmax(e: Emitter, operation: Operation, x: Value) -> Value:
    axis = operation.attributes["axis"]
    return e.send("softMaxWithTensor:axis:name:", x, axis, shape=x.shape, dtype=x.dtype)


LOWERINGS: dict[str, Lowering] = {
    "relu": lowering(_relu, note="reLU makes 0 of NaN: a maximum that keeps it"),
    "relu_gradient": lowering(_relu_gradient),
    "leaky_relu": lowering(_leaky_relu),
    "sigmoid": lowering(_sigmoid),
    "softmax": lowering(_softmax),
}

DECOMPOSED: dict[str, str] = {
    "gelu": "MPSGraph has none",
    "silu": "MPSGraph has none",
}
