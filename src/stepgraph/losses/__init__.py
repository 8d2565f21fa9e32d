"""Losses (``keras.losses``): what training makes small.

Example:
    >>> from stepgraph import losses
    >>> losses.get("mse").name
    'mean_squared_error'
"""

from __future__ import annotations

import inspect
from typing import Any

from stepgraph.configs import resolve
from stepgraph.losses.base import FunctionLoss, Loss, Reduction
from stepgraph.losses.classification import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CategoricalHinge,
    Hinge,
    KLDivergence,
    Poisson,
    SparseCategoricalCrossentropy,
    SquaredHinge,
)
from stepgraph.losses.regression import (
    CosineSimilarity,
    Huber,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
)
from stepgraph.utils import snake_case

CLASSES: tuple[type[Loss], ...] = (
    CategoricalCrossentropy,
    SparseCategoricalCrossentropy,
    BinaryCrossentropy,
    KLDivergence,
    Poisson,
    Hinge,
    SquaredHinge,
    CategoricalHinge,
    MeanSquaredError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredLogarithmicError,
    Huber,
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
    "huber_loss": Huber,
    "bce": BinaryCrossentropy,
    "kld": KLDivergence,
    "kl_divergence": KLDivergence,
    "kullback_leibler_divergence": KLDivergence,
    "logcosh": LogCosh,
}

# Every name that `compile(loss=...)` takes.
TABLE: dict[str, type[Loss]] = {
    **{cls.__name__: cls for cls in CLASSES},
    **{snake_case(cls.__name__): cls for cls in CLASSES},
    **SHORT,
}


def get(identifier: Any) -> Any:
    """A loss from its name, config, class, a function of (y_true, y_pred), or itself."""
    if identifier is None or isinstance(identifier, Loss):
        return identifier
    found = resolve("loss", identifier, TABLE)
    if isinstance(found, Loss):
        return found
    if inspect.isfunction(found) or callable(found):
        return FunctionLoss(found)
    raise ValueError(f"loss: {identifier!r} is no loss")


def serialize(loss: Loss) -> dict[str, Any]:
    """Its class and config."""
    return {"class_name": type(loss).__name__, "config": loss.get_config()}


deserialize = get

__all__ = [
    *(cls.__name__ for cls in CLASSES),
    "CLASSES",
    "SHORT",
    "TABLE",
    "FunctionLoss",
    "Loss",
    "Reduction",
    "deserialize",
    "get",
    "serialize",
]
