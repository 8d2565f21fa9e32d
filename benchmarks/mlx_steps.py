"""The networks of `stepgraph.applications` in MLX: what `other_frameworks.py --backend mlx` times.

A model is walked node by node and each layer spelt in MLX's own functions, with the same weights,
so a first loss that differs would show that something else is measured. The whole step (gradients,
plain gradient descent, moving statistics) goes through `mlx.core.compile`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from stepgraph import optimizers
from stepgraph.layers import InputLayer
from stepgraph.models import Model

Weights = dict[str, mx.array]
ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "linear": lambda x: x,
    "relu": nn.relu,
    "tanh": mx.tanh,
    "gelu": nn.gelu,
    "softmax": lambda x: mx.softmax(x, axis=-1),
}


class Walk:
    """One pass through a model: its weights, and the moving statistics that it leaves."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.moved: Weights = {}

    def call(self, layer: Any, x: list[mx.array]) -> mx.array:
        """What a layer makes of its inputs."""
        config = layer.get_config()
        y = getattr(self, "_" + type(layer).__name__)(layer.name + "/", config, *x)
        return ACTIVATIONS[config.get("activation", "linear")](y)

    def _with_bias(self, name: str, y: mx.array) -> mx.array:
        bias = self.weights.get(name + "bias")
        return y if bias is None else y + bias

    def _Conv2D(self, name: str, config: dict[str, Any], x: mx.array) -> mx.array:
        kernel = self.weights[name + "kernel"]
        if config["padding"] == "same":
            x = padded_same(x, kernel.shape[1:3], config["strides"])
        y = mx.conv2d(x, kernel, config["strides"], 0, groups=x.shape[-1] // kernel.shape[-1])
        return self._with_bias(name, y)

    _DepthwiseConv2D = _Conv2D

    def _Dense(self, name: str, config: dict[str, Any], x: mx.array) -> mx.array:
        return self._with_bias(name, x @ self.weights[name + "kernel"])

    def _BatchNormalization(self, name: str, config: dict[str, Any], x: mx.array) -> mx.array:
        axes = tuple(range(x.ndim - 1))
        mean, variance = mx.mean(x, axes), mx.var(x, axes)
        kept = config["momentum"]
        for key, value in ("moving_mean", mean), ("moving_variance", variance):
            old = self.weights[name + key]
            self.moved[name + key] = kept * old + (1 - kept) * mx.stop_gradient(value)
        scale = self.weights[name + "gamma"] * mx.rsqrt(variance + config["epsilon"])
        return (x - mean) * scale + self.weights[name + "beta"]

    def _LayerNormalization(self, name: str, config: dict[str, Any], x: mx.array) -> mx.array:
        w = self.weights
        return mx.fast.layer_norm(x, w[name + "gamma"], w[name + "beta"], config["epsilon"])

    def _MultiHeadAttention(
        self, name: str, config: dict[str, Any], query: mx.array, *_: mx.array
    ) -> mx.array:
        w = self.weights
        parts = []
        for part in "query", "key", "value":
            kernel, bias = w[f"{name}{part}/kernel"], w[f"{name}{part}/bias"]
            y = query @ kernel.reshape(kernel.shape[0], -1) + bias.reshape(-1)
            parts.append(y.reshape(*query.shape[:2], *bias.shape).transpose(0, 2, 1, 3))
        scale = 1 / math.sqrt(config["key_dim"])
        y = mx.fast.scaled_dot_product_attention(*parts, scale=scale)
        y = y.transpose(0, 2, 1, 3).reshape(*query.shape[:2], -1)
        kernel = w[name + "attention_output/kernel"]
        return y @ kernel.reshape(-1, kernel.shape[-1]) + w[name + "attention_output/bias"]

    def _PositionEmbedding(self, name: str, config: dict[str, Any], x: mx.array) -> mx.array:
        return mx.broadcast_to(self.weights[name + "embeddings"], x.shape)

    def _Add(self, name: str, config: dict[str, Any], *x: mx.array) -> mx.array:
        return sum(x[1:], start=x[0])

    def _Activation(self, name: str, config: dict[str, Any], x: mx.array) -> mx.array:
        return x  # `call` does it

    def _ReLU(self, name: str, config: dict[str, Any], x: mx.array) -> mx.array:
        return mx.clip(x, 0, config["max_value"])

    def _Flatten(self, name: str, config: dict[str, Any], x: mx.array) -> mx.array:
        return x.reshape(x.shape[0], -1)

    def _Reshape(self, name: str, config: dict[str, Any], x: mx.array) -> mx.array:
        return x.reshape(x.shape[0], *config["target_shape"])

    def _MaxPooling2D(self, name: str, config: dict[str, Any], x: mx.array) -> mx.array:
        return pooled(nn.MaxPool2d, config, x)

    def _AveragePooling2D(self, name: str, config: dict[str, Any], x: mx.array) -> mx.array:
        return pooled(nn.AvgPool2d, config, x)

    def _GlobalAveragePooling2D(self, name: str, config: dict[str, Any], x: mx.array) -> mx.array:
        return mx.mean(x, (1, 2))

    def _GlobalAveragePooling1D(self, name: str, config: dict[str, Any], x: mx.array) -> mx.array:
        return mx.mean(x, 1)


def padded_same(x: mx.array, kernel: Any, strides: Any) -> mx.array:
    """The zeros that Keras's "same" puts around a map: the odd one at its end."""
    border = []
    for size, window, stride in zip(x.shape[1:3], kernel, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + window - size, 0)
        border.append((total // 2, total - total // 2))
    return mx.pad(x, [(0, 0), *border, (0, 0)])


def pooled(kind: Any, config: dict[str, Any], x: mx.array) -> mx.array:
    """Pooling whose windows lie within the map, or take the whole of it."""
    sizes, window, strides = x.shape[1:3], config["pool_size"], config["strides"]
    if config["padding"] == "same":
        if any(size % stride and size > 1 for size, stride in zip(sizes, strides, strict=True)):
            raise NotImplementedError(f"pooling {sizes} with windows that leave the map")
        window = [min(pair) for pair in zip(sizes, window, strict=True)]
    return kind(tuple(window), tuple(strides))(x)


def training_step(model: Model, rate: float) -> Callable[[np.ndarray, np.ndarray], float]:
    """A step in MLX, from arrays to the loss before it."""
    weights: Weights = {}
    for (path, _), value in zip(model.named_weights(), model.get_weights(), strict=True):
        array = mx.array(value)
        if array.ndim == 4 and path.endswith("kernel"):  # (H, W, C, O) to (O, H, W, C)
            # A depthwise kernel (H, W, C, 1) has one input channel for each of C outputs.
            depthwise = array.shape[-1] == 1 and array.shape[-2] > 3
            array = array.transpose(2, 0, 1, 3) if depthwise else array.transpose(3, 0, 1, 2)
        weights[path] = mx.contiguous(array)
    moving = {path for path in weights if "/moving_" in path}
    trained = {path: value for path, value in weights.items() if path not in moving}
    state = {path: weights[path] for path in moving}

    def loss(trained: Weights, state: Weights, x: mx.array, y: mx.array) -> Any:
        walk = Walk({**trained, **state})
        made = {id(model.inputs[0]): x}
        for node in model.network.nodes:
            if not isinstance(node.layer, InputLayer):
                inputs = [made[id(tensor)] for tensor in node.inputs]
                made[id(node.outputs[0])] = walk.call(node.layer, inputs)
        chances = made[id(model.outputs[0])]
        chosen = mx.take_along_axis(chances, y[:, None], axis=-1)
        return -mx.mean(mx.log(mx.maximum(chosen, 1e-7))), walk.moved

    def step(trained: Weights, state: Weights, x: mx.array, y: mx.array) -> Any:
        (value, moved), gradients = mx.value_and_grad(loss)(trained, state, x, y)
        return value, {k: v - rate * gradients[k] for k, v in trained.items()}, moved

    compiled = mx.compile(step)

    def run(x: np.ndarray, y: np.ndarray) -> float:
        nonlocal trained, state
        value, trained, state = compiled(trained, state, mx.array(x), mx.array(y))
        mx.eval(value, trained, state)
        return float(value.item())

    return run


def check(model: Model, x: np.ndarray, y: np.ndarray) -> None:
    """Holds two losses in MLX against the float64 reference's.

    Raises:
        AssertionError: they differ by more than 1e-3 of them, so the networks are not the same.
    """
    own = training_step(model, 1e-3)
    theirs = [own(x, y) for _ in range(2)]
    start = model.get_weights()
    model.compile(
        optimizers.SGD(1e-3), "sparse_categorical_crossentropy", device="reference:float64"
    )
    ours = [float(np.ravel(model.train_on_batch(x, y))[0]) for _ in range(2)]
    model.set_weights(start)
    if not np.allclose(theirs, ours, rtol=1e-3):
        raise AssertionError(f"{model.name}: losses {theirs} in MLX, {ours} in stepgraph")
