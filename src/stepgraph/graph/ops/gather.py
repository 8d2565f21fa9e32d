"""Slices picked by an index tensor (MPSGraphGatherOps), and the gradient of that."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from stepgraph.errors import DTypeError, FeedError, describe
from stepgraph.graph.core import GraphCore
from stepgraph.graph.definition import (
    Array,
    Gradients,
    Grads,
    Misuse,
    OpDefinition,
    Sample,
    arrived,
    bad_dtype,
    require_same_dtype,
    require_shape,
)
from stepgraph.graph.dtypes import int32, int64
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import Shape, Spec, bad_shape, known_shape
from stepgraph.graph.tensor import Tensor


def require_indices(indices: Spec) -> None:
    """Refuses indices that are no integers."""
    if not indices.dtype.is_integer:
        raise bad_dtype(
            f"indices are {indices.dtype}", expected="integers", fix='graph.cast(indices, "int32")'
        )


def check_indices(what: str, indices: Array, size: int, axis: int) -> None:
    """Refuses values outside an axis, for the references.

    Raises:
        FeedError: an index is negative or too large.
    """
    outside = indices[(indices < 0) | (indices >= size)]
    if outside.size:
        raise FeedError(
            describe(
                what,
                f"index {outside[0]} is outside axis {axis} of size {size}",
                expected=f"indices from 0 to {size - 1}" if size else "no indices",
                fix="look at the indices fed, and at how many entries what they pick from has",
            )
        )


def wide(graph: Any, indices: Tensor) -> Tensor:
    """Indices in a dtype that can count the elements of a whole tensor."""
    result: Tensor = indices if indices.dtype in (int32, int64) else graph.cast(indices, "int32")
    return result


# -- gather --------------------------------------------------------------------------------------


def _gather_shape(x: Shape, indices: Shape, axis: int, batch_dimensions: int) -> Shape:
    if not 0 <= batch_dimensions <= min(axis, len(indices)):
        raise bad_shape(
            f"batch_dimensions is {batch_dimensions}, the axis {axis}, "
            f"the indices' rank {len(indices)}",
            expected="batch dimensions before the axis, and in both tensors",
        )
    require_shape(
        indices[:batch_dimensions], x[:batch_dimensions], "the indices' batch", "the tensor's"
    )
    return (*x[:axis], *indices[batch_dimensions:], *x[axis + 1 :])


def _gather_infer(x: Spec, indices: Spec, *, axis: int, batch_dimensions: int) -> Spec:
    require_indices(indices)
    return Spec(_gather_shape(x.shape, indices.shape, axis, batch_dimensions), x.dtype)


def _blocks(x: Array, indices: Array, axis: int, batch: int) -> tuple[tuple[int, ...], Array]:
    """Sizes (batch, before the axis, axis, behind it) and the indices as (batch, rest)."""
    shape = x.shape
    sizes = (
        math.prod(shape[:batch]),
        math.prod(shape[batch:axis]),
        shape[axis],
        math.prod(shape[axis + 1 :]),
    )
    return sizes, indices.reshape(sizes[0], math.prod(indices.shape[batch:]))


def _gather_reference(x: Array, indices: Array, *, axis: int, batch_dimensions: int) -> Array:
    check_indices("gather", indices, x.shape[axis], axis)
    shape = _gather_shape(x.shape, indices.shape, axis, batch_dimensions)
    sizes, flat = _blocks(x, indices, axis, batch_dimensions)
    picked = x.reshape(sizes).swapaxes(1, 2)[np.arange(sizes[0])[:, None], flat]
    return picked.swapaxes(1, 2).reshape(shape)  # type: ignore[arg-type]


def _gather_gradient(op: Operation, grads: Grads) -> Gradients:
    x, indices = op.inputs
    return [op.graph.gather_gradient(arrived(grads), indices, x, **op.attributes), None]


def _gather_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((4, 3, 5)).astype("float32")
    yield Sample((x, np.array([[3, 0, 3], [1, 1, 2]], "int32")), label="repeated")
    yield Sample((x, np.array([4, 0], "int64")), {"axis": -1}, label="last axis")
    yield Sample((x, np.array(2, "int32")), {"axis": 1}, label="rank 0")
    yield Sample((x, np.zeros((0,), "int32")), label="no indices")
    yield Sample((x, np.array([1, 0], "uint8")), {"axis": 1}, label="uint8")
    batched = rng.integers(0, 5, (4, 3, 2)).astype("int32")
    yield Sample((x, batched), {"axis": 2, "batch_dimensions": 2}, label="batched")
    yield Sample(
        (x, batched[:, 0]), {"axis": 2, "batch_dimensions": 1}, label="batch and axis apart"
    )


def _gather_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.gather(g.placeholder((3,)), g.placeholder((2,))),
        "indices are float32",
        DTypeError,
    )
    yield Misuse(
        lambda g: g.gather(g.placeholder((3,)), g.placeholder((2,), "int32"), axis=1), "outside"
    )
    yield Misuse(
        lambda g: g.gather(
            g.placeholder((3, 4)), g.placeholder((2,), "int32"), axis=1, batch_dimensions=1
        ),
        "the shape of the indices' batch is",
    )
    yield Misuse(
        lambda g: g.gather(g.placeholder((3,)), g.placeholder((3,), "int32"), batch_dimensions=1),
        "batch dimensions before the axis",
    )


def _ungather_infer(
    incoming: Spec, indices: Spec, like: Spec, *, axis: int, batch_dimensions: int
) -> Spec:
    require_indices(indices)
    require_same_dtype(incoming, like)
    wanted = _gather_shape(like.shape, indices.shape, axis, batch_dimensions)
    require_shape(incoming.shape, wanted, "the gradient", "what was gathered")
    return like


def _ungather_reference(
    incoming: Array, indices: Array, like: Array, *, axis: int, batch_dimensions: int
) -> Array:
    check_indices("gather_gradient", indices, like.shape[axis], axis)
    sizes, flat = _blocks(like, indices, axis, batch_dimensions)
    batch, before, _, behind = sizes
    result = np.zeros(sizes, incoming.dtype)
    parts = incoming.reshape(batch, before, flat.shape[1], behind).swapaxes(1, 2)
    np.add.at(result.swapaxes(1, 2), (np.arange(batch)[:, None], flat), parts)
    return result.reshape(like.shape)


def _ungather_gradient(op: Operation, grads: Grads) -> Gradients:
    return [op.graph.gather(arrived(grads), op.inputs[1], **op.attributes), None, None]


def _ungather_decompose(
    graph: Any, incoming: Tensor, indices: Tensor, like: Tensor, *, axis: int, batch_dimensions: int
) -> Tensor:
    shape = known_shape(like.shape)
    if not batch_dimensions:
        zeros = graph.constant(0, shape=shape, dtype=incoming.dtype)
        added: Tensor = graph.scatter(zeros, incoming, indices, axis=axis)
        return added
    batch, before = math.prod(shape[:batch_dimensions]), math.prod(shape[batch_dimensions:axis])
    size, behind = shape[axis], math.prod(shape[axis + 1 :])
    count = math.prod(known_shape(indices.shape)[batch_dimensions:])
    flat = graph.reshape(wide(graph, indices), (batch, count))
    flat = flat + graph.constant(np.arange(batch)[:, None] * size, dtype=flat.dtype)
    parts = graph.transpose(graph.reshape(incoming, (batch, before, count, behind)), 1, 2)
    zeros = graph.constant(0, shape=(batch * size, before * behind), dtype=incoming.dtype)
    summed = graph.scatter(
        zeros,
        graph.reshape(parts, (batch * count, before * behind)),
        graph.reshape(flat, (batch * count,)),
    )
    apart = graph.transpose(graph.reshape(summed, (batch, size, before, behind)), 1, 2)
    result: Tensor = graph.reshape(apart, shape)
    return result


def _ungather_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for sample in _gather_samples(rng):
        x, indices = sample.inputs
        axis = sample.arguments.get("axis", 0) % x.ndim
        batch = sample.arguments.get("batch_dimensions", 0)
        shape = _gather_shape(x.shape, indices.shape, axis, batch)
        incoming = np.asarray(rng.standard_normal(known_shape(shape)), "float32")
        yield Sample((incoming, indices, x), sample.arguments, (0,), label=sample.label)


def _ungather_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.gather_gradient(
            g.placeholder((3,)), g.placeholder((2,), "int32"), g.placeholder((5,))
        ),
        r"gradient is \(3,\), that of what was gathered \(2,\)",
    )


GATHER = OpDefinition(
    "gather",
    inputs=("x", "indices"),
    infer=_gather_infer,
    reference=_gather_reference,
    gradient=_gather_gradient,
    mpsgraph="gatherWithUpdatesTensor:indicesTensor:axis:batchDimensions:name:",
    samples=_gather_samples,
    misuses=_gather_misuses,
)
GATHER_GRADIENT = OpDefinition(
    "gather_gradient",
    inputs=("incoming", "indices", "like"),
    infer=_ungather_infer,
    reference=_ungather_reference,
    gradient=_ungather_gradient,
    decompose=_ungather_decompose,
    shape_only=(2,),
    samples=_ungather_samples,
    misuses=_ungather_misuses,
)

DEFINITIONS = (GATHER, GATHER_GRADIENT)


class GatherOps(GraphCore):
    """Slices picked by an index tensor.

    Indices count from 0; negative ones are outside. A run that meets an index outside its axis ends
    with a `FeedError` on the devices ``reference`` and ``cpu``.
    """

    def gather(
        self,
        x: Tensor,
        indices: Tensor,
        axis: int = 0,
        batch_dimensions: int = 0,
        name: str | None = None,
    ) -> Tensor:
        """Slices of `x` along an axis, picked by `indices`: an embedding is such a look-up.

        Args:
            x: tensor of rank 1 or more.
            indices: integers from 0 to the size of the axis, excluded; any shape, repeats allowed.
            axis: where to pick; negative counts from the end.
            batch_dimensions: leading axes that `x` and `indices` share; each batch has its own.
            name: label in printed graphs and errors; made unique when taken.

        Returns:
            Tensor of shape
            ``x.shape[:axis] + indices.shape[batch_dimensions:] + x.shape[axis + 1:]``.

        Raises:
            ShapeError: the axis is outside the rank, or batches differ.
            DTypeError: the indices are no integers.
            FeedError: at run, an index is outside the axis.

        Source: MPSGraph ``gatherWithUpdatesTensor:indicesTensor:axis:batchDimensions:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> table = graph.constant([[1, 2], [3, 4], [5, 6]])
            >>> graph.run(targets=[graph.gather(table, graph.constant([2, 0]))])[0]
            array([[5, 6],
                   [1, 2]], dtype=int32)
        """
        attributes = {
            "axis": self._axis(GATHER, x, axis),
            "batch_dimensions": int(batch_dimensions),
        }
        return self._one(GATHER, (x, indices), attributes, name=name)

    def gather_gradient(
        self,
        incoming: Tensor,
        indices: Tensor,
        like: Tensor,
        axis: int = 0,
        batch_dimensions: int = 0,
        name: str | None = None,
    ) -> Tensor:
        """The gradient of `gather`: each slice gets the sum of the gradients of its copies.

        Args:
            incoming: gradient of what was gathered.
            indices: as for `gather`.
            like: what was gathered from; only its shape is read.
            axis: as for `gather`.
            batch_dimensions: as for `gather`.
            name: label.
        """
        where = self._axis(GATHER_GRADIENT, like, axis)
        attributes = {"axis": where, "batch_dimensions": int(batch_dimensions)}
        return self._one(GATHER_GRADIENT, (incoming, indices, like), attributes, name=name)
