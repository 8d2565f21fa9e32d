"""What every metric is (``keras.metrics.Metric``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from stepgraph.configs import Configurable
from stepgraph.graph.tensor import Tensor
from stepgraph.losses.base import run_on_arrays, weighted
from stepgraph.utils import snake_case


class Metric(Configurable):
    """A figure over many batches.

    Each batch gives numbers that add up (such as a sum and a count), computed inside the step's
    graph; they are added in float64, and the figure follows from the totals.

    Args:
        name: its key in `History`.

    Source: Keras ``Metric``.
    """

    # How many numbers a batch gives.
    parts = 2
    # Whether labels are class numbers; matters only when called on arrays.
    sparse = False

    def __init__(self, name: str | None = None) -> None:
        self.name = name or snake_case(type(self).__name__)
        self.totals: list[float] = []
        self.reset_state()

    def compute(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> list[Tensor]:
        """A batch's numbers, scalars that may be added to those of other batches."""
        raise NotImplementedError(f"{type(self).__name__} has no compute()")

    def figure(self, totals: list[float]) -> float:
        """The figure of the totals: sum divided by count."""
        total, count = totals
        return total / count if count else 0.0

    def add(self, numbers: Any) -> None:
        """Adds a batch's numbers."""
        totals = self.totals
        for i, number in enumerate(numbers):
            totals[i] += float(number)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch given as arrays."""
        self.add(run_on_arrays(_Compute(self), y_true, y_pred, sample_weight))

    def result(self) -> float:
        """The figure so far."""
        return self.figure(self.totals)

    def reset_state(self) -> None:
        """Forgets the batches."""
        self.totals = [0.0] * self.parts

    reset_states = reset_state

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> float:
        """Adds a batch and returns the figure so far."""
        self.update_state(y_true, y_pred, sample_weight)
        return self.result()


class _Compute:
    """A metric's `compute` as a function that says what labels it takes."""

    def __init__(self, metric: Metric) -> None:
        self.metric, self.sparse = metric, metric.sparse

    def __call__(self, *tensors: Any) -> Any:
        return self.metric.compute(*tensors)


class MeanMetric(Metric):
    """The mean of a value per sample."""

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """A value per sample (or per element)."""
        raise NotImplementedError

    def compute(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> list[Tensor]:
        """The sum of the values and their number, or weighted sum and sum of weights."""
        values = self.values(y_true, y_pred)
        graph = values.graph
        if sample_weight is None:
            count = graph.element_count(values, dtype=values.dtype)
            return [graph.reduction_sum(values, keep_dims=False), count]
        weights = weighted(graph.ones_like(values), sample_weight)
        return [
            graph.reduction_sum(values * weights, keep_dims=False),
            graph.reduction_sum(weights, keep_dims=False),
        ]


class FunctionMetric(MeanMetric):
    """The mean of a plain function of ``(y_true, y_pred)``."""

    def __init__(self, fn: Callable[[Tensor, Tensor], Tensor], name: str | None = None) -> None:
        super().__init__(name or getattr(fn, "__name__", "metric"))
        self.fn = fn

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The function's value."""
        return self.fn(y_true, y_pred)


class Mean(Metric):
    """The mean of numbers that are given to it, with weights. Source: Keras ``Mean``.

    Example:
        >>> mean = Mean()
        >>> mean.update_state([1.0, 3.0])
        >>> mean.result()
        2.0
    """

    def update_state(self, values: Any, sample_weight: Any = None, _: Any = None) -> None:  # type: ignore[override]
        """Adds numbers."""
        array = np.asarray(values, np.float64)
        weight = np.broadcast_to(
            np.asarray(1.0 if sample_weight is None else sample_weight, np.float64), array.shape
        )
        self.add([(array * weight).sum(), weight.sum()])
