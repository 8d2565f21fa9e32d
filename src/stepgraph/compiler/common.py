"""Common subexpressions: equal operations on equal inputs are computed once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from stepgraph.compiler.program import Program, Rewriter
from stepgraph.graph.copying import needed
from stepgraph.graph.operation import Block, Operation
from stepgraph.graph.tensor import Tensor

# Ops that hand on their input as it is; they would only hide that two operations are equal.
_UNCHANGED = ("identity", "stop_gradient")


def merge_common(program: Program) -> Program:
    """Lets later operations use the outputs of an earlier equal one.

    A gradient that builds part of the forward pass again costs nothing after this.
    """
    seen: dict[Hashable, Sequence[Tensor]] = {}

    def visit(rewriter: Rewriter, operation: Operation) -> Sequence[Tensor] | None:
        if not operation.definition.pure:
            return None
        if operation.type in _UNCHANGED:
            return rewriter.inputs(operation)
        key = _operation_key(operation, lambda t: id(rewriter.mapping[t]))
        current = rewriter.graph._current
        # What was computed inside a region cannot be seen from outside it.
        if key not in seen or not all(t.operation.block.encloses(current) for t in seen[key]):
            seen[key] = rewriter.copy(operation)
        return seen[key]

    return Rewriter(program).run(visit)


def _operation_key(
    operation: Operation, name: Callable[[Tensor], Hashable], depth: int = 0
) -> Hashable:
    """Equal for operations that compute the same from tensors of the same names."""
    explicit = operation.attributes.get("explicit", len(operation.inputs))
    return (
        operation.type,
        tuple(name(t) for t in operation.inputs[:explicit]),
        tuple((k, _key(v)) for k, v in sorted(operation.attributes.items())),
        tuple(_region_key(region, name, depth) for region in operation.regions),
    )


def _region_key(region: Block, name: Callable[[Tensor], Hashable], depth: int = 0) -> Hashable:
    """Equal for regions that compute the same; their own tensors are named by their places."""
    own: dict[Tensor, Hashable] = {}

    def inside(tensor: Tensor) -> Hashable:
        return own[tensor] if tensor in own else name(tensor)

    for i, parameter in enumerate(region.parameters):
        own[parameter] = (depth, i)
    keys = []
    for operation in needed(region):
        keys.append(_operation_key(operation, inside, depth + 1))
        for tensor in operation.outputs:
            own[tensor] = (depth, len(own))
    return (
        tuple(p.spec for p in region.parameters),
        tuple(keys),
        tuple(inside(t) for t in region.results),
    )


def _key(value: Any) -> Hashable:
    if isinstance(value, np.ndarray):
        if value.size > 1024 and value.strides != (0,) * value.ndim:
            return id(value)
        one = value.reshape(-1)[:1] if value.strides == (0,) * value.ndim else value
        return (value.dtype.str, value.shape, one.tobytes())
    if isinstance(value, float):
        return repr(value)
    return value  # type: ignore[no-any-return]
