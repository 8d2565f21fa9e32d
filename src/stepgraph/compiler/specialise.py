"""Values fixed at compile time become constants, and conditionals on them disappear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stepgraph.compiler.program import Program, Rewriter
from stepgraph.graph.copying import inline
from stepgraph.graph.definition import Array
from stepgraph.graph.operation import Operation
from stepgraph.graph.tensor import Tensor


def specialise(program: Program, values: Mapping[str, Array]) -> Program:
    """Replaces feeds by their values, then inlines the branch that a constant predicate takes.

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
        return None

    result = Rewriter(program).run(visit)
    for name in values:
        result.feeds.pop(name, None)
    return result


def inline_if(rewriter: Rewriter, operation: Operation) -> Sequence[Tensor] | None:
    """The taken branch's results, when the predicate is a constant by now."""
    predicate = rewriter.mapping[operation.inputs[0]].operation
    if predicate.type != "constant":
        return None
    taken = 0 if bool(predicate.attributes["value"].reshape(-1)[0]) else 1

    def nested(inner: Operation, mapping: dict[Tensor, Tensor]) -> Sequence[Tensor] | None:
        if inner.type != "if":
            return None
        known = mapping.get(inner.inputs[0], inner.inputs[0]).operation
        if known.type != "constant":
            return None
        branch = 0 if bool(known.attributes["value"].reshape(-1)[0]) else 1
        return inline(rewriter.graph, inner.regions[branch], (), mapping, nested)

    return inline(rewriter.graph, operation.regions[taken], (), rewriter.mapping, nested)
