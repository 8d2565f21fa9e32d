"""Ops that a device has no lowering for are spelled out in simpler ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepgraph.compiler.program import Program, Rewriter
from stepgraph.graph.definition import OpDefinition
from stepgraph.graph.operation import Operation
from stepgraph.graph.tensor import Tensor


def decompose(program: Program, supports: Callable[[OpDefinition], bool]) -> Program:
    """Replaces unsupported ops by their decompositions until none is left that has one."""
    while True:
        changed = False

        def visit(rewriter: Rewriter, operation: Operation) -> Sequence[Tensor] | None:
            nonlocal changed
            definition = operation.definition
            if definition.decompose is None or supports(definition):
                return None
            changed = True
            made = definition.decompose(
                rewriter.graph, *rewriter.inputs(operation), **operation.attributes
            )
            return (made,) if isinstance(made, Tensor) else made

        program = Rewriter(program).run(visit)
        if not changed:
            return program
