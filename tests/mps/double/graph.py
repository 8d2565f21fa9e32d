"""The graph: tensors, operations, regions; what a building rule works with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import dtypes
from .errors import Refused
from .objects import Heap, Object

MOST_DIMENSIONS = 16
MOST_ELEMENTS = 2**31 - 1

Shape = tuple[int, ...]
Compute = Callable[..., Any]


@dataclass(eq=False)
class Scope:
    """The inside of a control-flow block; the outermost one has no parent."""

    parent: Scope | None = None
    operations: list[Object] = field(default_factory=list)

    def sees(self, other: Scope) -> bool:
        """Whether what is made in `other` may be used here."""
        scope: Scope | None = self
        while scope is not None:
            if scope is other:
                return True
            scope = scope.parent
        return False


class GraphState:
    """What an MPSGraph knows: its operations, and its variables' values per device."""

    def __init__(self) -> None:
        self.top = Scope()
        self.scope = self.top
        self.blocks = 0
        self.control: list[list[Object]] = []
        self.placeholders: list[Object] = []
        self.storage: dict[tuple[Any, int], np.ndarray] = {}
        self.options = 1


def check_shape(shape: Sequence[int], what: str) -> Shape:
    """A shape that a device could hold: static, not empty, not too big."""
    result = tuple(shape)
    if len(result) > MOST_DIMENSIONS:
        raise Refused(f"{what}: rank {len(result)} is above {MOST_DIMENSIONS}")
    if any(type(d) is not int for d in result):
        raise Refused(f"{what}: {result} is not made of whole numbers")
    if any(d < 0 for d in result):
        raise Refused(f"{what}: {result} has a size known at run time only; many ops abort")
    if any(d == 0 for d in result):
        raise Refused(f"{what}: {result} has a zero extent")
    if math.prod(result) > MOST_ELEMENTS:
        raise Refused(f"{what}: {result} has more than 2^31 - 1 elements")
    return result


class Builder:
    """What a rule is given: the graph, the message, ways to make nodes and to refuse."""

    def __init__(self, double: Any, graph: Object, selector: str, name: str | None) -> None:
        self.double = double
        self.graph = graph
        self.state: GraphState = graph.state
        self.heap: Heap = double.heap
        self.selector = selector
        self.name = name

    # Refusals ---------------------------------------------------------------------------------

    def refuse(self, why: str) -> Refused:
        name = f" ({self.name})" if self.name else ""
        return Refused(f"{self.selector}{name}: {why}")

    def need(self, condition: object, why: str) -> None:
        if not condition:
            raise self.refuse(why)

    def fault(self, name: str, why: str) -> None:
        """Something that a device computes wrongly: refused, unless the fault is to be replayed."""
        if name not in self.double.faults:
            raise self.refuse(f"{why} (known fault {name!r})")

    def dtype(self, tensor: Object, allowed: Sequence[int], what: str = "tensor") -> int:
        if tensor.dtype not in allowed:
            names = ", ".join(dtypes.NAMES[d] for d in allowed)
            raise self.refuse(f"{what} is {dtypes.NAMES[tensor.dtype]}, must be one of {names}")
        return tensor.dtype

    def same_dtype(self, *tensors: Object) -> int:
        kinds = {t.dtype for t in tensors}
        if len(kinds) > 1:
            names = ", ".join(dtypes.NAMES[t.dtype] for t in tensors)
            raise self.refuse(f"operands of several data types: {names}")
        return tensors[0].dtype

    def broadcast(self, *shapes: Shape) -> Shape:
        try:
            return tuple(np.broadcast_shapes(*shapes))
        except ValueError:
            raise self.refuse(f"shapes {', '.join(map(str, shapes))} do not broadcast") from None

    def axis(self, axis: int, rank: int, what: str = "axis") -> int:
        self.need(-rank <= axis < rank, f"{what} {axis} is outside rank {rank}")
        return axis % rank

    def axes(self, axes: Sequence[int] | None, rank: int) -> tuple[int, ...]:
        """Reduction axes: nil is all, none is none, from the end if negative, doubles collapse."""
        if axes is None:
            return tuple(range(rank))
        return tuple(sorted({self.axis(a, rank) for a in axes}))

    def constant_of(self, tensor: Object, what: str) -> np.ndarray:
        """The value of a tensor that must be a constant: a fed one crashes or has no shape."""
        value = getattr(tensor.operation, "value", None)
        if value is None or tensor.operation.kind != "constant":
            raise self.refuse(f"{what} must be a constant; fed or computed ones crash")
        self.need(tensor.dtype in (dtypes.INT32, dtypes.INT64), f"{what} must be int32 or int64")
        self.need(len(tensor.shape) == 1 or tensor.shape == (), f"{what} must have rank 1")
        return value

    # Nodes ------------------------------------------------------------------------------------

    def take(self, tensor: Object, what: str = "input") -> Object:
        """A tensor that is used: of this graph, and visible here."""
        if tensor.graph_state is not self.state:
            raise self.refuse(f"{what} {tensor} is another graph's")
        if not self.state.scope.sees(tensor.scope):
            raise self.refuse(f"{what} {tensor} was made in a block and is unusable outside of it")
        return tensor

    def operation(
        self,
        inputs: Sequence[Object],
        specs: Sequence[tuple[Sequence[int], int]],
        compute: Compute | None,
        *,
        kind: str = "plain",
        class_name: str = "MPSGraphOperation",
        scope: Scope | None = None,
        **state: Any,
    ) -> Object:
        """A new operation whose outputs have the given shapes and data types."""
        for t in inputs:
            self.take(t)
            if getattr(t, "unsettled", False) and not state.get("settles"):
                raise self.refuse(f"{t} has a shape that nothing states: reshape it first")
        where = self.selector + (f" ({self.name})" if self.name else "")
        home = scope or self.state.scope
        op = Object(
            class_name,
            kind=kind,
            inputs=list(inputs),
            captures=[],
            control=[o for block in self.state.control for o in block],
            compute=compute,
            name=self.name,
            selector=self.selector,
            graph=self.graph,
            scope=home,
            **state,
        )
        op.outputs = [
            Object(
                "MPSGraphTensor",
                graph_state=self.state,
                graph=self.graph,
                operation=op,
                index=i,
                shape=check_shape(shape, where),
                dtype=dtype,
                scope=home,
            )
            for i, (shape, dtype) in enumerate(specs)
        ]
        home.operations.append(op)
        self.heap.hold(self.graph, op, *op.outputs)
        return op

    def one(
        self,
        inputs: Sequence[Object],
        shape: Sequence[int],
        dtype: int,
        compute: Compute,
        **state: Any,
    ) -> Object:
        """A new operation with one output, which is returned."""
        return self.operation(inputs, [(shape, dtype)], compute, **state).outputs[0]

    def many(
        self,
        inputs: Sequence[Object],
        specs: Sequence[tuple[Sequence[int], int]],
        compute: Compute,
        **state: Any,
    ) -> list[Object]:
        return list(self.operation(inputs, specs, compute, **state).outputs)

    # Blocks -----------------------------------------------------------------------------------

    @contextmanager
    def region(self) -> Iterator[Scope]:
        """What is built inside belongs to a block."""
        outer = self.state.scope
        self.state.scope = inner = Scope(outer)
        with self.inside_block():
            try:
                yield inner
            finally:
                self.state.scope = outer

    @contextmanager
    def inside_block(self) -> Iterator[None]:
        self.state.blocks += 1
        try:
            yield
        finally:
            self.state.blocks -= 1

    def call(self, block: Any, *arguments: Any) -> Any:
        """Calls a block; its result checked against its signature."""
        return self.double.call_block(block, arguments, f"{self.selector}: a block's result")

    def captured(self, scope: Scope) -> list[Object]:
        """Tensors from outside that a region's operations use."""
        found: dict[int, Object] = {}
        for op in scope.operations:
            for t in (*op.inputs, *op.captures):
                if t.scope is not scope:
                    found[t.serial] = t
        return list(found.values())
