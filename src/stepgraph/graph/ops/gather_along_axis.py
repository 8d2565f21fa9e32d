"""Elements picked along an axis, every line by its own indices, and the gradient of that."""

from __future__ import annotations

import math
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
    require_same_dtype,
    require_shape,
)
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.gather import check_indices, require_indices, wide
from stepgraph.graph.shapes import Shape, Spec, bad_shape, format_shape, known_shape, same_shape
from stepgraph.graph.tensor import Tensor


def along_shape(x: Shape, indices: Shape, axis: int, of: str = "the tensor") -> Shape:
    """The indices' shape, which must be that of `x` but along the axis."""
    if len(x) != len(indices):
        raise bad_shape(f"the indices have rank {len(indices)}, {of} has rank {len(x)}")
    free = (*x[:axis], None, *x[axis + 1 :])
    if not same_shape(free, indices):
        raise bad_shape(
            f"the indices have shape {format_shape(indices)}, {of} {format_shape(x)}",
            expected=f"equal sizes along every axis but axis {axis}",
        )
    return tuple(a if a is not None else b for a, b in zip(indices, free, strict=True))


def along_flat_tensor(graph: Any, shape: tuple[int, ...], indices: Tensor, axis: int) -> Tensor:
    """Row-major element numbers that the indices stand for, of rank 1."""
    sizes = known_shape(indices.shape)
    behind, size = math.prod(shape[axis + 1 :]), shape[axis]
    before = math.prod(shape[:axis])
    flat = graph.reshape(wide(graph, indices), (before, sizes[axis], behind))
    offsets = np.arange(before)[:, None, None] * (size * behind) + np.arange(behind)
    placed = flat * behind + graph.constant(offsets, dtype=flat.dtype)
    result: Tensor = graph.reshape(placed, (math.prod(sizes),))
    return result


def _along_infer(x: Spec, indices: Spec, *, axis: int) -> Spec:
    require_indices(indices)
    return Spec(along_shape(x.shape, indices.shape, axis), x.dtype)


def _along_reference(x: Array, indices: Array, *, axis: int) -> Array:
    check_indices("gather_along_axis", indices, x.shape[axis], axis)
    return np.take_along_axis(x, indices, axis)


def _along_gradient(op: Operation, grads: Grads) -> Gradients:
    x, indices = op.inputs
    axis = op.attributes["axis"]
    return [op.graph.gather_along_axis_gradient(arrived(grads), indices, x, axis), None]


def _along_decompose(graph: Any, x: Tensor, indices: Tensor, *, axis: int) -> Tensor:
    shape = known_shape(x.shape)
    flat = along_flat_tensor(graph, shape, indices, axis)
    picked = graph.gather(graph.reshape(x, (math.prod(shape),)), flat)
    result: Tensor = graph.reshape(picked, known_shape(indices.shape))
    return result


def _along_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4, 2)).astype("float32")
    yield Sample((x, rng.integers(0, 4, (3, 5, 2)).astype("int32"), 1))
    yield Sample((x, rng.integers(0, 2, (3, 4, 1)).astype("int64"), -1), label="last axis")
    yield Sample((x, np.zeros((0, 4, 2), "int32"), 0), label="no indices")


def _along_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.gather_along_axis(g.placeholder((3, 4)), g.placeholder((2, 4), "int32"), 1),
        "equal sizes along every axis but axis 1",
    )
    yield Misuse(
        lambda g: g.gather_along_axis(g.placeholder((3, 4)), g.placeholder((2,), "int32"), 0),
        "rank",
    )


def _unalong_infer(incoming: Spec, indices: Spec, like: Spec, *, axis: int) -> Spec:
    require_indices(indices)
    require_same_dtype(incoming, like)
    wanted = along_shape(like.shape, indices.shape, axis)
    require_shape(incoming.shape, wanted, "the gradient", "what was gathered")
    return like


def _unalong_reference(incoming: Array, indices: Array, like: Array, *, axis: int) -> Array:
    check_indices("gather_along_axis_gradient", indices, like.shape[axis], axis)
    result = np.zeros(like.shape, incoming.dtype)
    places: list[Array] = list(np.indices(indices.shape, sparse=True))
    places[axis] = indices
    np.add.at(result, tuple(places), incoming)
    return result


def _unalong_gradient(op: Operation, grads: Grads) -> Gradients:
    return [
        op.graph.gather_along_axis(arrived(grads), op.inputs[1], op.attributes["axis"]),
        None,
        None,
    ]


def _unalong_decompose(
    graph: Any, incoming: Tensor, indices: Tensor, like: Tensor, *, axis: int
) -> Tensor:
    zeros = graph.constant(0, shape=known_shape(like.shape), dtype=incoming.dtype)
    result: Tensor = graph.scatter_along_axis(zeros, incoming, indices, axis)
    return result


def _unalong_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for sample in _along_samples(rng):
        x, indices, axis = sample.inputs
        incoming = rng.standard_normal(indices.shape).astype("float32")
        yield Sample((incoming, indices, x, axis), differentiable=(0,), label=sample.label)


def _unalong_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.gather_along_axis_gradient(
            g.placeholder((3,)), g.placeholder((2,), "int32"), g.placeholder((5,)), 0
        ),
        r"gradient is \(3,\), that of what was gathered \(2,\)",
    )


GATHER_ALONG_AXIS = OpDefinition(
    "gather_along_axis",
    inputs=("x", "indices"),
    infer=_along_infer,
    reference=_along_reference,
    gradient=_along_gradient,
    decompose=_along_decompose,
    mpsgraph="gatherAlongAxis:withUpdatesTensor:indicesTensor:name:",
    samples=_along_samples,
    misuses=_along_misuses,
)
GATHER_ALONG_AXIS_GRADIENT = OpDefinition(
    "gather_along_axis_gradient",
    inputs=("incoming", "indices", "like"),
    infer=_unalong_infer,
    reference=_unalong_reference,
    gradient=_unalong_gradient,
    decompose=_unalong_decompose,
    shape_only=(2,),
    samples=_unalong_samples,
    misuses=_unalong_misuses,
)

DEFINITIONS = (GATHER_ALONG_AXIS, GATHER_ALONG_AXIS_GRADIENT)


class GatherAlongAxisOps(GraphCore):
    """Elements picked along an axis, every line by its own indices, which count from 0."""

    def gather_along_axis(
        self, x: Tensor, indices: Tensor, axis: int, name: str | None = None
    ) -> Tensor:
        """Elements of `x` along an axis, every line with indices of its own.

        Args:
            x: tensor of rank 1 or more.
            indices: integers, of the shape of `x` but along the axis.
            axis: where to pick; negative counts from the end.
            name: label.

        Returns:
            Tensor of the shape of `indices`.

        Raises:
            ShapeError: sizes differ along another axis.
            DTypeError: the indices are no integers.
            FeedError: at run, an index is outside its axis.

        Source: MPSGraph ``gatherAlongAxis:withUpdatesTensor:indicesTensor:name:``; NumPy
        ``take_along_axis``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x, i = graph.constant([[1, 2, 3], [4, 5, 6]]), graph.constant([[2], [0]])
            >>> graph.run(targets=[graph.gather_along_axis(x, i, 1)])[0]
            array([[3],
                   [4]], dtype=int32)
        """
        attributes = {"axis": self._axis(GATHER_ALONG_AXIS, x, axis)}
        return self._one(GATHER_ALONG_AXIS, (x, indices), attributes, name=name)

    def gather_along_axis_gradient(
        self,
        incoming: Tensor,
        indices: Tensor,
        like: Tensor,
        axis: int,
        name: str | None = None,
    ) -> Tensor:
        """The gradient of `gather_along_axis`: each element gets the sum of its copies'.

        Args:
            incoming: gradient of what was gathered.
            indices: as for `gather_along_axis`.
            like: what was gathered from; only its shape is read.
            axis: as for `gather_along_axis`.
            name: label.
        """
        attributes = {"axis": self._axis(GATHER_ALONG_AXIS_GRADIENT, like, axis)}
        inputs = (incoming, indices, like)
        return self._one(GATHER_ALONG_AXIS_GRADIENT, inputs, attributes, name=name)
