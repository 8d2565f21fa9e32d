"""ResNet-50 for pictures of about 32x32."""

from __future__ import annotations

from stepgraph.layers import (
    Activation,
    Add,
    AveragePooling2D,
    BatchNormalization,
    Conv2D,
    Dense,
    Flatten,
    Input,
    KerasTensor,
    MaxPooling2D,
)
from stepgraph.models import Model

# Filters inside a block and at its end, number of blocks, stride of the stage's first block.
STAGES = ((64, 256, 3, 1), (128, 512, 4, 2), (256, 1024, 6, 2), (512, 2048, 3, 2))


def ResNet50(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    stem: int = 64,
    name: str = "resnet50",
) -> Model:
    """The network of the talk "Training DNNs on iOS with Metal Performance Shaders Graph".

    Bottleneck blocks, 3, 4, 6 and 3 of them; a stage's stride sits on the first 1x1 convolution and
    on the shortcut. No convolution has a bias. The 7x7 stem and the max pooling are not padded, so
    sizes go 32, 13, 6, 6, 3, 2, 1.

    Args:
        input_shape: (height, width, channels); 15 pixels at least.
        classes: number of classes.
        stem: filters of the first convolution; the talk's program has 2.
        name: of the model.

    Returns:
        A model whose output is probabilities, shape ``(batch, classes)``. By default it has
        23,528,522 trainable parameters, as torchvision's ``resnet50`` with 10 classes, and
        23,581,642 with the moving statistics.

    Source: He et al. 2015 (https://arxiv.org/abs/1512.03385), version 1.

    Example:
        >>> ResNet50(stem=2).output_shape
        (None, 10)
    """
    x = inputs = Input(input_shape)
    x = _conv(x, stem, 7, "stem", strides=2)
    x = _relu(x, "stem_relu")
    x = MaxPooling2D(3, strides=2, name="stem_pool")(x)
    for number, (inner, outer, blocks, stride) in enumerate(STAGES, 1):
        for block in range(1, blocks + 1):
            first = block == 1
            x = _block(x, inner, outer, stride if first else 1, first, f"stage{number}_{block}")
    x = AveragePooling2D(2, padding="same", name="pool")(x)
    x = Flatten(name="flatten")(x)
    x = Dense(classes, activation="softmax", name="classifier")(x)
    return Model(inputs, x, name=name)


def _block(
    x: KerasTensor, inner: int, outer: int, stride: int, project: bool, name: str
) -> KerasTensor:
    """Down to few channels, across, up again, and the input added."""
    shortcut = x
    x = _relu(_conv(x, inner, 1, f"{name}_reduce", strides=stride), f"{name}_reduce_relu")
    x = _relu(_conv(x, inner, 3, f"{name}_middle", padding="same"), f"{name}_middle_relu")
    x = _conv(x, outer, 1, f"{name}_expand")
    if project:
        shortcut = _conv(shortcut, outer, 1, f"{name}_shortcut", strides=stride)
    return _relu(Add(name=f"{name}_add")([x, shortcut]), f"{name}_relu")


def _conv(
    x: KerasTensor, filters: int, kernel: int, name: str, strides: int = 1, padding: str = "valid"
) -> KerasTensor:
    x = Conv2D(filters, kernel, strides, padding, use_bias=False, name=f"{name}_conv")(x)
    found: KerasTensor = BatchNormalization(name=f"{name}_norm")(x)
    return found


def _relu(x: KerasTensor, name: str) -> KerasTensor:
    found: KerasTensor = Activation("relu", name=name)(x)
    return found
