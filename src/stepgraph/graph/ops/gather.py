"""Elements picked by index tensors (MPSGraphGatherOps): gather, gather_nd, gather_along_axis."""

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
    Misuse,
    OpDefinition,
    Sample,
    bad_dtype,
    require_same_dtype,
)
from stepgraph.graph.dtypes import int32, int64
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import Shape, Spec, bad_shape, format_shape, known_shape, same_shape
from stepgraph.graph.tensor import Tensor

Grads = tuple[Tensor | None, ...]


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
            )
        )


def require_shape(got: Shape, wanted: Shape, what: str, of: str) -> None:
    """Refuses `what` unless it may have the shape of `of`."""
    if not same_shape(got, wanted):
        raise bad_shape(
            f"{what} has shape {format_shape(got)}, {of} {format_shape(wanted)}",
            expected="equal shapes",
        )


def _first(grads: Grads) -> Tensor:
    grad = grads[0]
    assert grad is not None
    return grad


def wide(graph: Any, indices: Tensor) -> Tensor:
    """Indices in a dtype that can count the elements of a whole tensor."""
    result: Tensor = indices if indices.dtype in (int32, int64) else graph.cast(indices, "int32")
    return result


# -- gather --------------------------------------------------------------------------------------


def _gather_shape(x: Shape, indices: Shape, axis: int, batch_dimensions: int) -> Shape:
    if not 0 <= batch_dimensions <= min(axis, len(indices)):
        raise bad_shape(
            f"batch_dimensions is {batch_dimensions}, the axis {axis}, the indices' rank {len(indices)}",
            expected="batch dimensions before the axis, and in both tensors",
        )
    require_shape(indices[:batch_dimensions], x[:batch_dimensions], "the indices' batch", "the tensor's")
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
    return [op.graph.gather_gradient(_first(grads), indices, x, **op.attributes), None]


def _gather_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((4, 3, 5)).astype("float32")
    yield Sample((x, np.array([[3, 0, 3], [1, 1, 2]], "int32")), label="repeated")
    yield Sample((x, np.array([4, 0], "int64")), {"axis": -1}, label="last axis")
    yield Sample((x, np.array(2, "int32")), {"axis": 1}, label="rank 0")
    yield Sample((x, np.zeros((0,), "int32")), label="no indices")
    yield Sample((x, np.array([1, 0], "uint8")), {"axis": 1}, label="uint8")
    batched = rng.integers(0, 5, (4, 3, 2)).astype("int32")
    yield Sample((x, batched), {"axis": 2, "batch_dimensions": 2}, label="batched")
    yield Sample((x, batched[:, 0]), {"axis": 2, "batch_dimensions": 1}, label="batch and axis apart")


def _gather_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.gather(g.placeholder((3,)), g.placeholder((2,))), "indices are float32", DTypeError
    )
    yield Misuse(
        lambda g: g.gather(g.placeholder((3,)), g.placeholder((2,), "int32"), axis=1), "outside"
    )
    yield Misuse(
        lambda g: g.gather(
            g.placeholder((3, 4)), g.placeholder((2,), "int32"), axis=1, batch_dimensions=1
        ),
        "the indices' batch has shape",
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
    return [op.graph.gather(_first(grads), op.inputs[1], **op.attributes), None, None]


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
        r"the gradient has shape \(3,\), what was gathered \(2,\)",
    )


# -- gather_nd -----------------------------------------------------------------------------------


def nd_shape(x: Shape, indices: Shape, batch: int) -> Shape:
    """The shape of what indices of tuples pick; refuses what does not fit."""
    if not indices or indices[-1] is None:
        raise bad_shape(
            "the last axis of the indices holds the tuples, so it must exist and be known"
        )
    depth = indices[-1]
    if not 0 <= batch < len(indices) or batch + depth > len(x):
        raise bad_shape(
            f"tuples of {depth} behind {batch} batch dimensions for a tensor of rank {len(x)}",
            expected="at most as many as the tensor has axes",
        )
    require_shape(indices[:batch], x[:batch], "the indices' batch", "the tensor's")
    return (*indices[:-1], *x[batch + depth :])


def nd_flat(shape: tuple[int, ...], indices: Array, batch: int, what: str) -> Array:
    """The tuples as row numbers of the tensor whose indexed axes are made one, checked."""
    axes = shape[batch : batch + indices.shape[-1]]
    flat = np.zeros(indices.shape[:-1], np.int64)
    for i, size in enumerate(axes):
        check_indices(what, indices[..., i], size, batch + i)
        flat = flat * size + indices[..., i]
    lead = np.arange(math.prod(shape[:batch])).reshape(
        (*shape[:batch], *(1,) * (flat.ndim - batch))
    )
    return np.asarray(flat + lead * math.prod(axes)).reshape(-1)


def nd_flat_tensor(graph: Any, shape: tuple[int, ...], indices: Tensor, batch: int) -> Tensor:
    """The same as operations, of rank 1."""
    sizes = known_shape(indices.shape)
    depth, count = sizes[-1], math.prod(sizes[:-1])
    axes = shape[batch : batch + depth]
    weights = [math.prod(axes[i + 1 :]) for i in range(depth)]
    tuples = graph.reshape(wide(graph, indices), (count, depth))
    scaled = tuples * graph.constant(np.array(weights), dtype=tuples.dtype)
    flat = graph.reshape(graph.reduction_sum(scaled, axes=(1,)), (count,))
    if batch:
        batches = math.prod(shape[:batch])
        line = np.repeat(np.arange(batches), count // batches if batches else 0)
        flat = flat + graph.constant(line * math.prod(axes), dtype=flat.dtype)
    result: Tensor = flat
    return result


def _nd_rows(shape: tuple[int, ...], depth: int, batch: int) -> tuple[int, int]:
    split = batch + depth
    return math.prod(shape[:split]), math.prod(shape[split:])


def _nd_infer(x: Spec, indices: Spec, *, batch_dimensions: int) -> Spec:
    require_indices(indices)
    return Spec(nd_shape(x.shape, indices.shape, batch_dimensions), x.dtype)


def _nd_reference(x: Array, indices: Array, *, batch_dimensions: int) -> Array:
    flat = nd_flat(x.shape, indices, batch_dimensions, "gather_nd")
    rows = x.reshape(_nd_rows(x.shape, indices.shape[-1], batch_dimensions))
    return rows[flat].reshape(known_shape(nd_shape(x.shape, indices.shape, batch_dimensions)))


def _nd_gradient(op: Operation, grads: Grads) -> Gradients:
    x, indices = op.inputs
    return [op.graph.gather_nd_gradient(_first(grads), indices, x, **op.attributes), None]


def _nd_decompose(graph: Any, x: Tensor, indices: Tensor, *, batch_dimensions: int) -> Tensor:
    shape, sizes = known_shape(x.shape), known_shape(indices.shape)
    rows = graph.reshape(x, _nd_rows(shape, sizes[-1], batch_dimensions))
    picked = graph.gather(rows, nd_flat_tensor(graph, shape, indices, batch_dimensions))
    result: Tensor = graph.reshape(picked, known_shape(nd_shape(shape, sizes, batch_dimensions)))
    return result


def _nd_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((4, 3, 5)).astype("float32")
    yield Sample((x, np.array([[3, 0], [1, 2], [3, 0]], "int32")), label="repeated")
    yield Sample((x, np.array([[[2, 1, 4]], [[0, 0, 0]]], "int64")), label="elements")
    yield Sample((x, np.array([1], "int32")), label="one row")
    batched = rng.integers(0, 3, (4, 2, 1)).astype("int32")
    yield Sample((x, batched), {"batch_dimensions": 1}, label="batched")


def _nd_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.gather_nd(g.placeholder((3,)), g.placeholder((2, 2), "int32")), "tuples of 2"
    )
    yield Misuse(
        lambda g: g.gather_nd(g.placeholder((3,)), g.placeholder((2, None), "int32")), "be known"
    )
    yield Misuse(
        lambda g: g.gather_nd(g.placeholder((3,)), g.placeholder((2, 1))),
        "indices are float32",
        DTypeError,
    )


def _unnd_infer(incoming: Spec, indices: Spec, like: Spec, *, batch_dimensions: int) -> Spec:
    require_indices(indices)
    require_same_dtype(incoming, like)
    wanted = nd_shape(like.shape, indices.shape, batch_dimensions)
    require_shape(incoming.shape, wanted, "the gradient", "what was gathered")
    return like


def _unnd_reference(incoming: Array, indices: Array, like: Array, *, batch_dimensions: int) -> Array:
    flat = nd_flat(like.shape, indices, batch_dimensions, "gather_nd_gradient")
    rows = np.zeros(_nd_rows(like.shape, indices.shape[-1], batch_dimensions), incoming.dtype)
    np.add.at(rows, flat, incoming.reshape(flat.size, rows.shape[1]))
    return rows.reshape(like.shape)


def _unnd_gradient(op: Operation, grads: Grads) -> Gradients:
    return [op.graph.gather_nd(_first(grads), op.inputs[1], **op.attributes), None, None]


def _unnd_decompose(
    graph: Any, incoming: Tensor, indices: Tensor, like: Tensor, *, batch_dimensions: int
) -> Tensor:
    zeros = graph.constant(0, shape=known_shape(like.shape), dtype=incoming.dtype)
    result: Tensor = graph.scatter_nd(
        incoming, indices, data=zeros, batch_dimensions=batch_dimensions
    )
    return result


def _unnd_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for sample in _nd_samples(rng):
        x, indices = sample.inputs
        shape = nd_shape(x.shape, indices.shape, sample.arguments.get("batch_dimensions", 0))
        incoming = np.asarray(rng.standard_normal(known_shape(shape)), "float32")
        yield Sample((incoming, indices, x), sample.arguments, (0,), label=sample.label)


def _unnd_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.gather_nd_gradient(
            g.placeholder((3,)), g.placeholder((2, 1), "int32"), g.placeholder((5,))
        ),
        r"the gradient has shape \(3,\), what was gathered \(2,\)",
    )


# -- gather_along_axis ---------------------------------------------------------------------------


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
    return [op.graph.gather_along_axis_gradient(_first(grads), indices, x, axis), None]


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
        lambda g: g.gather_along_axis(g.placeholder((3, 4)), g.placeholder((2,), "int32"), 0), "rank"
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
    places = list(np.indices(indices.shape, sparse=True))
    places[axis] = indices
    np.add.at(result, tuple(places), incoming)
    return result


def _unalong_gradient(op: Operation, grads: Grads) -> Gradients:
    return [
        op.graph.gather_along_axis(_first(grads), op.inputs[1], op.attributes["axis"]), None, None
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
        r"the gradient has shape \(3,\), what was gathered \(2,\)",
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
GATHER_ND = OpDefinition(
    "gather_nd",
    inputs=("x", "indices"),
    infer=_nd_infer,
    reference=_nd_reference,
    gradient=_nd_gradient,
    decompose=_nd_decompose,
    mpsgraph="gatherNDWithUpdatesTensor:indicesTensor:batchDimensions:name:",
    samples=_nd_samples,
    misuses=_nd_misuses,
)
GATHER_ND_GRADIENT = OpDefinition(
    "gather_nd_gradient",
    inputs=("incoming", "indices", "like"),
    infer=_unnd_infer,
    reference=_unnd_reference,
    gradient=_unnd_gradient,
    decompose=_unnd_decompose,
    shape_only=(2,),
    samples=_unnd_samples,
    misuses=_unnd_misuses,
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

DEFINITIONS = (
    GATHER,
    GATHER_GRADIENT,
    GATHER_ND,
    GATHER_ND_GRADIENT,
    GATHER_ALONG_AXIS,
    GATHER_ALONG_AXIS_GRADIENT,
)


class GatherOps(GraphCore):
    """Elements picked by index tensors.

    Indices count from 0; negative ones are outside. The reference device refuses an index outside its
    axis when it runs; what other devices do with one is theirs to say.
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
            batch_dimensions: leading axes that `x` and `indices` share: each batch has its own indices.
            name: label in printed graphs and errors; made unique when taken.

        Returns:
            Tensor of shape ``x.shape[:axis] + indices.shape[batch_dimensions:] + x.shape[axis + 1:]``.

        Raises:
            ShapeError: the axis is outside the rank, or batches differ.
            DTypeError: the indices are no integers.
            FeedError: at run, on the reference device, an index is outside the axis.

        Source: MPSGraph ``gatherWithUpdatesTensor:indicesTensor:axis:batchDimensions:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> table = graph.constant([[1, 2], [3, 4], [5, 6]])
            >>> graph.run(targets=[graph.gather(table, graph.constant([2, 0]))])[0]
            array([[5, 6],
                   [1, 2]], dtype=int32)
        """
        attributes = {"axis": self._axis(GATHER, x, axis), "batch_dimensions": int(batch_dimensions)}
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

    def gather_nd(
        self, x: Tensor, indices: Tensor, batch_dimensions: int = 0, name: str | None = None
    ) -> Tensor:
        """Elements or slices of `x` picked by tuples of indices.

        Args:
            x: tensor of rank 1 or more.
            indices: integers; the last axis, of known size k, holds tuples that index the first k axes of
                `x` behind the batch dimensions.
            batch_dimensions: leading axes that `x` and `indices` share.
            name: label.

        Returns:
            Tensor of shape ``indices.shape[:-1] + x.shape[batch_dimensions + k:]``.

        Raises:
            ShapeError: the tuples are longer than the rank allows, or batches differ.
            DTypeError: the indices are no integers.

        Source: MPSGraph ``gatherNDWithUpdatesTensor:indicesTensor:batchDimensions:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([[1, 2], [3, 4]])
            >>> graph.run(targets=[graph.gather_nd(x, graph.constant([[0, 1], [1, 0]]))])[0]
            array([2, 3], dtype=int32)
        """
        attributes = {"batch_dimensions": int(batch_dimensions)}
        return self._one(GATHER_ND, (x, indices), attributes, name=name)

    def gather_nd_gradient(
        self,
        incoming: Tensor,
        indices: Tensor,
        like: Tensor,
        batch_dimensions: int = 0,
        name: str | None = None,
    ) -> Tensor:
        """The gradient of `gather_nd`: each element gets the sum of the gradients of its copies.

        Args:
            incoming: gradient of what was gathered.
            indices: as for `gather_nd`.
            like: what was gathered from; only its shape is read.
            batch_dimensions: as for `gather_nd`.
            name: label.
        """
        attributes = {"batch_dimensions": int(batch_dimensions)}
        return self._one(GATHER_ND_GRADIENT, (incoming, indices, like), attributes, name=name)

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

        Source: MPSGraph ``gatherAlongAxis:withUpdatesTensor:indicesTensor:name:``; NumPy ``take_along_axis``.

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
