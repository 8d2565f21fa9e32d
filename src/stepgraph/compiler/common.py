"""Common subexpressions: equal operations on equal inputs are computed once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from stepgraph.compiler.program import Program, Rewriter
from stepgraph.graph.operation import Operation
from stepgraph.graph.tensor import Tensor

# Ops that hand on their input as it is; they would only hide that two operations are equal.
_UNCHANGED = ("identity", "stop_gradient")


def merge_common(program: Program) -> Program:
    """Lets later operations use the outputs of an earlier equal one.

    A gradient that builds part of the forward pass again costs nothing after this.
    """
    seen: dict[Hashable, Sequence[Tensor]] = {}

    def visit(rewriter: Rewriter, operation: Operation) -> Sequence[Tensor] | None:
        if not operation.definition.pure or operation.regions:
            return None
        if operation.type in _UNCHANGED:
            return rewriter.inputs(operation)
        key = (
            operation.type,
            tuple(id(t) for t in rewriter.inputs(operation)),
            tuple((k, _key(v)) for k, v in sorted(operation.attributes.items())),
        )
        graph = rewriter.graph
        # What was computed inside a region cannot be seen from outside it.
        if key not in seen or not all(
            t.operation.block.encloses(graph._current) for t in seen[key]
        ):
            seen[key] = graph._add(
                operation.definition,
                rewriter.inputs(operation),
                operation.attributes,
                name=operation.name,
            ).outputs
        return seen[key]

    return Rewriter(program).run(visit)


def _key(value: Any) -> Hashable:
    if isinstance(value, np.ndarray):
        if value.size > 1024 and value.strides != (0,) * value.ndim:
            return id(value)
        one = value.reshape(-1)[:1] if value.strides == (0,) * value.ndim else value
        return (value.dtype.str, value.shape, one.tobytes())
    if isinstance(value, float):
        return repr(value)
    return value  # type: ignore[no-any-return]
