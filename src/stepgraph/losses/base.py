"""What every loss is (``keras.losses.Loss``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from stepgraph.configs import Configurable
from stepgraph.errors import ShapeError, describe
from stepgraph.graph.graph import Graph
from stepgraph.graph.shapes import format_shape
from stepgraph.graph.tensor import Tensor
from stepgraph.utils import snake_case


class Reduction:
    """How a loss per sample becomes one number (``keras.losses.Reduction``)."""

    AUTO = "auto"
    NONE = "none"
    SUM = "sum"
    SUM_OVER_BATCH_SIZE = "sum_over_batch_size"


_REDUCTIONS = ("auto", "none", "sum", "sum_over_batch_size", "mean")


class Loss(Configurable):
    """How far predictions are from the truth; smaller is better.

    A loss of your own subclasses this and writes `call` with a graph's operations, or is a plain
    function of ``(y_true, y_pred)`` that returns a value per sample.

    Args:
        reduction: ``"sum_over_batch_size"`` (the mean over all values), ``"sum"`` or ``"none"``.
        name: label.

    Source: Keras ``Loss``.
    """

    # Whether labels are class numbers rather than values of the predictions' shape.
    sparse = False

    def __init__(self, reduction: str = "sum_over_batch_size", name: str | None = None) -> None:
        if reduction not in _REDUCTIONS:
            raise ValueError(
                describe(
                    type(self).__name__,
                    f"reduction={reduction!r}",
                    expected="'sum_over_batch_size', 'sum' or 'none'",
                )
            )
        self.reduction = "sum_over_batch_size" if reduction in ("auto", "mean") else reduction
        self.name = name or snake_case(type(self).__name__)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each sample: the predictions' shape without the last axis."""
        raise NotImplementedError(f"{type(self).__name__} has no call()")

    def direct(self, y_true: Tensor, y_pred: Tensor) -> Tensor | None:
        """The reduced loss without weights by one operation, for losses that have one."""
        return None

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The loss, reduced.

        Args:
            y_true: tensor of a graph, or array.
            y_pred: likewise.
            sample_weight: of each sample, shape ``(batch,)`` or that of `call`'s result.

        Returns:
            A tensor of shape ``()`` (with reduction "none" that of `call`); an array if arrays were
            given.
        """
        if not isinstance(y_pred, Tensor):
            return run_on_arrays(self, y_true, y_pred, sample_weight)
        if sample_weight is None and self.reduction != "none":
            found = self.direct(y_true, y_pred)
            if found is not None:
                return found
        values = self.call(y_true, y_pred)
        if sample_weight is not None:
            values = weighted(values, sample_weight)
        return reduce(values, self.reduction)


class FunctionLoss(Loss):
    """A plain function of ``(y_true, y_pred)`` as a loss."""

    def __init__(
        self,
        fn: Callable[[Tensor, Tensor], Tensor],
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(reduction, name or getattr(fn, "__name__", "loss"))
        self.fn = fn

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The function's value."""
        return self.fn(y_true, y_pred)


def reduce(values: Tensor, reduction: str) -> Tensor:
    """A loss per sample as one number."""
    if reduction == "none":
        return values
    graph = values.graph
    total = graph.reduction_sum(values, keep_dims=False)
    if reduction == "sum":
        return total
    return total / graph.element_count(values, dtype=values.dtype)


def weighted(values: Tensor, weight: Tensor) -> Tensor:
    """Values per sample times a weight per sample, or per value."""
    graph = values.graph
    if weight.rank > values.rank:
        raise ShapeError(
            describe(
                "sample_weight",
                "has more axes than the loss it weighs",
                got={
                    "loss": format_shape(values.shape),
                    "sample_weight": format_shape(weight.shape),
                },
                expected="shape (batch,), or that of the loss",
            )
        )
    if weight.rank < values.rank:
        weight = graph.expand_dims(weight, tuple(range(weight.rank, values.rank)))
    return values * weight


def last_mean(x: Tensor) -> Tensor:
    """The mean along the last axis, which it drops."""
    return x.graph.mean(x, (-1,), keep_dims=False)


def last_sum(x: Tensor) -> Tensor:
    """The sum along the last axis, which it drops."""
    return x.graph.reduction_sum(x, (-1,), keep_dims=False)


def producer(x: Tensor, kind: str) -> Tensor | None:
    """What a tensor is that activation of, if it is."""
    return x.operation.inputs[0] if x.operation.type == kind else None


def run_on_arrays(
    function: Callable[..., Any], y_true: Any, y_pred: Any, sample_weight: Any = None
) -> Any:
    """Evaluates a loss or a metric on arrays, op by op.

    Args:
        function: of tensors; its attribute `sparse` says whether labels are class numbers.
        y_true: labels.
        y_pred: predictions; float64 ones are computed with in float64.
        sample_weight: or None.
    """
    graph = Graph("arrays")
    predictions = np.asarray(y_pred)
    kind = "float64" if getattr(y_pred, "dtype", None) == np.float64 else "float32"
    labels = np.asarray(y_true, "int32" if getattr(function, "sparse", False) else kind)
    tensors = [graph.constant(labels), graph.constant(predictions.astype(kind))]
    if sample_weight is not None:
        tensors.append(graph.constant(np.asarray(sample_weight, kind)))
    made = function(*tensors)
    several = isinstance(made, list | tuple)
    results = graph.run({}, list(made) if several else [made], device="reference")
    return results if several else results[0]
