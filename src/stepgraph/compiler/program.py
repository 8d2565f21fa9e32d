"""What passes work on, and how they rewrite it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from stepgraph.graph.copying import copy_operation, inline
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Block, Operation
from stepgraph.graph.printing import lines
from stepgraph.graph.tensor import Tensor


@dataclass
class Program:
    """A pruned copy of a graph: all sizes known, variables read at the start, written at the end.

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
        text = [f"program {self.graph.name}"]
        text += [text for operation in self.operations() for text in lines(operation, "  ")]
        text += [f"  update {name} := {tensor.name}" for name, tensor in self.updates.items()]
        text.append(f"  return {', '.join(t.name for t in self.targets)}")
        return "\n".join(text)


Visit = Callable[["Rewriter", Operation], Sequence[Tensor] | None]


class Rewriter:
    """Copies a program operation by operation; a pass replaces those it cares about.

    Attributes:
        source: the program read.
        graph: the graph of the program being made, to build replacements in.
        mapping: tensors of the source to their counterparts, those of the regions being copied
            included.
    """

    def __init__(self, source: Program) -> None:
        self.source = source
        self.graph = Graph(source.graph.name)
        self.mapping: dict[Tensor, Tensor] = {}
        self._visit: Visit | None = None

    def inputs(self, operation: Operation) -> list[Tensor]:
        """The counterparts of an operation's inputs."""
        return [self.mapping[t] for t in operation.inputs]

    def run(self, visit: Visit | None = None) -> Program:
        """Copies what the results need; an update that leaves a variable as it is, is dropped.

        Args:
            visit: returns replacements for an operation's outputs, or None to have it copied. It is
                also asked about operations inside regions.
        """
        self._visit = visit
        for operation in self.source.operations():
            outputs = self._replaced(operation, self.mapping)
            if outputs is None:
                outputs = self.copy(operation)
            self.mapping.update(zip(operation.outputs, outputs, strict=True))
        variables = self.source.variables
        updates = {n: self.mapping[t] for n, t in self.source.updates.items()}
        return Program(
            self.graph,
            {n: self._kept(t) for n, t in self.source.feeds.items() if t in self.mapping},
            {n: self._kept(t) for n, t in variables.items() if t in self.mapping},
            [self.mapping[t] for t in self.source.targets],
            {
                n: t
                for n, t in updates.items()
                if n not in variables or t is not self.mapping.get(variables[n])
            },
        )

    def copy(self, operation: Operation) -> Sequence[Tensor]:
        """Copies an operation as it is, visiting what stands in its regions; gives its outputs."""
        return copy_operation(self.graph, operation, self.mapping, self._replaced)

    def inline(
        self,
        region: Block,
        arguments: Sequence[Tensor] = (),
        results: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """Copies a region into the place of the operation being visited.

        Args:
            region: whose operations.
            arguments: what its parameters become.
            results: what is wanted of it; its results without it.
        """
        return inline(self.graph, region, arguments, self.mapping, self._replaced, results)

    def _replaced(
        self, operation: Operation, mapping: dict[Tensor, Tensor]
    ) -> Sequence[Tensor] | None:
        if self._visit is None:
            return None
        graph = self.graph
        # Spelled out instead of `_created_at`: this runs for every operation in every pass.
        outer, self.mapping = self.mapping, mapping
        origin, graph._origin = graph._origin, operation.created_at
        try:
            return self._visit(self, operation)
        finally:
            self.mapping, graph._origin = outer, origin

    def _kept(self, tensor: Tensor) -> Tensor:
        return self.mapping[tensor]
