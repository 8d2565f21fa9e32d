"""Builds a program into an MPSGraph: feeds, variables, one lowering an operation, assigns.

Three rules hold in every graph built here, so that no lowering has to think of them:

* A tensor of rank 0 is one of shape (1,): feeds and results of rank 0 crash some systems, and so do
  reductions, pads and casts of them.
* A tensor without elements does not exist: what is computed of none is computed in Python.
* A variable is read once, by one operation that everybody uses, and its assign depends on that
  read: the framework orders a read and an assign by nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from stepgraph.backends.mps.enums import data_type
from stepgraph.backends.mps.messages import (
    Argument,
    Block,
    Bridge,
    Data,
    Handle,
    List,
    numbers,
)
from stepgraph.backends.mps.quirks import QUIRKS, SWITCH
from stepgraph.backends.mps.system import Version
from stepgraph.compiler.program import Program
from stepgraph.errors import UnsupportedError, describe
from stepgraph.graph.definition import Array
from stepgraph.graph.dtypes import DType, as_dtype
from stepgraph.graph.operation import Block as Region
from stepgraph.graph.operation import Operation
from stepgraph.graph.tensor import Tensor

if TYPE_CHECKING:
    from stepgraph.backends.mps.lowering.table import Lowering

# Constants up to this many bytes are sent once, however many lowerings ask for them.
_SHARED_BYTES = 256


# Where a target of a program comes from: see `Built`.
Result: TypeAlias = "int | str | Array"


@dataclass
class Built:
    """A program as it stands in an MPSGraph; handles are good as long as the pool around.

    Attributes:
        feeds: name of a placeholder to its tensor; those without elements are left out.
        targets: distinct tensors to be computed, with their counterparts in the program; at least
            one if `operations` is not empty.
        operations: assigns.
        results: for each of the program's targets: which of `targets` it is, the name of the feed
            it is, or its value where that is known already.
    """

    feeds: dict[str, Handle] = field(default_factory=dict)
    targets: list[tuple[Handle, Tensor]] = field(default_factory=list)
    operations: list[Handle] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)


class Builder:
    """What lowerings build with.

    Attributes:
        bridge: carries the messages.
        graph: the MPSGraph.
        version: of the system that will run it.
        values: tensors built so far.
        operation: the one being lowered.
    """

    def __init__(
        self,
        bridge: Bridge,
        graph: Handle,
        version: Version,
        lowerings: Mapping[str, Lowering],
        variable: Callable[[str], Handle],
    ) -> None:
        self.bridge = bridge
        self.graph = graph
        self.version = version
        self.values: dict[Tensor, Handle] = {}
        self.operation: Operation | None = None
        self._lowerings = lowerings
        self._variable = variable
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Handle] = {}
        self._owned: list[Handle] = []

    # --- what lowerings call

    def send(self, selector: str, *arguments: Argument) -> Handle:
        """Sends a message to the graph; the operation's name is added where the selector asks.

        Args:
            selector: as the SDK spells it, as ``additionWithPrimaryTensor:secondaryTensor:name:``.
            arguments: all but the name.

        Returns:
            The tensor made (or array, or operation, as the SDK says).
        """
        if selector.endswith("name:") and selector.count(":") == len(arguments) + 1:
            arguments = (*arguments, self.name)
        return cast(Handle, self.bridge.send(self.graph, selector, *arguments))

    def send_many(self, count: int, selector: str, *arguments: Argument) -> list[Handle]:
        """Like `send`, for a selector that returns an ``NSArray`` of `count` tensors."""
        return self.unpack(self.send(selector, *arguments), count)

    def unpack(self, array: Handle, count: int) -> list[Handle]:
        """The elements of an ``NSArray`` of objects, also one that a block was given."""
        return [self.bridge.send(array, "objectAtIndex:", i) for i in range(count)]

    @property
    def name(self) -> str | None:
        """What the operation being lowered is called; names of several messages may be equal."""
        return self.operation.name if self.operation is not None else None

    def descriptor(self, class_name: str, selector: str, *arguments: Argument) -> Handle:
        """A descriptor from a class's factory method.

        Args:
            class_name: such as ``"MPSGraphConvolution2DOpDescriptor"``.
            selector: such as ``"descriptorWithStrideInX:..."``.
            arguments: C values, mostly.
        """
        return cast(Handle, self.bridge.send(class_name, selector, *arguments))

    def new(self, class_name: str, initializer: str = "init", *arguments: Argument) -> Handle:
        """An object from ``alloc`` and an initializer, let go when the program is built."""
        handle = self.bridge.new(class_name, initializer, *arguments)
        self._owned.append(handle)
        return handle

    def shape(self, tensor: Tensor) -> List:
        """A tensor's shape as an argument; rank 0 as (1,)."""
        return numbers(extents(tensor))

    def axes(self, values: Sequence[int]) -> List:
        """Axes, strides, paddings: anything that is an ``NSArray`` of numbers."""
        return numbers(values)

    def constant(self, array: Any, dtype: DType | str | None = None) -> Handle:
        """A constant tensor of an array's shape (rank 0 as (1,)) and values.

        Args:
            array: anything NumPy reads; has elements.
            dtype: converts to this first.
        """
        value = np.asarray(array, None if dtype is None else as_dtype(dtype).numpy)
        kind = as_dtype(value.dtype)
        shape = value.shape or (1,)
        flat = is_uniform(value)
        key = None
        if flat or value.nbytes <= _SHARED_BYTES:
            data = value.reshape(-1)[:1].tobytes() if flat else value.tobytes()
            key = (kind.name, shape, data)
            if key in self._constants:
                return self._constants[key]
        handle = self._constant(value, kind, shape, flat)
        if key is not None:
            self._constants[key] = handle
        return handle

    def _constant(self, value: Array, kind: DType, shape: tuple[int, ...], flat: bool) -> Handle:
        number = value.reshape(-1)[0].item()
        # A scalar travels as a double, and one of bool writes 255: those go as bytes.
        if flat and not kind.is_bool and np.isfinite(number) and abs(number) <= 2**53:
            return self.send(
                "constantWithScalar:shape:dataType:",
                float(number),
                numbers(shape),
                data_type(kind),
            )
        data = Data(np.ascontiguousarray(value).reshape(shape))
        return self.send("constantWithData:shape:dataType:", data, numbers(shape), data_type(kind))

    def cast(self, value: Handle, dtype: DType) -> Handle:
        """A tensor in another dtype."""
        return self.send("castTensor:toType:name:", value, data_type(dtype))

    def reshape(self, value: Handle, shape: Sequence[int]) -> Handle:
        """A tensor in another shape; rank 0 becomes (1,)."""
        return self.send("reshapeTensor:withShape:name:", value, numbers(tuple(shape) or (1,)))

    def quirk(self, name: str) -> bool:
        """Whether the system has a fault of the table in `quirks` that is a matter of systems."""
        quirk = QUIRKS[name]
        if quirk.how != SWITCH:
            raise ValueError(f"'{name}' is gone around on every system: nobody need ask")
        return quirk.applies(self.version)

    def region(self, region: Region, arguments: Sequence[Handle]) -> list[Handle]:
        """Builds a region of a control-flow operation; to be called inside a `Block`'s function.

        What is made inside is unusable outside: values and shared constants are forgotten at the
        end.

        Args:
            region: whose operations.
            arguments: tensors for its parameters.

        Returns:
            Tensors of its results, None for those without elements.
        """
        with self.scope():
            self.values.update(zip(region.parameters, arguments, strict=True))
            self._lower([op for op in region.operations if op.type != "parameter"])
            return [None if is_empty(t) else self.values[t] for t in region.results]

    # --- building a program

    def build(self, program: Program) -> Built:
        """Builds a program; to be called with a pool open."""
        built = Built()
        try:
            for name, tensor in program.feeds.items():
                if not is_empty(tensor):
                    built.feeds[name] = self._placeholder(name, tensor)
            operations = program.operations()
            self._lower(operations)
            self._assign(program, operations, built)
            self._results(program, built)
        finally:
            for handle in self._owned:
                self.bridge.drop(handle)
            self._owned.clear()
        return built

    def _placeholder(self, name: str, tensor: Tensor) -> Handle:
        handle = self.send(
            "placeholderWithShape:dataType:name:",
            self.shape(tensor),
            data_type(tensor.dtype),
            name,
        )
        self.values[tensor] = handle
        return handle

    def _lower(self, operations: Sequence[Operation]) -> None:
        outer = self.operation
        for operation in operations:
            if operation.type == "placeholder" or all(is_empty(t) for t in operation.outputs):
                continue
            self.operation = operation
            made = self._one(operation)
            outputs = made if isinstance(made, list) else [made]
            self.values.update(zip(operation.outputs, outputs, strict=True))
        self.operation = outer

    def _one(self, operation: Operation) -> Handle | list[Handle]:
        if operation.type == "variable":
            return self.send("readVariable:name:", self._variable(operation.name))
        if operation.type == "constant":
            return self.constant(operation.attributes["value"])
        lowering = self._lowerings.get(operation.type)
        if lowering is None:
            raise UnsupportedError(
                describe(
                    "mps",
                    f"no lowering for op '{operation.type}', and nothing simpler says the same",
                    got={"operation": operation.name},
                    fix='use device="cpu"',
                    created_at=operation.created_at,
                )
            )
        limit = lowering.limit(operation, self.version)
        if limit is not None:
            raise UnsupportedError(
                describe(
                    operation.type,
                    f"not on mps: {limit.reason}",
                    got={t.name: str(t.spec) for t in operation.inputs},
                    expected=limit.what,
                    fix=limit.fix or 'use device="cpu"',
                    created_at=operation.created_at,
                )
            )
        if any(is_empty(t) for t in operation.inputs) and not lowering.takes_empty:
            return self._of_nothing(operation)
        inputs = [self.values.get(t) if is_empty(t) else self.values[t] for t in operation.inputs]
        return lowering.lower(self, operation, inputs)

    def _of_nothing(self, operation: Operation) -> list[Handle]:
        """What an op makes of inputs without elements is known now: a sum of nothing is zero."""
        reference = operation.definition.reference
        if reference is None or not all(is_empty(t) for t in operation.inputs):
            raise UnsupportedError(
                describe(
                    operation.type,
                    "not on mps: some inputs have no elements",
                    got={t.name: str(t.spec) for t in operation.inputs},
                    created_at=operation.created_at,
                )
            )
        empty = [np.zeros(sizes(t), t.dtype.numpy) for t in operation.inputs]
        with np.errstate(all="ignore"):
            found = reference(*empty, **operation.attributes)
        values = found if isinstance(found, tuple) else (found,)
        return [self.constant(v, t.dtype) for v, t in zip(values, operation.outputs, strict=True)]

    def _assign(self, program: Program, operations: Sequence[Operation], built: Built) -> None:
        readers = _reads_behind(program, operations)
        for name, tensor in program.updates.items():
            if is_empty(tensor):
                continue
            self.operation = tensor.operation
            variable, value = self._variable(name), self.values[tensor]
            read = program.variables.get(name)
            if read is None or read not in self.values or name in readers[tensor]:
                built.operations.append(self._assign_one(variable, value))
                continue
            # The new value does not come of the old one, which somebody reads: tie them.
            made: list[Handle] = []

            def block(
                variable: Handle = variable, value: Handle = value, made: list[Handle] = made
            ) -> List:
                same = self.send("identityWithTensor:name:", value)
                made.append(self._assign_one(variable, same))
                return List((same,))

            before = self.bridge.send(self.values[read], "operation")
            self.send(
                "controlDependencyWithOperations:dependentBlock:name:",
                List((before,)),
                Block("NSArray<MPSGraphTensor>", (), block),
            )
            built.operations += made
        self.operation = None

    def _assign_one(self, variable: Handle, value: Handle) -> Handle:
        return self.send("assignVariable:withValueOfTensor:name:", variable, value)

    def _results(self, program: Program, built: Built) -> None:
        # By handle: two tensors may be one there, where a lowering had nothing to send.
        places: dict[Handle, int] = {}
        for tensor in program.targets:
            kind = tensor.operation.type
            if kind == "placeholder":
                built.results.append(tensor.operation.name)
            elif kind == "constant":
                built.results.append(np.array(tensor.operation.attributes["value"]))
            elif is_empty(tensor):
                built.results.append(np.zeros(sizes(tensor), tensor.dtype.numpy))
            else:
                handle = self.values[tensor]
                if handle not in places:
                    places[handle] = len(built.targets)
                    built.targets.append((self._target(handle, built), tensor))
                built.results.append(places[handle])
        if built.operations and not built.targets:
            # Whether a run may have no target at all is not known: the smallest value will do.
            smallest = min(program.updates.values(), key=lambda t: prod(extents(t)) or 2**62)
            target = self._target(self.values[smallest], built)
            built.targets.append((target, smallest))

    def _target(self, handle: Handle, built: Built) -> Handle:
        """A tensor that can be asked for: one that is computed, neither fed nor constant."""
        if handle in built.feeds.values() or handle in self._constants.values():
            return self.send("identityWithTensor:name:", handle)
        return handle

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Forgets at its end what is built inside: to be opened by the function of a `Block`."""
        values, constants = self.values, self._constants
        self.values, self._constants = dict(values), dict(constants)
        try:
            yield
        finally:
            self.values, self._constants = values, constants


def sizes(tensor: Tensor) -> tuple[int, ...]:
    """A tensor's shape, whose sizes are all known in a program."""
    return cast("tuple[int, ...]", tensor.shape)


def extents(tensor: Tensor) -> tuple[int, ...]:
    """A tensor's shape on the GPU: rank 0 is (1,)."""
    return sizes(tensor) or (1,)


def is_uniform(value: Array) -> bool:
    """Whether all elements, of which there are some, have the same bits."""
    if value.size == 1 or value.strides == (0,) * value.ndim:
        return True
    bits = np.ascontiguousarray(value).reshape(-1).view(f"u{value.itemsize}")
    return bool(bits[0] == bits[-1] and (bits == bits[0]).all())


def is_empty(tensor: Tensor) -> bool:
    """Whether a tensor has no elements."""
    return 0 in tensor.shape


def _reads_behind(program: Program, operations: Sequence[Operation]) -> dict[Tensor, set[str]]:
    """For each update: the variables whose value at the start it is computed from."""
    wanted = {t.operation: name for name, t in program.variables.items() if name in program.updates}
    behind: dict[Operation, set[str]] = {}
    for operation in operations:
        found: set[str] = set()
        for tensor in operation.inputs:
            below = behind[tensor.operation]
            found = below if not found else found if below <= found else found | below
        if operation in wanted:
            found = found | {wanted[operation]}
        behind[operation] = found
    return {t: behind[t.operation] for t in program.updates.values()}
