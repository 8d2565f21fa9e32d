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
from stepgraph.layers.activation import ELU as ELU
from stepgraph.layers.activation import Activation as Activation
from stepgraph.layers.activation import LeakyReLU as LeakyReLU
from stepgraph.layers.activation import PReLU as PReLU
from stepgraph.layers.activation import ReLU as ReLU
from stepgraph.layers.activation import Softmax as Softmax
from stepgraph.layers.attention import MultiHeadAttention as MultiHeadAttention
from stepgraph.layers.base import Layer as Layer
from stepgraph.layers.convolution import Conv2D as Conv2D
from stepgraph.layers.convolution import Conv2DTranspose as Conv2DTranspose
from stepgraph.layers.core import Dense as Dense
from stepgraph.layers.core import Embedding as Embedding
from stepgraph.layers.core import Identity as Identity
from stepgraph.layers.core import Input as Input
from stepgraph.layers.core import InputLayer as InputLayer
from stepgraph.layers.core import PositionEmbedding as PositionEmbedding
from stepgraph.layers.core import Rescaling as Rescaling
from stepgraph.layers.depthwise import DepthwiseConv2D as DepthwiseConv2D
from stepgraph.layers.depthwise import SeparableConv2D as SeparableConv2D
from stepgraph.layers.layer_graph import LayerGraph as LayerGraph
from stepgraph.layers.merging import Add as Add
from stepgraph.layers.merging import Average as Average
from stepgraph.layers.merging import Concatenate as Concatenate
from stepgraph.layers.merging import Maximum as Maximum
from stepgraph.layers.merging import Minimum as Minimum
from stepgraph.layers.merging import Multiply as Multiply
from stepgraph.layers.merging import Subtract as Subtract
from stepgraph.layers.normalization import BatchNormalization as BatchNormalization
from stepgraph.layers.normalization import GroupNormalization as GroupNormalization
from stepgraph.layers.normalization import LayerNormalization as LayerNormalization
from stepgraph.layers.pooling import AveragePooling2D as AveragePooling2D
from stepgraph.layers.pooling import GlobalAveragePooling1D as GlobalAveragePooling1D
from stepgraph.layers.pooling import GlobalAveragePooling2D as GlobalAveragePooling2D
from stepgraph.layers.pooling import GlobalMaxPooling2D as GlobalMaxPooling2D
from stepgraph.layers.pooling import MaxPooling2D as MaxPooling2D
from stepgraph.layers.regularization import Dropout as Dropout
from stepgraph.layers.regularization import GaussianNoise as GaussianNoise
from stepgraph.layers.regularization import SpatialDropout2D as SpatialDropout2D
from stepgraph.layers.reshaping import Cropping2D as Cropping2D
from stepgraph.layers.reshaping import Flatten as Flatten
from stepgraph.layers.reshaping import Permute as Permute
from stepgraph.layers.reshaping import RepeatVector as RepeatVector
from stepgraph.layers.reshaping import Reshape as Reshape
from stepgraph.layers.reshaping import UpSampling2D as UpSampling2D
from stepgraph.layers.reshaping import ZeroPadding2D as ZeroPadding2D
from stepgraph.layers.symbolic import KerasTensor as KerasTensor
from stepgraph.layers.weight import Weight as Weight

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
