"""Layers that move values and compute nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from stepgraph.errors import ShapeError, describe
from stepgraph.graph.shapes import format_shape
from stepgraph.graph.tensor import Tensor
from stepgraph.layers.base import Layer
from stepgraph.layers.convolution import GRAPH_LAYOUT, layout, pair
from stepgraph.layers.layer_graph import LayerGraph


class Flatten(Layer):
    """Each sample as one row.

    Args:
        data_format: ``"channels_first"`` moves the channels to the end before.
        **kwargs: of every `Layer`.

    Source: Keras ``Flatten``.
    """

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = layout(data_format, self._what)

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """``(batch, ...)`` to ``(batch, features)``."""
        x: Tensor = inputs
        if self.data_format == "channels_first" and x.rank > 2:
            x = graph.permute(x, (0, *range(2, x.rank), 1))
        sizes = [size for size in x.shape[1:] if size is not None]
        if len(sizes) < x.rank - 1:
            raise ShapeError(
                describe(
                    self._what,
                    f"cannot flatten unknown sizes {format_shape(x.shape)}",
                    fix="give them in Input(shape=...), or use global pooling",
                )
            )
        return graph.reshape(x, (-1, math.prod(sizes)))


class Reshape(Layer):
    """Each sample in another shape.

    Args:
        target_shape: of a sample; one size may be -1.
        **kwargs: of every `Layer`.

    Source: Keras ``Reshape``.
    """

    def __init__(self, target_shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target_shape = tuple(int(size) for size in target_shape)

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """``(batch, ...)`` to ``(batch, *target_shape)``."""
        known = [size for size in inputs.shape[1:] if size is not None]
        if len(known) < inputs.rank - 1:
            raise ShapeError(
                describe(self._what, f"cannot reshape unknown sizes {format_shape(inputs.shape)}")
            )
        count, target = math.prod(known), list(self.target_shape)
        rest = math.prod(size for size in target if size != -1)
        if target.count(-1) > 1 or (
            rest != count if -1 not in target else rest == 0 or count % rest
        ):
            raise ShapeError(
                describe(
                    self._what,
                    f"a sample of {count} values cannot have shape {self.target_shape}",
                    got={"input": format_shape(inputs.shape)},
                )
            )
        sizes = [count // rest if size == -1 else size for size in target]
        return graph.reshape(inputs, (-1, *sizes))


class Permute(Layer):
    """Another order of a sample's axes.

    Args:
        dims: the axes, counted from 1.
        **kwargs: of every `Layer`.

    Source: Keras ``Permute``.
    """

    def __init__(self, dims: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dims = tuple(int(axis) for axis in dims)
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise ValueError(
                describe(self._what, f"dims={dims!r}", expected="each axis from 1 on, once")
            )

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The permuted input."""
        return graph.permute(inputs, (0, *self.dims))


class RepeatVector(Layer):
    """``(batch, features)`` to ``(batch, n, features)``. Source: Keras ``RepeatVector``."""

    input_rank = 2

    def __init__(self, n: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n = int(n)

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The repeated rows."""
        return graph.tile(graph.expand_dims(inputs, 1), (1, self.n, 1))


def borders(value: Any, what: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Keras's ways to give four borders, as ((top, bottom), (left, right)).

    Example:
        >>> borders(1, "padding"), borders((1, 2), "padding"), borders(((0, 1), (2, 3)), "padding")
        (((1, 1), (1, 1)), ((1, 1), (2, 2)), ((0, 1), (2, 3)))
    """
    parts = (value, value) if isinstance(value, int) else tuple(value)
    pairs = [(p, p) if isinstance(p, int) else tuple(p) for p in parts]
    if len(pairs) != 2 or any(len(p) != 2 or min(p) < 0 for p in pairs):
        raise ValueError(
            describe(
                what, f"{value!r}", expected="n, (rows, columns) or ((top, bottom), (left, right))"
            )
        )
    (top, bottom), (left, right) = pairs
    return (int(top), int(bottom)), (int(left), int(right))


class ZeroPadding2D(Layer):
    """Zeros around pictures.

    Args:
        padding: n, (rows, columns) or ((top, bottom), (left, right)).
        data_format: ``"channels_last"`` (the default) or ``"channels_first"``.
        **kwargs: of every `Layer`.

    Source: Keras ``ZeroPadding2D``.
    """

    input_rank = 4

    def __init__(self, padding: Any = (1, 1), data_format: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.padding = borders(padding, f"{self._what}: padding")
        self.data_format = layout(data_format, self._what)

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The larger pictures."""
        rows, columns = self.padding
        if self.data_format == "channels_last":
            return graph.pad(inputs, ((0, 0), rows, columns, (0, 0)))
        return graph.pad(inputs, ((0, 0), (0, 0), rows, columns))


class Cropping2D(Layer):
    """Pictures without some border.

    Args:
        cropping: n, (rows, columns) or ((top, bottom), (left, right)).
        data_format: ``"channels_last"`` (the default) or ``"channels_first"``.
        **kwargs: of every `Layer`.

    Source: Keras ``Cropping2D``.
    """

    input_rank = 4

    def __init__(self, cropping: Any = (0, 0), data_format: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.cropping = borders(cropping, f"{self._what}: cropping")
        self.data_format = layout(data_format, self._what)

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The smaller pictures."""
        x: Tensor = inputs
        first = 1 if self.data_format == "channels_last" else 2
        for axis, (start, end) in enumerate(self.cropping, first):
            size = x.shape[axis]
            if size is None or size <= start + end:
                raise ShapeError(
                    describe(self._what, f"cannot cut {start} and {end} from a size of {size}")
                )
            if start or end:
                x = graph.slice(x, axis, start, size - start - end)
        return x


class UpSampling2D(Layer):
    """Larger pictures.

    Args:
        size: one factor or (down, across).
        data_format: ``"channels_last"`` (the default) or ``"channels_first"``.
        interpolation: ``"nearest"`` or ``"bilinear"``.
        **kwargs: of every `Layer`.

    Source: Keras ``UpSampling2D``.
    """

    input_rank = 4

    def __init__(
        self,
        size: Any = (2, 2),
        data_format: str | None = None,
        interpolation: str = "nearest",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size = pair(size, f"{self._what}: size")
        self.data_format = layout(data_format, self._what)
        if interpolation not in ("nearest", "bilinear"):
            raise ValueError(
                describe(
                    self._what,
                    f"interpolation={interpolation!r}",
                    expected="'nearest' or 'bilinear'",
                )
            )
        self.interpolation = interpolation

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The larger pictures."""
        first = 1 if self.data_format == "channels_last" else 2
        height, width = inputs.shape[first], inputs.shape[first + 1]
        if height is None or width is None:
            raise ShapeError(
                describe(
                    self._what,
                    "the picture's size must be known",
                    fix="give it in Input(shape=...)",
                )
            )
        size = (height * self.size[0], width * self.size[1])
        resize = graph.resize_nearest if self.interpolation == "nearest" else graph.resize_bilinear
        return resize(inputs, size, data_layout=GRAPH_LAYOUT[self.data_format])
