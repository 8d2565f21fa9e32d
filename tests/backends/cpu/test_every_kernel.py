"""Small networks that together launch every kernel: two training steps each, against float64.

`test_machines.py` runs this file for other processors too, and with fenced buffers.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
import pytest

from stepgraph import backends, utils
from stepgraph.backends.cpu.device import _kernels_of
from stepgraph.backends.cpu.native.kernels import kernel_module
from stepgraph.backends.cpu.native.target import host_target
from stepgraph.backends.cpu.plan import NATIVE, ChainStep, Scaled
from stepgraph.layers import (
    Activation,
    Add,
    AveragePooling2D,
    BatchNormalization,
    Conv2D,
    Conv2DTranspose,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Embedding,
    Flatten,
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalMaxPooling2D,
    GroupNormalization,
    Input,
    LayerNormalization,
    MaxPooling2D,
    MultiHeadAttention,
    ReLU,
    UpSampling2D,
    ZeroPadding2D,
)
from stepgraph.models import Model
from stepgraph.optimizers import SGD, Adam

ENGINE = Path(backends.__file__).parent / "cpu"
CLASSES = 7


def _residual():
    """Winograd, direct and pointwise convolutions, a stem over three channels, both poolings."""
    x = inputs = Input((20, 18, 3))
    x = ReLU()(BatchNormalization()(Conv2D(40, 3, padding="same", use_bias=False)(x)))
    y = ReLU()(BatchNormalization()(Conv2D(40, 3, padding="same", use_bias=False)(x)))
    y = BatchNormalization()(Conv2D(40, 1, use_bias=False)(y))
    x = ReLU()(Add()([x, y]))
    x = MaxPooling2D(3, strides=2, padding="same")(x)
    x = ReLU()(BatchNormalization()(Conv2D(33, 3, strides=2, padding="same", use_bias=False)(x)))
    x = AveragePooling2D(2, padding="same")(x)
    return inputs, Flatten()(x)


def _separable():
    """Inverted residuals: depthwise convolutions of strides 1 and 2 in chains."""
    x = inputs = Input((12, 12, 3))
    x = ReLU(6.0)(BatchNormalization()(Conv2D(16, 3, padding="same", use_bias=False)(x)))
    for stride, filters in ((1, 16), (2, 24)):
        y = ReLU(6.0)(BatchNormalization()(Conv2D(48, 1, use_bias=False)(x)))
        y = DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False)(y)
        y = ReLU(6.0)(BatchNormalization()(y))
        y = BatchNormalization()(Conv2D(filters, 1, use_bias=False)(y))
        x = Add()([x, y]) if stride == 1 else y
    x = DepthwiseConv2D(5, dilation_rate=2, padding="same")(x)
    return inputs, GlobalAveragePooling2D()(x)


def _odd():
    """Groups, dilation, a transposed convolution, one channel, other normalisations."""
    x = inputs = Input((9, 11, 1))
    x = Activation("silu")(Conv2D(18, (5, 2), padding="same")(x))
    x = Conv2D(12, 3, groups=3, dilation_rate=2, activation="elu")(x)
    x = GroupNormalization(3)(ZeroPadding2D(1)(x))
    x = Conv2DTranspose(17, 3, strides=2, padding="same", activation="tanh")(x)
    x = UpSampling2D(2)(x)
    x = Conv2D(5, 4, strides=3, activation="sigmoid")(x)
    return inputs, GlobalMaxPooling2D()(x)


def _transformer():
    """Tokens from a table, attention of heads that fill panels or do not, GELU, random masks."""
    inputs = Input((6,), dtype="int32")
    x = Embedding(11, 64)(inputs)
    y = LayerNormalization()(x)
    x = Add()([x, Dropout(0.25)(MultiHeadAttention(4, 16)(y, y))])
    y = Dense(72, activation="gelu")(LayerNormalization()(x))
    x = Add()([x, Dense(64)(y)])
    x = MultiHeadAttention(3, 5)(x, x)
    return inputs, GlobalAveragePooling1D()(x)


def _deep():
    """Few positions and many channels: gathered taps, partial sums of weight gradients."""
    x = inputs = Input((4, 4, 64))
    x = ReLU()(Conv2D(96, 3, padding="same", use_bias=False)(x))
    x = ReLU()(Conv2D(128, (3, 2), padding="same")(x))
    return inputs, Flatten()(x)


def _large():
    """A layer whose weights fill no second-level cache, behind one that wants a gradient."""
    inputs = Input((20,))
    return inputs, Dense(520, activation="tanh")(Dense(1040, activation="tanh")(inputs))


NETWORKS = {"residual": _residual, "separable": _separable, "odd": _odd}
NETWORKS |= {"transformer": _transformer, "deep": _deep, "large": _large}
BATCH = {"deep": 2}
OPTIMIZERS = {"sgd": lambda: SGD(0.05), "adam": lambda: Adam(0.003, clipnorm=1.0)}


@functools.cache
def trained(network, optimizer, device):
    """A network after two steps, and their losses."""
    utils.set_random_seed(3)
    inputs, x = NETWORKS[network]()
    model = Model(inputs, Dense(CLASSES, activation="softmax")(x))
    model.compile(OPTIMIZERS[optimizer](), "categorical_crossentropy", ["accuracy"], device=device)
    rng = np.random.default_rng(1)
    losses = []
    for _ in range(2):
        shape = (BATCH.get(network, 5), *model.input_shape[1:])
        x = rng.standard_normal(shape).astype("float32")
        if network == "transformer":
            x = rng.integers(0, 11, shape).astype("int32")
        y = np.eye(CLASSES, dtype="float32")[rng.integers(0, CLASSES, len(x))]
        losses.append(model.train_on_batch(x, y)[0])
    return model, losses


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_training_agrees_with_float64(network, optimizer):
    model, losses = trained(network, optimizer, "cpu")
    exact, exact_losses = trained(network, optimizer, "reference:float64")
    np.testing.assert_allclose(losses, exact_losses, rtol=1e-4)
    assert np.ptp(losses) > 0
    for weight, got, wanted in zip(
        exact.weights, model.get_weights(), exact.get_weights(), strict=True
    ):
        error, scale = np.abs(got - wanted).max(), max(np.abs(wanted).max(), 0.05)
        assert error <= 3e-4 * scale, f"{weight.name}: off by {error:.2g} at {scale:.2g}"


def _launched():
    found = set()
    for network in NETWORKS:
        for optimizer in OPTIMIZERS:
            model, _ = trained(network, optimizer, "cpu")
            for step in model.runtime.step("train", (False,)).executable._chosen(None).steps:
                if isinstance(step, ChainStep):
                    found.add("chain")
                for kernel in _kernels_of(step):
                    key = kernel.source.key
                    found.add(kernel.kernel if key == NATIVE else key[0])
                    if any(isinstance(v, Scaled) for v in kernel.arguments.values()):
                        found.add("fetch")
    return found


def test_these_networks_launch_every_kernel():
    named = re.compile(r'KernelSource\(\s*\("(\w+)"')
    families = {n for path in ENGINE.rglob("*.py") for n in named.findall(path.read_text())}
    assert len(families) > 8
    kernels = families - {"native"} | set(kernel_module(host_target())[0].kernels)
    assert kernels - _launched() == set()
