"""Evaluates operations by their references; control flow by running regions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepgraph.errors import UnsupportedError, describe
from stepgraph.graph.definition import Array
from stepgraph.graph.operation import Operation
from stepgraph.graph.tensor import Tensor


def evaluate(
    operations: Sequence[Operation], values: dict[Tensor, Array], keep: Sequence[Tensor]
) -> None:
    """Adds the value of every output to `values`, and drops those read for the last time.

    Args:
        operations: in order.
        values: feeds and variables' values; grows.
        keep: tensors that must stay.
    """
    last = {t: op for op in operations for t in op.inputs}
    kept = set(keep)
    for operation in operations:
        if operation.outputs and operation.outputs[0] in values:
            continue
        for tensor, value in zip(operation.outputs, call(operation, values), strict=True):
            values[tensor] = value
        for tensor in set(operation.inputs):
            if last[tensor] is operation and tensor not in kept:
                values.pop(tensor, None)


def call(operation: Operation, values: dict[Tensor, Array]) -> tuple[Array, ...]:
    """The outputs of one operation."""
    definition = operation.definition
    if definition.reference is None:
        raise UnsupportedError(
            describe(
                "reference",
                f"op '{definition.name}' has no reference",
                created_at=operation.created_at,
            )
        )
    inputs = [values[t] for t in operation.inputs]
    with np.errstate(all="ignore"):
        found = definition.reference(*inputs, **operation.attributes)
    results = found if isinstance(found, tuple) else (found,)
    return tuple(np.asarray(r) for r in results)
