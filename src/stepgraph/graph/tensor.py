"""Symbolic values: `Tensor`, and `Variable`, the state that lives on a device between runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from stepgraph.errors import GraphError, describe
from stepgraph.graph.definition import Array
from stepgraph.graph.dtypes import DType
from stepgraph.graph.shapes import Shape, Spec, format_shape

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph
    from stepgraph.graph.operation import Operation

TensorLike: TypeAlias = "Tensor | Array | float | int | bool | np.generic | list[Any]"


class Tensor:
    """A value that an operation will have computed in a run; it holds no numbers itself.

    Operators build operations of its graph, with NumPy's broadcasting; Python numbers and arrays on
    the other side become constants of this tensor's dtype.

    Attributes:
        operation: what makes it.
        index: which of the operation's outputs it is.
        shape: ints, or None for a size known only at compile time.
        dtype: element type.
    """

    __slots__ = ("dtype", "index", "operation", "shape")
    # NumPy must leave `array * tensor` to __rmul__ instead of looping over the array.
    __array_ufunc__ = None

    def __init__(self, operation: Operation, index: int, shape: Shape, dtype: DType) -> None:
        self.operation = operation
        self.index = index
        self.shape = shape
        self.dtype = dtype

    @property
    def graph(self) -> Graph:
        """The graph that owns it."""
        return self.operation.graph

    @property
    def name(self) -> str:
        """The operation's name; outputs after the first end in ``:1``, ``:2``, ..."""
        name = self.operation.name
        return name if self.index == 0 else f"{name}:{self.index}"

    @property
    def rank(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def spec(self) -> Spec:
        """Shape and dtype together."""
        return Spec(self.shape, self.dtype)

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"<{kind} {self.name!r} {self.dtype} {format_shape(self.shape)}>"

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise GraphError(
            describe(
                "Tensor",
                "has no truth value while the graph is built",
                got={"tensor": repr(self)},
                fix="use graph.if_ or graph.select; to compare identity use 'is'",
            )
        )

    def __len__(self) -> int:
        size = self.shape[0] if self.shape else None
        if size is None:
            raise TypeError(f"{self!r} has no length known at graph building")
        return size

    def __iter__(self) -> Any:
        if not self.shape or self.shape[0] is None:
            raise TypeError(f"cannot iterate over {self!r}: its first size is not known")
        return (self[i] for i in range(self.shape[0]))

    def __add__(self, other: TensorLike) -> Tensor:
        return self.graph.addition(self, other)

    def __radd__(self, other: TensorLike) -> Tensor:
        return self.graph.addition(other, self)

    def __sub__(self, other: TensorLike) -> Tensor:
        return self.graph.subtraction(self, other)

    def __rsub__(self, other: TensorLike) -> Tensor:
        return self.graph.subtraction(other, self)

    def __mul__(self, other: TensorLike) -> Tensor:
        return self.graph.multiplication(self, other)

    def __rmul__(self, other: TensorLike) -> Tensor:
        return self.graph.multiplication(other, self)

    def __truediv__(self, other: TensorLike) -> Tensor:
        return self.graph.division(self, other)

    def __rtruediv__(self, other: TensorLike) -> Tensor:
        return self.graph.division(other, self)

    def __mod__(self, other: TensorLike) -> Tensor:
        return self.graph.floor_modulo(self, other)

    def __pow__(self, other: TensorLike) -> Tensor:
        return self.graph.power(self, other)

    def __rpow__(self, other: TensorLike) -> Tensor:
        return self.graph.power(other, self)

    def __matmul__(self, other: TensorLike) -> Tensor:
        return self.graph.matrix_multiplication(self, other)

    def __rmatmul__(self, other: TensorLike) -> Tensor:
        return self.graph.matrix_multiplication(other, self)

    def __neg__(self) -> Tensor:
        return self.graph.negative(self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return self.graph.absolute(self)

    def __invert__(self) -> Tensor:
        return self.graph.logical_not(self)

    def __and__(self, other: TensorLike) -> Tensor:
        return self.graph.logical_and(self, other)

    def __or__(self, other: TensorLike) -> Tensor:
        return self.graph.logical_or(self, other)

    def __xor__(self, other: TensorLike) -> Tensor:
        return self.graph.logical_xor(self, other)

    def __lt__(self, other: TensorLike) -> Tensor:
        return self.graph.less_than(self, other)

    def __le__(self, other: TensorLike) -> Tensor:
        return self.graph.less_than_or_equal_to(self, other)

    def __gt__(self, other: TensorLike) -> Tensor:
        return self.graph.greater_than(self, other)

    def __ge__(self, other: TensorLike) -> Tensor:
        return self.graph.greater_than_or_equal_to(self, other)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return self.graph.equal(self, other)  # type: ignore[arg-type]

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return self.graph.not_equal(self, other)  # type: ignore[arg-type]

    def __getitem__(self, key: Any) -> Tensor:
        return self.graph.get_item(self, key)


class Variable(Tensor):
    """State of a graph that lives on a device between runs.

    Used as an operand it stands for its value at the start of the run, or, inside a
    `Graph.control_dependency` block on an assign to it, for the assigned value.

    Attributes:
        initial: the value it has on a device before anything was assigned there.
    """

    __slots__ = ("initial",)

    def __init__(self, operation: Operation, shape: Shape, dtype: DType, initial: Array) -> None:
        super().__init__(operation, 0, shape, dtype)
        self.initial = initial

    __hash__ = object.__hash__
