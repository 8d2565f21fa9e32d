"""Small rewrites: a table from op to rules, applied until none fits any more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from stepgraph.compiler.program import Program, Rewriter
from stepgraph.graph.copying import copy_operation
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Operation
from stepgraph.graph.tensor import Tensor

# (graph to build in, operation, its inputs there) to an equal tensor, or None; to a tuple of them
# for an operation with several outputs.
Rule: TypeAlias = Callable[[Graph, Operation, Sequence[Tensor]], Tensor | tuple[Tensor, ...] | None]
Rules: TypeAlias = Mapping[str, Sequence[Rule]]


def apply_rules(program: Program, rules: Rules) -> Program:
    """Rewrites a program, bodies of loops and branches included, until no rule fits.

    Args:
        program: what to rewrite; not changed.
        rules: name of an op to the rules tried on it, in order. Every rule must make the program
            simpler by some measure, or this would not end.
    """
    while True:
        changed = False

        def simpler(
            graph: Graph, operation: Operation, inputs: Sequence[Tensor]
        ) -> Sequence[Tensor] | None:
            nonlocal changed
            for rule in rules.get(operation.type, ()):
                found = rule(graph, operation, inputs)
                if found is not None:
                    made = (found,) if isinstance(found, Tensor) else found
                    same = [t.spec for t in made] == [t.spec for t in operation.outputs]
                    assert same, f"{rule} changed the shape or dtype"
                    changed = True
                    return made
            return None

        program = Rewriter(program).run(_visitor(simpler, rules))
        if not changed:
            return program


def _visitor(
    simpler: Callable[[Graph, Operation, Sequence[Tensor]], Sequence[Tensor] | None],
    rules: Rules,
) -> Callable[[Rewriter, Operation], Sequence[Tensor] | None]:
    def visit(rewriter: Rewriter, operation: Operation) -> Sequence[Tensor] | None:
        graph = rewriter.graph

        def nested(inner: Operation, mapping: dict[Tensor, Tensor]) -> Sequence[Tensor] | None:
            return simpler(graph, inner, [mapping.get(t, t) for t in inner.inputs])

        if operation.regions:
            return copy_operation(graph, operation, rewriter.mapping, nested)
        if operation.type not in rules:
            return None
        return simpler(graph, operation, rewriter.inputs(operation))

    return visit


def made_by(tensor: Tensor, *types: str) -> Operation | None:
    """The operation behind a tensor, if it is one of these."""
    return tensor.operation if tensor.operation.type in types else None


def filled_with(tensor: Tensor) -> Any:
    """The number that every element is, if a constant settles it; None otherwise."""
    while moved := made_by(tensor, "broadcast", "reshape", "expand_dims", "squeeze", "flatten_2d"):
        tensor = moved.inputs[0]
    constant = made_by(tensor, "constant")
    if constant is None:
        return None
    value = constant.attributes["value"]
    if value.size == 0:
        return None
    first = value.flat[0]
    repeated = not any(value.strides)
    if not repeated and not np.all(value == first):
        return None
    # Zeros of both signs are equal, but not the same.
    if not repeated and first == 0 and value.dtype.kind == "f":
        if not np.all(np.signbit(value) == np.signbit(first)):
            return None
    return first.item()


def is_filled(tensor: Tensor, number: float) -> bool:
    """Whether a tensor is known to be this number everywhere; tells -0.0 from 0.0."""
    found = filled_with(tensor)
    if found is None or found != number:
        return False
    is_float = tensor.dtype.is_float and number == 0
    return not is_float or bool(np.signbit(found) == np.signbit(number))


def as_output(graph: Graph, tensor: Tensor, operation: Operation) -> Tensor:
    """A tensor repeated to the shape of an operation's output, where it is smaller."""
    if tensor.shape == operation.output.shape:
        return tensor
    return graph.broadcast(tensor, operation.output.shape)


def constant_output(graph: Graph, number: float | bool, operation: Operation) -> Tensor:
    """A constant of one number in the shape and dtype of an operation's output."""
    output = operation.output
    return graph.constant(number, shape=output.shape, dtype=output.dtype)
