"""Pooling of pictures."""

from __future__ import annotations

from typing import Any

from stepgraph.graph.tensor import Tensor
from stepgraph.layers.base import Layer
from stepgraph.layers.convolution import GRAPH_LAYOUT, GRAPH_PADDING, layout, padding_style, pair
from stepgraph.layers.layer_graph import LayerGraph


class _Pooling2D(Layer):
    """What the windowed poolings share."""

    input_rank = 4

    def __init__(
        self,
        pool_size: Any = (2, 2),
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pool_size = pair(pool_size, f"{self._what}: pool_size")
        self.strides = (
            self.pool_size if strides is None else pair(strides, f"{self._what}: strides")
        )
        self.padding = padding_style(padding, self._what)
        self.data_format = layout(data_format, self._what)

    def _settings(self) -> dict[str, Any]:
        return {
            "kernel_size": self.pool_size,
            "strides": self.strides,
            "padding": GRAPH_PADDING[self.padding],
            "data_layout": GRAPH_LAYOUT[self.data_format],
        }


class MaxPooling2D(_Pooling2D):
    """The largest value of each window.

    Args:
        pool_size: one size or (height, width).
        strides: one step or (down, across); the window's size without it.
        padding: ``"valid"`` or ``"same"``.
        data_format: ``"channels_last"`` (the default) or ``"channels_first"``.
        **kwargs: of every `Layer`.

    Source: Keras ``MaxPooling2D``.
    """

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The maxima."""
        return graph.max_pooling_2d(inputs, **self._settings())


class AveragePooling2D(_Pooling2D):
    """The mean of each window; padding does not count. Arguments as those of `MaxPooling2D`.

    Source: Keras ``AveragePooling2D``.
    """

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The means."""
        return graph.avg_pooling_2d(inputs, **self._settings())


class _Global2D(Layer):
    """What the poolings of whole pictures share."""

    input_rank = 4

    def __init__(
        self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.data_format = layout(data_format, self._what)
        self.keepdims = keepdims

    @property
    def axes(self) -> tuple[int, int]:
        """The picture's axes."""
        return (1, 2) if self.data_format == "channels_last" else (2, 3)


class GlobalAveragePooling2D(_Global2D):
    """The mean of each channel, ``(batch, channels)``.

    Args:
        data_format: ``"channels_last"`` (the default) or ``"channels_first"``.
        keepdims: keep the picture's axes, of size 1.
        **kwargs: of every `Layer`.

    Source: Keras ``GlobalAveragePooling2D``.
    """

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The means."""
        found: Tensor = graph.mean(inputs, self.axes, keep_dims=self.keepdims)
        return found


class GlobalMaxPooling2D(_Global2D):
    """The largest value of each channel; arguments as those of `GlobalAveragePooling2D`.

    Source: Keras ``GlobalMaxPooling2D``.
    """

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The maxima."""
        return graph.reduction_maximum(inputs, self.axes, keep_dims=self.keepdims)


class GlobalAveragePooling1D(Layer):
    """The mean over the steps, ``(batch, steps, features)`` to ``(batch, features)``.

    Source: Keras ``GlobalAveragePooling1D``.
    """

    input_rank = 3

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The means."""
        return graph.mean(inputs, (1,), keep_dims=False)
