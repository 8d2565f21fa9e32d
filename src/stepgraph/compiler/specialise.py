"""Values fixed at compile time become constants, and conditionals on them disappear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stepgraph.compiler.fold import evaluate, inline_if
from stepgraph.compiler.program import Program, Rewriter
from stepgraph.graph.definition import Array
from stepgraph.graph.operation import Operation
from stepgraph.graph.tensor import Tensor


def specialise(program: Program, values: Mapping[str, Array]) -> Program:
    """Replaces feeds by their values, then inlines the branch that a constant predicate takes.

    Predicates may be computed from the values (``is_training & flag``): what has one element and
    follows from constants is one.

    Args:
        program: what to specialise.
        values: name of a feed to its value.
    """
    feeds = {program.feeds[name]: value for name, value in values.items() if name in program.feeds}

    def visit(rewriter: Rewriter, operation: Operation) -> Sequence[Tensor] | None:
        if operation.type == "placeholder" and operation.output in feeds:
            value = np.asarray(feeds[operation.output], operation.output.dtype.numpy)
            return (rewriter.graph.constant(value),)
        if operation.type == "if":
            return inline_if(rewriter, operation)
        if len(operation.outputs) == 1 and not operation.output.dtype.is_float:
            return evaluate(rewriter, operation, limit=1)
        return None

    result = Rewriter(program).run(visit)
    for name in values:
        result.feeds.pop(name, None)
    return result
