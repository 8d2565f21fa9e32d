"""Losses of predicted classes and probabilities."""

from __future__ import annotations

from stepgraph.errors import ShapeError, describe
from stepgraph.graph.shapes import format_shape
from stepgraph.graph.tensor import Tensor
from stepgraph.losses.base import Loss, last_mean, last_sum, producer

# What Keras keeps probabilities away from 0 and 1 by.
EPSILON = 1e-7

_REDUCTION = {"sum_over_batch_size": "mean", "sum": "sum"}


def logits_of(y_pred: Tensor, from_logits: bool, axis: int = -1) -> Tensor | None:
    """The logits behind predictions: themselves, or what a softmax was taken of.

    The cross entropy of a softmax is computed from its input, which is exact where probabilities
    have been rounded to 0 or 1.
    """
    if from_logits:
        return y_pred
    logits = producer(y_pred, "softmax")
    if logits is None:
        return None
    along = y_pred.operation.attributes["axis"] % y_pred.rank
    return logits if along == axis % y_pred.rank else None


def smooth(y_true: Tensor, amount: float, classes: int | None) -> Tensor:
    """Labels moved towards all being equal."""
    if not amount:
        return y_true
    if classes is None:
        raise ShapeError(describe("label_smoothing", "the number of classes must be known"))
    return y_true * (1.0 - amount) + amount / classes


def log_probabilities(y_pred: Tensor, axis: int) -> Tensor:
    """Logarithms of probabilities that do not come from a softmax, as Keras takes them."""
    graph = y_pred.graph
    total = graph.reduction_sum(y_pred, (axis,), keep_dims=True)
    return graph.logarithm(graph.clamp(y_pred / total, EPSILON, 1.0 - EPSILON))


class CategoricalCrossentropy(Loss):
    """Cross entropy of one-hot (or soft) labels.

    Args:
        from_logits: whether predictions are logits. If they are the output of a softmax the logits
            are found behind it, so the loss is exact either way.
        label_smoothing: how much of the labels is spread over all classes.
        axis: of the classes.
        reduction: see `Loss`.
        name: label.

    Source: Keras ``CategoricalCrossentropy``.

    Example:
        >>> loss = CategoricalCrossentropy()
        >>> float(loss([[0.0, 1.0]], [[0.5, 0.5]]))
        0.6931
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(reduction, name)
        self.from_logits = from_logits
        self.label_smoothing = label_smoothing
        self.axis = axis

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each sample."""
        return self._loss(y_true, y_pred, "none")

    def direct(self, y_true: Tensor, y_pred: Tensor) -> Tensor | None:
        """The reduced loss in one operation, when there are logits."""
        if logits_of(y_pred, self.from_logits, self.axis) is None:
            return None
        return self._loss(y_true, y_pred, _REDUCTION[self.reduction])

    def _loss(self, y_true: Tensor, y_pred: Tensor, reduction: str) -> Tensor:
        graph = y_pred.graph
        labels = smooth(y_true, self.label_smoothing, y_pred.shape[self.axis])
        logits = logits_of(y_pred, self.from_logits, self.axis)
        if logits is not None:
            return graph.softmax_cross_entropy(logits, labels, self.axis, reduction)
        logs = log_probabilities(y_pred, self.axis)
        return -graph.reduction_sum(labels * logs, (self.axis,), keep_dims=False)


class SparseCategoricalCrossentropy(Loss):
    """Cross entropy of class numbers.

    Args:
        from_logits: as for `CategoricalCrossentropy`.
        reduction: see `Loss`.
        name: label.

    Source: Keras ``SparseCategoricalCrossentropy``.
    """

    sparse = True

    def __init__(
        self,
        from_logits: bool = False,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(reduction, name)
        self.from_logits = from_logits

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each sample."""
        return self._loss(y_true, y_pred, "none")

    def direct(self, y_true: Tensor, y_pred: Tensor) -> Tensor | None:
        """The reduced loss in one operation, when there are logits."""
        if logits_of(y_pred, self.from_logits) is None:
            return None
        return self._loss(y_true, y_pred, _REDUCTION[self.reduction])

    def _loss(self, y_true: Tensor, y_pred: Tensor, reduction: str) -> Tensor:
        graph, classes = y_pred.graph, y_pred.shape[-1]
        if classes is None:
            raise ShapeError(describe(self.name, "the number of classes must be known"))
        if not y_true.dtype.is_integer or y_true.rank != y_pred.rank - 1:
            raise ShapeError(
                describe(
                    self.name,
                    "labels must be class numbers, one axis fewer than the predictions",
                    got={
                        "labels": f"{y_true.dtype} {format_shape(y_true.shape)}",
                        "predictions": format_shape(y_pred.shape),
                    },
                    fix="use CategoricalCrossentropy for one-hot labels",
                )
            )
        logits = logits_of(y_pred, self.from_logits)
        if logits is not None:
            return graph.sparse_softmax_cross_entropy(logits, y_true, -1, reduction)
        return graph.sparse_cross_entropy(y_pred, y_true, -1, reduction, EPSILON)


class BinaryCrossentropy(Loss):
    """Cross entropy of labels 0 and 1, each output by itself.

    Args:
        from_logits: whether predictions are logits; behind a sigmoid they are found.
        label_smoothing: how far labels are moved towards 1/2.
        reduction: see `Loss`.
        name: label.

    Source: Keras ``BinaryCrossentropy``.
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(reduction, name)
        self.from_logits = from_logits
        self.label_smoothing = label_smoothing

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each sample."""
        graph = y_pred.graph
        y = smooth(y_true, self.label_smoothing, 2)
        x = y_pred if self.from_logits else producer(y_pred, "sigmoid")
        if x is not None:
            # Each term is small where it should be: nothing large is subtracted.
            return last_mean(y * graph.softplus(-x) + (1.0 - y) * graph.softplus(x))
        p = graph.clamp(y_pred, EPSILON, 1.0 - EPSILON)
        # Keras adds its epsilon once more inside the logarithms.
        yes = y * graph.logarithm(p + EPSILON)
        return -last_mean(yes + (1.0 - y) * graph.logarithm(1.0 - p + EPSILON))


class KLDivergence(Loss):
    """``sum(y * log(y / p))``. Source: Keras ``KLDivergence``."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each sample."""
        graph = y_pred.graph
        y = graph.clamp(y_true, EPSILON, 1.0)
        p = graph.clamp(y_pred, EPSILON, 1.0)
        return last_sum(y * graph.logarithm(y / p))


class Poisson(Loss):
    """``mean(p - y * log(p))``. Source: Keras ``Poisson``."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each sample."""
        return last_mean(y_pred - y_true * y_pred.graph.logarithm(y_pred + EPSILON))


class Hinge(Loss):
    """``mean(max(1 - y * p, 0))`` for labels -1 and 1; 0 counts as -1. Source: Keras ``Hinge``."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each sample."""
        return last_mean(self._margins(y_true, y_pred))

    def _margins(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        graph = y_pred.graph
        zeros = graph.cast(graph.equal(y_true, 0.0), y_pred.dtype)
        return graph.relu(1.0 - (y_true - zeros) * y_pred)


class SquaredHinge(Hinge):
    """The mean of squared hinges. Source: Keras ``SquaredHinge``."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each sample."""
        return last_mean(y_pred.graph.square(self._margins(y_true, y_pred)))


class CategoricalHinge(Loss):
    """``max(largest wrong - right + 1, 0)``, labels one-hot. Source: Keras ``CategoricalHinge``."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each sample."""
        graph = y_pred.graph
        right = last_sum(y_true * y_pred)
        wrong = graph.reduction_maximum((1.0 - y_true) * y_pred, (-1,), keep_dims=False)
        return graph.relu(wrong - right + 1.0)
