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
from stepgraph.losses.base import FunctionLoss as FunctionLoss
from stepgraph.losses.base import Loss as Loss
from stepgraph.losses.base import Reduction as Reduction
from stepgraph.losses.classification import BinaryCrossentropy as BinaryCrossentropy
from stepgraph.losses.classification import CategoricalCrossentropy as CategoricalCrossentropy
from stepgraph.losses.classification import CategoricalHinge as CategoricalHinge
from stepgraph.losses.classification import Hinge as Hinge
from stepgraph.losses.classification import KLDivergence as KLDivergence
from stepgraph.losses.classification import Poisson as Poisson
from stepgraph.losses.classification import (
    SparseCategoricalCrossentropy as SparseCategoricalCrossentropy,
)
from stepgraph.losses.classification import SquaredHinge as SquaredHinge
from stepgraph.losses.regression import CosineSimilarity as CosineSimilarity
from stepgraph.losses.regression import Huber as Huber
from stepgraph.losses.regression import LogCosh as LogCosh
from stepgraph.losses.regression import MeanAbsoluteError as MeanAbsoluteError
from stepgraph.losses.regression import MeanAbsolutePercentageError as MeanAbsolutePercentageError
from stepgraph.losses.regression import MeanSquaredError as MeanSquaredError
from stepgraph.losses.regression import MeanSquaredLogarithmicError as MeanSquaredLogarithmicError
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
