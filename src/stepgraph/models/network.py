"""Networks: which calls of layers lead from inputs to outputs, and in what order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stepgraph.errors import GraphError, describe
from stepgraph.graph.tensor import Tensor
from stepgraph.layers import InputLayer, KerasTensor, Layer, LayerGraph
from stepgraph.layers.symbolic import Node, flat


@dataclass
class Network:
    """The part of a web of layer calls between inputs and outputs.

    Attributes:
        inputs: where data enters.
        outputs: what comes out.
        nodes: the calls, in an order in which they can be computed.
        layers: each once, in Keras's order, which is the order of their weights.
    """

    inputs: list[KerasTensor]
    outputs: list[KerasTensor]
    nodes: list[Node]
    layers: list[Layer]

    def build(self, graph: LayerGraph, tensors: Sequence[Tensor], training: bool) -> list[Tensor]:
        """Adds the network's operations to a graph.

        Args:
            graph: where to.
            tensors: one for each input.
            training: whether for a training step.

        Returns:
            One tensor per output.
        """
        values = dict(zip(map(id, self.inputs), tensors, strict=True))
        for node in self.nodes:
            if not node.inputs:
                continue
            made = node.layer.build_operations(
                graph, node, [values[id(t)] for t in node.inputs], training
            )
            values.update(zip(map(id, node.outputs), flat(made), strict=True))
        return [values[id(t)] for t in self.outputs]


def trace(inputs: Any, outputs: Any, name: str) -> Network:
    """The network between inputs and outputs.

    Raises:
        GraphError: an output depends on an input that is not named, or layers share a name.
    """
    ins, outs = flat(inputs), flat(outputs)
    for role, tensors in (("input", ins), ("output", outs)):
        for tensor in tensors:
            if not isinstance(tensor, KerasTensor):
                raise GraphError(
                    describe(
                        f"model '{name}'",
                        f"an {role} is {type(tensor).__name__}",
                        expected="what Input(...) or a layer returned",
                    )
                )
    for tensor in ins:
        if not isinstance(tensor.node.layer, InputLayer):
            raise GraphError(
                describe(
                    f"model '{name}'",
                    f"input '{tensor.name}' does not come from Input(...)",
                    fix="start from Input(shape=...) and call the layers on it again",
                )
            )
    given = {id(tensor.node) for tensor in ins}
    postorder, rank = _walk(outs)
    for node in postorder:
        if not node.inputs and id(node) not in given:
            raise GraphError(
                describe(
                    f"model '{name}'",
                    f"the outputs depend on input '{node.layer.name}', which is not among inputs",
                    got={"inputs": ", ".join(t.name for t in ins)},
                )
            )
    for tensor in ins:
        if tensor.node not in postorder:
            # An input that nothing uses: Keras puts it first.
            postorder.append(tensor.node)
            rank.setdefault(tensor.node.layer, -1)
    layers = _ordered(postorder, rank)
    _refuse_twins(layers, name)
    return Network(ins, outs, sorted(postorder, key=lambda node: node.serial), layers)


def _walk(outputs: Sequence[KerasTensor]) -> tuple[list[Node], dict[Layer, int]]:
    """Calls before those that use them, and the order in which layers are met from the end."""
    postorder: list[Node] = []
    rank: dict[Layer, int] = {}
    done: set[Node] = set()
    for output in outputs:
        # Not recursive: networks may be deeper than Python's stack.
        stack: list[tuple[Node, int]] = [(output.node, 0)]
        while stack:
            node, position = stack.pop()
            if node in done:
                continue
            rank.setdefault(node.layer, len(rank))
            if position < len(node.inputs):
                stack.append((node, position + 1))
                stack.append((node.inputs[position].node, 0))
            else:
                done.add(node)
                postorder.append(node)
    return postorder, rank


def _ordered(postorder: Sequence[Node], rank: dict[Layer, int]) -> list[Layer]:
    """Layers by falling distance from the outputs, as Keras lists them."""
    depth: dict[Node, int] = {}
    layer_depth: dict[Layer, int] = {}
    for node in reversed(postorder):
        own = max(depth.get(node, 0), layer_depth.get(node.layer, 0))
        depth[node] = layer_depth[node.layer] = own
        for tensor in node.inputs:
            depth[tensor.node] = max(own + 1, depth.get(tensor.node, 0))
    return sorted(layer_depth, key=lambda layer: (-layer_depth[layer], rank[layer]))


def _refuse_twins(layers: Sequence[Layer], name: str) -> None:
    seen: dict[str, Layer] = {}
    for layer in layers:
        if layer.name in seen:
            raise GraphError(
                describe(
                    f"model '{name}'",
                    f"two layers are called '{layer.name}'",
                    got={"layers": f"{seen[layer.name]!r} and {layer!r}"},
                    fix="give each layer a name of its own, or leave name= out",
                )
            )
        seen[layer.name] = layer
