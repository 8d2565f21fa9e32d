"""Elements repeated, reversed, cast; and shapes as values (MPSGraphTensorShapeOps)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from stepgraph.errors import DTypeError
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
from stepgraph.graph.dtypes import DType, DTypeLike, as_dtype, int32
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import (
    Axes,
    Misfit,
    ShapeLike,
    Spec,
    bad_shape,
    broadcast_shapes,
    format_shape,
    known_shape,
    known_sizes,
    normalize_axes,
    same_shape,
)
from stepgraph.graph.tensor import Tensor

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
    return [op.graph.cast(arrived(grads), op.inputs[0].dtype)]


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
    return [op.graph.reverse(arrived(grads), op.attributes["axes"])]


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
    not_a_tensor: Any = [2, 3]
    yield Misuse(lambda g: g.shape_of(not_a_tensor), "got list where a tensor is due", DTypeError)


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

DEFINITIONS = (BROADCAST, CAST, REVERSE, SHAPE_OF, COORDINATE_ALONG_AXIS)


class BroadcastingOps(GraphCore):
    """Elements repeated, reversed, cast; and shapes as values."""

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

    def coordinate_along_axis(self, shape: ShapeLike, axis: int, name: str | None = None) -> Tensor:
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
