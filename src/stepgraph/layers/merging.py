"""Layers of several inputs."""

from __future__ import annotations

from typing import Any

from stepgraph.errors import ShapeError, describe
from stepgraph.graph.tensor import Tensor
from stepgraph.layers.base import Layer
from stepgraph.layers.layer_graph import LayerGraph


class _Merge(Layer):
    """What elementwise merges share: a list of inputs that broadcast."""

    def build(self, input_shape: Any) -> None:
        """Checks that there is something to merge."""
        if not isinstance(input_shape, list) or len(input_shape) < 2:
            raise ShapeError(
                describe(
                    self._what,
                    "merges two tensors or more",
                    expected=f"{type(self).__name__}()([a, b])",
                )
            )

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The merged tensor."""
        total = inputs[0]
        for x in inputs[1:]:
            total = self.merge(graph, total, x)
        return total

    def merge(self, graph: LayerGraph, a: Tensor, b: Tensor) -> Tensor:
        """Two inputs as one."""
        raise NotImplementedError


class Add(_Merge):
    """The sum of its inputs. Source: Keras ``Add``.

    Example:
        >>> from stepgraph.layers import Add, Input
        >>> a, b = Input((4,)), Input((4,))
        >>> Add(name="sum")([a, b])
        <KerasTensor 'sum' float32 (?, 4)>
    """

    def merge(self, graph: LayerGraph, a: Tensor, b: Tensor) -> Tensor:
        """``a + b``."""
        return a + b


class Subtract(_Merge):
    """The first input minus the second. Source: Keras ``Subtract``."""

    def build(self, input_shape: Any) -> None:
        """Checks that there are two."""
        if not isinstance(input_shape, list) or len(input_shape) != 2:
            raise ShapeError(describe(self._what, "takes exactly two tensors"))

    def merge(self, graph: LayerGraph, a: Tensor, b: Tensor) -> Tensor:
        """``a - b``."""
        return a - b


class Multiply(_Merge):
    """The product of its inputs. Source: Keras ``Multiply``."""

    def merge(self, graph: LayerGraph, a: Tensor, b: Tensor) -> Tensor:
        """``a * b``."""
        return a * b


class Average(_Merge):
    """The mean of its inputs. Source: Keras ``Average``."""

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The merged tensor."""
        return super().call(graph, inputs) * (1.0 / len(inputs))

    def merge(self, graph: LayerGraph, a: Tensor, b: Tensor) -> Tensor:
        """``a + b``."""
        return a + b


class Maximum(_Merge):
    """The largest of its inputs. Source: Keras ``Maximum``."""

    def merge(self, graph: LayerGraph, a: Tensor, b: Tensor) -> Tensor:
        """The larger of two."""
        return graph.maximum(a, b)


class Minimum(_Merge):
    """The smallest of its inputs. Source: Keras ``Minimum``."""

    def merge(self, graph: LayerGraph, a: Tensor, b: Tensor) -> Tensor:
        """The smaller of two."""
        return graph.minimum(a, b)


class Concatenate(_Merge):
    """Its inputs side by side along an axis.

    Args:
        axis: which; the last by default.
        **kwargs: of every `Layer`.

    Source: Keras ``Concatenate``.
    """

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The joined tensor."""
        return graph.concat(inputs, self.axis)
