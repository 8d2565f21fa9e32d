"""Operations on constants are computed once, at compile time, by their reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepgraph.compiler.program import Program, Rewriter
from stepgraph.graph.definition import Array
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import element_count
from stepgraph.graph.tensor import Tensor

# A folded result is stored in the program: above this many elements it must not outgrow its inputs.
_SMALL = 65536


def fold(program: Program) -> Program:
    """Replaces pure operations whose inputs are all constants by constants."""

    def visit(rewriter: Rewriter, operation: Operation) -> Sequence[Tensor] | None:
        if operation.type == "if":
            return inline_if(rewriter, operation)
        return evaluate(rewriter, operation)

    return Rewriter(program).run(visit)


def evaluate(
    rewriter: Rewriter, operation: Operation, limit: int | None = None
) -> Sequence[Tensor] | None:
    """The operation's outputs as constants; None unless its inputs are and the outputs small.

    Args:
        rewriter: whose graph gets the constants.
        operation: of the program being copied.
        limit: elements that the outputs may have; without it as many as the inputs hold, or a few.
    """
    definition = operation.definition
    inputs = rewriter.inputs(operation)
    if (
        not definition.pure
        or definition.reference is None
        or not inputs
        or any(t.operation.type != "constant" for t in inputs)
    ):
        return None
    arrays: list[Array] = [t.operation.attributes["value"] for t in inputs]
    size = sum(element_count(t.shape) or 0 for t in operation.outputs)
    # A filled constant is a view of one element.
    stored = sum(a.size if a.strides != (0,) * a.ndim else 1 for a in arrays)
    if size > (max(_SMALL, stored) if limit is None else limit):
        return None
    with np.errstate(all="ignore"):
        found = definition.reference(*arrays, **operation.attributes)
    values = found if isinstance(found, tuple) else (found,)
    return [rewriter.graph.constant(np.asarray(v)) for v in values]


def inline_if(rewriter: Rewriter, operation: Operation) -> Sequence[Tensor] | None:
    """The results of the branch that an `if` takes; None unless its predicate is a constant."""
    predicate = rewriter.mapping[operation.inputs[0]].operation
    if predicate.type != "constant":
        return None
    then, other = operation.regions
    taken = bool(predicate.attributes["value"].reshape(-1)[0])
    return rewriter.inline(then if taken else other)
