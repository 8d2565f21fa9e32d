"""One node of a graph, and the block of nodes it stands in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepgraph.graph.definition import OpDefinition

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph
    from stepgraph.graph.tensor import Tensor


class Block:
    """A sequence of operations: a graph's own, or a region of a control-flow operation.

    Attributes:
        parent: the block around it; None for a graph's own.
        parameters: tensors that the control-flow operation sets (loop index, carried values).
        operations: in order of creation, which is a topological order.
        results: what the region hands back.
    """

    __slots__ = ("operations", "parameters", "parent", "results")

    def __init__(self, parent: Block | None = None) -> None:
        self.parent = parent
        self.parameters: list[Tensor] = []
        self.operations: list[Operation] = []
        self.results: list[Tensor] = []

    def encloses(self, other: Block) -> bool:
        """Whether `other` is this block or lies within it."""
        block: Block | None = other
        while block is not None:
            if block is self:
                return True
            block = block.parent
        return False


class Operation:
    """One node: what it does, to what, and what must have happened before.

    Attributes:
        definition: what the op is.
        inputs: tensors read, those captured by its regions included.
        attributes: settings fixed at building.
        outputs: tensors made.
        control_inputs: operations that must have happened before.
        regions: blocks of a control-flow operation.
        name: unique in its graph.
        created_at: the user's source line, for messages.
        serial: counts up in order of creation, so that it sorts operations topologically.
    """

    __slots__ = (
        "attributes",
        "block",
        "control_inputs",
        "created_at",
        "definition",
        "graph",
        "inputs",
        "name",
        "outputs",
        "regions",
        "serial",
    )

    def __init__(
        self,
        graph: Graph,
        definition: OpDefinition,
        inputs: tuple[Tensor, ...],
        attributes: dict[str, Any],
        name: str,
        block: Block,
        control_inputs: tuple[Operation, ...],
        regions: tuple[Block, ...],
        created_at: str,
        serial: int,
    ) -> None:
        self.graph = graph
        self.definition = definition
        self.inputs = inputs
        self.attributes = attributes
        self.name = name
        self.block = block
        self.control_inputs = control_inputs
        self.regions = regions
        self.created_at = created_at
        self.serial = serial
        self.outputs: tuple[Tensor, ...] = ()

    @property
    def type(self) -> str:
        """The op's name, such as ``"convolution_2d"``."""
        return self.definition.name

    @property
    def output(self) -> Tensor:
        """The first output."""
        return self.outputs[0]

    def __repr__(self) -> str:
        return f"<Operation {self.name!r} {self.type}>"
