"""Ops that take a shape from another tensor, so that graphs with unknown sizes can be built.

Only the shape of ``like`` is read. Once sizes are known the compiler replaces each by its
decomposition, so no device ever sees one.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from stepgraph.graph.dtypes import DType, DTypeLike, as_dtype
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import (
    Axes,
    Spec,
    bad_shape,
    broadcast_shapes,
    element_count,
    format_shape,
    known_shape,
    normalize_axes,
    same_shape,
)
from stepgraph.graph.tensor import Tensor

# -- fill_like -----------------------------------------------------------------------------------


def _fill_infer(like: Spec, *, value: float) -> Spec:
    return like


def _fill_reference(like: Array, *, value: float) -> Array:
    return np.full(like.shape, value, like.dtype)


def _fill_decompose(graph: Any, like: Tensor, *, value: float) -> Tensor:
    filled: Tensor = graph.constant(value, shape=known_shape(like.shape), dtype=like.dtype)
    return filled


def _fill_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample((rng.standard_normal((2, 3)).astype("float32"),), {"value": 2.0})


# -- broadcast_like ------------------------------------------------------------------------------


def _broadcast_infer(x: Spec, like: Spec) -> Spec:
    if not same_shape(broadcast_shapes(x.shape, like.shape), like.shape):
        raise bad_shape(
            f"{format_shape(x.shape)} does not broadcast to {format_shape(like.shape)}",
            expected="each size equal or 1, counted from the last axis",
        )
    return Spec(like.shape, x.dtype)


def _broadcast_reference(x: Array, like: Array) -> Array:
    return np.ascontiguousarray(np.broadcast_to(x, like.shape)).reshape(like.shape)


def _broadcast_gradient(op: Operation, grads: Grads) -> Gradients:
    return [grads[0], None]


def _broadcast_decompose(graph: Any, x: Tensor, like: Tensor) -> Tensor:
    result: Tensor = graph.broadcast(x, known_shape(like.shape))
    return result


def _broadcast_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x, like = (rng.standard_normal(s).astype("float32") for s in ((3, 1), (2, 3, 4)))
    yield Sample((x, like), differentiable=(0,))


def _broadcast_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.broadcast_like(g.placeholder((3,)), g.placeholder((2,))), "broadcast")


# -- sum_to_like ---------------------------------------------------------------------------------


def _sum_infer(x: Spec, like: Spec) -> Spec:
    if not same_shape(broadcast_shapes(x.shape, like.shape), x.shape):
        raise bad_shape(
            f"{format_shape(x.shape)} is no broadcast of {format_shape(like.shape)}",
        )
    return Spec(like.shape, x.dtype)


def _summed_axes(shape: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...]:
    lead = len(shape) - len(target)
    return tuple(
        i for i, size in enumerate(shape) if i < lead or (target[i - lead] == 1 and size != 1)
    )


def _sum_reference(x: Array, like: Array) -> Array:
    axes = _summed_axes(x.shape, like.shape)
    return np.sum(x, axis=axes, keepdims=True, dtype=x.dtype).reshape(like.shape)


def _sum_gradient(op: Operation, grads: Grads) -> Gradients:
    grad = arrived(grads)
    return [op.graph.broadcast_like(grad, op.inputs[0]), None]


def _sum_decompose(graph: Any, x: Tensor, like: Tensor) -> Tensor:
    shape, target = known_shape(x.shape), known_shape(like.shape)
    axes = _summed_axes(shape, target)
    summed: Tensor = graph.reduction_sum(x, axes=axes) if axes else x
    if summed.shape != target:
        summed = graph.reshape(summed, target)
    return summed


def _sum_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x, like = (rng.standard_normal(s).astype("float32") for s in ((2, 3, 4), (3, 1)))
    yield Sample((x, like), differentiable=(0,))


def _sum_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.sum_to_like(g.placeholder((3,)), g.placeholder((2,))), "broadcast")


# -- reshape_like --------------------------------------------------------------------------------


def _reshape_infer(x: Spec, like: Spec) -> Spec:
    a, b = element_count(x.shape), element_count(like.shape)
    if a is not None and b is not None and a != b:
        raise bad_shape(
            f"{format_shape(x.shape)} has {a} elements, {format_shape(like.shape)} has {b}",
            expected="equal counts",
        )
    return Spec(like.shape, x.dtype)


def _reshape_reference(x: Array, like: Array) -> Array:
    return x.reshape(like.shape)


def _reshape_gradient(op: Operation, grads: Grads) -> Gradients:
    grad = arrived(grads)
    return [op.graph.reshape_like(grad, op.inputs[0]), None]


def _reshape_decompose(graph: Any, x: Tensor, like: Tensor) -> Tensor:
    result: Tensor = graph.reshape(x, known_shape(like.shape))
    return result


def _reshape_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x, like = (rng.standard_normal(s).astype("float32") for s in ((2, 6), (3, 4)))
    yield Sample((x, like), differentiable=(0,))


def _reshape_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.reshape_like(g.placeholder((3,)), g.placeholder((2,))), "elements")


# -- element_count -------------------------------------------------------------------------------


def _count_infer(like: Spec, *, axes: tuple[int, ...], dtype: DType) -> Spec:
    normalize_axes(axes, like.rank)
    return Spec((), dtype)


def _count_reference(like: Array, *, axes: tuple[int, ...], dtype: DType) -> Array:
    return np.array(np.prod([like.shape[a] for a in axes], dtype=np.int64), dtype.numpy)


def _count_decompose(graph: Any, like: Tensor, *, axes: tuple[int, ...], dtype: DType) -> Tensor:
    count = 1
    shape = known_shape(like.shape)
    for axis in axes:
        count *= shape[axis]
    result: Tensor = graph.constant(count, dtype=dtype)
    return result


def _count_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((2, 3, 4)).astype("float32")
    yield Sample((x,), {"axes": (0, 2)}, differentiable=())


def _count_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.element_count(g.placeholder((3,)), axes=(1,)), "outside")


FILL_LIKE = OpDefinition(
    "fill_like",
    inputs=("like",),
    infer=_fill_infer,
    reference=_fill_reference,
    not_differentiable="discrete",
    decompose=_fill_decompose,
    shape_only=(0,),
    samples=_fill_samples,
)
BROADCAST_LIKE = OpDefinition(
    "broadcast_like",
    inputs=("x", "like"),
    infer=_broadcast_infer,
    reference=_broadcast_reference,
    gradient=_broadcast_gradient,
    decompose=_broadcast_decompose,
    shape_only=(1,),
    mpsgraph="broadcastTensor:toShapeTensor:name:",
    samples=_broadcast_samples,
    misuses=_broadcast_misuses,
)
SUM_TO_LIKE = OpDefinition(
    "sum_to_like",
    inputs=("x", "like"),
    infer=_sum_infer,
    reference=_sum_reference,
    gradient=_sum_gradient,
    decompose=_sum_decompose,
    shape_only=(1,),
    samples=_sum_samples,
    misuses=_sum_misuses,
)
RESHAPE_LIKE = OpDefinition(
    "reshape_like",
    inputs=("x", "like"),
    infer=_reshape_infer,
    reference=_reshape_reference,
    gradient=_reshape_gradient,
    decompose=_reshape_decompose,
    shape_only=(1,),
    mpsgraph="reshapeTensor:withShapeTensor:name:",
    samples=_reshape_samples,
    misuses=_reshape_misuses,
)
ELEMENT_COUNT = OpDefinition(
    "element_count",
    inputs=("like",),
    infer=_count_infer,
    reference=_count_reference,
    not_differentiable="discrete",
    decompose=_count_decompose,
    shape_only=(0,),
    samples=_count_samples,
    misuses=_count_misuses,
)

DEFINITIONS = (FILL_LIKE, BROADCAST_LIKE, SUM_TO_LIKE, RESHAPE_LIKE, ELEMENT_COUNT)


class LikeOps(GraphCore):
    """Shapes taken from other tensors."""

    def fill_like(self, like: Tensor, value: float, name: str | None = None) -> Tensor:
        """A tensor of the shape and dtype of `like`, filled with a number.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.fill_like(graph.placeholder((None, 3)), 0.5)
            <Tensor 'fill_like' float32 (?, 3)>
        """
        return self._one(FILL_LIKE, (like,), {"value": value}, name=name)

    def zeros_like(self, like: Tensor, name: str | None = None) -> Tensor:
        """Zeros of the shape and dtype of `like`; see `fill_like`.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> like = graph.placeholder((None, 3))
            >>> graph.zeros_like(like)
            <Tensor 'fill_like' float32 (?, 3)>
        """
        return self.fill_like(like, 0, name=name)

    def ones_like(self, like: Tensor, name: str | None = None) -> Tensor:
        """Ones of the shape and dtype of `like`; see `fill_like`.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> like = graph.placeholder((None, 3))
            >>> graph.ones_like(like)
            <Tensor 'fill_like' float32 (?, 3)>
        """
        return self.fill_like(like, 1, name=name)

    def broadcast_like(self, x: Tensor, like: Tensor, name: str | None = None) -> Tensor:
        """Repeats `x` to the shape of `like`, by NumPy's rules.

        Raises:
            ShapeError: it does not broadcast to that shape.

        Source: MPSGraph ``broadcastTensor:toShapeTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> like = graph.placeholder((None, 3))
            >>> graph.broadcast_like(graph.constant([1.0, 2.0, 3.0]), like)
            <Tensor 'broadcast_like' float32 (?, 3)>
        """
        return self._one(BROADCAST_LIKE, (x, like), name=name)

    def sum_to_like(self, x: Tensor, like: Tensor, name: str | None = None) -> Tensor:
        """Sums `x` over the axes along which `like` would be broadcast to it.

        Raises:
            ShapeError: `like` does not broadcast to the shape of `x`.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([[1.0, 2.0], [3.0, 4.0]])
            >>> y = graph.sum_to_like(x, graph.constant([0.0, 0.0]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([4., 6.], dtype=float32)
        """
        return self._one(SUM_TO_LIKE, (x, like), name=name)

    def reshape_like(self, x: Tensor, like: Tensor, name: str | None = None) -> Tensor:
        """The elements of `x` in the shape of `like`.

        Raises:
            ShapeError: the element counts differ.

        Source: MPSGraph ``reshapeTensor:withShapeTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([1.0, 2.0, 3.0, 4.0])
            >>> y = graph.reshape_like(x, graph.constant([[0.0, 0.0]] * 2))
            >>> graph.run(targets=[y], device="reference")[0]
            array([[1., 2.],
                   [3., 4.]], dtype=float32)
        """
        return self._one(RESHAPE_LIKE, (x, like), name=name)

    def element_count(
        self, like: Tensor, axes: Axes = None, dtype: DTypeLike = "float32", name: str | None = None
    ) -> Tensor:
        """How many elements `like` has along some axes, as a scalar.

        Args:
            like: tensor of any shape.
            axes: which axes; None for all.
            dtype: of the result.
            name: label.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.element_count(graph.constant([[1.0, 2.0, 3.0]]), axes=1)
            >>> graph.run(targets=[y], device="reference")[0]
            array(3., dtype=float32)
        """
        attributes = {"axes": self._axes(ELEMENT_COUNT, like, axes), "dtype": as_dtype(dtype)}
        return self._one(ELEMENT_COUNT, (like,), attributes, name=name)
