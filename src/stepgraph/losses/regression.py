"""Losses of predicted values."""

from __future__ import annotations

import math

from stepgraph.graph.tensor import Tensor
from stepgraph.losses.base import Loss, last_mean
from stepgraph.losses.classification import EPSILON


class MeanSquaredError(Loss):
    """``mean((y - p)**2)``. Source: Keras ``MeanSquaredError``.

    Example:
        >>> float(MeanSquaredError()([[0.0, 1.0]], [[0.0, 3.0]]))
        2.0
    """

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each sample."""
        return last_mean(y_pred.graph.square(y_true - y_pred))


class MeanAbsoluteError(Loss):
    """``mean(|y - p|)``. Source: Keras ``MeanAbsoluteError``."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each sample."""
        return last_mean(y_pred.graph.absolute(y_true - y_pred))


class MeanAbsolutePercentageError(Loss):
    """``100 * mean(|y - p| / |y|)``. Source: Keras ``MeanAbsolutePercentageError``."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each sample."""
        graph = y_pred.graph
        size = graph.maximum(graph.absolute(y_true), EPSILON)
        return last_mean(graph.absolute((y_true - y_pred) / size)) * 100.0


class MeanSquaredLogarithmicError(Loss):
    """``mean((log(1 + y) - log(1 + p))**2)``. Source: Keras ``MeanSquaredLogarithmicError``."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each sample."""
        graph = y_pred.graph
        y = graph.logarithm(graph.maximum(y_true, EPSILON) + 1.0)
        p = graph.logarithm(graph.maximum(y_pred, EPSILON) + 1.0)
        return last_mean(graph.square(y - p))


class Huber(Loss):
    """Squared near zero, linear beyond `delta`. Source: Keras ``Huber``.

    Args:
        delta: where the square ends.
        reduction: see `Loss`.
        name: label.
    """

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(reduction, name)
        self.delta = float(delta)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each sample."""
        graph, delta = y_pred.graph, self.delta
        error = graph.absolute(y_pred - y_true)
        inner = graph.minimum(error, delta)
        return last_mean(inner * (error - 0.5 * inner))


class LogCosh(Loss):
    """``mean(log(cosh(p - y)))``. Source: Keras ``LogCosh``."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each sample."""
        error = y_pred - y_true
        return last_mean(error + y_pred.graph.softplus(-2.0 * error) - math.log(2.0))


class CosineSimilarity(Loss):
    """Minus the cosine of the angle between truth and prediction.

    Args:
        axis: of the vectors.
        reduction: see `Loss`.
        name: label.

    Source: Keras ``CosineSimilarity``.
    """

    def __init__(
        self, axis: int = -1, reduction: str = "sum_over_batch_size", name: str | None = None
    ) -> None:
        super().__init__(reduction, name)
        self.axis = axis

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each sample."""
        return -cosine(y_true, y_pred, self.axis)


def cosine(a: Tensor, b: Tensor, axis: int) -> Tensor:
    """The cosine of the angle between vectors along an axis, which it drops."""
    graph = a.graph

    def unit(x: Tensor) -> Tensor:
        square = graph.reduction_sum(graph.square(x), (axis,), keep_dims=True)
        return x * graph.reciprocal_square_root(graph.maximum(square, 1e-12))

    return graph.reduction_sum(unit(a) * unit(b), (axis,), keep_dims=False)
