"""MobileNetV2 for pictures of about 32x32."""

from __future__ import annotations

from stepgraph.layers import (
    Add,
    BatchNormalization,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    GlobalAveragePooling2D,
    Input,
    KerasTensor,
    ReLU,
)
from stepgraph.models import Model

# Expansion, filters, number of blocks, stride of the first: the paper's table 2, but with stride 1
# in the second row (and in the stem), so that 32x32 ends at 4x4 instead of 1x1.
BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def MobileNetV2(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    alpha: float = 1.0,
    name: str = "mobilenet_v2",
) -> Model:
    """Inverted residuals: 1x1 up, 3x3 on each channel, 1x1 down without activation.

    Only strides differ from the network for large pictures, so it has the same parameters:
    Keras's ``MobileNetV2(include_top=False)`` has 2,257,984 (2,223,872 trainable, 34,112 moving
    statistics), and a dense layer to 10 classes adds 12,810.

    Args:
        input_shape: (height, width, channels).
        classes: number of classes.
        alpha: factor on all filters, rounded to multiples of 8 as in Keras.
        name: of the model.

    Returns:
        A model whose output is probabilities, shape ``(batch, classes)``. By default it has
        2,236,682 trainable parameters and 2,270,794 in all.

    Source: Sandler et al. 2018 (https://arxiv.org/abs/1801.04381); Keras ``MobileNetV2``, also for
    the batch normalisation's momentum of 0.999.

    Example:
        >>> MobileNetV2(alpha=0.35).output_shape
        (None, 10)
    """
    x = inputs = Input(input_shape)
    x = _relu6(_conv(x, rounded(32 * alpha), 3, "stem"), "stem_relu")
    for stage, (expansion, filters, blocks, stride) in enumerate(BLOCKS, 1):
        for block in range(1, blocks + 1):
            x = _block(
                x,
                expansion,
                rounded(filters * alpha),
                stride if block == 1 else 1,
                f"stage{stage}_{block}",
            )
    last = rounded(1280 * alpha) if alpha > 1.0 else 1280
    x = _relu6(_conv(x, last, 1, "head"), "head_relu")
    x = GlobalAveragePooling2D(name="pool")(x)
    x = Dense(classes, activation="softmax", name="classifier")(x)
    return Model(inputs, x, name=name)


def rounded(filters: float) -> int:
    """The nearest multiple of 8, but not below 8 nor below nine tenths of the number.

    Example:
        >>> rounded(16 * 0.35), rounded(32 * 0.75), rounded(11.9)
        (8, 24, 16)
    """
    found = max(8, int(filters + 4) // 8 * 8)
    return found if found >= 0.9 * filters else found + 8


def _block(x: KerasTensor, expansion: int, filters: int, stride: int, name: str) -> KerasTensor:
    channels = x.shape[-1]
    assert channels is not None
    shortcut = x
    if expansion > 1:
        x = _relu6(_conv(x, expansion * channels, 1, f"{name}_expand"), f"{name}_expand_relu")
    x = DepthwiseConv2D(3, stride, "same", use_bias=False, name=f"{name}_depthwise_conv")(x)
    x = _relu6(_norm(x, f"{name}_depthwise"), f"{name}_depthwise_relu")
    x = _conv(x, filters, 1, f"{name}_project")
    if stride == 1 and channels == filters:
        x = Add(name=f"{name}_add")([shortcut, x])
    return x


def _conv(x: KerasTensor, filters: int, kernel: int, name: str) -> KerasTensor:
    x = Conv2D(filters, kernel, padding="same", use_bias=False, name=f"{name}_conv")(x)
    return _norm(x, name)


def _norm(x: KerasTensor, name: str) -> KerasTensor:
    found: KerasTensor = BatchNormalization(momentum=0.999, name=f"{name}_norm")(x)
    return found


def _relu6(x: KerasTensor, name: str) -> KerasTensor:
    found: KerasTensor = ReLU(6.0, name=name)(x)
    return found
