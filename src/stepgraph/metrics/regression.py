"""Losses as metrics, and figures of predicted values."""

from __future__ import annotations

from typing import Any

from stepgraph import losses
from stepgraph.graph.tensor import Tensor
from stepgraph.losses.base import Loss
from stepgraph.losses.regression import cosine
from stepgraph.metrics.base import MeanMetric


class LossMetric(MeanMetric):
    """The mean of a loss per sample."""

    loss_class: type[Loss]

    def __init__(self, name: str | None = None, **settings: Any) -> None:
        super().__init__(name)
        self.loss = self.loss_class(**settings)
        self.settings = settings
        self.sparse = self.loss.sparse

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each sample."""
        return self.loss.call(y_true, y_pred)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain values."""
        return {"name": self.name, **self.settings}


class MeanSquaredError(LossMetric):
    """The mean squared error."""

    loss_class = losses.MeanSquaredError


class MeanAbsoluteError(LossMetric):
    """The mean absolute error."""

    loss_class = losses.MeanAbsoluteError


class MeanAbsolutePercentageError(LossMetric):
    """The mean absolute error in percent of the truth."""

    loss_class = losses.MeanAbsolutePercentageError


class MeanSquaredLogarithmicError(LossMetric):
    """The mean squared error of logarithms."""

    loss_class = losses.MeanSquaredLogarithmicError


class CategoricalCrossentropy(LossMetric):
    """The mean cross entropy of one-hot labels."""

    loss_class = losses.CategoricalCrossentropy


class SparseCategoricalCrossentropy(LossMetric):
    """The mean cross entropy of class numbers."""

    loss_class = losses.SparseCategoricalCrossentropy


class BinaryCrossentropy(LossMetric):
    """The mean cross entropy of labels 0 and 1."""

    loss_class = losses.BinaryCrossentropy


class KLDivergence(LossMetric):
    """The mean Kullback-Leibler divergence."""

    loss_class = losses.KLDivergence


class Hinge(LossMetric):
    """The mean hinge loss."""

    loss_class = losses.Hinge


class LogCosh(LossMetric):
    """The mean of ``log(cosh(p - y))``."""

    loss_class = losses.LogCosh


class RootMeanSquaredError(MeanSquaredError):
    """The root of the mean squared error. Source: Keras ``RootMeanSquaredError``."""

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Squared errors, each counted by itself."""
        return y_pred.graph.square(y_true - y_pred)

    def figure(self, totals: list[float]) -> float:
        """The root of the mean."""
        return float(super().figure(totals) ** 0.5)


class CosineSimilarity(MeanMetric):
    """The mean cosine of the angle between truth and prediction. Source: Keras."""

    def __init__(self, name: str | None = None, axis: int = -1) -> None:
        super().__init__(name)
        self.axis = axis

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The cosines."""
        return cosine(y_true, y_pred, self.axis)
