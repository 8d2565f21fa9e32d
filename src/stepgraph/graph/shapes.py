"""Shapes: tuples of ints, or None for a size known only at compile time."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from stepgraph.errors import ShapeError, describe
from stepgraph.graph.dtypes import DType

Shape: TypeAlias = tuple[int | None, ...]
ShapeLike: TypeAlias = Sequence[int | None] | int
Axes: TypeAlias = int | Sequence[int] | None


@dataclass(frozen=True)
class Spec:
    """What inference knows of a tensor: its shape and dtype."""

    shape: Shape
    dtype: DType

    @property
    def rank(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype} {format_shape(self.shape)}"


class Misfit(Exception):
    """Raised by inference; the graph words it with the operation, its inputs, the source line."""

    def __init__(
        self, error: type[Exception], fault: str, expected: str | None, fix: str | None
    ) -> None:
        super().__init__(fault)
        self.error = error
        self.fault = fault
        self.expected = expected
        self.fix = fix


def bad_shape(fault: str, *, expected: str | None = None, fix: str | None = None) -> Misfit:
    """A shape that inference refuses; to be raised."""
    return Misfit(ShapeError, fault, expected, fix)


def format_shape(shape: Iterable[int | None]) -> str:
    """Writes a shape as a tuple, unknown sizes as ``?``.

    Example:
        >>> format_shape((None, 32, 3)), format_shape((4,)), format_shape(())
        ('(?, 32, 3)', '(4,)', '()')
    """
    parts = ["?" if d is None else str(d) for d in shape]
    return f"({parts[0]},)" if len(parts) == 1 else f"({', '.join(parts)})"


def as_shape(value: ShapeLike, what: str = "shape") -> Shape:
    """Checks and normalises a shape given by a user.

    Raises:
        ShapeError: a size is negative or not an integer.

    Example:
        >>> as_shape([None, 3]), as_shape(5)
        ((None, 3), (5,))
    """
    items: Sequence[int | None] = value if isinstance(value, Sequence) else (value,)
    sizes: list[int | None] = []
    for item in items:
        if item is None:
            sizes.append(None)
            continue
        try:
            size = operator.index(item)
        except TypeError:
            size = -1
        if size < 0:
            raise ShapeError(
                describe(
                    what,
                    f"{item!r} is no size",
                    got={"shape": tuple(items)},
                    expected="non-negative integers, or None where the size is not known yet",
                )
            )
        sizes.append(size)
    return tuple(sizes)


def is_known(shape: Shape) -> bool:
    """Whether every size is known."""
    return None not in shape


def known_shape(shape: Shape) -> tuple[int, ...]:
    """The same shape for a type checker, once every size is known."""
    sizes = tuple(d for d in shape if d is not None)
    if len(sizes) != len(shape):
        raise bad_shape(
            f"the shape {format_shape(shape)} has an unknown size",
            fix="compile with feeds of full shapes, or give the size when building the graph",
        )
    return sizes


def known_size(item: object, what: str) -> int:
    """One size given by a user that must be known.

    Raises:
        ShapeError: it is no size.
    """
    return known_sizes((item,), what)[0]  # type: ignore[arg-type]


def known_sizes(shape: ShapeLike, what: str) -> tuple[int, ...]:
    """Sizes given by a user that must all be known, as a tuple.

    Raises:
        ShapeError: one is no size, or not known.
    """
    found = as_shape(shape, what)
    if None in found:
        raise ShapeError(
            describe(
                what,
                f"the shape {format_shape(found)} has an unknown size",
                fix="give every size, or use the ..._like op that takes the shape of a tensor",
            )
        )
    return tuple(operator.index(size) for size in found if size is not None)


def element_count(shape: Shape) -> int | None:
    """Number of elements; None when a size is unknown.

    Example:
        >>> element_count((2, 3)), element_count((None, 3))
        (6, None)
    """
    count = 1
    for size in shape:
        if size is None:
            return None
        count *= size
    return count


def normalize_axis(axis: int, rank: int) -> int:
    """Counts a negative axis from the end.

    Raises:
        Misfit: the axis is outside the rank.

    Example:
        >>> normalize_axis(-1, 4)
        3
    """
    if not -rank <= axis < rank:
        raise bad_shape(
            f"axis {axis} is outside a tensor of rank {rank}",
            expected=f"an axis from {-rank} to {rank - 1}" if rank else "rank 1 or more",
        )
    return axis % rank


def normalize_axes(axes: Axes, rank: int) -> tuple[int, ...]:
    """Axes as a sorted tuple without repeats; None means every axis.

    Example:
        >>> normalize_axes((-1, 0), 3), normalize_axes(None, 2)
        ((0, 2), (0, 1))
    """
    if axes is None:
        return tuple(range(rank))
    if isinstance(axes, int):
        axes = (axes,)
    return tuple(sorted({normalize_axis(int(axis), rank) for axis in axes}))


def broadcast_shapes(*shapes: Shape) -> Shape:
    """NumPy's broadcasting; an unknown size gives way to any size above 1.

    Raises:
        Misfit: the shapes do not broadcast.

    Example:
        >>> broadcast_shapes((None, 1, 3), (5, 3)), broadcast_shapes((), (2,))
        ((None, 5, 3), (2,))
    """
    rank = max((len(s) for s in shapes), default=0)
    result: list[int | None] = []
    for i in range(rank):
        sizes = [s[i - rank + len(s)] for s in shapes if i - rank + len(s) >= 0]
        known = {d for d in sizes if d is not None and d != 1}
        if len(known) > 1:
            raise bad_shape(
                f"shapes {' and '.join(format_shape(s) for s in shapes)} do not broadcast",
                expected="sizes that are equal or 1, counted from the last axis",
            )
        result.append(known.pop() if known else (None if None in sizes else 1))
    return tuple(result)


def same_shape(a: Shape, b: Shape) -> bool:
    """Whether two shapes may be the same once unknown sizes are known."""
    if a == b:
        return True
    return len(a) == len(b) and all(
        x == y or x is None or y is None for x, y in zip(a, b, strict=True)
    )
