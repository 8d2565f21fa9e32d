"""Symbolic values of the functional style: what `Input` returns and layers are called on."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from stepgraph.graph.shapes import Shape, format_shape

if TYPE_CHECKING:
    from stepgraph.layers.base import Layer

_serial = itertools.count()


class KerasTensor:
    """A tensor of a network that is being described; it holds no numbers and belongs to no graph.

    Attributes:
        shape: ints, or None where the size is not fixed, such as the batch.
        dtype: name of the element type.
        node: the call of a layer that makes it.
        index: which of that call's outputs it is.
    """

    def __init__(self, shape: Shape, dtype: str, node: Node, index: int) -> None:
        self.shape = shape
        self.dtype = dtype
        self.node = node
        self.index = index

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.node.layer.name

    @property
    def rank(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    def __repr__(self) -> str:
        return f"<KerasTensor {self.name!r} {self.dtype} {format_shape(self.shape)}>"

    def __add__(self, other: KerasTensor) -> Any:
        from stepgraph.layers.merging import Add

        return Add()([self, other])

    def __sub__(self, other: KerasTensor) -> Any:
        from stepgraph.layers.merging import Subtract

        return Subtract()([self, other])

    def __mul__(self, other: KerasTensor) -> Any:
        from stepgraph.layers.merging import Multiply

        return Multiply()([self, other])


class Node:
    """One call of a layer.

    Attributes:
        layer: what was called.
        inputs: with what.
        single: whether it was called with one tensor rather than a list.
        arguments: further arguments of the call.
        outputs: what it returns.
        several: whether it returns a list.
        serial: counts up, so that calls sort in the order they were made.
    """

    def __init__(
        self, layer: Layer, inputs: list[KerasTensor], single: bool, arguments: dict[str, Any]
    ) -> None:
        self.layer = layer
        self.inputs = inputs
        self.single = single
        self.arguments = arguments
        self.outputs: list[KerasTensor] = []
        self.several = False
        self.serial = next(_serial)

    def __repr__(self) -> str:
        return f"<Node {self.layer.name!r} of {len(self.inputs)} inputs>"


def flat(value: Any) -> list[Any]:
    """A tensor or nested lists of them as one list."""
    if isinstance(value, list | tuple):
        return [item for part in value for item in flat(part)]
    if isinstance(value, dict):
        return [item for key in value for item in flat(value[key])]
    return [value]
