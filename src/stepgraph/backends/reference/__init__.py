"""The oracle: every op by its NumPy reference, one after the other; runs everywhere, slowly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stepgraph.backends.base import StepTime
from stepgraph.backends.reference.interpreter import evaluate
from stepgraph.compiler.pipeline import PASSES, compile_program
from stepgraph.compiler.program import Program
from stepgraph.errors import ShapeError, UnsupportedError, describe
from stepgraph.graph.definition import Array, OpDefinition
from stepgraph.graph.dtypes import DTYPES, DType
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import Shape, format_shape
from stepgraph.graph.tensor import Tensor, Variable


class ReferenceState:
    """Variables as NumPy arrays."""

    def __init__(self, variables: Mapping[str, Variable], float_dtype: DType | None) -> None:
        self._variables = variables
        self._float_dtype = float_dtype
        self.values: dict[str, Array] = {}

    def current(self, name: str) -> Array:
        """The value itself, not a copy."""
        if name not in self.values:
            self.write(name, self._variables[name].initial)
        return self.values[name]

    def read(self, name: str) -> Array:
        """A copy of a variable's value."""
        return self.current(name).copy()

    def write(self, name: str, value: Array) -> None:
        """Gives a variable a value."""
        variable = self._variables[name]
        array = np.asarray(value)
        if array.shape != variable.shape:
            raise ShapeError(
                describe(
                    "set_value",
                    f"variable '{name}' has shape {format_shape(variable.shape)}, "
                    f"the value {format_shape(array.shape)}",
                )
            )
        dtype = variable.dtype.numpy
        if self._float_dtype and dtype == np.float32:
            dtype = self._float_dtype.numpy
        self.values[name] = np.array(array, dtype)


class ReferenceRunner:
    """Evaluates a program operation by operation."""

    def __init__(self, program: Program, state: ReferenceState) -> None:
        self._program = program
        self._state = state
        self._operations = program.operations()

    planned_bytes = 0
    held_bytes = 0

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Runs once."""
        return self._run(feeds, None)

    def profile(self, feeds: Mapping[str, Array]) -> list[StepTime]:
        """Runs once and says what each operation took."""
        times: list[StepTime] = []
        self._run(feeds, times)
        return times

    def _run(self, feeds: Mapping[str, Array], times: list[StepTime] | None) -> list[Array]:
        program, state = self._program, self._state
        values: dict[Tensor, Array] = {}
        for name, tensor in program.feeds.items():
            values[tensor] = feeds[name].astype(tensor.dtype.numpy, copy=False)
        for name, tensor in program.variables.items():
            values[tensor] = state.current(name)
        evaluate(self._operations, values, keep=program.results(), times=times)
        updates = {n: np.array(values[t]) for n, t in program.updates.items()}
        results = [np.array(values[t]) for t in program.targets]
        state.values.update(updates)
        return results

    def describe(self) -> str:
        """The program as text."""
        return str(self._program)


class ReferenceDevice:
    """Runs the op definitions' own NumPy meaning."""

    name = "reference"
    overlaps = False
    defers = False

    def unavailable(self) -> str | None:
        """It can be used everywhere."""
        return None

    def summary(self) -> str:
        """One line for people."""
        return f"NumPy {np.__version__}, op by op: slow, for checking"

    def supports(self, definition: OpDefinition) -> bool:
        """Every op has a reference, or is control flow."""
        return True

    def new_state(self, variables: Mapping[str, Variable], variant: str) -> ReferenceState:
        """Fresh values."""
        return ReferenceState(variables, _float_dtype(variant))

    def feed_array(self, shape: Sequence[int], dtype: DType) -> Array:
        """An array; a run copies it to where it computes."""
        return np.empty(tuple(shape), dtype.numpy)

    def prepare(
        self,
        graph: Graph,
        feeds: Mapping[Tensor, Shape],
        targets: Sequence[Tensor],
        operations: Sequence[Operation],
        values: Mapping[str, Array],
        state: Any,
        variant: str,
        *,
        disable: Sequence[str] = (),
        threads: int | None = None,
    ) -> ReferenceRunner:
        """Compiles with the common passes only."""
        del threads  # NumPy decides
        program = compile_program(
            graph,
            feeds,
            targets,
            operations,
            values=values,
            float_dtype=_float_dtype(variant),
            disable=[name for name in disable if name in PASSES],
        )
        return ReferenceRunner(program, state)


def _float_dtype(variant: str) -> DType | None:
    if not variant:
        return None
    if variant not in ("float32", "float64"):
        raise UnsupportedError(
            describe("device", f"no variant 'reference:{variant}'", expected="reference:float64")
        )
    return None if variant == "float32" else DTYPES[variant]


DEVICE = ReferenceDevice()
