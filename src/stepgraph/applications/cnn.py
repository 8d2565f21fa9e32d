"""A small convolutional network."""

from __future__ import annotations

from collections.abc import Sequence

from stepgraph.layers import Conv2D, Dense, Dropout, Flatten, Input, MaxPooling2D
from stepgraph.models import Model


def CNN(
    input_shape: tuple[int, int, int] = (28, 28, 1),
    classes: int = 10,
    filters: Sequence[int] = (32, 64),
    dropout: float = 0.5,
    name: str = "cnn",
) -> Model:
    """Convolutions of 3x3, each with ReLU and a max pooling, then one dense layer.

    Args:
        input_shape: (height, width, channels).
        classes: number of classes.
        filters: of each convolution.
        dropout: rate before the dense layer; 0 leaves it out.
        name: of the model.

    Returns:
        A model whose output is probabilities, shape ``(batch, classes)``. By default it has 34,826
        parameters, as Keras's example.

    Source: Keras's example "Simple MNIST convnet"
    (https://keras.io/examples/vision/mnist_convnet/).

    Example:
        >>> CNN().count_params()
        34826
    """
    x = inputs = Input(input_shape)
    for number, count in enumerate(filters, 1):
        x = Conv2D(count, 3, activation="relu", name=f"conv{number}")(x)
        x = MaxPooling2D(2, name=f"pool{number}")(x)
    x = Flatten(name="flatten")(x)
    if dropout:
        x = Dropout(dropout, name="dropout")(x)
    x = Dense(classes, activation="softmax", name="classifier")(x)
    return Model(inputs, x, name=name)
