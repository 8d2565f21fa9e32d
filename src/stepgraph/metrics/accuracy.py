"""How often predictions are right."""

from __future__ import annotations

from typing import Any

from stepgraph.errors import ShapeError, describe
from stepgraph.graph.shapes import format_shape
from stepgraph.graph.tensor import Tensor
from stepgraph.losses.base import last_mean, last_sum
from stepgraph.metrics.base import MeanMetric, Metric


class Accuracy(MeanMetric):
    """How often prediction and label are equal numbers. Source: Keras ``Accuracy``."""

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """1 where equal."""
        graph = y_pred.graph
        return graph.cast(graph.equal(graph.cast(y_true, y_pred.dtype), y_pred), "float32")


class BinaryAccuracy(MeanMetric):
    """How often a prediction is on the label's side of a threshold (Keras ``BinaryAccuracy``).

    Example:
        >>> metric = BinaryAccuracy()
        >>> metric([[1.0], [0.0]], [[0.7], [0.6]])
        0.5
    """

    def __init__(self, name: str | None = None, threshold: float = 0.5) -> None:
        super().__init__(name)
        self.threshold = threshold

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The part of a sample's outputs that is right."""
        graph = y_pred.graph
        says = graph.cast(graph.greater_than(y_pred, self.threshold), y_pred.dtype)
        return last_mean(graph.cast(graph.equal(y_true, says), y_pred.dtype))


class CategoricalAccuracy(MeanMetric):
    """How often the largest prediction is the labelled class, labels one-hot.

    Source: Keras ``CategoricalAccuracy``.
    """

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """1 where right."""
        graph = y_pred.graph
        _same_rank(self.name, y_true, y_pred)
        best = graph.reduction_arg_maximum(y_pred, -1, keep_dims=False)
        label = graph.reduction_arg_maximum(y_true, -1, keep_dims=False)
        return graph.cast(graph.equal(best, label), y_pred.dtype)


class SparseCategoricalAccuracy(MeanMetric):
    """How often the largest prediction is the labelled class, labels class numbers.

    Source: Keras ``SparseCategoricalAccuracy``.
    """

    sparse = True

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """1 where right."""
        graph = y_pred.graph
        best = graph.reduction_arg_maximum(y_pred, -1, keep_dims=False)
        return graph.cast(graph.equal(best, _numbers(self.name, y_true, y_pred)), y_pred.dtype)


class TopKCategoricalAccuracy(MeanMetric):
    """How often the labelled class is among the `k` largest predictions, labels one-hot.

    Source: Keras ``TopKCategoricalAccuracy``.
    """

    def __init__(self, k: int = 5, name: str | None = None) -> None:
        super().__init__(name)
        self.k = int(k)

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """1 where right."""
        _same_rank(self.name, y_true, y_pred)
        label = y_pred.graph.reduction_arg_maximum(y_true, -1, keep_dims=False)
        return _among(label, y_pred, self.k)


class SparseTopKCategoricalAccuracy(MeanMetric):
    """How often the labelled class is among the `k` largest predictions, labels class numbers.

    Source: Keras ``SparseTopKCategoricalAccuracy``.
    """

    sparse = True

    def __init__(self, k: int = 5, name: str | None = None) -> None:
        super().__init__(name)
        self.k = int(k)

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """1 where right."""
        return _among(_numbers(self.name, y_true, y_pred), y_pred, self.k)


class _Rate(Metric):
    """A ratio of counted decisions: true positives to those and one kind of error."""

    def __init__(self, thresholds: float | None = None, name: str | None = None) -> None:
        super().__init__(name)
        self.thresholds = thresholds

    def compute(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> list[Tensor]:
        """True positives, and true positives with the errors."""
        graph = y_pred.graph
        threshold = 0.5 if self.thresholds is None else self.thresholds
        says = graph.cast(graph.greater_than(y_pred, threshold), y_pred.dtype)
        right, counted = y_true * says, self.counted(y_true, says)
        if sample_weight is not None:
            axes = tuple(range(sample_weight.rank, y_pred.rank))
            weight = graph.expand_dims(sample_weight, axes) if axes else sample_weight
            right, counted = right * weight, counted * weight
        return [
            graph.reduction_sum(right, keep_dims=False),
            graph.reduction_sum(counted, keep_dims=False),
        ]

    def counted(self, y_true: Tensor, says: Tensor) -> Tensor:
        """1 for each decision in the denominator."""
        raise NotImplementedError


class Precision(_Rate):
    """The part of what was predicted positive that is. Source: Keras ``Precision``."""

    def counted(self, y_true: Tensor, says: Tensor) -> Tensor:
        """What was predicted positive."""
        return says


class Recall(_Rate):
    """The part of what is positive that was predicted so. Source: Keras ``Recall``."""

    def counted(self, y_true: Tensor, says: Tensor) -> Tensor:
        """What is positive."""
        return y_true


def _among(label: Tensor, y_pred: Tensor, k: int) -> Tensor:
    graph, classes = y_pred.graph, y_pred.shape[-1]
    if classes is None:
        raise ShapeError(describe("top-k accuracy", "the number of classes must be known"))
    chosen = last_sum(y_pred * graph.one_hot(label, classes, dtype=y_pred.dtype))
    above = graph.greater_than(y_pred, graph.expand_dims(chosen, -1))
    before = last_sum(graph.cast(above, y_pred.dtype))
    return graph.cast(graph.less_than(before, float(k)), y_pred.dtype)


def _same_rank(name: str, y_true: Tensor, y_pred: Tensor) -> None:
    if y_true.rank != y_pred.rank:
        raise ShapeError(
            describe(
                f"metric '{name}'",
                "labels and predictions have different ranks",
                got=_shapes(y_true, y_pred),
                fix="use the sparse metric for class numbers, or 'accuracy', which finds out",
            )
        )


def _numbers(name: str, y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Labels as class numbers."""
    graph = y_pred.graph
    if y_true.rank == y_pred.rank and y_true.shape[-1] == 1:
        y_true = graph.squeeze(y_true, (-1,))
    if y_true.rank != y_pred.rank - 1:
        raise ShapeError(
            describe(
                f"metric '{name}'",
                "labels must be class numbers, one axis fewer than the predictions",
                got=_shapes(y_true, y_pred),
                fix="use the metric without 'sparse' for one-hot labels",
            )
        )
    return y_true if y_true.dtype.name == "int32" else graph.cast(y_true, "int32")


def _shapes(y_true: Tensor, y_pred: Tensor) -> dict[str, Any]:
    return {"labels": format_shape(y_true.shape), "predictions": format_shape(y_pred.shape)}
