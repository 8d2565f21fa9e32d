"""Metrics (``keras.metrics``): what is reported beside the loss.

Example:
    >>> from stepgraph import metrics
    >>> metric = metrics.SparseCategoricalAccuracy()
    >>> metric([0, 1], [[0.9, 0.1], [0.8, 0.2]])
    0.5
"""

from __future__ import annotations

from typing import Any

from stepgraph.configs import resolve
from stepgraph.metrics.accuracy import Accuracy as Accuracy
from stepgraph.metrics.accuracy import BinaryAccuracy as BinaryAccuracy
from stepgraph.metrics.accuracy import CategoricalAccuracy as CategoricalAccuracy
from stepgraph.metrics.accuracy import Precision as Precision
from stepgraph.metrics.accuracy import Recall as Recall
from stepgraph.metrics.accuracy import SparseCategoricalAccuracy as SparseCategoricalAccuracy
from stepgraph.metrics.accuracy import (
    SparseTopKCategoricalAccuracy as SparseTopKCategoricalAccuracy,
)
from stepgraph.metrics.accuracy import TopKCategoricalAccuracy as TopKCategoricalAccuracy
from stepgraph.metrics.base import FunctionMetric as FunctionMetric
from stepgraph.metrics.base import Mean as Mean
from stepgraph.metrics.base import MeanMetric as MeanMetric
from stepgraph.metrics.base import Metric as Metric
from stepgraph.metrics.regression import BinaryCrossentropy as BinaryCrossentropy
from stepgraph.metrics.regression import CategoricalCrossentropy as CategoricalCrossentropy
from stepgraph.metrics.regression import CosineSimilarity as CosineSimilarity
from stepgraph.metrics.regression import Hinge as Hinge
from stepgraph.metrics.regression import KLDivergence as KLDivergence
from stepgraph.metrics.regression import LogCosh as LogCosh
from stepgraph.metrics.regression import MeanAbsoluteError as MeanAbsoluteError
from stepgraph.metrics.regression import MeanAbsolutePercentageError as MeanAbsolutePercentageError
from stepgraph.metrics.regression import MeanSquaredError as MeanSquaredError
from stepgraph.metrics.regression import MeanSquaredLogarithmicError as MeanSquaredLogarithmicError
from stepgraph.metrics.regression import RootMeanSquaredError as RootMeanSquaredError
from stepgraph.metrics.regression import (
    SparseCategoricalCrossentropy as SparseCategoricalCrossentropy,
)
from stepgraph.utils import snake_case

CLASSES: tuple[type[Metric], ...] = (
    Accuracy,
    BinaryAccuracy,
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
    TopKCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    Precision,
    Recall,
    Mean,
    MeanSquaredError,
    RootMeanSquaredError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredLogarithmicError,
    CategoricalCrossentropy,
    SparseCategoricalCrossentropy,
    BinaryCrossentropy,
    KLDivergence,
    Hinge,
    LogCosh,
    CosineSimilarity,
)

SHORT = {
    "mse": MeanSquaredError,
    "MSE": MeanSquaredError,
    "mae": MeanAbsoluteError,
    "MAE": MeanAbsoluteError,
    "mape": MeanAbsolutePercentageError,
    "MAPE": MeanAbsolutePercentageError,
    "msle": MeanSquaredLogarithmicError,
    "MSLE": MeanSquaredLogarithmicError,
    "rmse": RootMeanSquaredError,
    "top_k_categorical_accuracy": TopKCategoricalAccuracy,
    "sparse_top_k_categorical_accuracy": SparseTopKCategoricalAccuracy,
    "kl_divergence": KLDivergence,
}

# Every name that `compile(metrics=...)` takes, besides "accuracy", "acc", "crossentropy" and "ce",
# whose meaning depends on labels and predictions.
TABLE: dict[str, type[Metric]] = {
    **{cls.__name__: cls for cls in CLASSES},
    **{snake_case(cls.__name__): cls for cls in CLASSES},
    **SHORT,
}


def for_output(identifier: Any, size: int | None, sparse: bool) -> Metric:
    """A metric for one output of a model.

    Args:
        identifier: as for `get`; ``"acc"``, ``"accuracy"``, ``"ce"`` and ``"crossentropy"`` become
            what suits the labels.
        size: the predictions' last size.
        sparse: whether labels are class numbers.

    Returns:
        The metric, named as it was asked for.
    """
    kinds: dict[str, tuple[type[Metric], type[Metric], type[Metric]]] = {
        "acc": (BinaryAccuracy, SparseCategoricalAccuracy, CategoricalAccuracy),
        "ce": (BinaryCrossentropy, SparseCategoricalCrossentropy, CategoricalCrossentropy),
    }
    short = {"acc": "acc", "accuracy": "acc", "ce": "ce", "crossentropy": "ce"}
    if isinstance(identifier, str) and identifier in short:
        binary, numbers, one_hot = kinds[short[identifier]]
        cls = numbers if sparse else binary if size == 1 else one_hot
        return cls(name=identifier)
    found = get(identifier)
    if isinstance(identifier, str):
        found.name = identifier
    assert isinstance(found, Metric)
    return found


def get(identifier: Any) -> Any:
    """A metric from its name, config, class, a function of (y_true, y_pred), or itself."""
    found = resolve("metric", identifier, TABLE)
    if isinstance(found, Metric) or found is None:
        return found
    return FunctionMetric(found)


def serialize(metric: Metric) -> dict[str, Any]:
    """Its class and config."""
    return {"class_name": type(metric).__name__, "config": metric.get_config()}


deserialize = get
