"""Activations (MPSGraphActivationOps): relu, leaky_relu, sigmoid, softmax, gelu, silu."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from stepgraph.errors import DTypeError
from stepgraph.graph.core import GraphCore
from stepgraph.graph.definition import (
    Array,
    Gradients,
    Grads,
    Misuse,
    OpDefinition,
    Sample,
    arrived,
    require_float,
    require_same_dtype,
    require_shape,
)
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.arithmetic_common import erf
from stepgraph.graph.shapes import Spec, bad_shape
from stepgraph.graph.tensor import Tensor

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph


def _unary_infer(x: Spec, **_: Any) -> Spec:
    require_float(x)
    return x


def _gradient_infer(incoming: Spec, source: Spec, **_: Any) -> Spec:
    require_float(incoming, source)
    require_same_dtype(incoming, source)
    require_shape(incoming.shape, source.shape, "the gradient", "the source")
    return source


def _hard_values(rng: np.random.Generator) -> Iterator[Sample]:
    """Ordinary, empty, rank-0 and extreme inputs, away from zero where a kink may sit."""
    x = rng.standard_normal((4, 5)).astype("float32")
    yield Sample((np.where(np.abs(x) < 0.1, 0.5, x).astype("float32"),))
    yield Sample((np.zeros((0, 3), "float32"),), label="empty")
    yield Sample((np.array(-1.5, "float32"),), label="rank 0")
    yield Sample((np.array([-80.0, -10.0, 10.0, 80.0], "float32"),), label="saturated")


def _hard_gradient_values(rng: np.random.Generator) -> Iterator[Sample]:
    for sample in _hard_values(rng):
        x = sample.inputs[0]
        grad = np.asarray(rng.standard_normal(x.shape), "float32")
        yield Sample((grad, x), label=sample.label)


# -- relu ----------------------------------------------------------------------------------------


def _relu_reference(x: Array) -> Array:
    # NaN must pass: a NaN laundered into 0 would hide a broken step.
    return np.maximum(x, 0).astype(x.dtype)


def _relu_gradient(op: Operation, grads: Grads) -> Gradients:
    grad = arrived(grads)
    return [op.graph.relu_gradient(grad, op.inputs[0])]


def _relu_gradient_reference(incoming: Array, source: Array) -> Array:
    return np.where(source > 0, incoming, 0).astype(source.dtype)


def _relu_gradient_gradient(op: Operation, grads: Grads) -> Gradients:
    grad = arrived(grads)
    return [op.graph.relu_gradient(grad, op.inputs[1]), None]


def _relu_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.relu(g.placeholder((3,), "int32")),
        "needs floating point, got int32",
        DTypeError,
    )


# -- leaky_relu ----------------------------------------------------------------------------------


def _leaky_reference(x: Array, *, alpha: float) -> Array:
    return np.where(x > 0, x, x * np.asarray(alpha, x.dtype)).astype(x.dtype)


def _leaky_gradient(op: Operation, grads: Grads) -> Gradients:
    g, x, grad = op.graph, op.inputs[0], arrived(grads)
    return [g.select(g.greater_than(x, 0.0), grad, grad * op.attributes["alpha"])]


def _leaky_decompose(graph: Graph, x: Tensor, *, alpha: float) -> Tensor:
    return graph.select(graph.greater_than(x, 0.0), x, x * alpha)


def _leaky_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for sample in _hard_values(rng):
        yield Sample(sample.inputs, {"alpha": 0.2}, label=sample.label)


def _leaky_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.leaky_relu(g.placeholder((3,), "int32")), "needs floating point", DTypeError
    )


# -- sigmoid -------------------------------------------------------------------------------------


def _sigmoid_reference(x: Array) -> Array:
    with np.errstate(over="ignore"):
        small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small)).astype(x.dtype)


def _sigmoid_gradient(op: Operation, grads: Grads) -> Gradients:
    grad, out = arrived(grads), op.output
    return [grad * (out * (1.0 - out))]


def _sigmoid_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.sigmoid(g.placeholder((3,), "bool")), "needs floating point", DTypeError
    )


# -- softmax -------------------------------------------------------------------------------------


def _softmax_infer(x: Spec, *, axis: int) -> Spec:
    require_float(x)
    if x.rank == 0:
        raise bad_shape("a scalar has no axis to normalise over", expected="rank 1 or more")
    return x


def _softmax_reference(x: Array, *, axis: int) -> Array:
    if x.size == 0:
        return x.copy()
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return np.asarray(e / np.sum(e, axis=axis, keepdims=True, dtype=x.dtype), x.dtype)


def _softmax_gradient(op: Operation, grads: Grads) -> Gradients:
    g, grad, out = op.graph, arrived(grads), op.output
    axis = op.attributes["axis"]
    return [out * (grad - g.reduction_sum(grad * out, axes=(axis,)))]


def _softmax_decompose(graph: Graph, x: Tensor, *, axis: int) -> Tensor:
    e = graph.exponent(x - graph.reduction_maximum(x, axes=(axis,)))
    return e / graph.reduction_sum(e, axes=(axis,))


def _softmax_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4, 5)).astype("float32")
    yield Sample((x,))
    yield Sample((x,), {"axis": 1}, label="middle axis")
    yield Sample((x * 200,), {"axis": 0}, label="large logits")
    yield Sample((np.zeros((2, 0), "float32"),), label="empty")


def _softmax_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.softmax(g.placeholder((2, 3)), axis=2), "axis 2 is outside")
    yield Misuse(
        lambda g: g.softmax(g.placeholder((3,), "int32")), "needs floating point", DTypeError
    )


# -- gelu, silu ----------------------------------------------------------------------------------


def _gelu_reference(x: Array, *, approximate: bool) -> Array:
    if approximate:
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        return np.asarray(0.5 * x * (1 + np.tanh(inner)), x.dtype)
    return np.asarray(0.5 * x * (1 + erf(x.astype(np.float64) / math.sqrt(2))), x.dtype)


def _gelu_gradient(op: Operation, grads: Grads) -> Gradients:
    g, x, grad = op.graph, op.inputs[0], arrived(grads)
    if op.attributes["approximate"]:
        k, c = math.sqrt(2 / math.pi), 0.044715
        t = g.tanh(k * (x + c * (x * x * x)))
        slope = 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * (k * (1.0 + 3 * c * (x * x)))
    else:
        density = g.exponent(-0.5 * (x * x)) * (1 / math.sqrt(2 * math.pi))
        slope = 0.5 * (1.0 + g.erf(x * (1 / math.sqrt(2)))) + x * density
    return [grad * slope]


def _gelu_decompose(graph: Graph, x: Tensor, *, approximate: bool) -> Tensor:
    if approximate:
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
        return 0.5 * x * (1.0 + graph.tanh(inner))
    return 0.5 * x * (1.0 + graph.erf(x * (1 / math.sqrt(2))))


def _gelu_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for sample in _hard_values(rng):
        yield sample
        yield Sample(sample.inputs, {"approximate": True}, label=f"tanh {sample.label}")


def _silu_reference(x: Array) -> Array:
    return (x * _sigmoid_reference(x)).astype(x.dtype)


def _silu_gradient(op: Operation, grads: Grads) -> Gradients:
    g, x, grad = op.graph, op.inputs[0], arrived(grads)
    s = g.sigmoid(x)
    return [grad * (s * (1.0 + x * (1.0 - s)))]


def _silu_decompose(graph: Graph, x: Tensor) -> Tensor:
    return x * graph.sigmoid(x)


def _float_misuses(name: str) -> Any:
    def misuses() -> Iterator[Misuse]:
        yield Misuse(
            lambda g: getattr(g, name)(g.placeholder((3,), "int32")),
            "needs floating point",
            DTypeError,
        )

    return misuses


def _relu_gradient_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.relu_gradient(g.placeholder((3,)), g.placeholder((2,))),
        "expected: equal shapes",
    )


RELU = OpDefinition(
    "relu",
    inputs=("x",),
    infer=_unary_infer,
    reference=_relu_reference,
    gradient=_relu_gradient,
    elementwise=True,
    mpsgraph="reLUWithTensor:name:",
    samples=_hard_values,
    misuses=_relu_misuses,
)
RELU_GRADIENT = OpDefinition(
    "relu_gradient",
    inputs=("incoming", "source"),
    infer=_gradient_infer,
    reference=_relu_gradient_reference,
    gradient=_relu_gradient_gradient,
    elementwise=True,
    mpsgraph="reLUGradientWithIncomingGradient:sourceTensor:name:",
    samples=_hard_gradient_values,
    misuses=_relu_gradient_misuses,
)
LEAKY_RELU = OpDefinition(
    "leaky_relu",
    inputs=("x",),
    infer=_unary_infer,
    reference=_leaky_reference,
    gradient=_leaky_gradient,
    decompose=_leaky_decompose,
    elementwise=True,
    mpsgraph="leakyReLUWithTensor:alpha:name:",
    samples=_leaky_samples,
    misuses=_leaky_misuses,
)
SIGMOID = OpDefinition(
    "sigmoid",
    inputs=("x",),
    infer=_unary_infer,
    reference=_sigmoid_reference,
    gradient=_sigmoid_gradient,
    elementwise=True,
    mpsgraph="sigmoidWithTensor:name:",
    samples=_hard_values,
    misuses=_sigmoid_misuses,
)
SOFTMAX = OpDefinition(
    "softmax",
    inputs=("x",),
    infer=_softmax_infer,
    reference=_softmax_reference,
    gradient=_softmax_gradient,
    decompose=_softmax_decompose,
    mpsgraph="softMaxWithTensor:axis:name:",
    samples=_softmax_samples,
    misuses=_softmax_misuses,
)
GELU = OpDefinition(
    "gelu",
    inputs=("x",),
    infer=_unary_infer,
    reference=_gelu_reference,
    gradient=_gelu_gradient,
    decompose=_gelu_decompose,
    elementwise=True,
    samples=_gelu_samples,
    misuses=_float_misuses("gelu"),
)
SILU = OpDefinition(
    "silu",
    inputs=("x",),
    infer=_unary_infer,
    reference=_silu_reference,
    gradient=_silu_gradient,
    decompose=_silu_decompose,
    elementwise=True,
    samples=_hard_values,
    misuses=_float_misuses("silu"),
)

DEFINITIONS = (RELU, RELU_GRADIENT, LEAKY_RELU, SIGMOID, SOFTMAX, GELU, SILU)


class ActivationOps(GraphCore):
    """Activations."""

    def relu(self, x: Tensor, name: str | None = None) -> Tensor:
        """The larger of `x` and 0; NaN stays NaN.

        Args:
            x: float tensor of any shape.
            name: label in printed graphs and errors; made unique when taken.

        Returns:
            Tensor of the shape and dtype of `x`.

        Raises:
            DTypeError: `x` is not floating point.

        Source: MPSGraph ``reLUWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.run(targets=[graph.relu(graph.constant([-1.0, 2.0]))])[0]
            array([0., 2.], dtype=float32)
        """
        return self._one(RELU, (x,), name=name)

    def relu_gradient(self, incoming: Tensor, source: Tensor, name: str | None = None) -> Tensor:
        """The gradient of `relu`: `incoming` where `source` is above 0, else 0.

        Args:
            incoming: gradient of the output, of the shape of `source`.
            source: the input of the forward operation.
            name: label.

        Source: MPSGraph ``reLUGradientWithIncomingGradient:sourceTensor:name:``.
        """
        return self._one(RELU_GRADIENT, (incoming, source), name=name)

    def leaky_relu(self, x: Tensor, alpha: float = 0.3, name: str | None = None) -> Tensor:
        """`x` where it is above 0, ``alpha * x`` elsewhere.

        Args:
            x: float tensor of any shape.
            alpha: slope below 0 (Keras's default).
            name: label.

        Source: MPSGraph ``leakyReLUWithTensor:alpha:name:``; Keras ``LeakyReLU``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.run(targets=[graph.leaky_relu(graph.constant([-1.0, 2.0]), 0.5)])[0]
            array([-0.5,  2. ], dtype=float32)
        """
        return self._one(LEAKY_RELU, (x,), {"alpha": float(alpha)}, name=name)

    def sigmoid(self, x: Tensor, name: str | None = None) -> Tensor:
        """``1 / (1 + exp(-x))``, computed so that nothing overflows.

        Source: MPSGraph ``sigmoidWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.run(targets=[graph.sigmoid(graph.constant([0.0, 100.0]))])[0]
            array([0.5, 1. ], dtype=float32)
        """
        return self._one(SIGMOID, (x,), name=name)

    def softmax(self, x: Tensor, axis: int = -1, name: str | None = None) -> Tensor:
        """Exponentials of `x` along `axis`, scaled to sum to 1.

        Computed as ``exp(x - max(x))``, so that large inputs do not overflow.

        Args:
            x: float tensor of rank 1 or more.
            axis: the axis to normalise over; negative counts from the end.
            name: label.

        Raises:
            ShapeError: `axis` is outside the rank of `x`.
            DTypeError: `x` is not floating point.

        Source: MPSGraph ``softMaxWithTensor:axis:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.run(targets=[graph.softmax(graph.constant([0.0, 0.0]))])[0]
            array([0.5, 0.5], dtype=float32)
        """
        return self._one(SOFTMAX, (x,), {"axis": self._axis(SOFTMAX, x, axis)}, name=name)

    def gelu(self, x: Tensor, approximate: bool = False, name: str | None = None) -> Tensor:
        """``x`` times the standard normal distribution function of ``x``.

        Args:
            x: float tensor of any shape.
            approximate: use the tanh form of the paper.
            name: label.

        Source: Hendrycks and Gimpel, 2016 (arXiv:1606.08415); Keras ``gelu``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.run(targets=[graph.gelu(graph.constant([0.0, 1.0]))])[0].round(4)
            array([0.    , 0.8413], dtype=float32)
        """
        return self._one(GELU, (x,), {"approximate": bool(approximate)}, name=name)

    def silu(self, x: Tensor, name: str | None = None) -> Tensor:
        """``x * sigmoid(x)``, also called swish.

        Source: Ramachandran et al., 2017 (arXiv:1710.05941); Keras ``silu``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.run(targets=[graph.silu(graph.constant([0.0, 1.0]))])[0].round(4)
            array([0.    , 0.7311], dtype=float32)
        """
        return self._one(SILU, (x,), name=name)
