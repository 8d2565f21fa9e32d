"""Convolutions of pictures."""

from __future__ import annotations

from typing import Any

from stepgraph import activations, initializers, regularizers
from stepgraph.errors import ShapeError, describe
from stepgraph.graph.tensor import Tensor
from stepgraph.layers.base import Layer
from stepgraph.layers.layer_graph import LayerGraph


def pair(value: Any, what: str) -> tuple[int, int]:
    """One number or two as two.

    Example:
        >>> pair(3, "kernel_size"), pair([1, 2], "strides")
        ((3, 3), (1, 2))
    """
    items = (value, value) if isinstance(value, int) else tuple(value)
    if len(items) != 2 or any(int(item) != item or item < 1 for item in items):
        raise ValueError(
            describe(what, f"{value!r} is no size", expected="a positive integer, or two of them")
        )
    return int(items[0]), int(items[1])


def padding_style(value: str, what: str) -> str:
    """Keras's name of a padding, checked."""
    if str(value).lower() not in ("valid", "same"):
        raise ValueError(describe(what, f"padding={value!r}", expected="'valid' or 'same'"))
    return str(value).lower()


def layout(data_format: str | None, what: str) -> str:
    """Keras's name of a layout, checked; None is its default."""
    if data_format not in (None, "channels_last", "channels_first"):
        raise ValueError(
            describe(
                what,
                f"data_format={data_format!r}",
                expected="'channels_last' or 'channels_first'",
            )
        )
    return data_format or "channels_last"


GRAPH_PADDING = {"valid": "TF_VALID", "same": "TF_SAME"}
GRAPH_LAYOUT = {"channels_last": "NHWC", "channels_first": "NCHW"}


class Convolution(Layer):
    """What the convolutions share: settings, bias and activation."""

    input_rank = 4

    def __init__(
        self,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        activation: Any = None,
        use_bias: bool = True,
        bias_initializer: Any = "zeros",
        bias_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kernel_size = pair(kernel_size, f"{self._what}: kernel_size")
        self.strides = pair(strides, f"{self._what}: strides")
        self.padding = padding_style(padding, self._what)
        self.data_format = layout(data_format, self._what)
        self.dilation_rate = pair(dilation_rate, f"{self._what}: dilation_rate")
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.bias_initializer = initializers.get(bias_initializer)
        self.bias_regularizer = regularizers.get(bias_regularizer)

    @property
    def channel_axis(self) -> int:
        """Where the channels are."""
        return 3 if self.data_format == "channels_last" else 1

    def _channels(self, input_shape: Any) -> int:
        return self.fix_size(self.channel_axis, input_shape[self.channel_axis], "channels")

    def _make_bias(self, size: int) -> None:
        if self.use_bias:
            self.bias = self.add_weight(
                "bias", (size,), self.bias_initializer, regularizer=self.bias_regularizer
            )

    def _settings(self) -> dict[str, Any]:
        return {
            "strides": self.strides,
            "dilations": self.dilation_rate,
            "padding": GRAPH_PADDING[self.padding],
            "data_layout": GRAPH_LAYOUT[self.data_format],
        }

    def _finish(self, graph: LayerGraph, y: Tensor) -> Any:
        if self.use_bias:
            bias = graph.weight(self.bias)
            if self.data_format == "channels_first":
                bias = graph.reshape(bias, (-1, 1, 1))
            y = y + bias
        return self.activation(y)


class Conv2D(Convolution):
    """Convolution of pictures.

    Args:
        filters: channels of the output.
        kernel_size: one size or (height, width).
        strides: one step or (down, across).
        padding: ``"valid"`` or ``"same"``.
        data_format: ``"channels_last"`` (the default) or ``"channels_first"``.
        dilation_rate: distance of the kernel's taps.
        groups: in how many parts channels are convolved apart.
        activation: name or function; None for none.
        use_bias: whether to add a bias per channel.
        kernel_initializer: of the kernel, shape ``(height, width, channels / groups, filters)``.
        bias_initializer: of the bias, shape ``(filters,)``.
        kernel_regularizer: penalty on the kernel.
        bias_regularizer: penalty on the bias.
        **kwargs: of every `Layer`.

    Source: Keras ``Conv2D``.

    Example:
        >>> from stepgraph.layers import Conv2D, Input
        >>> Conv2D(16, 3, strides=2, padding="same", name="stem")(Input((32, 32, 3)))
        <KerasTensor 'stem' float32 (?, 16, 16, 16)>
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
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
        self.groups = int(groups)
        if self.filters < 1 or self.groups < 1 or self.filters % self.groups:
            raise ValueError(
                describe(
                    self._what,
                    f"filters={filters!r}, groups={groups!r}",
                    expected="positive numbers, filters a multiple of groups",
                )
            )
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)

    def build(self, input_shape: Any) -> None:
        """Makes kernel and bias."""
        channels = self._channels(input_shape)
        if channels % self.groups:
            raise ShapeError(
                describe(
                    self._what,
                    f"{channels} channels cannot be cut into {self.groups} groups",
                    expected="channels that are a multiple of groups",
                )
            )
        self.kernel = self.add_weight(
            "kernel",
            (*self.kernel_size, channels // self.groups, self.filters),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )
        self._make_bias(self.filters)

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """``(batch, height, width, channels)`` to the same with `filters` channels."""
        y = graph.convolution_2d(
            inputs, graph.weight(self.kernel), groups=self.groups, **self._settings()
        )
        return self._finish(graph, y)


class Conv2DTranspose(Convolution):
    """The gradient of a convolution as a layer: makes pictures larger.

    Args:
        filters: channels of the output.
        kernel_size: one size or (height, width).
        strides: the factor by which pictures grow.
        padding: ``"valid"`` or ``"same"``.
        output_padding: rows and columns added at the end, below the stride; None for as many as
            make the size Keras's default.
        data_format: ``"channels_last"`` (the default) or ``"channels_first"``.
        dilation_rate: distance of the kernel's taps.
        activation: name or function; None for none.
        use_bias: whether to add a bias per channel.
        kernel_initializer: of the kernel, shape ``(height, width, filters, channels)``.
        bias_initializer: of the bias.
        kernel_regularizer: penalty on the kernel.
        bias_regularizer: penalty on the bias.
        **kwargs: of every `Layer`.

    Source: Keras ``Conv2DTranspose``.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        output_padding: Any = None,
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
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
        self.output_padding = (
            (output_padding, output_padding) if isinstance(output_padding, int) else output_padding
        )
        for extra, step in zip(self.output_padding or (), self.strides, strict=False):
            if not 0 <= extra < step:
                raise ValueError(
                    describe(
                        self._what,
                        f"output_padding={output_padding!r} with strides={self.strides}",
                        expected="numbers from 0 that are below the stride",
                    )
                )
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)

    def build(self, input_shape: Any) -> None:
        """Makes kernel and bias."""
        self.kernel = self.add_weight(
            "kernel",
            (*self.kernel_size, self.filters, self._channels(input_shape)),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )
        self._make_bias(self.filters)

    def _output_size(self, shape: Any) -> tuple[int, int] | None:
        """Keras's rule for an explicit output padding."""
        if self.output_padding is None:
            return None
        start = 1 if self.data_format == "channels_last" else 2
        sizes = []
        for axis in range(2):
            size = shape[start + axis]
            if size is None:
                raise ShapeError(
                    describe(self._what, "output_padding needs the picture's size to be known")
                )
            reach = (self.kernel_size[axis] - 1) * self.dilation_rate[axis] + 1
            pad = reach // 2 if self.padding == "same" else 0
            step = self.strides[axis]
            sizes.append((size - 1) * step + reach - 2 * pad + self.output_padding[axis])
        return sizes[0], sizes[1]

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """``(batch, height, width, channels)`` to larger pictures of `filters` channels."""
        y = graph.convolution_transpose_2d(
            inputs,
            graph.weight(self.kernel),
            output_shape=self._output_size(inputs.shape),
            **self._settings(),
        )
        return self._finish(graph, y)
