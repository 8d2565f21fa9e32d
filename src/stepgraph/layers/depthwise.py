"""Convolutions that take channels one by one."""

from __future__ import annotations

from typing import Any

from stepgraph import initializers, regularizers
from stepgraph.layers.convolution import GRAPH_LAYOUT, Convolution
from stepgraph.layers.layer_graph import LayerGraph


class DepthwiseConv2D(Convolution):
    """Convolution of each channel by itself.

    Args:
        kernel_size: one size or (height, width).
        strides: one step or (down, across).
        padding: ``"valid"`` or ``"same"``.
        depth_multiplier: outputs of each channel.
        data_format: ``"channels_last"`` (the default) or ``"channels_first"``.
        dilation_rate: distance of the kernel's taps.
        activation: name or function; None for none.
        use_bias: whether to add a bias per channel.
        depthwise_initializer: of the kernel, shape ``(height, width, channels, depth_multiplier)``.
        bias_initializer: of the bias.
        depthwise_regularizer: penalty on the kernel.
        bias_regularizer: penalty on the bias.
        **kwargs: of every `Layer`.

    Source: Keras ``DepthwiseConv2D``.
    """

    def __init__(
        self,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            activation,
            use_bias,
            bias_initializer,
            bias_regularizer,
            **kwargs,
        )
        self.depth_multiplier = int(depth_multiplier)
        self.depthwise_initializer = initializers.get(depthwise_initializer)
        self.depthwise_regularizer = regularizers.get(depthwise_regularizer)

    def build(self, input_shape: Any) -> None:
        """Makes kernel and bias."""
        channels = self._channels(input_shape)
        self.kernel = self.add_weight(
            "depthwise_kernel",
            (*self.kernel_size, channels, self.depth_multiplier),
            self.depthwise_initializer,
            regularizer=self.depthwise_regularizer,
        )
        self._make_bias(channels * self.depth_multiplier)

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """``(batch, height, width, channels)`` to ``channels * depth_multiplier`` channels."""
        kernel = graph.weight(self.kernel)
        return self._finish(
            graph, graph.depthwise_convolution_2d(inputs, kernel, **self._settings())
        )


class SeparableConv2D(Convolution):
    """A depthwise convolution, then a 1x1 convolution over the channels.

    Arguments as those of `Conv2D` and `DepthwiseConv2D`; the bias and the activation come last.

    Source: Keras ``SeparableConv2D``; Chollet 2016.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        depth_multiplier: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        pointwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            activation,
            use_bias,
            bias_initializer,
            bias_regularizer,
            **kwargs,
        )
        self.filters = int(filters)
        self.depth_multiplier = int(depth_multiplier)
        self.depthwise_initializer = initializers.get(depthwise_initializer)
        self.pointwise_initializer = initializers.get(pointwise_initializer)
        self.depthwise_regularizer = regularizers.get(depthwise_regularizer)
        self.pointwise_regularizer = regularizers.get(pointwise_regularizer)

    def build(self, input_shape: Any) -> None:
        """Makes both kernels and the bias."""
        channels = self._channels(input_shape)
        self.depthwise_kernel = self.add_weight(
            "depthwise_kernel",
            (*self.kernel_size, channels, self.depth_multiplier),
            self.depthwise_initializer,
            regularizer=self.depthwise_regularizer,
        )
        self.pointwise_kernel = self.add_weight(
            "pointwise_kernel",
            (1, 1, channels * self.depth_multiplier, self.filters),
            self.pointwise_initializer,
            regularizer=self.pointwise_regularizer,
        )
        self._make_bias(self.filters)

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """``(batch, height, width, channels)`` to the same with `filters` channels."""
        y = graph.depthwise_convolution_2d(
            inputs, graph.weight(self.depthwise_kernel), **self._settings()
        )
        y = graph.convolution_2d(
            y,
            graph.weight(self.pointwise_kernel),
            data_layout=GRAPH_LAYOUT[self.data_format],
        )
        return self._finish(graph, y)
