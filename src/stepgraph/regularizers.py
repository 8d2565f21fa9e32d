"""Penalties on weights that are added to the loss (``keras.regularizers``).

Example:
    >>> from stepgraph import layers, regularizers
    >>> layer = layers.Dense(10, kernel_regularizer=regularizers.L2(1e-4))
"""

from __future__ import annotations

from typing import Any

from stepgraph.configs import Configurable, resolve
from stepgraph.graph.tensor import Tensor


class Regularizer(Configurable):
    """A scalar of a weight; called with the tensor."""

    def __call__(self, x: Tensor) -> Tensor:
        """The penalty, shape ``()``."""
        raise NotImplementedError


class L1L2(Regularizer):
    """``l1 * sum(|w|) + l2 * sum(w**2)``."""

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1, self.l2 = float(l1), float(l2)

    def __call__(self, x: Tensor) -> Tensor:
        """The penalty, shape ``()``."""
        graph = x.graph
        total = graph.constant(0.0, dtype=x.dtype)
        if self.l1:
            total = total + self.l1 * graph.reduction_sum(graph.absolute(x), keep_dims=False)
        if self.l2:
            total = total + self.l2 * graph.reduction_sum(graph.square(x), keep_dims=False)
        return total


class L1(L1L2):
    """``l1 * sum(|w|)``."""

    def __init__(self, l1: float = 0.01) -> None:
        super().__init__(l1=l1)


class L2(L1L2):
    """``l2 * sum(w**2)``."""

    def __init__(self, l2: float = 0.01) -> None:
        super().__init__(l2=l2)


TABLE: dict[str, type[Regularizer]] = {
    "L1": L1,
    "L2": L2,
    "L1L2": L1L2,
    "l1": L1,
    "l2": L2,
    "l1_l2": L1L2,
}


def get(identifier: Any) -> Any:
    """A regularizer from its name, config or itself; None stays None."""
    return None if identifier is None else resolve("regularizer", identifier, TABLE)
