"""What people call: a model or a graph on a device."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from stepgraph.errors import FeedError, GraphError, describe
from stepgraph.graph.definition import Array
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Operation
from stepgraph.graph.tensor import Tensor
from stepgraph.verification.operations import Progress, check_operations, pure_step
from stepgraph.verification.report import Report
from stepgraph.verification.reproduction import write_reproduction
from stepgraph.verification.steps import Step, check_steps, values_of

if TYPE_CHECKING:
    from stepgraph.models import Model

_Path = str | os.PathLike[str]


def verify(
    model: Model,
    x: Any,
    y: Any,
    *,
    device: str | None = None,
    steps: int = 2,
    isolated: bool = False,
    reproduction: _Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Holds a model's training step on a device against float64.

    Each operation that the device runs is judged by the float64 result of that operation on the
    inputs it had there, with a tolerance that follows from the op and the dtype (see
    `stepgraph.verification.conditions`). Then whole steps are run as `fit` runs them, and the loss,
    every gradient, every variable's change are judged likewise. The model itself stays as it is.

    Args:
        model: compiled.
        x: one batch of inputs, as for `fit`; a few samples are enough.
        y: its labels.
        device: to be checked; the model's own without it. The model need not be compiled for it.
        steps: whole steps to run; 0 for operations alone.
        isolated: compile each operation by itself. It takes longer, but where a device ends the
            process, `progress` has said which operation it was.
        reproduction: file to write when an operation diverges: ``python FILE`` repeats it.
        progress: told before each operation: its number, how many there are, the operation.

    Returns:
        A `Report`: `agrees`, `first` (the first operation that diverges), and everything compared.

    Raises:
        GraphError: the model is not compiled.
        UnsupportedError: the device is absent or cannot run the step.

    Example:
        >>> import numpy as np
        >>> import stepgraph as sg
        >>> model = sg.Sequential([sg.Input((4,)), sg.layers.Dense(2)])
        >>> model.compile("sgd", "mse")
        >>> report = sg.verify(model, np.ones((3, 4)), np.ones((3, 2)), device="reference", steps=1)
        >>> report.agrees, report.first
        (True, None)
    """
    if model.optimizer is None:
        raise GraphError(
            describe("verify", f"model '{model.name}' is not compiled", fix="model.compile(...)")
        )
    model.ensure_network(x)
    batch = model._preparer()(x, y, None)
    runtime = model.runtime
    runtime.acquire()
    step = runtime.step("train", (False,) * len(model.network.outputs))
    executable = step.executable
    trained = set(runtime.gradients)
    weights = set(runtime.paths.values())
    kinds = {
        name: "weight"
        if name in trained
        else "moving statistic"
        if name in weights
        else "optimizer state"
        for name in runtime.graph.variables
    }
    return _run(
        Step(
            runtime.graph,
            dict(zip(step.feeds, [*batch.x, *batch.y], strict=True)),
            executable.targets,
            executable._operations,
            _result_names(runtime.objective, len(executable.targets)),
            dict(runtime.gradients),
            kinds,
        ),
        subject=f"model '{model.name}'",
        device=device or runtime.device,
        start=values_of(runtime.graph, runtime.device),
        steps=steps,
        isolated=isolated,
        reproduction=reproduction,
        progress=progress,
    )


def verify_graph(
    graph: Graph,
    feeds: Mapping[Tensor, Any] | None = None,
    targets: Sequence[Tensor] = (),
    operations: Sequence[Operation] = (),
    *,
    device: str = "cpu",
    steps: int = 1,
    isolated: bool = False,
    reproduction: _Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Holds a graph on a device against float64; see `verify`.

    Args:
        graph: any; its variables start from their values on the device and are put back.
        feeds: a value for each placeholder needed.
        targets: tensors that a run returns.
        operations: operations that must also happen, such as assigns.
        device: to be checked.
        steps: whole runs; 0 for operations alone.
        isolated: compile each operation by itself.
        reproduction: file to write when an operation diverges.
        progress: told before each operation.

    Example:
        >>> import numpy as np
        >>> import stepgraph as sg
        >>> graph = sg.Graph()
        >>> x = graph.placeholder((2, 3))
        >>> report = verify_graph(graph, {x: np.ones((2, 3))}, [graph.softmax(x)])
        >>> print(report)
        graph 'graph' on cpu: 1 operation agrees; 1 figure agrees in 1 whole step
    """
    given = {}
    for tensor, value in (feeds or {}).items():
        if tensor.graph is not graph:
            raise FeedError(describe("verify_graph", f"{tensor!r} is no placeholder of the graph"))
        given[tensor] = np.asarray(value).astype(tensor.dtype.numpy)
    return _run(
        Step(graph, given, targets, operations, [t.name for t in targets], {}, {}),
        subject=f"graph '{graph.name}'",
        device=device,
        start=values_of(graph, device),
        steps=steps,
        isolated=isolated,
        reproduction=reproduction,
        progress=progress,
    )


def _run(
    step: Step,
    *,
    subject: str,
    device: str,
    start: Mapping[str, Array],
    steps: int,
    isolated: bool,
    reproduction: _Path | None,
    progress: Progress | None,
) -> Report:
    report = Report(subject, device)
    targets = [*step.targets, *step.gradients.values()]
    pure = pure_step(step.graph, step.feeds, targets, step.operations, device)
    given = pure.given({t.name: a for t, a in step.feeds.items()}, start)
    report.operations, values = check_operations(pure, given, device, isolated, progress)
    if report.first is not None and reproduction is not None:
        operation = pure.operations()[report.first.number]
        report.reproduction = write_reproduction(
            reproduction, report.first, operation, values, device
        )
    if steps:
        with _borrowed(step.graph, device, start):
            report.quantities = check_steps(step, device, steps)
    return report


@contextmanager
def _borrowed(graph: Graph, device: str, start: Mapping[str, Array]) -> Iterator[None]:
    """Variables on a device begin at `start`; afterwards they are as they were."""
    present = device in graph.states
    before = values_of(graph, device) if present else {}
    for name, value in start.items():
        graph.set_value(name, value, device)
    try:
        yield
    finally:
        if present:
            for name, value in before.items():
                graph.set_value(name, value, device)
        else:
            del graph.states[device]


def _result_names(objective: Any, count: int) -> list[str]:
    """What a training step's targets are called: losses, then the numbers that metrics are of."""
    losses = len(objective.metrics_names) - len(objective.named)
    names = list(objective.metrics_names[:losses])
    for name, metric in objective.named:
        parts = [name] if metric.parts == 1 else [f"{name}[{i}]" for i in range(metric.parts)]
        names += parts
    assert len(names) == count, (names, count)
    return names
