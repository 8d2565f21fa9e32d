"""Optimizers with the arguments they had before Keras 2.11 (``keras.optimizers.legacy``).

They differ in `decay`: the rate becomes ``learning_rate / (1 + decay * step)``.
"""

from __future__ import annotations

from typing import Any

from stepgraph import optimizers
from stepgraph.graph.graph import Graph
from stepgraph.graph.tensor import Tensor
from stepgraph.schedules import InverseTimeDecay


def _decayed(learning_rate: Any, decay: float) -> Any:
    return InverseTimeDecay(learning_rate, 1, decay) if decay else learning_rate


class SGD(optimizers.SGD):
    """`stepgraph.optimizers.SGD` with `decay`.

    Example:
        >>> from stepgraph import optimizers
        >>> optimizers.legacy.SGD().learning_rate
        0.01
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        name: str = "SGD",
        decay: float = 0.0,
        **kwargs: Any,
    ) -> None:
        rate = _decayed(learning_rate, decay)
        super().__init__(rate, momentum, nesterov, name=name, **kwargs)


class Adam(optimizers.Adam):
    """`stepgraph.optimizers.Adam` with `decay`."""

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        name: str = "Adam",
        decay: float = 0.0,
        **kwargs: Any,
    ) -> None:
        rate = _decayed(learning_rate, decay)
        super().__init__(rate, beta_1, beta_2, epsilon, amsgrad, name=name, **kwargs)


class RMSprop(optimizers.RMSprop):
    """`stepgraph.optimizers.RMSprop` with `decay`; without momentum epsilon is outside the root."""

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        name: str = "RMSprop",
        decay: float = 0.0,
        **kwargs: Any,
    ) -> None:
        rate = _decayed(learning_rate, decay)
        super().__init__(rate, rho, momentum, epsilon, centered, name=name, **kwargs)

    def _inverse_root(self, graph: Graph, spread: Tensor) -> Tensor:
        if self.momentum:
            return super()._inverse_root(graph, spread)
        return 1.0 / (graph.square_root(spread) + self.epsilon)
