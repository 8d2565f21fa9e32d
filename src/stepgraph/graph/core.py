"""How a graph grows: the part of `Graph` that every op family builds on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from stepgraph.errors import DTypeError, GraphError, describe
from stepgraph.graph.definition import Array, OpDefinition
from stepgraph.graph.dtypes import DType, as_dtype, float32, float64, int32, int64
from stepgraph.graph.operation import Block, Operation
from stepgraph.graph.shapes import Axes, Misfit, Spec, broadcast_shapes, normalize_axes
from stepgraph.graph.tensor import Tensor, TensorLike, Variable

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph

_PACKAGE = str(Path(__file__).resolve().parent.parent)


def _caller() -> str:
    """The innermost source line outside this package: where the user asked for the operation."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    code = frame.f_code
    return f"{Path(code.co_filename).name}:{frame.f_lineno}, in {code.co_name}"


def as_array(value: TensorLike, dtype: DType | None = None) -> Array:
    """A value given by a user as an array of its own.

    Args:
        value: number, list or array.
        dtype: element type wanted; without it floats become float32, ints int32 and arrays keep
            their own (float64 arrays too).

    Raises:
        DTypeError: the value is no number, or does not fit `dtype` exactly (300 in uint8, 0.5 in
            an integer).

    Example:
        >>> as_array([1, 2]).dtype, as_array(1, as_dtype("bool"))
        (dtype('int32'), array(True))
    """
    array = np.asarray(value)
    if array.dtype == object:
        raise DTypeError(
            describe(
                "constant",
                f"{type(value).__name__} is no number or array",
                got={"value": repr(value)[:80]},
                expected="a number, a list of numbers or an array",
                created_at=_caller(),
            )
        )
    found = as_dtype(array.dtype)
    if dtype is None:
        dtype = found
        if not isinstance(value, np.ndarray | np.generic):
            dtype = {float64: float32, int64: int32}.get(found, found)
    with np.errstate(invalid="ignore", over="ignore"):
        converted = array.astype(dtype.numpy)
    if dtype.kind != "float" and not np.array_equal(converted, array):
        raise DTypeError(
            describe(
                "constant",
                f"{repr(value)[:80]} does not fit {dtype} exactly",
                fix="cast the tensor operand, or give a value of its dtype",
                created_at=_caller(),
            )
        )
    return converted


class GraphCore:
    """Owner of operations; op families add builder methods to it.

    A graph only describes. Nothing runs until it is compiled for a device.
    """

    def __init__(self, name: str = "graph") -> None:
        self.name = name
        self.block = Block()
        self.variables: dict[str, Variable] = {}
        self.placeholders: list[Tensor] = []
        self._current = self.block
        self._control: tuple[Operation, ...] = ()
        self._scopes: list[str] = []
        self._names: dict[str, int] = {}
        self._serial = 0
        self._scalars: dict[tuple[str, DType], Tensor] = {}
        self._origin: str | None = None
        # Random ops built so far, and the counter they draw from by default; see ops/random.py.
        self._streams = 0
        self._random_step: Variable | None = None
        # Tensors whose gradient is being asked for, while `gradients` runs: a rule that gives the
        # total derivative of several operations at once must not hide a partial one from them.
        self.wanted: frozenset[Tensor] = frozenset()
        # One value of each variable per device; filled by the backends.
        self.states: dict[str, Any] = {}

    # -- adding operations ---------------------------------------------------------------------

    @property
    def _graph(self) -> Graph:
        """This graph with the methods of every family, for a type checker."""
        return cast("Graph", self)

    def _add(
        self,
        definition: OpDefinition,
        inputs: Sequence[Tensor],
        attributes: dict[str, Any] | None = None,
        *,
        name: str | None = None,
        regions: tuple[Block, ...] = (),
        block: Block | None = None,
    ) -> Operation:
        """Checks an operation by its inference and appends it to the current block."""
        attributes = attributes or {}
        block = block or self._current
        tensors = tuple(self._operand(definition, t) for t in inputs)
        specs = [t.spec for t in tensors]
        extra = {"regions": regions} if definition.has_regions else {}
        try:
            found = definition.infer(*specs, **attributes, **extra)
        except Misfit as misfit:
            raise self._worded(misfit, definition, tensors, name) from None
        operation = Operation(
            self._graph,
            definition,
            tensors,
            attributes,
            self._unique(name or definition.name),
            block,
            self._control,
            regions,
            self._origin or _caller(),
            self._serial,
        )
        self._serial += 1
        outputs = (found,) if isinstance(found, Spec) else found
        operation.outputs = tuple(
            Tensor(operation, i, spec.shape, spec.dtype) for i, spec in enumerate(outputs)
        )
        block.operations.append(operation)
        return operation

    def _add_copy(self, source: Operation, inputs: Sequence[Tensor], name: str) -> Operation:
        """Like `_add` for an operation without regions that another graph has checked.

        Compiler passes copy tens of thousands of operations, nearly all onto inputs of the shapes
        and dtypes that they had: then the outputs are known, and nothing is inferred again.
        """
        if self._control or any(
            new.shape != old.shape or new.dtype is not old.dtype
            for new, old in zip(inputs, source.inputs, strict=False)
        ):
            with self._created_at(source.created_at):
                return self._add(source.definition, inputs, source.attributes, name=name)
        operation = Operation(
            self._graph,
            source.definition,
            tuple(inputs),
            source.attributes,
            self._unique(name),
            self._current,
            (),
            (),
            source.created_at,
            self._serial,
        )
        self._serial += 1
        operation.outputs = tuple(
            Tensor(operation, t.index, t.shape, t.dtype) for t in source.outputs
        )
        self._current.operations.append(operation)
        return operation

    def _one(
        self,
        definition: OpDefinition,
        inputs: Sequence[Tensor],
        attributes: dict[str, Any] | None = None,
        *,
        name: str | None = None,
    ) -> Tensor:
        """Adds an operation with one output and returns that."""
        return self._add(definition, inputs, attributes, name=name).outputs[0]

    def _worded(
        self, misfit: Misfit, definition: OpDefinition, tensors: Sequence[Tensor], name: str | None
    ) -> Exception:
        what = definition.name if name is None else f"{definition.name} '{name}'"
        got = {
            f"{_input_name(definition, i)}": f"'{t.name}' {t.spec}" for i, t in enumerate(tensors)
        }
        return misfit.error(
            describe(
                what,
                misfit.fault,
                got=got,
                expected=misfit.expected,
                fix=misfit.fix,
                created_at=self._origin or _caller(),
            )
        )

    def _operand(self, definition: OpDefinition, tensor: Tensor) -> Tensor:
        """Refuses foreign and out-of-scope tensors; a variable behind an assign is read anew."""
        if not isinstance(tensor, Tensor):
            raise DTypeError(
                describe(
                    definition.name,
                    f"got {type(tensor).__name__} where a tensor is due",
                    got={"value": repr(tensor)[:80]},
                    fix="wrap it with graph.constant",
                    created_at=self._origin or _caller(),
                )
            )
        if tensor.graph is not self:
            raise GraphError(
                describe(
                    definition.name,
                    "an input belongs to another graph",
                    got={"tensor": repr(tensor), "its graph": tensor.graph.name, "this": self.name},
                    fix="build the whole network in one graph, or feed the value to a placeholder",
                    created_at=self._origin or _caller(),
                )
            )
        if not tensor.operation.block.encloses(self._current):
            raise GraphError(
                describe(
                    definition.name,
                    "an input was made inside a control-flow block that is closed",
                    got={"tensor": repr(tensor)},
                    fix="return it from the block and use what if_ / for_loop / while_loop returns",
                    created_at=self._origin or _caller(),
                )
            )
        if (
            self._control
            and isinstance(tensor, Variable)
            and definition.name not in ("assign", "read")
        ):
            return self._graph.read(tensor)
        return tensor

    def _here(self) -> str:
        """The user's source line, for messages."""
        return self._origin or _caller()

    def _unique(self, name: str) -> str:
        full = "/".join([*self._scopes, name]) if self._scopes else name
        count = self._names.get(full, 0)
        self._names[full] = count + 1
        if count == 0:
            return full
        candidate = f"{full}_{count}"
        while candidate in self._names:
            count += 1
            candidate = f"{full}_{count}"
        self._names[full] = count + 1
        self._names[candidate] = 1
        return candidate

    # -- scopes --------------------------------------------------------------------------------

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Prefixes the names of operations built inside with ``name/``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> with graph.name_scope("encoder"):
            ...     x = graph.placeholder((2,), name="x")
            >>> x.name
            'encoder/x'
        """
        self._scopes.append(name)
        try:
            yield
        finally:
            self._scopes.pop()

    @contextmanager
    def _inside(self, block: Block) -> Iterator[Block]:
        """Appends to `block` while open, free of control dependencies."""
        outer, control = self._current, self._control
        self._current, self._control = block, ()
        try:
            yield block
        finally:
            self._current, self._control = outer, control

    @contextmanager
    def _ordered_after(self, operations: tuple[Operation, ...]) -> Iterator[None]:
        """Operations built inside have exactly these control inputs."""
        outer, self._control = self._control, operations
        try:
            yield
        finally:
            self._control = outer

    @contextmanager
    def _created_at(self, origin: str) -> Iterator[None]:
        """Operations built inside count as created at `origin` (gradients, compiler passes)."""
        outer = self._origin
        self._origin = origin
        try:
            yield
        finally:
            self._origin = outer

    # -- operands ------------------------------------------------------------------------------

    def as_tensor(self, value: TensorLike, dtype: DType | None = None) -> Tensor:
        """A tensor as it is, anything else as a constant.

        Args:
            value: tensor, Python number, list or array.
            dtype: element type of the constant; without it floats become float32, ints int32 and
                arrays keep their own (float64 arrays too).

        Raises:
            DTypeError: the value is no number, or does not fit `dtype` exactly (300 in uint8, 0.5
                in an integer).
        """
        if isinstance(value, Tensor):
            return value
        array = as_array(value, dtype)
        if array.ndim:
            return self._graph.constant(array)
        key = (repr(array.item()), as_dtype(array.dtype))
        if key not in self._scalars:
            with self._at_root():
                self._scalars[key] = self._graph.constant(array)
        return self._scalars[key]

    @contextmanager
    def _at_root(self) -> Iterator[None]:
        """Appends to the graph's own block, where every region can see the result."""
        scopes, self._scopes = self._scopes, []
        try:
            with self._inside(self.block):
                yield
        finally:
            self._scopes = scopes

    def _pair(self, primary: TensorLike, secondary: TensorLike) -> tuple[Tensor, Tensor]:
        """Two operands; a number or array beside a tensor takes the tensor's dtype."""
        if isinstance(primary, Tensor):
            return primary, self.as_tensor(secondary, _weak(secondary, primary.dtype))
        if isinstance(secondary, Tensor):
            return self.as_tensor(primary, _weak(primary, secondary.dtype)), secondary
        return self.as_tensor(primary), self.as_tensor(secondary)

    def _axes(self, definition: OpDefinition, x: Tensor, axes: Axes) -> tuple[int, ...]:
        """Axes as a sorted tuple of non-negative ints, refused in the op's own words."""
        try:
            return normalize_axes(axes, x.rank)
        except Misfit as misfit:
            raise self._worded(misfit, definition, (x,), None) from None

    def _axis(self, definition: OpDefinition, x: Tensor, axis: int) -> int:
        """One axis counted from the start, refused in the op's own words."""
        return self._axes(definition, x, axis)[0]

    # -- regions -------------------------------------------------------------------------------

    def _region(
        self, parameters: Sequence[Spec], body: Callable[[list[Tensor]], Sequence[Tensor]]
    ) -> Block:
        """Runs `body` once, now, to fill a block with operations.

        Args:
            parameters: specs of the tensors that the control-flow operation will set.
            body: gets those tensors, returns the block's results.
        """
        block = Block(self._current)
        control = self._control
        with self._inside(block):
            block.parameters = [self._parameter(spec) for spec in parameters]
            # What is ordered after an assign outside stays so inside.
            with self._ordered_after(control):
                block.results = list(body(list(block.parameters)))
        return block

    def _parameter(self, spec: Spec) -> Tensor:
        """One more parameter for the current block, which its caller must list."""
        from stepgraph.graph.ops.memory import PARAMETER

        return self._one(PARAMETER, (), {"shape": spec.shape, "dtype": spec.dtype}, name="argument")

    def _add_with_regions(
        self,
        definition: OpDefinition,
        inputs: Sequence[Tensor],
        attributes: dict[str, Any],
        regions: tuple[Block, ...],
        name: str | None = None,
    ) -> Operation:
        """Adds a control-flow operation; what its regions read from outside becomes inputs."""
        captured = captures(regions)
        attributes = {**attributes, "explicit": len(inputs)}
        return self._add(definition, [*inputs, *captured], attributes, name=name, regions=regions)


def captures(regions: Sequence[Block]) -> list[Tensor]:
    """Tensors from outside that the blocks read, each once, in order of first use."""
    found: dict[Tensor, None] = {}
    for region in regions:
        stack = [region]
        inner: set[int] = set()
        while stack:
            block = stack.pop()
            inner.add(id(block))
            for operation in block.operations:
                stack.extend(operation.regions)
        pending = [region]
        while pending:
            block = pending.pop(0)
            used = [t for op in block.operations for t in op.inputs] + block.results
            for tensor in used:
                if id(tensor.operation.block) not in inner:
                    found.setdefault(tensor)
            pending.extend(r for op in block.operations for r in op.regions)
    return list(found)


def _weak(value: TensorLike, dtype: DType) -> DType | None:
    """The dtype a non-tensor operand takes beside a tensor of `dtype`.

    Python numbers and lists adapt, and arrays of the same kind; an array of another kind keeps its
    own, so that the operation's inference refuses the mix.
    """
    if isinstance(value, Tensor):
        return None
    kind = np.asarray(value).dtype.kind
    if isinstance(value, np.ndarray):
        return (
            dtype
            if {"f": "float", "i": "int", "u": "uint", "b": "bool"}.get(kind) == dtype.kind
            else None
        )
    if kind == "f" and not dtype.is_float:
        return None
    return dtype


def _input_name(definition: OpDefinition, position: int) -> str:
    names = definition.inputs
    if not names:
        return f"input {position}"
    if position >= len(names) - 1 and names[-1].endswith("*"):
        return f"{names[-1][:-1]}[{position - len(names) + 1}]"
    return names[position] if position < len(names) else f"input {position}"


def broadcast_specs(*specs: Spec) -> tuple[int | None, ...]:
    """The broadcast shape of several specs."""
    return broadcast_shapes(*(s.shape for s in specs))
