"""Activation functions (``keras.activations``): from tensor to tensor of one graph.

Example:
    >>> import stepgraph as sg
    >>> from stepgraph import activations
    >>> graph = sg.Graph()
    >>> graph.run(targets=[activations.relu(graph.constant([-1.0, 2.0]))])[0]
    array([0., 2.], dtype=float32)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from stepgraph.configs import plain, resolve
from stepgraph.graph.tensor import Tensor

Activation = Callable[[Tensor], Tensor]


def linear(x: Tensor) -> Tensor:
    """The tensor itself."""
    return x


def relu(
    x: Tensor, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0
) -> Tensor:
    """``max(x, 0)``, with Keras's generalisations.

    Args:
        x: float tensor, any shape.
        negative_slope: slope below the threshold.
        max_value: upper limit; None for none.
        threshold: below it the value counts as negative.

    Returns:
        Tensor of the shape and dtype of `x`.
    """
    graph = x.graph
    if threshold:
        above = graph.select(graph.greater_than(x, threshold), x, graph.zeros_like(x))
        below = graph.minimum(x - threshold, 0.0) * negative_slope if negative_slope else None
        y = above if below is None else above + below
    elif negative_slope:
        y = graph.leaky_relu(x, negative_slope)
    else:
        y = graph.relu(x)
    return y if max_value is None else graph.minimum(y, max_value)


def relu6(x: Tensor) -> Tensor:
    """``min(max(x, 0), 6)``."""
    return relu(x, max_value=6.0)


def leaky_relu(x: Tensor, negative_slope: float = 0.2) -> Tensor:
    """``x`` where positive, ``negative_slope * x`` elsewhere."""
    return x.graph.leaky_relu(x, negative_slope)


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """``x`` where positive, ``alpha * (exp(x) - 1)`` elsewhere."""
    graph = x.graph
    # The branch not taken must stay finite, or its gradient would be NaN.
    low = alpha * (graph.exponent(graph.minimum(x, 0.0)) - 1.0)
    return graph.select(graph.greater_than(x, 0.0), x, low)


def selu(x: Tensor) -> Tensor:
    """Scaled ELU that keeps mean and variance (Klambauer et al. 2017)."""
    return 1.05070098735548049342 * elu(x, 1.67326324235437728481)


def gelu(x: Tensor, approximate: bool = False) -> Tensor:
    """``x`` times the normal distribution at ``x`` (Hendrycks and Gimpel 2016)."""
    return x.graph.gelu(x, approximate)


def sigmoid(x: Tensor) -> Tensor:
    """``1 / (1 + exp(-x))``."""
    return x.graph.sigmoid(x)


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return x.graph.tanh(x)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Probabilities along an axis. Losses see through it and use the logits."""
    return x.graph.softmax(x, axis)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """The logarithm of `softmax`, stably."""
    return x.graph.log_softmax(x, axis)


def silu(x: Tensor) -> Tensor:
    """``x * sigmoid(x)``, also called swish."""
    return x.graph.silu(x)


def softplus(x: Tensor) -> Tensor:
    """``log(1 + exp(x))``."""
    return x.graph.softplus(x)


def softsign(x: Tensor) -> Tensor:
    """``x / (1 + |x|)``."""
    return x / (1.0 + x.graph.absolute(x))


def exponential(x: Tensor) -> Tensor:
    """``exp(x)``."""
    return x.graph.exponent(x)


def hard_sigmoid(x: Tensor) -> Tensor:
    """``relu6(x + 3) / 6``, as Keras 3 has it."""
    return relu6(x + 3.0) * (1.0 / 6.0)


def hard_silu(x: Tensor) -> Tensor:
    """``x * hard_sigmoid(x)``, also called hard swish (MobileNetV3)."""
    return x * hard_sigmoid(x)


def mish(x: Tensor) -> Tensor:
    """``x * tanh(softplus(x))`` (Misra 2019)."""
    return x * tanh(softplus(x))


TABLE: dict[str, Callable[..., Tensor]] = {
    **{
        f.__name__: f
        for f in (
            linear,
            relu,
            relu6,
            leaky_relu,
            elu,
            selu,
            gelu,
            sigmoid,
            tanh,
            softmax,
            log_softmax,
            silu,
            softplus,
            softsign,
            exponential,
            hard_sigmoid,
            hard_silu,
            mish,
        )
    },
    "swish": silu,
    "hard_swish": hard_silu,
}


def get(identifier: Any) -> Any:
    """An activation from its name, a function, or a layer; None is `linear`.

    Example:
        >>> get("relu").__name__, get(None).__name__
        ('relu', 'linear')
    """
    if identifier is None:
        return linear
    # A class would be called without arguments by `resolve`; an activation layer is fine that way.
    if isinstance(identifier, str) or inspect.isclass(identifier):
        return resolve("activation", identifier, TABLE)
    return identifier


def serialize(activation: Any) -> Any:
    """Its name."""
    return plain(activation)


deserialize = get
