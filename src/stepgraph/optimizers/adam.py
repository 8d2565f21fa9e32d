"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepgraph.graph.graph import Graph
from stepgraph.graph.tensor import Tensor, Variable
from stepgraph.optimizers.base import Optimizer


class Adam(Optimizer):
    """Moments of the gradient, corrected for their start at zero.

    ``m += (1 - b1) * (g - m)``, ``v += (1 - b2) * (g**2 - v)``,
    ``w -= rate * sqrt(1 - b2**t) / (1 - b1**t) * m / (sqrt(v) + epsilon)``: epsilon stands beside
    the uncorrected root, as in Keras.

    Args:
        learning_rate: a number or a schedule.
        beta_1: b1.
        beta_2: b2.
        epsilon: as above.
        amsgrad: use the largest v so far.
        **kwargs: of every `Optimizer`.

    Source: Keras ``Adam``; Kingma and Ba 2014.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.beta_1 = float(beta_1)
        self.beta_2 = float(beta_2)
        self.epsilon = float(epsilon)
        self.amsgrad = amsgrad

    def slots(self) -> Sequence[str]:
        """Both moments, and the largest second one with amsgrad."""
        moments = ("momentum", "velocity")
        return (*moments, "velocity_hat") if self.amsgrad else moments

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
        beta_1, beta_2 = (graph.constant(b, dtype=step.dtype) for b in (self.beta_1, self.beta_2))
        new = graph.adam(
            rate,
            beta_1,
            beta_2,
            graph.constant(self.epsilon, dtype=step.dtype),
            graph.power(beta_1, step),
            graph.power(beta_2, step),
            weight,
            slots["momentum"],
            slots["velocity"],
            gradient,
            slots.get("velocity_hat"),
        )
        return new[0], dict(zip(self.slots(), new[1:], strict=True))


class AdamW(Adam):
    """`Adam` with weight decay apart from the gradient: ``w -= rate * weight_decay * w`` before.

    Source: Keras ``AdamW``; Loshchilov and Hutter 2017.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float | None = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay=weight_decay, **kwargs
        )
