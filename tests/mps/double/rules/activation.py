"""MPSGraphActivationOps."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.mps.double import dtypes
from tests.mps.double.graph import Builder
from tests.mps.double.objects import Object

from .numbers import arithmetic


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return (0.5 * np.tanh(0.5 * x.astype(np.float64)) + 0.5).astype(x.dtype)


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x.astype(np.float64) - np.max(x, axis=axis, keepdims=True))
    return (e / e.sum(axis=axis, keepdims=True)).astype(x.dtype)


def relu(b: Builder, x: Object) -> Object:
    """NaN becomes 0."""
    kind = b.dtype(x, (*dtypes.FLOATS, dtypes.INT32))
    return b.one([x], x.shape, kind, lambda v: np.where(v > 0, v, v.dtype.type(0)))


def _gradient(f: Any) -> Any:
    def rule(b: Builder, incoming: Object, source: Object) -> Object:
        b.dtype(source, dtypes.FLOATS, "source")
        kind = b.same_dtype(incoming, source)
        b.need(incoming.shape == source.shape, f"{incoming.shape} is not {source.shape}")
        return b.one([incoming, source], source.shape, kind, f)

    return rule


def sigmoid(b: Builder, x: Object) -> Object:
    return b.one([x], x.shape, b.dtype(x, dtypes.FLOATS), arithmetic(_sigmoid))


def softmax_rule(b: Builder, x: Object, axis: int) -> Object:
    kind = b.dtype(x, dtypes.FLOATS)
    axis = b.axis(axis, len(x.shape))
    return b.one([x], x.shape, kind, lambda v: softmax(v, axis))


def softmax_gradient(b: Builder, incoming: Object, source: Object, axis: int) -> Object:
    b.fault("softmax_gradient", "whether the source is the softmax's input or output is unsettled")
    kind = b.same_dtype(incoming, source)
    axis = b.axis(axis, len(source.shape))
    return b.one(
        [incoming, source],
        source.shape,
        kind,
        lambda g, y: y * (g - (g * y).sum(axis=axis, keepdims=True)),
    )


def leaky_relu(b: Builder, x: Object, alpha: float) -> Object:
    kind = b.dtype(x, dtypes.FLOATS)
    return b.one([x], x.shape, kind, lambda v: np.where(v > 0, v, v * v.dtype.type(alpha)))


def leaky_relu_tensor(b: Builder, x: Object, alpha: Object) -> Object:
    b.dtype(x, dtypes.FLOATS)
    kind = b.same_dtype(x, alpha)
    shape = b.broadcast(x.shape, alpha.shape)
    b.need(shape == x.shape, f"alpha of {alpha.shape} widens {x.shape}")
    return b.one([x, alpha], shape, kind, lambda v, a: np.where(v > 0, v, v * a))


def leaky_relu_gradient(b: Builder, incoming: Object, source: Object, alpha: Object) -> Object:
    b.dtype(source, dtypes.FLOATS)
    kind = b.same_dtype(incoming, source, alpha)
    b.need(incoming.shape == source.shape, f"{incoming.shape} is not {source.shape}")
    b.need(b.broadcast(source.shape, alpha.shape) == source.shape, "alpha widens the source")
    return b.one(
        [incoming, source, alpha],
        source.shape,
        kind,
        lambda g, v, a: np.where(v > 0, g, g * a),
    )


RULES: dict[str, Any] = {
    "reLUWithTensor:name:": relu,
    "reLUGradientWithIncomingGradient:sourceTensor:name:": _gradient(
        lambda g, x: np.where(x > 0, g, g.dtype.type(0))
    ),
    "sigmoidWithTensor:name:": sigmoid,
    "sigmoidGradientWithIncomingGradient:sourceTensor:name:": _gradient(
        arithmetic(lambda g, x: g * _sigmoid(x) * (1 - _sigmoid(x)))
    ),
    "softMaxWithTensor:axis:name:": softmax_rule,
    "softMaxGradientWithIncomingGradient:sourceTensor:axis:name:": softmax_gradient,
    "leakyReLUWithTensor:alpha:name:": leaky_relu,
    "leakyReLUWithTensor:alphaTensor:name:": leaky_relu_tensor,
    "leakyReLUGradientWithIncomingGradient:sourceTensor:alphaTensor:name:": leaky_relu_gradient,
}
