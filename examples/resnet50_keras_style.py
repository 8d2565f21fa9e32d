"""ResNet-50 for 32x32 images in Keras's words.

The calls are those of the Keras program in the talk "Training DNNs on iOS with Metal Performance
Shaders Graph"; only the imports and the source of the data are others. The same network op by op is
in resnet50_graph.py, and ready made in `stepgraph.applications.ResNet50`.

    python examples/resnet50_keras_style.py --epochs 1 --steps 20
"""

from __future__ import annotations

import argparse

import stepgraph as keras
from stepgraph import activations
from stepgraph.datasets import Batches, load
from stepgraph.layers import (
    Activation,
    Add,
    AveragePooling2D,
    BatchNormalization,
    Conv2D,
    Dense,
    Flatten,
    Input,
    MaxPooling2D,
)
from stepgraph.models import Model


def res_identity(x, filters):
    """A block whose output has the shape of its input."""
    x_skip = x
    f1, f2 = filters

    x = Conv2D(f1, kernel_size=(1, 1), strides=(1, 1), padding="valid", use_bias=False)(x)
    x = BatchNormalization()(x)
    x = Activation(activations.relu)(x)

    x = Conv2D(f1, kernel_size=(3, 3), strides=(1, 1), padding="same", use_bias=False)(x)
    x = BatchNormalization()(x)
    x = Activation(activations.relu)(x)

    x = Conv2D(f2, kernel_size=(1, 1), strides=(1, 1), padding="valid", use_bias=False)(x)
    x = BatchNormalization()(x)

    x = Add()([x, x_skip])
    x = Activation(activations.relu)(x)

    return x


def res_conv(x, s, filters):
    """The first block of a stage: another number of channels, perhaps half the size."""
    x_skip = x
    f1, f2 = filters

    x = Conv2D(f1, kernel_size=(1, 1), strides=(s, s), padding="valid", use_bias=False)(x)
    x = BatchNormalization()(x)
    x = Activation(activations.relu)(x)

    x = Conv2D(f1, kernel_size=(3, 3), strides=(1, 1), padding="same", use_bias=False)(x)
    x = BatchNormalization()(x)
    x = Activation(activations.relu)(x)

    x = Conv2D(f2, kernel_size=(1, 1), strides=(1, 1), padding="valid", use_bias=False)(x)
    x = BatchNormalization()(x)

    x_skip = Conv2D(f2, kernel_size=(1, 1), strides=(s, s), padding="valid", use_bias=False)(x_skip)
    x_skip = BatchNormalization()(x_skip)

    x = Add()([x, x_skip])
    x = Activation(activations.relu)(x)

    return x


def resnet50(shape, classes, batch_size, stem):
    input = Input(shape=(shape[0], shape[1], shape[2]), batch_size=batch_size)
    x = Conv2D(stem, kernel_size=(7, 7), strides=(2, 2), use_bias=False)(input)
    x = BatchNormalization()(x)
    x = Activation(activations.relu)(x)
    x = MaxPooling2D((3, 3), strides=(2, 2))(x)

    x = res_conv(x, s=1, filters=(64, 256))
    for _ in range(2):
        x = res_identity(x, filters=(64, 256))
    x = res_conv(x, s=2, filters=(128, 512))
    for _ in range(3):
        x = res_identity(x, filters=(128, 512))
    x = res_conv(x, s=2, filters=(256, 1024))
    for _ in range(5):
        x = res_identity(x, filters=(256, 1024))
    x = res_conv(x, s=2, filters=(512, 2048))
    for _ in range(2):
        x = res_identity(x, filters=(512, 2048))

    x = AveragePooling2D((2, 2), padding="same")(x)
    x = Flatten()(x)
    x = Dense(classes, activation="softmax")(x)
    return Model(inputs=input, outputs=x, name="Resnet50")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--steps", type=int, help="steps of an epoch; all images without it")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--stem", type=int, default=64, help="filters of the first convolution")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data", help="folder or archive of the data set")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    # Batches are shuffled, their pixels divided by 255, their labels one-hot.
    batch_size = options.batch_size
    train = load(options.dataset, options.data, size=32, channels=3).train
    train_set_data = Batches(train, batch_size, seed=0)
    steps = options.steps or train.images.shape[0] / batch_size

    model = resnet50(train.image_shape, train.class_count, batch_size, options.stem)
    opt = keras.optimizers.legacy.SGD()
    model.compile(
        loss=keras.losses.CategoricalCrossentropy(
            reduction=keras.losses.Reduction.SUM_OVER_BATCH_SIZE
        ),
        optimizer=opt,
        metrics=["acc"],
        device=options.device,
    )
    model.fit(train_set_data, epochs=options.epochs, steps_per_epoch=steps)


if __name__ == "__main__":
    main()
