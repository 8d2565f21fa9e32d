"""A step operation by operation: each judged by float64 on the inputs that it had."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stepgraph.backends.base import get_device
from stepgraph.compiler.pipeline import compile_program
from stepgraph.compiler.program import Program
from stepgraph.graph.copying import copy_operation
from stepgraph.graph.definition import Array
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import Shape
from stepgraph.graph.tensor import Tensor
from stepgraph.verification.comparing import compare
from stepgraph.verification.conditions import expect, rule_of
from stepgraph.verification.report import Comparison, OperationCheck, spec_text
from stepgraph.verification.single import single_graph

# Called before an operation is run by itself: its number, how many there are, the operation.
Progress = Callable[[int, int, Operation], None]


@dataclass(frozen=True)
class PureStep:
    """A step as a function: variables are fed, and what becomes of them is returned.

    Attributes:
        graph: of placeholders, constants and the operations of a compiled program.
        feeds: placeholders by the name of the feed they stand for.
        variables: placeholders by the name of the variable they stand for.
        targets: what the step returns.
        updates: variables' new values by name.
    """

    graph: Graph
    feeds: dict[str, Tensor]
    variables: dict[str, Tensor]
    targets: list[Tensor]
    updates: dict[str, Tensor]

    def operations(self) -> list[Operation]:
        """What computes, in order."""
        sources = ("placeholder", "constant")
        return [op for op in self.graph.block.operations if op.type not in sources]

    def given(
        self, feeds: Mapping[str, Array], variables: Mapping[str, Array]
    ) -> dict[Tensor, Array]:
        """The placeholders' values."""
        return {
            **{t: feeds[name] for name, t in self.feeds.items()},
            **{t: variables[name] for name, t in self.variables.items()},
        }


def pure_step(
    graph: Graph,
    feeds: Mapping[Tensor, Array],
    targets: Sequence[Tensor],
    operations: Sequence[Operation],
    device: str,
) -> PureStep:
    """The program that a device would be given, as a function.

    Args:
        graph: the user's.
        feeds: placeholders with the values they will be fed.
        targets: what a run returns.
        operations: what must also happen.
        device: whose choice of ops counts: what it does not lower is decomposed.
    """
    shapes: dict[Tensor, Shape] = {t: np.shape(a) for t, a in feeds.items()}
    steering = {t.name: np.asarray(a) for t, a in feeds.items() if t.dtype.is_bool and a.size == 1}
    program = compile_program(
        graph,
        shapes,
        targets,
        operations,
        values=steering,
        supports=get_device(device)[0].supports,
    )
    return _flattened(program)


def _flattened(program: Program) -> PureStep:
    graph = Graph(program.graph.name)
    mapping: dict[Tensor, Tensor] = {}
    for operation in program.operations():
        if operation.type in ("placeholder", "variable"):
            tensor = operation.output
            with graph._created_at(operation.created_at):
                made = graph.placeholder(tensor.shape, tensor.dtype, name=operation.name)
            mapping[tensor] = made
        else:
            outputs = copy_operation(graph, operation, mapping)
            mapping.update(zip(operation.outputs, outputs, strict=True))
    return PureStep(
        graph,
        {n: mapping[t] for n, t in program.feeds.items() if t in mapping},
        {n: mapping[t] for n, t in program.variables.items() if t in mapping},
        [mapping[t] for t in program.targets],
        {n: mapping[t] for n, t in program.updates.items()},
    )


def device_values(
    step: PureStep, given: Mapping[Tensor, Array], device: str
) -> dict[Tensor, Array]:
    """Every value of a step on a device, from one run that returns them all."""
    wanted = [t for op in step.operations() for t in op.outputs]
    if not wanted:
        return dict(given)
    executable = step.graph.compile(list(given), wanted, device=device)
    return {**given, **dict(zip(wanted, executable.run(given), strict=True))}


def alone(operation: Operation, values: Mapping[Tensor, Array], device: str) -> list[Array]:
    """An operation's outputs, compiled by itself."""
    single = single_graph(operation)
    given = {feed: values[source] for source, feed in single.feeds.items()}
    return single.graph.compile(list(given), single.outputs, device=device).run(given)


def check_operations(
    step: PureStep,
    given: Mapping[Tensor, Array],
    device: str,
    isolated: bool = False,
    progress: Progress | None = None,
) -> tuple[list[OperationCheck], dict[Tensor, Array]]:
    """Checks every operation of a step.

    Args:
        step: what.
        given: values of its placeholders.
        device: where.
        isolated: compile each operation by itself instead of all in one program.
        progress: told before each.

    Returns:
        A check per operation, and the device's values.
    """
    operations = step.operations()
    values = dict(given) if isolated else device_values(step, given, device)
    checks = []
    for number, operation in enumerate(operations):
        if progress is not None:
            progress(number, len(operations), operation)
        if isolated:
            found = alone(operation, values, device)
            values.update(zip(operation.outputs, found, strict=True))
        checks.append(check_operation(number, operation, values))
    return checks, values


def check_operation(
    number: int, operation: Operation, values: Mapping[Tensor, Array]
) -> OperationCheck:
    """Judges one operation by a device's values of its inputs and outputs."""
    inputs = [value_of(t, values) for t in operation.inputs]
    expected, tolerances = expect(operation, inputs)
    worst: Comparison | None = None
    for tensor, wanted, tolerance in zip(operation.outputs, expected, tolerances, strict=True):
        found = compare(values[tensor], wanted, tolerance, tensor.dtype)
        if worst is None or found.ratio > worst.ratio:
            worst = found
    assert worst is not None
    exact = all(not t.dtype.is_float for t in operation.outputs)
    return OperationCheck(
        number,
        operation.name,
        operation.type,
        operation.created_at,
        tuple(spec_text(t.name, array) for t, array in zip(operation.inputs, inputs, strict=True)),
        tuple(spec_text("", values[t]) for t in operation.outputs),
        "moved" if exact else rule_of(operation.definition).name,
        worst,
    )


def value_of(tensor: Tensor, values: Mapping[Tensor, Array]) -> Array:
    """A tensor's value on a device; a constant's is its own."""
    if tensor.operation.type == "constant":
        value: Array = tensor.operation.attributes["value"]
        return value
    return values[tensor]
