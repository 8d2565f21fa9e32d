"""Mean and variance, and what the normalisation files share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

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
)
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.reduction_positions import reduced_shape
from stepgraph.graph.shapes import (
    Axes,
    Spec,
    bad_shape,
    broadcast_shapes,
    format_shape,
    known_shape,
    normalize_axes,
    same_shape,
)
from stepgraph.graph.tensor import Tensor

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph


def reduced(spec: Spec, axes: tuple[int, ...], keep_dims: bool) -> Spec:
    """What a reduction over `axes` leaves."""
    normalize_axes(axes, spec.rank)
    return Spec(reduced_shape(spec.shape, axes, keep_dims), spec.dtype)


def require_broadcast(source: Spec, **others: Spec) -> None:
    """Refuses what does not broadcast to the shape of `source`."""
    require_float(source)
    for what, spec in others.items():
        require_same_dtype(source, spec)
        if spec.rank > source.rank or not same_shape(
            broadcast_shapes(source.shape, spec.shape), source.shape
        ):
            raise bad_shape(
                f"{what} has shape {format_shape(spec.shape)}, "
                f"the source {format_shape(source.shape)}",
                expected="sizes equal to the source's or 1, counted from the last axis",
                fix="keep the axes of statistics; reshape gamma and beta of another axis",
            )


def count_of(x: Array, axes: tuple[int, ...]) -> int:
    """Elements of an array along some axes."""
    return math.prod(x.shape[a] for a in axes)


def graph_count(x: Tensor, axes: tuple[int, ...]) -> float:
    """Elements of a tensor of known shape along some axes."""
    shape = known_shape(x.shape)
    return float(math.prod(shape[a] for a in axes))


def _spread(grad: Tensor, x: Tensor, axes: tuple[int, ...], keep_dims: bool) -> Tensor:
    """A mean's cotangent divided among the elements, in the shape that broadcasts to `x`."""
    g = x.graph
    if not keep_dims and axes:
        grad = g.expand_dims(grad, axes)
    return grad / g.element_count(x, axes, dtype=x.dtype)


def inverse_deviation(variance: Tensor, epsilon: float) -> Tensor:
    """``1 / sqrt(variance + epsilon)``."""
    return variance.graph.reciprocal_square_root(variance + epsilon)


def draw_normalized(
    rng: np.random.Generator,
) -> Iterator[tuple[str, Array, Array, Array, Array, Array, tuple[int, ...]]]:
    """Sample values: (label, x, mean, variance, gamma, beta, axes of the statistics)."""
    cases = (
        ("batch", (3, 4, 5, 2), (0, 1, 2), (2,)),
        ("batch NCHW", (3, 2, 4, 5), (0, 2, 3), (1, 2, 1, 1)),
        ("rank 2", (7, 3), (0,), (3,)),
        ("layer", (4, 6), (1,), (6,)),
        ("group of axes", (2, 3, 4), (1, 2), (3, 4)),
        ("one channel", (2, 3, 3, 1), (0, 1, 2), (1,)),
    )
    for label, shape, axes, parameter in cases:
        statistic = tuple(1 if i in axes else d for i, d in enumerate(shape))
        x, mean = (rng.standard_normal(s).astype("float32") for s in (shape, statistic))
        variance = rng.uniform(0.5, 2.0, statistic).astype("float32")
        gamma, beta = (rng.standard_normal(parameter).astype("float32") for _ in range(2))
        yield label, x, mean, variance, gamma, beta, axes


# -- mean, variance ------------------------------------------------------------------------------
# The references add up in float64: a float32 sum over a million elements would be no oracle.


def _mean_infer(x: Spec, *, axes: tuple[int, ...], keep_dims: bool) -> Spec:
    require_float(x)
    return reduced(x, axes, keep_dims)


def _mean_reference(x: Array, *, axes: tuple[int, ...], keep_dims: bool) -> Array:
    total = np.sum(x, axis=axes, keepdims=keep_dims, dtype=np.float64)
    return np.asarray(total / np.float64(count_of(x, axes))).astype(x.dtype)


def _mean_gradient(op: Operation, grads: Grads) -> Gradients:
    x, grad = op.inputs[0], arrived(grads)
    share = _spread(grad, x, op.attributes["axes"], op.attributes["keep_dims"])
    return [op.graph.broadcast_like(share, x)]


def _mean_decompose(graph: Graph, x: Tensor, *, axes: tuple[int, ...], keep_dims: bool) -> Tensor:
    return graph.reduction_sum(x, axes=axes, keep_dims=keep_dims) / graph_count(x, axes)


def _variance_infer(
    x: Spec, mean: Spec | None = None, *, axes: tuple[int, ...], keep_dims: bool
) -> Spec:
    require_float(x)
    if mean is not None:
        require_broadcast(x, mean=mean)
    return reduced(x, axes, keep_dims)


def _variance_reference(
    x: Array, mean: Array | None = None, *, axes: tuple[int, ...], keep_dims: bool
) -> Array:
    count = np.float64(count_of(x, axes))
    wide = x.astype(np.float64)
    # Two passes: the difference of mean squares would cancel where |mean| >> deviation.
    centred = wide - (np.sum(wide, axis=axes, keepdims=True) / count if mean is None else mean)
    total = np.sum(centred * centred, axis=axes, keepdims=keep_dims)
    return np.asarray(total / count).astype(x.dtype)


def _variance_gradient(op: Operation, grads: Grads) -> Gradients:
    g, x, grad = op.graph, op.inputs[0], arrived(grads)
    axes = op.attributes["axes"]
    mean = op.inputs[1] if len(op.inputs) == 2 else g.mean(x, axes)
    slope = (x - mean) * (2.0 * _spread(grad, x, axes, op.attributes["keep_dims"]))
    return [slope] if len(op.inputs) == 1 else [slope, -slope]


def _variance_decompose(
    graph: Graph,
    x: Tensor,
    mean: Tensor | None = None,
    *,
    axes: tuple[int, ...],
    keep_dims: bool,
) -> Tensor:
    centred = x - (graph.mean(x, axes) if mean is None else mean)
    return graph.mean(centred * centred, axes, keep_dims)


def _statistics_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4, 5, 2)).astype("float32")
    yield Sample((x,), label="all axes")
    yield Sample((x,), {"axes": (0, 1, 2)}, label="per channel")
    yield Sample((x,), {"axes": -1}, label="last axis")
    yield Sample((x,), {"axes": (1, 3), "keep_dims": False}, label="axes dropped")
    yield Sample((x,), {"axes": ()}, label="no axes")
    yield Sample((x[:1, :1, :1],), {"axes": (0, 1, 2)}, label="one element each")
    yield Sample((np.zeros((0, 3), "float32"),), {"axes": 1}, label="empty")
    yield Sample((np.array(2.5, "float32"),), label="rank 0")


def _variance_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield from _statistics_samples(rng)
    x = rng.standard_normal((3, 4, 5)).astype("float32")
    far = (1e4 + rng.standard_normal((50, 3))).astype("float32")
    yield Sample((far,), {"axes": 0}, differentiable=(), label="large mean")
    mean = rng.standard_normal((1, 1, 5)).astype("float32")
    yield Sample((x, mean), {"axes": (0, 1)}, label="mean given")
    yield Sample((x, mean), {"axes": (0, 1), "keep_dims": False}, label="mean given, axes dropped")


def _mean_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.mean(g.placeholder((2, 3)), axes=2), "axis 2 is outside")
    yield Misuse(lambda g: g.mean(g.placeholder((3,), "int32")), "needs floating point", DTypeError)


def _variance_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.variance(g.placeholder((2, 3)), axes=2), "axis 2 is outside")
    yield Misuse(
        lambda g: g.variance(g.placeholder((2, 3)), g.placeholder((2,)), axes=1),
        "do not broadcast",
    )
    yield Misuse(
        lambda g: g.variance(g.placeholder((3,), "bool")), "needs floating point", DTypeError
    )


MEAN = OpDefinition(
    "mean",
    inputs=("x",),
    infer=_mean_infer,
    reference=_mean_reference,
    gradient=_mean_gradient,
    decompose=_mean_decompose,
    mpsgraph="meanOfTensor:axes:name:",
    samples=_statistics_samples,
    misuses=_mean_misuses,
)
VARIANCE = OpDefinition(
    "variance",
    inputs=("x", "mean"),
    infer=_variance_infer,
    reference=_variance_reference,
    gradient=_variance_gradient,
    decompose=_variance_decompose,
    mpsgraph="varianceOfTensor:meanTensor:axes:name:",
    samples=_variance_samples,
    misuses=_variance_misuses,
)

DEFINITIONS = (MEAN, VARIANCE)


class StatisticsOps(GraphCore):
    """Mean and variance."""

    def mean(
        self, x: Tensor, axes: Axes = None, keep_dims: bool = True, name: str | None = None
    ) -> Tensor:
        """The mean of `x` over some axes.

        Args:
            x: float tensor of any shape.
            axes: which axes, negative ones counted from the end; None for all.
            keep_dims: keep them with size 1, as MPSGraph does.
            name: label in printed graphs and errors.

        Returns:
            Tensor of the dtype of `x`. NaN where there is nothing to average.

        Raises:
            ShapeError: an axis is outside the rank of `x`.
            DTypeError: `x` is not floating point.

        Source: MPSGraph ``meanOfTensor:axes:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([[1.0, 2.0], [3.0, 6.0]])
            >>> graph.run(targets=[graph.mean(x, axes=0)])[0]
            array([[2., 4.]], dtype=float32)
        """
        attributes = {"axes": self._axes(MEAN, x, axes), "keep_dims": bool(keep_dims)}
        return self._one(MEAN, (x,), attributes, name=name)

    def variance(
        self,
        x: Tensor,
        mean: Tensor | None = None,
        axes: Axes = None,
        keep_dims: bool = True,
        name: str | None = None,
    ) -> Tensor:
        """The population variance of `x` over some axes: the mean of squared deviations.

        Args:
            x: float tensor of any shape.
            mean: what the deviations are taken from, of a shape that broadcasts to that of `x`;
                without it the mean of `x`.
            axes: which axes, negative ones counted from the end; None for all.
            keep_dims: keep them with size 1, as MPSGraph does.
            name: label in printed graphs and errors.

        Returns:
            Tensor of the dtype of `x`; made of deviations, so that a large mean costs no digits.

        Raises:
            ShapeError: an axis is outside the rank of `x`, or `mean` does not broadcast to it.
            DTypeError: `x` is not floating point, or `mean` of another dtype.

        Source: MPSGraph ``varianceOfTensor:meanTensor:axes:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.run(targets=[graph.variance(graph.constant([1.0, 3.0]))])[0]
            array([1.], dtype=float32)
        """
        inputs = (x,) if mean is None else (x, mean)
        attributes = {"axes": self._axes(VARIANCE, x, axes), "keep_dims": bool(keep_dims)}
        return self._one(VARIANCE, inputs, attributes, name=name)
