"""Activations as layers."""

from __future__ import annotations

from typing import Any

from stepgraph import activations, initializers
from stepgraph.errors import describe
from stepgraph.layers.base import Layer
from stepgraph.layers.layer_graph import LayerGraph


class Activation(Layer):
    """Applies an activation function.

    Args:
        activation: a name, such as ``"relu"``, or a function of a tensor.
        **kwargs: of every `Layer`.

    Source: Keras ``Activation``.
    """

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activations.get(activation)

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The function of the input."""
        return self.activation(inputs)


class ReLU(Layer):
    """``max(x, 0)``, with an upper limit, a slope and a threshold.

    Source: Keras ``ReLU``.
    """

    def __init__(
        self,
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if threshold < 0 or negative_slope < 0 or (max_value is not None and max_value < 0):
            raise ValueError(describe(self._what, "takes no negative limit, slope or threshold"))
        self.max_value = max_value
        self.negative_slope = negative_slope
        self.threshold = threshold

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The rectified input."""
        return activations.relu(inputs, self.negative_slope, self.max_value, self.threshold)


class LeakyReLU(Layer):
    """``x`` where positive, ``negative_slope * x`` elsewhere.

    Args:
        negative_slope: the slope; Keras 2 called it `alpha`.
        alpha: the same.
        **kwargs: of every `Layer`.

    Source: Keras ``LeakyReLU``.
    """

    def __init__(
        self, negative_slope: float = 0.3, alpha: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.negative_slope = negative_slope if alpha is None else alpha

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The rectified input."""
        return activations.leaky_relu(inputs, self.negative_slope)


class PReLU(Layer):
    """A leaky ReLU whose slopes are learnt.

    Args:
        alpha_initializer: of the slopes.
        shared_axes: axes (from 1) along which slopes are shared, such as ``[1, 2]``.
        **kwargs: of every `Layer`.

    Source: He et al. 2015; Keras ``PReLU``.
    """

    def __init__(
        self, alpha_initializer: Any = "zeros", shared_axes: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.alpha_initializer = initializers.get(alpha_initializer)
        self.shared_axes = [shared_axes] if isinstance(shared_axes, int) else shared_axes

    def build(self, input_shape: Any) -> None:
        """Makes the slopes."""
        shared = self.shared_axes or ()
        shape = [
            1 if axis in shared else self.fix_size(axis, size, "size")
            for axis, size in enumerate(input_shape)
            if axis
        ]
        self.alpha = self.add_weight("alpha", shape, self.alpha_initializer)

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The rectified input."""
        return graph.relu(inputs) - graph.weight(self.alpha) * graph.relu(-inputs)


class ELU(Layer):
    """``x`` where positive, ``alpha * (exp(x) - 1)`` elsewhere."""

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha = alpha

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The rectified input."""
        return activations.elu(inputs, self.alpha)


class Softmax(Layer):
    """Probabilities along an axis.

    Source: Keras ``Softmax``.
    """

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The probabilities."""
        return graph.softmax(inputs, self.axis)
