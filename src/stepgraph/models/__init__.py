"""Models (``keras.models``): networks that can be trained, used and saved.

Example:
    >>> import numpy as np
    >>> from stepgraph import layers, models, utils
    >>> utils.set_random_seed(3)
    >>> model = models.Sequential([layers.Input((2,)), layers.Dense(1)])
    >>> model.compile(optimizer="sgd", loss="mse")
    >>> x = np.array([[0.0, 1.0], [1.0, 0.0]], "float32")
    >>> first = model.train_on_batch(x, x[:, :1])
    >>> for _ in range(50):
    ...     last = model.train_on_batch(x, x[:, :1])
    >>> last < first
    True
"""

from __future__ import annotations

import json
from typing import Any

from stepgraph.configs import resolve
from stepgraph.layers import LAYERS, Input, Layer
from stepgraph.models.model import Model
from stepgraph.models.saving import load_model
from stepgraph.models.sequential import Sequential

# Models that saved files may name, besides layers.
MODELS: dict[str, type[Model]] = {"Model": Model, "Functional": Model, "Sequential": Sequential}


def deserialize_layer(config: dict[str, Any]) -> Layer:
    """A layer or a model inside a model, from its class and config."""
    layer: Layer = resolve("layer", config, {**LAYERS, **MODELS})
    return layer


def model_from_json(json_string: str) -> Any:
    """The model that `Model.to_json` described, with new weights."""
    return deserialize_layer(json.loads(json_string))


def clone_model(model: Model) -> Any:
    """A model of the same architecture with new weights. Source: Keras ``clone_model``."""
    return type(model).from_config(model.get_config())


save_model = Model.save

__all__ = [
    "MODELS",
    "Input",
    "Model",
    "Sequential",
    "clone_model",
    "deserialize_layer",
    "load_model",
    "model_from_json",
    "save_model",
]
