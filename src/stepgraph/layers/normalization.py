"""Normalisations with learnt scale and shift."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from stepgraph import initializers, regularizers
from stepgraph.graph.shapes import normalize_axes, normalize_axis
from stepgraph.graph.tensor import Tensor, Variable
from stepgraph.layers.base import Layer
from stepgraph.layers.layer_graph import LayerGraph


class BatchNormalization(Layer):
    """Normalises each channel by the batch's mean and variance, or by moving ones.

    In training ``gamma * (x - mean) / sqrt(variance + epsilon) + beta`` with the batch's population
    statistics, and ``moving = moving * momentum + batch * (1 - momentum)``; otherwise, and while
    ``trainable`` is False, with the moving statistics.

    Args:
        axis: the channels' axis.
        momentum: what is kept of the moving statistics in each step.
        epsilon: added to the variance.
        center: whether to add beta.
        scale: whether to multiply with gamma.
        beta_initializer: of beta.
        gamma_initializer: of gamma.
        moving_mean_initializer: of the moving mean.
        moving_variance_initializer: of the moving variance.
        beta_regularizer: penalty on beta.
        gamma_regularizer: penalty on gamma.
        **kwargs: of every `Layer`.

    Source: Keras ``BatchNormalization``; Ioffe and Szegedy 2015.
    """

    def __init__(
        self,
        axis: Any = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis = axis[0] if isinstance(axis, list | tuple) else int(axis)
        self.momentum = momentum
        self.epsilon = epsilon
        self.center = center
        self.scale = scale
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)

    def build(self, input_shape: Any) -> None:
        """Makes gamma, beta, moving mean and moving variance, in this order."""
        self.size = self.fix_size(self.axis, input_shape[self.axis], "channels")
        shape = (self.size,)
        if self.scale:
            self.gamma = self.add_weight(
                "gamma", shape, self.gamma_initializer, regularizer=self.gamma_regularizer
            )
        if self.center:
            self.beta = self.add_weight(
                "beta", shape, self.beta_initializer, regularizer=self.beta_regularizer
            )
        self.moving_mean = self.add_weight(
            "moving_mean", shape, self.moving_mean_initializer, trainable=False
        )
        self.moving_variance = self.add_weight(
            "moving_variance", shape, self.moving_variance_initializer, trainable=False
        )

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The normalised input, of its shape."""
        shape, dtype = (self.size,), self.dtype
        gamma = graph.weight(self.gamma) if self.scale else graph.constant(1.0, shape, dtype)
        beta = graph.weight(self.beta) if self.center else graph.constant(0.0, shape, dtype)

        def build() -> Tensor:
            found: Tensor = graph.batch_normalization(
                inputs,
                gamma,
                beta,
                cast(Variable, graph.weight(self.moving_mean)),
                cast(Variable, graph.weight(self.moving_variance)),
                training and self.trainable,
                momentum=self.momentum,
                epsilon=self.epsilon,
                axis=self.axis,
            )
            return found

        return graph.after_updates([self.moving_mean, self.moving_variance], build)


class LayerNormalization(Layer):
    """Normalises each sample over some axes.

    Args:
        axis: axes to normalise over; their sizes shape gamma and beta.
        epsilon: added to the variance.
        center: whether to add beta.
        scale: whether to multiply with gamma.
        beta_initializer: of beta.
        gamma_initializer: of gamma.
        beta_regularizer: penalty on beta.
        gamma_regularizer: penalty on gamma.
        **kwargs: of every `Layer`.

    Source: Keras ``LayerNormalization``; Ba, Kiros and Hinton 2016.
    """

    def __init__(
        self,
        axis: Any = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis = list(axis) if isinstance(axis, list | tuple) else int(axis)
        self.epsilon = epsilon
        self.center = center
        self.scale = scale
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)

    def build(self, input_shape: Any) -> None:
        """Makes gamma and beta."""
        self.axes = normalize_axes(self.axis, len(input_shape))
        shape = [self.fix_size(axis, input_shape[axis], "size") for axis in self.axes]
        if self.scale:
            self.gamma = self.add_weight(
                "gamma", shape, self.gamma_initializer, regularizer=self.gamma_regularizer
            )
        if self.center:
            self.beta = self.add_weight(
                "beta", shape, self.beta_initializer, regularizer=self.beta_regularizer
            )

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The normalised input, of its shape."""
        mean = graph.mean(inputs, self.axes, keep_dims=True)
        variance = graph.variance(inputs, mean, self.axes, keep_dims=True)
        gamma = self._spread(graph, graph.weight(self.gamma), inputs) if self.scale else None
        beta = self._spread(graph, graph.weight(self.beta), inputs) if self.center else None
        return graph.normalize(inputs, mean, variance, gamma, beta, epsilon=self.epsilon)

    def _spread(self, graph: LayerGraph, weight: Tensor, x: Tensor) -> Tensor:
        """The weight with the rank of the input, for broadcasting."""
        shape = [x.shape[axis] if axis in self.axes else 1 for axis in range(x.rank)]
        first = min(self.axes)
        if self.axes == tuple(range(first, x.rank)):
            return weight
        return graph.reshape(weight, [int(size or 1) for size in shape])


class GroupNormalization(Layer):
    """Normalises each sample's channels in groups.

    Args:
        groups: number of groups; -1 for one per channel.
        axis: the channels' axis, the last.
        epsilon: added to the variance.
        center: whether to add beta.
        scale: whether to multiply with gamma.
        beta_initializer: of beta.
        gamma_initializer: of gamma.
        **kwargs: of every `Layer`.

    Source: Keras ``GroupNormalization``; Wu and He 2018.
    """

    def __init__(
        self,
        groups: int = 32,
        axis: int = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.groups = groups
        self.axis = axis
        self.epsilon = epsilon
        self.center = center
        self.scale = scale
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)

    def build(self, input_shape: Any) -> None:
        """Makes gamma and beta."""
        rank = len(input_shape)
        if normalize_axis(self.axis, rank) != rank - 1:
            raise ValueError(f"{self._what}: the channels must be the last axis, got {self.axis}")
        size = self.fix_size(-1, input_shape[-1], "channels")
        if self.groups == -1:
            self.groups = size
        if size % self.groups:
            raise ValueError(
                f"{self._what}: {size} channels cannot be cut into {self.groups} groups"
            )
        self.inner = [self.fix_size(i, input_shape[i], "size") for i in range(1, rank - 1)]
        if self.scale:
            self.gamma = self.add_weight("gamma", (size,), self.gamma_initializer)
        if self.center:
            self.beta = self.add_weight("beta", (size,), self.beta_initializer)

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The normalised input, of its shape."""
        channels = inputs.shape[-1]
        count = int(np.prod(self.inner, dtype=np.int64))
        parts = graph.reshape(inputs, (-1, count, self.groups, channels // self.groups))
        mean = graph.mean(parts, (1, 3), keep_dims=True)
        variance = graph.variance(parts, mean, (1, 3), keep_dims=True)
        parts = graph.normalize(parts, mean, variance, epsilon=self.epsilon)
        y = graph.reshape(parts, (-1, *self.inner, channels))
        y = y * graph.weight(self.gamma) if self.scale else y
        return y + graph.weight(self.beta) if self.center else y
