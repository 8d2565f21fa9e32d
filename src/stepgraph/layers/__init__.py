"""Layers (``keras.layers``): settings, weights, and how outputs follow from inputs.

Example:
    >>> from stepgraph import layers, models
    >>> x = layers.Input((32, 32, 3))
    >>> y = layers.Conv2D(8, 3, activation="relu")(x)
    >>> y = layers.GlobalAveragePooling2D()(y)
    >>> y = layers.Dense(10, activation="softmax")(y)
    >>> models.Model(inputs=x, outputs=y).count_params()
    314
"""

from __future__ import annotations

from typing import Any

from stepgraph.configs import resolve
from stepgraph.layers.activation import (
    ELU,
    Activation,
    LeakyReLU,
    PReLU,
    ReLU,
    Softmax,
)
from stepgraph.layers.attention import MultiHeadAttention
from stepgraph.layers.base import Layer
from stepgraph.layers.convolution import (
    Conv2D,
    Conv2DTranspose,
    DepthwiseConv2D,
    SeparableConv2D,
)
from stepgraph.layers.core import (
    Dense,
    Embedding,
    Identity,
    Input,
    InputLayer,
    PositionEmbedding,
    Rescaling,
)
from stepgraph.layers.layer_graph import LayerGraph
from stepgraph.layers.merging import (
    Add,
    Average,
    Concatenate,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
)
from stepgraph.layers.normalization import (
    BatchNormalization,
    GroupNormalization,
    LayerNormalization,
)
from stepgraph.layers.pooling import (
    AveragePooling2D,
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalMaxPooling2D,
    MaxPooling2D,
)
from stepgraph.layers.regularization import Dropout, GaussianNoise, SpatialDropout2D
from stepgraph.layers.reshaping import (
    Cropping2D,
    Flatten,
    Permute,
    RepeatVector,
    Reshape,
    UpSampling2D,
    ZeroPadding2D,
)
from stepgraph.layers.symbolic import KerasTensor
from stepgraph.layers.weight import Weight

# Every layer, as saved models name them.
LAYERS: dict[str, type[Layer]] = {
    cls.__name__: cls
    for cls in (
        InputLayer,
        Dense,
        Embedding,
        PositionEmbedding,
        Identity,
        Rescaling,
        Activation,
        ReLU,
        LeakyReLU,
        PReLU,
        ELU,
        Softmax,
        Conv2D,
        DepthwiseConv2D,
        SeparableConv2D,
        Conv2DTranspose,
        MaxPooling2D,
        AveragePooling2D,
        GlobalAveragePooling2D,
        GlobalMaxPooling2D,
        GlobalAveragePooling1D,
        BatchNormalization,
        LayerNormalization,
        GroupNormalization,
        Add,
        Subtract,
        Multiply,
        Average,
        Maximum,
        Minimum,
        Concatenate,
        Flatten,
        Reshape,
        Permute,
        RepeatVector,
        ZeroPadding2D,
        Cropping2D,
        UpSampling2D,
        Dropout,
        SpatialDropout2D,
        GaussianNoise,
        MultiHeadAttention,
    )
}

# Keras's other names for some of them.
Convolution2D = Conv2D
Convolution2DTranspose = Conv2DTranspose
SeparableConvolution2D = SeparableConv2D
MaxPool2D = MaxPooling2D
AvgPool2D = AveragePooling2D
GlobalAvgPool2D = GlobalAveragePooling2D
GlobalMaxPool2D = GlobalMaxPooling2D


def add(inputs: Any, **kwargs: Any) -> Any:
    """``Add()(inputs)``."""
    return Add(**kwargs)(inputs)


def multiply(inputs: Any, **kwargs: Any) -> Any:
    """``Multiply()(inputs)``."""
    return Multiply(**kwargs)(inputs)


def concatenate(inputs: Any, axis: int = -1, **kwargs: Any) -> Any:
    """``Concatenate(axis)(inputs)``."""
    return Concatenate(axis, **kwargs)(inputs)


def serialize(layer: Layer) -> dict[str, Any]:
    """A layer's class and config."""
    return {"class_name": type(layer).__name__, "config": layer.get_config()}


def deserialize(config: dict[str, Any]) -> Layer:
    """The layer that `serialize` described, without weights."""
    layer: Layer = resolve("layer", config, LAYERS)
    return layer


__all__ = [
    *LAYERS,
    "AvgPool2D",
    "Convolution2D",
    "Convolution2DTranspose",
    "GlobalAvgPool2D",
    "GlobalMaxPool2D",
    "Input",
    "KerasTensor",
    "Layer",
    "LayerGraph",
    "MaxPool2D",
    "SeparableConvolution2D",
    "Weight",
    "add",
    "concatenate",
    "deserialize",
    "multiply",
    "serialize",
]
