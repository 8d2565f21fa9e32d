"""RMSprop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepgraph.graph.graph import Graph
from stepgraph.graph.tensor import Tensor, Variable
from stepgraph.optimizers.base import Optimizer


class RMSprop(Optimizer):
    """Divides the gradient by a running root of its mean square.

    ``v = rho * v + (1 - rho) * g**2``, ``step = rate * g / sqrt(v + epsilon)``; centered takes the
    square of the running mean gradient off v; with momentum ``b = momentum * b + step; w -= b``.

    Args:
        learning_rate: a number or a schedule.
        rho: what is kept of the running mean.
        momentum: from 0 to 1.
        epsilon: inside the root.
        centered: use the variance.
        **kwargs: of every `Optimizer`.

    Source: Keras ``RMSprop``; Tieleman and Hinton 2012.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.rho = float(rho)
        self.momentum = float(momentum)
        self.epsilon = float(epsilon)
        self.centered = centered

    def slots(self) -> Sequence[str]:
        """The mean square, and what momentum and centering need."""
        names = ["velocity"]
        names += ["momentum"] if self.momentum else []
        names += ["average_gradient"] if self.centered else []
        return names

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
        rho = self.rho
        new: dict[str, Tensor] = {}
        velocity = slots["velocity"] * rho + graph.square(gradient) * (1.0 - rho)
        new["velocity"] = velocity
        spread = velocity
        if self.centered:
            average = slots["average_gradient"] * rho + gradient * (1.0 - rho)
            new["average_gradient"] = average
            spread = velocity - graph.square(average)
        move = rate * gradient * self._inverse_root(graph, spread)
        if self.momentum:
            move = slots["momentum"] * self.momentum + move
            new["momentum"] = move
        return weight - move, new

    def _inverse_root(self, graph: Graph, spread: Tensor) -> Tensor:
        return graph.reciprocal_square_root(spread + self.epsilon)
