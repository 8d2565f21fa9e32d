"""What passes work on, and how they rewrite it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from stepgraph.graph.copying import copy_operation
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Operation
from stepgraph.graph.printing import line
from stepgraph.graph.tensor import Tensor


@dataclass
class Program:
    """A pruned copy of a graph: all sizes known, each variable read at the start and written at the end.

    Attributes:
        graph: owner of the operations; belongs to this program alone.
        feeds: name of a placeholder to its tensor here, in the order of the feeds.
        variables: name of a variable to its tensor here (its value at the start of the run).
        targets: what a run returns.
        updates: name of a variable to its value at the end of the run.
    """

    graph: Graph
    feeds: dict[str, Tensor] = field(default_factory=dict)
    variables: dict[str, Tensor] = field(default_factory=dict)
    targets: list[Tensor] = field(default_factory=list)
    updates: dict[str, Tensor] = field(default_factory=dict)

    def results(self) -> list[Tensor]:
        """Everything that a run must produce."""
        return [*self.targets, *self.updates.values()]

    def operations(self) -> list[Operation]:
        """Operations that the results need, in order."""
        live: set[Operation] = set()
        stack = [t.operation for t in self.results()]
        while stack:
            operation = stack.pop()
            if operation not in live:
                live.add(operation)
                stack.extend(t.operation for t in operation.inputs)
        return [op for op in self.graph.block.operations if op in live]

    def __str__(self) -> str:
        lines = [f"program {self.graph.name}"]
        lines += [f"  {line(operation)}" for operation in self.operations()]
        lines += [f"  update {name} := {tensor.name}" for name, tensor in self.updates.items()]
        lines.append(f"  return {', '.join(t.name for t in self.targets)}")
        return "\n".join(lines)


class Rewriter:
    """Copies a program operation by operation; a pass replaces those it cares about.

    Attributes:
        source: the program read.
        graph: the graph of the program being made, to build replacements in.
        mapping: tensors of the source to their counterparts.
    """

    def __init__(self, source: Program) -> None:
        self.source = source
        self.graph = Graph(source.graph.name)
        self.mapping: dict[Tensor, Tensor] = {}

    def inputs(self, operation: Operation) -> list[Tensor]:
        """The counterparts of an operation's inputs."""
        return [self.mapping[t] for t in operation.inputs]

    def run(
        self, visit: Callable[[Rewriter, Operation], Sequence[Tensor] | None] | None = None
    ) -> Program:
        """Copies what the results need.

        Args:
            visit: returns replacements for an operation's outputs, or None to have it copied.
        """
        for operation in self.source.operations():
            with self.graph._created_at(operation.created_at):
                outputs = visit(self, operation) if visit else None
            if outputs is None:
                outputs = copy_operation(self.graph, operation, self.mapping)
            self.mapping.update(zip(operation.outputs, outputs, strict=True))
        return Program(
            self.graph,
            {n: self._kept(t) for n, t in self.source.feeds.items() if t in self.mapping},
            {n: self._kept(t) for n, t in self.source.variables.items() if t in self.mapping},
            [self.mapping[t] for t in self.source.targets],
            {n: self.mapping[t] for n, t in self.source.updates.items()},
        )

    def _kept(self, tensor: Tensor) -> Tensor:
        return self.mapping[tensor]
