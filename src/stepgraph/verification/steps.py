"""Whole steps: the loss, gradients and what became of each variable, beside float64.

Each step starts from the device's own state, so that one step's rounding is not the next one's
error. How far a correct device may be off depends on the network and cannot be derived from its
operations; it is measured instead: the same step is computed by NumPy in float32, and in float64
from variables and feeds changed by `NUDGE` rounding errors each. What these change, element by
element, is what a correct device may be off by, times `MARGIN`, beside the rounding of the result
itself. Single elements may jump (Adam's first step takes a gradient's sign), so several such
changes are made, as large as the sum of a device's rounding errors is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stepgraph.backends.executable import Executable
from stepgraph.backends.reference.interpreter import evaluate
from stepgraph.compiler.pipeline import compile_program
from stepgraph.graph.definition import Array
from stepgraph.graph.dtypes import DType, float64
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Operation
from stepgraph.graph.tensor import Tensor
from stepgraph.verification.comparing import compare_norms
from stepgraph.verification.conditions import ROUNDOFF, widened
from stepgraph.verification.report import QuantityCheck

NUDGE = 16.0
MARGIN = 10.0
_PATTERNS = 4


@dataclass(frozen=True)
class Step:
    """A step in the words of a graph.

    Attributes:
        graph: the user's.
        feeds: values of its placeholders.
        targets: what it returns.
        operations: what must also happen.
        results: names of the targets.
        gradients: name of a variable to its gradient.
        kinds: name of a variable to what it is called in reports.
    """

    graph: Graph
    feeds: Mapping[Tensor, Array]
    targets: Sequence[Tensor]
    operations: Sequence[Operation]
    results: Sequence[str]
    gradients: Mapping[str, Tensor]
    kinds: Mapping[str, str]


class Witness:
    """The step by NumPy in one float dtype, as a function of feeds and variables."""

    def __init__(self, step: Step, float_dtype: DType | None) -> None:
        steering = {t.name: a for t, a in step.feeds.items() if t.dtype.is_bool and a.size == 1}
        self.program = compile_program(
            step.graph,
            {t: np.shape(a) for t, a in step.feeds.items()},
            [*step.targets, *step.gradients.values()],
            step.operations,
            values=steering,
            float_dtype=float_dtype,
        )
        self.count = len(step.targets)
        self.names = list(step.gradients)

    def __call__(
        self, feeds: Mapping[str, Array], variables: Mapping[str, Array]
    ) -> dict[tuple[str, str], Array]:
        """Results, gradients and new values, by group and name."""
        program = self.program
        values: dict[Tensor, Array] = {}
        for given, tensors in ((feeds, program.feeds), (variables, program.variables)):
            for name, tensor in tensors.items():
                values[tensor] = np.asarray(given[name]).astype(tensor.dtype.numpy)
        evaluate(program.operations(), values, keep=program.results())
        found: dict[tuple[str, str], Array] = {}
        for position, tensor in enumerate(program.targets):
            if position < self.count:
                found["result", str(position)] = values[tensor]
            else:
                found["gradient", self.names[position - self.count]] = values[tensor]
        for name, tensor in program.updates.items():
            found["variable", name] = values[tensor]
        return found


def check_steps(step: Step, device: str, steps: int) -> list[QuantityCheck]:
    """Runs steps on a device and judges each; the device's state moves on.

    Args:
        step: what.
        device: where; its variables have their values there already.
        steps: how many.
    """
    graph = step.graph
    real = graph.compile(
        {t: np.shape(a) for t, a in step.feeds.items()},
        step.targets,
        step.operations,
        device=device,
    )
    gradients = None
    if step.gradients:
        gradients = graph.compile(
            {t: np.shape(a) for t, a in step.feeds.items()},
            list(step.gradients.values()),
            device=device,
        )
    exact, rounded = Witness(step, float64), Witness(step, None)
    checks = []
    for number in range(steps):
        before = values_of(graph, device)
        found = _on_device(step, real, gradients, before, device)
        checks += _judge(number, step, found, before, exact, rounded)
    return checks


def values_of(graph: Graph, device: str) -> dict[str, Array]:
    """All variables' values on a device."""
    return {name: graph.get_value(name, device) for name in graph.variables}


def _on_device(
    step: Step,
    real: Executable,
    gradients: Executable | None,
    before: Mapping[str, Array],
    device: str,
) -> dict[tuple[str, str], Array]:
    found: dict[tuple[str, str], Array] = {}
    if gradients is not None:
        # This program changes no variable, except that it may count a random step.
        arrays = gradients.run(step.feeds)
        found.update({("gradient", n): a for n, a in zip(step.gradients, arrays, strict=True)})
        for name, value in before.items():
            if not np.array_equal(step.graph.get_value(name, device), value, equal_nan=True):
                step.graph.set_value(name, value, device)
    for position, array in enumerate(real.run(step.feeds)):
        found["result", str(position)] = array
    after = values_of(step.graph, device)
    found.update({("variable", name): array for name, array in after.items()})
    return found


def _judge(
    number: int,
    step: Step,
    found: Mapping[tuple[str, str], Array],
    before: Mapping[str, Array],
    exact: Witness,
    rounded: Witness,
) -> list[QuantityCheck]:
    feeds = {t.name: a for t, a in step.feeds.items()}
    truth = exact(feeds, before)
    float32 = rounded(feeds, before)
    others = []
    rng = np.random.default_rng(number)
    for _ in range(_PATTERNS):
        near = _nudged(before, rng)
        others.append((near, exact(_nudged(feeds, rng), near)))
    checks = []
    for key, array in found.items():
        group, name = key
        # A variable that the step leaves alone must stay as it is.
        wanted = truth.get(key, widened(before[name]) if group == "variable" else None)
        assert wanted is not None
        # What counts of a variable is its change: the rest of it is no result of the step.
        base = before[name].astype(float) if group == "variable" else np.zeros(())
        tolerance = 0.0
        if array.dtype.kind == "f" and key in truth:
            spread = NUDGE * np.abs(float32[key] - wanted)
            for start, other in others:
                origin = start[name] if group == "variable" else base
                off = other[key] - origin - (wanted - base)
                spread = np.maximum(spread, np.abs(off))
            unit = ROUNDOFF[array.dtype.name]
            tolerance = MARGIN * _length(spread) + 2 * unit * _length(wanted)
        kind = step.kinds.get(name, "variable") if group == "variable" else group
        label = step.results[int(name)] if group == "result" else name
        checks.append(
            QuantityCheck(
                number,
                kind,
                label,
                compare_norms(array, wanted, tolerance),
                _length(wanted - base) if array.dtype.kind == "f" else 0.0,
            )
        )
    return checks


def _nudged(values: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Floats changed by some of their dtype's rounding errors, up or down."""
    found = {}
    for name, value in values.items():
        if value.dtype.kind == "f":
            signs = rng.integers(0, 2, value.shape) * 2.0 - 1.0
            found[name] = widened(value) * (1.0 + NUDGE * ROUNDOFF[value.dtype.name] * signs)
        else:
            found[name] = value
    return found


def _length(values: Array) -> float:
    flat = np.asarray(values, float).reshape(-1)
    return float(np.linalg.norm(flat[np.isfinite(flat)]))
