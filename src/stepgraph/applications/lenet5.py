"""LeNet-5."""

from __future__ import annotations

from stepgraph.layers import AveragePooling2D, Conv2D, Dense, Flatten, Input
from stepgraph.models import Model


def LeNet5(
    input_shape: tuple[int, int, int] = (32, 32, 1),
    classes: int = 10,
    activation: str = "tanh",
    name: str = "lenet5",
) -> Model:
    """Two convolutions of 5x5 with poolings, and three dense layers.

    As it is taught today: every map of the second convolution sees all maps of the first, poolings
    are plain means, and the output is a softmax.

    Args:
        input_shape: (height, width, channels). Pictures below 32x32, such as MNIST's 28x28, are
            padded by the first convolution as the paper pads them, and give the same parameters.
        classes: number of classes.
        activation: of the hidden layers.
        name: of the model.

    Returns:
        A model whose output is probabilities, shape ``(batch, classes)``. It has 61,706 parameters
        for one channel and 62,006 for three.

    Source: LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition".

    Example:
        >>> LeNet5().count_params(), LeNet5((28, 28, 1)).count_params()
        (61706, 61706)
    """
    padding = "same" if min(input_shape[:2]) < 32 else "valid"
    x = inputs = Input(input_shape)
    x = Conv2D(6, 5, padding=padding, activation=activation, name="conv1")(x)
    x = AveragePooling2D(2, name="pool1")(x)
    x = Conv2D(16, 5, activation=activation, name="conv2")(x)
    x = AveragePooling2D(2, name="pool2")(x)
    x = Flatten(name="flatten")(x)
    x = Dense(120, activation=activation, name="dense1")(x)
    x = Dense(84, activation=activation, name="dense2")(x)
    x = Dense(classes, activation="softmax", name="classifier")(x)
    return Model(inputs, x, name=name)
