"""The same elements along other axes (MPSGraphTensorShapeOps): reshape, permute and their kin."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from stepgraph.graph.core import GraphCore
from stepgraph.graph.definition import (
    Array,
    Gradients,
    Grads,
    Misuse,
    OpDefinition,
    Sample,
    arrived,
)
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import (
    Axes,
    Misfit,
    Shape,
    Spec,
    bad_shape,
    element_count,
    format_shape,
    known_shape,
    known_size,
    normalize_axes,
)
from stepgraph.graph.tensor import Tensor

# -- reshape -------------------------------------------------------------------------------------


def _reshape_infer(x: Spec, *, shape: tuple[int, ...]) -> Spec:
    count = element_count(x.shape)
    rest = math.prod(size for size in shape if size != -1)
    wanted = format_shape(None if size == -1 else size for size in shape)
    if shape.count(-1) > 1:
        raise bad_shape(f"{shape} leaves more than one size open", expected="at most one -1")
    if -1 not in shape:
        if count is not None and count != rest:
            raise bad_shape(
                f"{format_shape(x.shape)} has {count} elements, {wanted} has {rest}",
                expected="equal counts",
            )
        return Spec(shape, x.dtype)
    if rest == 0 or (count is not None and count % rest):
        raise bad_shape(
            f"{format_shape(x.shape)} does not fill {wanted}",
            expected=f"a number of elements that {rest} divides" if rest else "no -1 beside a 0",
        )
    open_size = None if count is None else count // rest
    return Spec(tuple(open_size if size == -1 else size for size in shape), x.dtype)


def _reshape_reference(x: Array, *, shape: tuple[int, ...]) -> Array:
    return x.reshape(shape)


def _back_to_source(op: Operation, grads: Grads) -> Gradients:
    """The gradient of whatever only renames axes: the same elements in the source's shape."""
    return [op.graph.reshape_like(arrived(grads), op.inputs[0])]


def _reshape_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((2, 3, 4)).astype("float32")
    yield Sample((x, (4, 6)))
    yield Sample((x, (3, -1)), label="open size")
    yield Sample((x[:1, :1, :1], ()), label="to rank 0")
    yield Sample((np.zeros((0, 3), "float32"), (3, 0)), label="empty")
    yield Sample((np.arange(6, dtype="int32"), (2, 3)), label="int32")


def _reshape_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.reshape(g.placeholder((2, 3)), (4,)), "has 6 elements, .* has 4")
    yield Misuse(lambda g: g.reshape(g.placeholder((2, 3)), (4, -1)), "does not fill")
    yield Misuse(lambda g: g.reshape(g.placeholder((2, 3)), (-1, -1)), "at most one -1")


# -- permute -------------------------------------------------------------------------------------


def _permute_infer(x: Spec, *, permutation: tuple[int, ...]) -> Spec:
    if sorted(permutation) != list(range(x.rank)):
        raise bad_shape(
            f"{permutation} does not name each axis of a tensor of rank {x.rank} once",
            expected=f"a permutation of {tuple(range(x.rank))}",
        )
    return Spec(tuple(x.shape[axis] for axis in permutation), x.dtype)


def _permute_reference(x: Array, *, permutation: tuple[int, ...]) -> Array:
    return x.transpose(permutation).copy(order="C")


def _permute_gradient(op: Operation, grads: Grads) -> Gradients:
    permutation = op.attributes["permutation"]
    inverse = [permutation.index(axis) for axis in range(len(permutation))]
    return [op.graph.permute(arrived(grads), inverse)]


def _permute_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((2, 3, 4)).astype("float32")
    yield Sample((x, (2, 0, 1)))
    yield Sample((x, (0, -1, 1)), label="negative axis")
    yield Sample((x[0, 0, :1].reshape(()), ()), label="rank 0")
    yield Sample((np.zeros((0, 2), "float32"), (1, 0)), label="empty")


def _permute_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.permute(g.placeholder((2, 3)), (0, 0)), "each axis .* once")
    yield Misuse(lambda g: g.permute(g.placeholder((2, 3)), (0, 2)), "each axis .* once")


# -- expand_dims, squeeze, flatten_2d ------------------------------------------------------------


def _expand_infer(x: Spec, *, axes: tuple[int, ...]) -> Spec:
    sizes = iter(x.shape)
    rank = x.rank + len(axes)
    return Spec(tuple(1 if axis in axes else next(sizes) for axis in range(rank)), x.dtype)


def _expand_reference(x: Array, *, axes: tuple[int, ...]) -> Array:
    return np.expand_dims(x, axes)


def _expand_decompose(graph: Any, x: Tensor, *, axes: tuple[int, ...]) -> Tensor:
    return _reshaped(graph, x, _expand_infer(x.spec, axes=axes).shape)


def _expand_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((2, 3)).astype("float32")
    yield Sample((x, 1))
    yield Sample((x, (0, -1)), label="two axes")


def _expand_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.expand_dims(g.placeholder((2, 3)), 3), "axis 3 is outside")
    yield Misuse(lambda g: g.expand_dims(g.placeholder((2,)), (0, 0)), "names an axis twice")


def _squeeze_infer(x: Spec, *, axes: tuple[int, ...]) -> Spec:
    for axis in axes:
        if x.shape[axis] not in (1, None):
            raise bad_shape(
                f"axis {axis} has size {x.shape[axis]}", expected="size 1 along the axes to drop"
            )
    return Spec(tuple(d for axis, d in enumerate(x.shape) if axis not in axes), x.dtype)


def _squeeze_reference(x: Array, *, axes: tuple[int, ...]) -> Array:
    return np.squeeze(x, axes)


def _squeeze_decompose(graph: Any, x: Tensor, *, axes: tuple[int, ...]) -> Tensor:
    return _reshaped(graph, x, _squeeze_infer(x.spec, axes=axes).shape)


def _squeeze_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((1, 3, 1)).astype("float32")
    yield Sample((x,))
    yield Sample((x, -1), label="one axis")


def _squeeze_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.squeeze(g.placeholder((2, 1)), 0), "axis 0 has size 2")
    yield Misuse(lambda g: g.squeeze(g.placeholder((None, 1))), "a size is not known yet")


def _flatten_infer(x: Spec, *, axis: int) -> Spec:
    return Spec((element_count(x.shape[:axis]), element_count(x.shape[axis:])), x.dtype)


def _flatten_reference(x: Array, *, axis: int) -> Array:
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _flatten_decompose(graph: Any, x: Tensor, *, axis: int) -> Tensor:
    return _reshaped(graph, x, _flatten_infer(x.spec, axis=axis).shape)


def _flatten_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((2, 3, 4)).astype("float32")
    yield Sample((x,))
    yield Sample((x, 0), label="axis 0")
    yield Sample((x, 3), label="axis behind the last")
    yield Sample((x[0, 0], -1), label="negative axis")


def _flatten_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.flatten_2d(g.placeholder((2, 3)), 3), "axis 3 is outside")


def _reshaped(graph: Any, x: Tensor, shape: Shape) -> Tensor:
    result: Tensor = graph.reshape(x, known_shape(shape))
    return result


RESHAPE = OpDefinition(
    "reshape",
    inputs=("x",),
    infer=_reshape_infer,
    reference=_reshape_reference,
    gradient=_back_to_source,
    mpsgraph="reshapeTensor:withShape:name:",
    samples=_reshape_samples,
    misuses=_reshape_misuses,
)
PERMUTE = OpDefinition(
    "permute",
    inputs=("x",),
    infer=_permute_infer,
    reference=_permute_reference,
    gradient=_permute_gradient,
    mpsgraph="transposeTensor:permutation:name:",
    samples=_permute_samples,
    misuses=_permute_misuses,
)
EXPAND_DIMS = OpDefinition(
    "expand_dims",
    inputs=("x",),
    infer=_expand_infer,
    reference=_expand_reference,
    gradient=_back_to_source,
    decompose=_expand_decompose,
    mpsgraph="expandDimsOfTensor:axes:name:",
    samples=_expand_samples,
    misuses=_expand_misuses,
)
SQUEEZE = OpDefinition(
    "squeeze",
    inputs=("x",),
    infer=_squeeze_infer,
    reference=_squeeze_reference,
    gradient=_back_to_source,
    decompose=_squeeze_decompose,
    mpsgraph="squeezeTensor:axes:name:",
    samples=_squeeze_samples,
    misuses=_squeeze_misuses,
)
FLATTEN_2D = OpDefinition(
    "flatten_2d",
    inputs=("x",),
    infer=_flatten_infer,
    reference=_flatten_reference,
    gradient=_back_to_source,
    decompose=_flatten_decompose,
    mpsgraph="flatten2DTensor:axis:name:",
    samples=_flatten_samples,
    misuses=_flatten_misuses,
)

DEFINITIONS = (RESHAPE, PERMUTE, EXPAND_DIMS, SQUEEZE, FLATTEN_2D)


class TensorShapeOps(GraphCore):
    """The same elements along other axes."""

    def reshape(self, x: Tensor, shape: Sequence[int] | int, name: str | None = None) -> Tensor:
        """The elements of `x`, in row-major order, in another shape.

        Args:
            x: tensor of any shape.
            shape: sizes; one of them may be -1 and is then found from the number of elements.
            name: label in printed graphs and errors; made unique when taken.

        Returns:
            Tensor of that shape and the dtype of `x`.

        Raises:
            ShapeError: the numbers of elements differ.

        Source: MPSGraph ``reshapeTensor:withShape:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.reshape(graph.placeholder((None, 4, 4, 3)), (-1, 48))
            <Tensor 'reshape' float32 (?, 48)>
        """
        items = shape if isinstance(shape, Sequence) else (shape,)
        sizes = tuple(-1 if item == -1 else known_size(item, "reshape") for item in items)
        return self._one(RESHAPE, (x,), {"shape": sizes}, name=name)

    def permute(self, x: Tensor, permutation: Sequence[int], name: str | None = None) -> Tensor:
        """The axes of `x` in another order: axis ``i`` of the result was axis ``permutation[i]``.

        Args:
            x: tensor of any shape.
            permutation: every axis once; negative ones count from the end.
            name: label.

        Raises:
            ShapeError: an axis is missing, named twice or outside the rank.

        Source: MPSGraph ``transposeTensor:permutation:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.permute(graph.placeholder((None, 8, 8, 3)), (0, 3, 1, 2))
            <Tensor 'permute' float32 (?, 3, 8, 8)>
        """
        axes = tuple(int(axis) + x.rank if axis < 0 else int(axis) for axis in permutation)
        return self._one(PERMUTE, (x,), {"permutation": axes}, name=name)

    def transpose(
        self, x: Tensor, dimension: int, with_dimension: int, name: str | None = None
    ) -> Tensor:
        """`x` with two axes exchanged; a `permute`.

        Args:
            x: tensor of rank 1 or more.
            dimension: one axis; negative counts from the end.
            with_dimension: the other.
            name: label.

        Raises:
            ShapeError: an axis is outside the rank of `x`.

        Source: MPSGraph ``transposeTensor:dimension:withDimension:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.run(targets=[graph.transpose(graph.constant([[1, 2], [3, 4]]), 0, 1)])[0]
            array([[1, 3],
                   [2, 4]], dtype=int32)
        """
        a, b = self._axis(PERMUTE, x, dimension), self._axis(PERMUTE, x, with_dimension)
        axes = list(range(x.rank))
        axes[a], axes[b] = b, a
        return self.permute(x, axes, name=name or "transpose")

    def expand_dims(self, x: Tensor, axes: int | Sequence[int], name: str | None = None) -> Tensor:
        """`x` with axes of size 1 inserted.

        Args:
            x: tensor of any shape.
            axes: where they stand in the result; negative counts from its end.
            name: label.

        Raises:
            ShapeError: an axis is outside the rank of the result, or named twice.

        Source: MPSGraph ``expandDimsOfTensor:axes:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.expand_dims(graph.placeholder((None, 3)), (0, -1))
            <Tensor 'expand_dims' float32 (1, ?, 3, 1)>
        """
        wanted = (axes,) if isinstance(axes, int) else tuple(axes)
        try:
            found = normalize_axes(wanted, x.rank + len(wanted))
            if len(found) != len(wanted):
                raise bad_shape(f"{wanted} names an axis twice")
        except Misfit as misfit:
            raise self._worded(misfit, EXPAND_DIMS, (x,), name) from None
        return self._one(EXPAND_DIMS, (x,), {"axes": found}, name=name)

    def squeeze(self, x: Tensor, axes: Axes = None, name: str | None = None) -> Tensor:
        """`x` without some axes of size 1.

        Args:
            x: tensor of any shape.
            axes: which; None for every axis of size 1, which needs all sizes known.
            name: label.

        Raises:
            ShapeError: an axis has another size than 1.

        Source: MPSGraph ``squeezeTensor:axes:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.squeeze(graph.placeholder((None, 1, 1, 10)), (1, 2))
            <Tensor 'squeeze' float32 (?, 10)>
        """
        if axes is None:
            if None in x.shape:
                misfit = bad_shape(
                    "a size is not known yet, so which axes have size 1 is not either",
                    fix="name the axes to drop",
                )
                raise self._worded(misfit, SQUEEZE, (x,), name)
            axes = [axis for axis, size in enumerate(x.shape) if size == 1]
        return self._one(SQUEEZE, (x,), {"axes": self._axes(SQUEEZE, x, axes)}, name=name)

    def flatten_2d(self, x: Tensor, axis: int = 1, name: str | None = None) -> Tensor:
        """`x` as a matrix: the axes before `axis` become its rows, the others its columns.

        Args:
            x: tensor of any shape.
            axis: first axis of the columns, up to the rank; negative counts from the end.
            name: label.

        Raises:
            ShapeError: `axis` is outside the rank.

        Source: MPSGraph ``flatten2DTensor:axis:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.flatten_2d(graph.placeholder((None, 4, 4, 3)))
            <Tensor 'flatten_2d' float32 (?, 48)>
        """
        where = x.rank if axis == x.rank else self._axis(FLATTEN_2D, x, axis)
        return self._one(FLATTEN_2D, (x,), {"axis": where}, name=name)
