"""The graph that layers build in: a graph that knows which tensor stands for which weight."""

from __future__ import annotations

from collections.abc import Callable

from stepgraph.errors import GraphError, describe
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Operation
from stepgraph.graph.tensor import Tensor
from stepgraph.layers.weight import Weight


class LayerGraph(Graph):
    """A graph with the weights of a network.

    Attributes:
        bound: weight to its variable (or, when only shapes are wanted, a placeholder).
        updated: weight to the last assign that the forward pass made to it (moving statistics).
    """

    def __init__(self, name: str = "graph") -> None:
        super().__init__(name)
        self.bound: dict[Weight, Tensor] = {}
        self.updated: dict[Weight, Operation] = {}

    def weight(self, weight: Weight) -> Tensor:
        """The tensor that stands for a weight in this graph.

        Raises:
            GraphError: the weight belongs to a layer that is not part of this network.
        """
        try:
            return self.bound[weight]
        except KeyError:
            raise GraphError(
                describe(
                    f"weight '{weight.name}'",
                    f"is not part of the network '{self.name}'",
                    fix="make weights in build(), and sublayers as attributes of the layer",
                )
            ) from None

    def after_updates(self, weights: list[Weight], build: Callable[[], Tensor]) -> Tensor:
        """Builds something that assigns to `weights`, after what assigned to them before.

        A layer used twice in one step updates its moving statistics twice, one after the other.
        """
        start = len(self.block.operations)
        before = [self.updated[w] for w in weights if w in self.updated]
        if before:
            made = self.control_dependency(before, build)
            result = made if isinstance(made, Tensor) else made[0]
        else:
            result = build()
        for operation in self.block.operations[start:]:
            if operation.type == "assign":
                for weight in weights:
                    if operation.inputs[0] is self.bound[weight]:
                        self.updated[weight] = operation
        return result
