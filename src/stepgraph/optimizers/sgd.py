"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepgraph.errors import describe
from stepgraph.graph.graph import Graph
from stepgraph.graph.tensor import Tensor, Variable
from stepgraph.optimizers.base import Optimizer


class SGD(Optimizer):
    """``w -= rate * gradient``; with momentum ``v = momentum * v - rate * gradient; w += v``.

    Args:
        learning_rate: a number or a schedule.
        momentum: from 0 to 1.
        nesterov: look ahead: ``w += momentum * v - rate * gradient``.
        **kwargs: of every `Optimizer`.

    Source: Keras ``SGD``.

    Example:
        >>> SGD(0.1, momentum=0.9).get_config()["momentum"]
        0.9
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        if not 0 <= momentum <= 1:
            raise ValueError(describe("SGD", f"momentum={momentum!r}", expected="0 to 1"))
        self.momentum = float(momentum)
        self.nesterov = nesterov

    def slots(self) -> Sequence[str]:
        """The velocity, with momentum."""
        return ("momentum",) if self.momentum else ()

    def update(
        self,
        graph: Graph,
        weight: Tensor,
        gradient: Tensor,
        slots: dict[str, Variable],
        rate: Tensor,
        step: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One weight's step."""
        if not self.momentum:
            # This one operation right under an assign is what engines fuse with the gradient.
            return graph.stochastic_gradient_descent(rate, weight, gradient), {}
        change = rate * gradient
        velocity = slots["momentum"] * self.momentum - change
        move = velocity * self.momentum - change if self.nesterov else velocity
        return weight + move, {"momentum": velocity}
