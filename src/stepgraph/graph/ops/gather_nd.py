"""Elements picked by tuples of indices (MPSGraphGatherOps), and the gradient of that."""

from __future__ import annotations

import math
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
    require_same_dtype,
    require_shape,
)
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.gather import check_indices, require_indices, wide
from stepgraph.graph.shapes import Shape, Spec, bad_shape, known_shape
from stepgraph.graph.tensor import Tensor


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
    return [op.graph.gather_nd_gradient(arrived(grads), indices, x, **op.attributes), None]


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


def _unnd_reference(
    incoming: Array, indices: Array, like: Array, *, batch_dimensions: int
) -> Array:
    flat = nd_flat(like.shape, indices, batch_dimensions, "gather_nd_gradient")
    rows = np.zeros(_nd_rows(like.shape, indices.shape[-1], batch_dimensions), incoming.dtype)
    np.add.at(rows, flat, incoming.reshape(flat.size, rows.shape[1]))
    return rows.reshape(like.shape)


def _unnd_gradient(op: Operation, grads: Grads) -> Gradients:
    return [op.graph.gather_nd(arrived(grads), op.inputs[1], **op.attributes), None, None]


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
        r"gradient is \(3,\), that of what was gathered \(2,\)",
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

DEFINITIONS = (GATHER_ND, GATHER_ND_GRADIENT)


class GatherNdOps(GraphCore):
    """Elements picked by tuples of indices, which count from 0."""

    def gather_nd(
        self, x: Tensor, indices: Tensor, batch_dimensions: int = 0, name: str | None = None
    ) -> Tensor:
        """Elements or slices of `x` picked by tuples of indices.

        Args:
            x: tensor of rank 1 or more.
            indices: integers; the last axis, of known size k, holds tuples that index the first k
                axes of `x` behind the batch dimensions.
            batch_dimensions: leading axes that `x` and `indices` share.
            name: label.

        Returns:
            Tensor of shape ``indices.shape[:-1] + x.shape[batch_dimensions + k:]``.

        Raises:
            ShapeError: the tuples are longer than the rank allows, or batches differ.
            DTypeError: the indices are no integers.
            FeedError: at run, an index is outside its axis.

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
