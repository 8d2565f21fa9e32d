"""Memory: what enters a graph, and the state it keeps (MPSGraphMemoryOps)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from stepgraph.errors import GraphError, ShapeError, describe, nearest
from stepgraph.graph.core import GraphCore, as_array
from stepgraph.graph.definition import (
    Array,
    Gradients,
    Grads,
    Misuse,
    OpDefinition,
    Sample,
    bad_dtype,
)
from stepgraph.graph.dtypes import DType, DTypeLike, as_dtype, float32
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import (
    Shape,
    ShapeLike,
    Spec,
    as_shape,
    bad_shape,
    format_shape,
    known_sizes,
    same_shape,
)
from stepgraph.graph.tensor import Tensor, TensorLike, Variable


def _source_infer(*, shape: Shape, dtype: DType, **_: Any) -> Spec:
    return Spec(shape, dtype)


def _constant_infer(*, value: Array) -> Spec:
    return Spec(value.shape, as_dtype(value.dtype))


def _constant_reference(*, value: Array) -> Array:
    return value


def _read_infer(variable: Spec) -> Spec:
    return variable


def _read_gradient(op: Operation, grads: Grads) -> Gradients:
    # A read behind an assign is a fresh leaf: state is not differentiated through.
    return [None if op.control_inputs else grads[0]]


def _assign_infer(variable: Spec, value: Spec) -> tuple[Spec, ...]:
    if variable.dtype != value.dtype:
        raise bad_dtype(
            f"the variable is {variable.dtype}, the value {value.dtype}",
            fix="cast the value with graph.cast",
        )
    if not same_shape(variable.shape, value.shape):
        raise bad_shape(
            f"the variable has shape {format_shape(variable.shape)}, "
            f"the value {format_shape(value.shape)}",
            expected="equal shapes",
            fix="graph.reshape the value, e.g. after a reduction that kept its axes",
        )
    return ()


def _constant_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample((2.5,), label="scalar")
    yield Sample((rng.standard_normal((2, 3)).astype("float32").tolist(),), label="list")
    yield Sample((7,), {"shape": (2, 2), "dtype": "int64"}, label="filled")
    yield Sample(([True, False],), label="bool")


def _constant_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.constant([1.0, 2.0], shape=(3,)), "cannot fill")


def _assign_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.assign(g.variable(np.zeros(3, "float32")), g.constant([1.0, 2.0])),
        r"variable has shape \(3,\), the value \(2,\)",
    )
    yield Misuse(
        lambda g: g.assign(g.placeholder((2,)), 1.0),  # type: ignore[arg-type]
        "is no variable",
        GraphError,
    )


PLACEHOLDER = OpDefinition(
    "placeholder",
    inputs=(),
    infer=_source_infer,
    reference=None,
    pure=False,
    mpsgraph="placeholderWithShape:dataType:name:",
)
PARAMETER = OpDefinition("parameter", inputs=(), infer=_source_infer, reference=None, pure=False)
VARIABLE = OpDefinition(
    "variable",
    inputs=(),
    infer=_source_infer,
    reference=None,
    pure=False,
    mpsgraph="variableWithData:shape:dataType:name:",
)
CONSTANT = OpDefinition(
    "constant",
    inputs=(),
    infer=_constant_infer,
    reference=_constant_reference,
    mpsgraph="constantWithData:shape:dataType:",
    samples=_constant_samples,
    misuses=_constant_misuses,
)
READ = OpDefinition(
    "read",
    inputs=("variable",),
    infer=_read_infer,
    reference=None,
    gradient=_read_gradient,
    pure=False,
    mpsgraph="readVariable:name:",
)
ASSIGN = OpDefinition(
    "assign",
    inputs=("variable", "value"),
    infer=_assign_infer,
    reference=None,
    not_differentiable="an assign has no output",
    pure=False,
    mpsgraph="assignVariable:withValueOfTensor:name:",
    misuses=_assign_misuses,
)

DEFINITIONS = (PLACEHOLDER, PARAMETER, VARIABLE, CONSTANT, READ, ASSIGN)


class MemoryOps(GraphCore):
    """Placeholders, constants and variables."""

    def placeholder(
        self, shape: ShapeLike, dtype: DTypeLike = float32, name: str | None = None
    ) -> Tensor:
        """A value that every run must be fed.

        Args:
            shape: sizes; None for one known only at compile time, such as the batch.
            dtype: element type.
            name: label in printed graphs and errors; made unique when taken.

        Returns:
            Tensor of that shape and dtype.

        Raises:
            ShapeError: a size is no size.

        Source: MPSGraph ``placeholderWithShape:dataType:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.placeholder((None, 32, 32, 3), name="images")
            <Tensor 'images' float32 (?, 32, 32, 3)>
        """
        attributes = {"shape": as_shape(shape, "placeholder"), "dtype": as_dtype(dtype)}
        with self._inside(self.block):
            tensor = self._one(PLACEHOLDER, (), attributes, name=name)
        self.placeholders.append(tensor)
        return tensor

    def constant(
        self,
        value: TensorLike,
        shape: ShapeLike | None = None,
        dtype: DTypeLike | None = None,
        name: str | None = None,
    ) -> Tensor:
        """A value fixed at graph building.

        Args:
            value: number, list or array; copied.
            shape: fills this shape with a scalar `value`.
            dtype: element type; Python floats become float32 and ints int32 without it.
            name: label in printed graphs and errors.

        Returns:
            Tensor of the array's shape.

        Raises:
            ShapeError: `value` cannot fill `shape`.
            DTypeError: `value` is no number or does not fit `dtype` exactly.

        Source: MPSGraph ``constantWithData:shape:dataType:``,
        ``constantWithScalar:shape:dataType:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.run(targets=[graph.constant(1.5, shape=(2,))])[0]
            array([1.5, 1.5], dtype=float32)
        """
        if isinstance(value, Tensor):
            return value
        array = as_array(value, None if dtype is None else as_dtype(dtype))
        if shape is not None:
            wanted = known_sizes(shape, "constant")
            try:
                # A view of one element: a filled constant takes no memory.
                array = np.broadcast_to(array, wanted)
            except ValueError:
                raise ShapeError(
                    describe(
                        "constant",
                        f"a value of shape {format_shape(array.shape)} "
                        f"cannot fill {format_shape(wanted)}",
                        fix="give a scalar, or drop shape=",
                        created_at=self._here(),
                    )
                ) from None
        array.flags.writeable = False  # as_array made a copy
        return self._one(CONSTANT, (), {"value": array}, name=name)

    def variable(
        self,
        initial: TensorLike,
        shape: ShapeLike | None = None,
        dtype: DTypeLike | None = None,
        name: str | None = None,
    ) -> Variable:
        """State that lives on the device between runs.

        As an operand it stands for its value at the start of the run; inside a
        `control_dependency` on an assign to it, for the assigned value.

        Args:
            initial: value before anything was assigned; a number fills `shape`.
            shape: sizes, all known; taken from `initial` without it.
            dtype: element type.
            name: label, and the name in checkpoints; made unique when taken.

        Returns:
            A `Variable`, usable wherever a tensor is.

        Source: MPSGraph ``variableWithData:shape:dataType:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.variable(0.0, shape=(3,), name="bias")
            <Variable 'bias' float32 (3,)>
        """
        array = as_array(initial, None if dtype is None else as_dtype(dtype))
        filled = array.ndim == 0
        if shape is not None:
            wanted = known_sizes(shape, "variable")
            if array.ndim and array.shape != wanted:
                raise ShapeError(
                    describe(
                        "variable",
                        f"the initial value has shape {format_shape(array.shape)}",
                        expected=f"shape {format_shape(wanted)}, or a scalar to fill it",
                        created_at=self._here(),
                    )
                )
            array = np.broadcast_to(array, wanted)
        # One value everywhere is kept once (`as_array` made a copy of it).
        array = array if filled else np.array(array)
        array.flags.writeable = False
        with self._inside(self.block):
            operation = self._add(
                VARIABLE,
                (),
                {"shape": array.shape, "dtype": as_dtype(array.dtype)},
                name=name,
            )
        variable = Variable(operation, array.shape, as_dtype(array.dtype), array)
        operation.outputs = (variable,)
        self.variables[variable.name] = variable
        return variable

    def get_variable(self, name: str) -> Variable:
        """The variable of that name.

        Raises:
            GraphError: there is none; the message lists near names.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> _ = graph.variable([1.0, 2.0], name="bias")
            >>> graph.get_variable("bias")
            <Variable 'bias' float32 (2,)>
        """
        if name not in self.variables:
            raise GraphError(
                describe("get_variable", f"no variable '{name}'", fix=nearest(name, self.variables))
            )
        return self.variables[name]

    def read(self, variable: Variable, name: str | None = None) -> Tensor:
        """The variable's value: from the start of the run, or as assigned.

        It is the value from the start unless an assign to the variable is ordered before by
        `control_dependency`. The assigned value is state: no gradient flows through it.

        Source: MPSGraph ``readVariable:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> v = graph.variable(1.0, name="v")
            >>> update = graph.assign(v, v + 1.0)
            >>> after = graph.control_dependency([update], lambda: graph.read(v))
            >>> [float(x) for x in graph.run(targets=[v, after], operations=[update])]
            [1.0, 2.0]
        """
        _require_variable("read", variable)
        before = _assign_before(variable, self._control)
        # The assign comes first; it may stand in a block that the others keep alive.
        control = (before, *(op for op in self._control if op is not before)) if before else ()
        with self._ordered_after(control):
            return self._one(READ, (variable,), name=name)

    def assign(self, variable: Variable, value: TensorLike, name: str | None = None) -> Operation:
        """Gives a variable a new value at the end of the run.

        Args:
            variable: what to change.
            value: the new value, of the variable's shape and dtype.
            name: label.

        Returns:
            The operation, to be named among a run's operations or in a control dependency.

        Raises:
            GraphError: `variable` is no variable.
            ShapeError, DTypeError: the value does not fit.

        Source: MPSGraph ``assignVariable:withValueOfTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> counter = graph.variable(0, name="counter")
            >>> step = graph.assign(counter, counter + 1)
            >>> for _ in range(3):
            ...     _ = graph.run(targets=[], operations=[step])
            >>> int(graph.run(targets=[counter])[0])
            3
        """
        _require_variable("assign", variable)
        return self._add(ASSIGN, (variable, self.as_tensor(value, variable.dtype)), name=name)


def _require_variable(what: str, variable: object) -> None:
    if not isinstance(variable, Variable):
        raise GraphError(
            describe(
                what,
                f"{variable!r} is no variable",
                expected="what graph.variable(...) returned",
            )
        )


def _assign_before(variable: Tensor, control: tuple[Operation, ...]) -> Operation | None:
    """The latest assign to `variable` that the control inputs imply."""
    seen: set[Operation] = set()
    stack = list(control)
    found: Operation | None = None
    while stack:
        operation = stack.pop()
        if operation in seen:
            continue
        seen.add(operation)
        assigns = operation.type == "assign" and operation.inputs[0] is variable
        if assigns and (found is None or operation.serial > found.serial):
            found = operation
        stack.extend(operation.control_inputs)
        stack.extend(t.operation for t in operation.inputs)
        for region in operation.regions:
            stack.extend(region.operations)
    return found
