"""ResNet-18 as it is used on CIFAR."""

from __future__ import annotations

from stepgraph.layers import (
    Activation,
    Add,
    BatchNormalization,
    Conv2D,
    Dense,
    GlobalAveragePooling2D,
    Input,
    KerasTensor,
)
from stepgraph.models import Model


def ResNet18(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    width: int = 64,
    name: str = "resnet18",
) -> Model:
    """Four stages of two basic blocks behind a 3x3 stem that keeps the picture's size.

    Blocks that halve the picture add it through a strided 1x1 convolution. Padding is "same".

    Args:
        input_shape: (height, width, channels).
        classes: number of classes.
        width: filters of the stem and the first stage; each later stage has twice as many.
        name: of the model.

    Returns:
        A model whose output is probabilities, shape ``(batch, classes)``. By default it has
        11,173,962 trainable parameters, as the CIFAR variant is always reported with, and
        11,183,562 with the moving statistics.

    Source: He et al. 2015 (https://arxiv.org/abs/1512.03385), table 1 without the large stem.

    Example:
        >>> ResNet18(width=8).output_shape
        (None, 10)
    """
    x = inputs = Input(input_shape)
    x = _relu(_conv(x, width, 3, "stem"), "stem_relu")
    for stage in range(4):
        for block in range(2):
            stride = 2 if stage and not block else 1
            x = _block(x, width << stage, stride, f"stage{stage + 1}_{block + 1}")
    x = GlobalAveragePooling2D(name="pool")(x)
    x = Dense(classes, activation="softmax", name="classifier")(x)
    return Model(inputs, x, name=name)


def _block(x: KerasTensor, filters: int, stride: int, name: str) -> KerasTensor:
    """Two 3x3 convolutions, and the input added."""
    shortcut = x
    x = _relu(_conv(x, filters, 3, f"{name}_first", stride), f"{name}_first_relu")
    x = _conv(x, filters, 3, f"{name}_second")
    if stride > 1:
        shortcut = _conv(shortcut, filters, 1, f"{name}_shortcut", stride)
    return _relu(Add(name=f"{name}_add")([x, shortcut]), f"{name}_relu")


def _conv(x: KerasTensor, filters: int, kernel: int, name: str, stride: int = 1) -> KerasTensor:
    x = Conv2D(
        filters,
        kernel,
        stride,
        "same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    found: KerasTensor = BatchNormalization(name=f"{name}_norm")(x)
    return found


def _relu(x: KerasTensor, name: str) -> KerasTensor:
    found: KerasTensor = Activation("relu", name=name)(x)
    return found
