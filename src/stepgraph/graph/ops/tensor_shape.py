"""Shapes and dtypes (MPSGraphTensorShapeOps): reshape, permute, broadcast, cast and their kin."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from stepgraph.errors import DTypeError, ShapeError, describe
from stepgraph.graph.core import GraphCore
from stepgraph.graph.definition import Array, Gradients, Misuse, OpDefinition, Sample
from stepgraph.graph.dtypes import DType, DTypeLike, as_dtype, int32
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import (
    Axes,
    Misfit,
    Shape,
    ShapeLike,
    Spec,
    as_shape,
    bad_shape,
    broadcast_shapes,
    element_count,
    format_shape,
    known_shape,
    normalize_axes,
    same_shape,
)
from stepgraph.graph.tensor import Tensor

Grads = tuple[Tensor | None, ...]


def _first(grads: Grads) -> Tensor:
    grad = grads[0]
    assert grad is not None
    return grad


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
    return [op.graph.reshape_like(_first(grads), op.inputs[0])]


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
    return [op.graph.permute(_first(grads), inverse)]


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


# -- broadcast -----------------------------------------------------------------------------------


def _broadcast_infer(x: Spec, *, shape: tuple[int, ...]) -> Spec:
    try:
        fits = same_shape(broadcast_shapes(x.shape, shape), shape)
    except Misfit:
        fits = False
    if not fits:
        raise bad_shape(
            f"{format_shape(x.shape)} does not broadcast to {format_shape(shape)}",
            expected="each size equal or 1, counted from the last axis",
        )
    return Spec(shape, x.dtype)


def _broadcast_reference(x: Array, *, shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(x, shape).copy(order="C")


def _broadcast_gradient(op: Operation, grads: Grads) -> Gradients:
    return [grads[0]]  # the walk sums it back


def _broadcast_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 1)).astype("float32")
    yield Sample((x, (2, 3, 4)))
    yield Sample((x[0].reshape(()), (2, 2)), label="rank 0")
    yield Sample((x, (0, 3, 1)), label="empty")


def _broadcast_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.broadcast(g.placeholder((3,)), (2,)), "does not broadcast")
    yield Misuse(lambda g: g.broadcast(g.placeholder((3,)), (1,)), "does not broadcast")


# -- cast ----------------------------------------------------------------------------------------


def _cast_infer(x: Spec, *, dtype: DType) -> Spec:
    return Spec(x.shape, dtype)


def _cast_reference(x: Array, *, dtype: DType) -> Array:
    return x.astype(dtype.numpy)


def _cast_gradient(op: Operation, grads: Grads) -> Gradients:
    return [op.graph.cast(_first(grads), op.inputs[0].dtype)]


def _cast_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = (10 * rng.standard_normal((3, 4))).astype("float32")
    yield Sample((x, "int32"), label="truncates")
    yield Sample((np.array([0.0, -0.0, 0.5, 2.0], "float32"), "bool"), label="to bool")
    yield Sample((np.array([True, False]), "float32"), label="from bool")
    yield Sample((np.array([-1, 300, 65537], "int32"), "uint8"), label="wraps")
    yield Sample((np.array([-7, 0, 9], "int32"), "float32"), label="from int32")
    yield Sample((np.array([-7, 0, 9], "int32"), "int64"), label="to int64")
    yield Sample((x, "float64"), label="to float64")
    half = np.array([0.5, -2.0, 1024.0], "float32")
    yield Sample((half, "float16"), label="to float16", tolerance=1e4, differentiable=())


def _cast_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.cast(g.placeholder((2,)), "float8"), "'float8' is unknown", DTypeError)


# -- reverse -------------------------------------------------------------------------------------


def _reverse_infer(x: Spec, *, axes: tuple[int, ...]) -> Spec:
    return x


def _reverse_reference(x: Array, *, axes: tuple[int, ...]) -> Array:
    return np.flip(x, axes).copy(order="C")


def _reverse_gradient(op: Operation, grads: Grads) -> Gradients:
    return [op.graph.reverse(_first(grads), op.attributes["axes"])]


def _reverse_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((2, 3, 4)).astype("float32")
    yield Sample((x,))
    yield Sample((x, 1), label="one axis")
    yield Sample((x, (0, -1)), label="two axes")


def _reverse_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.reverse(g.placeholder((2, 3)), 2), "axis 2 is outside")


# -- shape_of, coordinate_along_axis -------------------------------------------------------------


def _shape_of_infer(x: Spec) -> Spec:
    return Spec((x.rank,), int32)


def _shape_of_reference(x: Array) -> Array:
    return np.array(x.shape, np.int32)


def _shape_of_decompose(graph: Any, x: Tensor) -> Tensor:
    result: Tensor = graph.constant(np.array(known_shape(x.shape), np.int32))
    return result


def _shape_of_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample((rng.standard_normal((2, 3)).astype("float32"),), differentiable=())
    yield Sample((np.array(1.0, "float32"),), differentiable=(), label="rank 0")


def _shape_of_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.shape_of([2, 3]), "got list where a tensor is due", DTypeError)


def _coordinate_infer(*, shape: tuple[int, ...], axis: int) -> Spec:
    return Spec(shape, int32)


def _coordinate_reference(*, shape: tuple[int, ...], axis: int) -> Array:
    return np.broadcast_to(_coordinates(shape, axis), shape).copy(order="C")


def _coordinates(shape: tuple[int, ...], axis: int) -> Array:
    line = [1] * len(shape)
    line[axis] = shape[axis]
    return np.arange(shape[axis], dtype=np.int32).reshape(line)


def _coordinate_decompose(graph: Any, *, shape: tuple[int, ...], axis: int) -> Tensor:
    result: Tensor = graph.broadcast(graph.constant(_coordinates(shape, axis)), shape)
    return result


def _coordinate_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(((2, 3, 4), 1))
    yield Sample(((2, 3), -1), label="negative axis")


def _coordinate_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.coordinate_along_axis((2, 3), 2), "axis 2 is outside")


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
BROADCAST = OpDefinition(
    "broadcast",
    inputs=("x",),
    infer=_broadcast_infer,
    reference=_broadcast_reference,
    gradient=_broadcast_gradient,
    mpsgraph="broadcastTensor:toShape:name:",
    samples=_broadcast_samples,
    misuses=_broadcast_misuses,
)
CAST = OpDefinition(
    "cast",
    inputs=("x",),
    infer=_cast_infer,
    reference=_cast_reference,
    gradient=_cast_gradient,
    elementwise=True,
    mpsgraph="castTensor:toType:name:",
    samples=_cast_samples,
    misuses=_cast_misuses,
)
REVERSE = OpDefinition(
    "reverse",
    inputs=("x",),
    infer=_reverse_infer,
    reference=_reverse_reference,
    gradient=_reverse_gradient,
    mpsgraph="reverseTensor:axes:name:",
    samples=_reverse_samples,
    misuses=_reverse_misuses,
)
SHAPE_OF = OpDefinition(
    "shape_of",
    inputs=("x",),
    infer=_shape_of_infer,
    reference=_shape_of_reference,
    not_differentiable="discrete",
    decompose=_shape_of_decompose,
    shape_only=(0,),
    mpsgraph="shapeOfTensor:name:",
    samples=_shape_of_samples,
    misuses=_shape_of_misuses,
)
COORDINATE_ALONG_AXIS = OpDefinition(
    "coordinate_along_axis",
    inputs=(),
    infer=_coordinate_infer,
    reference=_coordinate_reference,
    not_differentiable="discrete",
    decompose=_coordinate_decompose,
    mpsgraph="coordinateAlongAxis:withShape:name:",
    samples=_coordinate_samples,
    misuses=_coordinate_misuses,
)

DEFINITIONS = (
    RESHAPE,
    PERMUTE,
    EXPAND_DIMS,
    SQUEEZE,
    FLATTEN_2D,
    BROADCAST,
    CAST,
    REVERSE,
    SHAPE_OF,
    COORDINATE_ALONG_AXIS,
)


class TensorShapeOps(GraphCore):
    """Shapes and dtypes."""

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

    def broadcast(self, x: Tensor, shape: ShapeLike, name: str | None = None) -> Tensor:
        """`x` repeated to a shape, by NumPy's rules.

        Args:
            x: tensor whose sizes are 1 or equal to those of `shape`, counted from the last axis.
            shape: known sizes; for sizes of another tensor see `broadcast_like`.
            name: label.

        Raises:
            ShapeError: `x` does not broadcast to `shape`.

        Source: MPSGraph ``broadcastTensor:toShape:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.run(targets=[graph.broadcast(graph.constant([1, 2]), (2, 2))])[0]
            array([[1, 2],
                   [1, 2]], dtype=int32)
        """
        sizes = known_sizes(shape, "broadcast")
        return self._one(BROADCAST, (x,), {"shape": sizes}, name=name)

    def cast(self, x: Tensor, dtype: DTypeLike, name: str | None = None) -> Tensor:
        """`x` in another dtype.

        Floats are truncated towards zero on their way to integers, integers wrap around to fewer
        bits, and whatever is not 0 becomes True. What NaN, infinity and floats outside the range of
        an integer become is up to the device.

        Args:
            x: tensor of any shape and dtype.
            dtype: element type of the result.
            name: label.

        Raises:
            DTypeError: there is no such dtype.

        Source: MPSGraph ``castTensor:toType:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.run(targets=[graph.cast(graph.constant([-1.5, 2.5]), "int32")])[0]
            array([-1,  2], dtype=int32)
        """
        try:
            wanted = as_dtype(dtype)
        except DTypeError as error:
            misfit = Misfit(DTypeError, str(error).splitlines()[0], None, None)
            raise self._worded(misfit, CAST, (x,), name) from None
        return self._one(CAST, (x,), {"dtype": wanted}, name=name)

    def reverse(self, x: Tensor, axes: Axes = None, name: str | None = None) -> Tensor:
        """`x` read backwards along some axes.

        Args:
            x: tensor of any shape.
            axes: which; None for all.
            name: label.

        Raises:
            ShapeError: an axis is outside the rank.

        Source: MPSGraph ``reverseTensor:axes:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.run(targets=[graph.reverse(graph.constant([1, 2, 3]))])[0]
            array([3, 2, 1], dtype=int32)
        """
        return self._one(REVERSE, (x,), {"axes": self._axes(REVERSE, x, axes)}, name=name)

    def shape_of(self, x: Tensor, name: str | None = None) -> Tensor:
        """The sizes of `x` as an int32 vector, also those not known while the graph is built.

        Source: MPSGraph ``shapeOfTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.run(targets=[graph.shape_of(graph.constant([[1.0, 2.0]]))])[0]
            array([1, 2], dtype=int32)
        """
        return self._one(SHAPE_OF, (x,), name=name)

    def coordinate_along_axis(
        self, shape: ShapeLike, axis: int, name: str | None = None
    ) -> Tensor:
        """An int32 tensor in which every element is its own index along one axis.

        Args:
            shape: known sizes of the result.
            axis: which index; negative counts from the end.
            name: label.

        Raises:
            ShapeError: `axis` is outside the rank.

        Source: MPSGraph ``coordinateAlongAxis:withShape:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.run(targets=[graph.coordinate_along_axis((2, 3), 1)])[0]
            array([[0, 1, 2],
                   [0, 1, 2]], dtype=int32)
        """
        sizes = known_sizes(shape, "coordinate_along_axis")
        try:
            (where,) = normalize_axes(axis, len(sizes))
        except Misfit as misfit:
            raise self._worded(misfit, COORDINATE_ALONG_AXIS, (), name) from None
        attributes = {"shape": sizes, "axis": where}
        return self._one(COORDINATE_ALONG_AXIS, (), attributes, name=name)


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
