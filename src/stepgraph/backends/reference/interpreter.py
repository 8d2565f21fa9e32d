"""Evaluates operations by their references; control flow by running regions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stepgraph.backends.base import StepTime, located
from stepgraph.errors import FeedError, UnsupportedError, describe
from stepgraph.graph.definition import Array
from stepgraph.graph.operation import Block, Operation
from stepgraph.graph.tensor import Tensor

Evaluate = Callable[[Sequence[Operation], dict[Tensor, Array], Sequence[Tensor]], None]


def evaluate(
    operations: Sequence[Operation],
    values: dict[Tensor, Array],
    keep: Sequence[Tensor],
    times: list[StepTime] | None = None,
) -> None:
    """Adds the value of every output to `values`, and drops those read for the last time.

    Args:
        operations: in order.
        values: feeds and variables' values; grows.
        keep: tensors that must stay.
        times: gets what each operation took.
    """
    last = {t: op for op in operations for t in op.inputs}
    kept = set(keep)
    for operation in operations:
        if operation.outputs and operation.outputs[0] in values:
            continue
        start = time.perf_counter()
        for tensor, value in zip(operation.outputs, call(operation, values), strict=True):
            values[tensor] = value
        if times is not None:
            times.append(StepTime(operation.type, time.perf_counter() - start, 0))
        for tensor in set(operation.inputs):
            if last[tensor] is operation and tensor not in kept:
                values.pop(tensor, None)


def call(operation: Operation, values: dict[Tensor, Array]) -> tuple[Array, ...]:
    """The outputs of one operation."""
    definition = operation.definition
    if operation.regions:
        return tuple(CONTROL_FLOW[operation.type](operation, values, evaluate))
    if definition.reference is None:
        raise UnsupportedError(
            describe(
                "reference",
                f"op '{definition.name}' has no reference",
                created_at=operation.created_at,
            )
        )
    inputs = [values[t] for t in operation.inputs]
    try:
        with np.errstate(all="ignore"):
            found = definition.reference(*inputs, **operation.attributes)
    except FeedError as error:
        raise located(error, operation) from None
    results = found if isinstance(found, tuple) else (found,)
    return tuple(np.asarray(r) for r in results)


def run_region(
    block: Block, arguments: Sequence[Array], values: Mapping[Tensor, Array], evaluate: Evaluate
) -> list[Array]:
    """The results of a region.

    Args:
        block: the region.
        arguments: values of its parameters.
        values: those it captures; not changed.
        evaluate: evaluates operations in order; see `evaluate` in this module.
    """
    local = {**values, **dict(zip(block.parameters, arguments, strict=True))}
    evaluate([op for op in block.operations if op.type != "parameter"], local, block.results)
    return [local[t] for t in block.results]


def run_if(operation: Operation, values: Mapping[Tensor, Array], evaluate: Evaluate) -> list[Array]:
    """Only the branch taken is computed."""
    then, other = operation.regions
    taken = then if is_true(values[operation.inputs[0]]) else other
    return run_region(taken, (), values, evaluate)


def run_for(
    operation: Operation, values: Mapping[Tensor, Array], evaluate: Evaluate
) -> list[Array]:
    """Trips one after the other, each with its index."""
    attributes, (body,) = operation.attributes, operation.regions
    carried = [values[t] for t in operation.inputs[1 : attributes["explicit"]]]
    count = int(values[operation.inputs[0]].reshape(-1)[0])
    if attributes["maximum_iterations"] is not None:
        count = min(count, attributes["maximum_iterations"])
    for trip in range(count):
        index = np.array(attributes["lower_bound"] + trip * attributes["step"], np.int32)
        carried = run_region(body, [index, *carried], values, evaluate)
    return carried


def run_while(
    operation: Operation, values: Mapping[Tensor, Array], evaluate: Evaluate
) -> list[Array]:
    """Trips as long as the predicate holds and the bound is not reached."""
    attributes, (before, after) = operation.attributes, operation.regions
    carried = [values[t] for t in operation.inputs[: attributes["explicit"]]]
    maximum, trip = attributes["maximum_iterations"], 0
    while (maximum is None or trip < maximum) and is_true(
        run_region(before, carried, values, evaluate)[0]
    ):
        carried = run_region(after, carried, values, evaluate)
        trip += 1
    return carried


def is_true(predicate: Array) -> bool:
    """A predicate of one element as a bool."""
    return bool(predicate.reshape(-1)[0])


# Regions are run by whoever evaluates operations: another backend passes its own `evaluate`.
CONTROL_FLOW: dict[str, Callable[[Operation, Mapping[Tensor, Array], Evaluate], list[Array]]] = {
    "if": run_if,
    "for": run_for,
    "while": run_while,
}
