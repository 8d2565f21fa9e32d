"""Operations on constants are computed once, at compile time, by their reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepgraph.compiler.program import Program, Rewriter
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import element_count
from stepgraph.graph.tensor import Tensor

# A folded result is stored in the program: above this many elements it must not outgrow its inputs.
_SMALL = 65536


def fold(program: Program) -> Program:
    """Replaces pure operations whose inputs are all constants by constants."""
    return Rewriter(program).run(_visit)


def _visit(rewriter: Rewriter, operation: Operation) -> Sequence[Tensor] | None:
    definition = operation.definition
    inputs = rewriter.inputs(operation)
    if (
        not definition.pure
        or definition.reference is None
        or not inputs
        or any(t.operation.type != "constant" for t in inputs)
    ):
        return None
    size = sum(element_count(t.shape) or 0 for t in operation.outputs)
    stored = sum(t.operation.attributes["value"].base is None and t.operation.attributes["value"].size or 1 for t in inputs)
    if size > max(_SMALL, stored):
        return None
    arrays = [t.operation.attributes["value"] for t in inputs]
    with np.errstate(all="ignore"):
        found = definition.reference(*arrays, **operation.attributes)
    values = found if isinstance(found, tuple) else (found,)
    return [rewriter.graph.constant(np.asarray(v)) for v in values]
