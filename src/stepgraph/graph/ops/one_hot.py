"""Class numbers as vectors (MPSGraphOneHotOps)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from stepgraph.errors import DTypeError
from stepgraph.graph.core import GraphCore
from stepgraph.graph.definition import Array, Misuse, OpDefinition, Sample
from stepgraph.graph.dtypes import DType, DTypeLike, as_dtype
from stepgraph.graph.ops.gather import require_indices
from stepgraph.graph.shapes import Misfit, Shape, Spec, bad_shape, known_shape, normalize_axis
from stepgraph.graph.tensor import Tensor


def _one_hot_shape(indices: Shape, depth: int, axis: int) -> Shape:
    return (*indices[:axis], depth, *indices[axis:])


def _one_hot_infer(
    indices: Spec, *, depth: int, axis: int, dtype: DType, on_value: float, off_value: float
) -> Spec:
    require_indices(indices)
    if depth < 0:
        raise bad_shape(f"depth {depth} is negative", expected="the number of classes")
    return Spec(_one_hot_shape(indices.shape, depth, axis), dtype)


def _one_hot_reference(
    indices: Array, *, depth: int, axis: int, dtype: DType, on_value: float, off_value: float
) -> Array:
    hits = np.expand_dims(indices, axis) == _classes(indices.ndim, depth, axis)
    return np.where(hits, on_value, off_value).astype(dtype.numpy)


def _classes(rank: int, depth: int, axis: int) -> Array:
    """0, 1, ..., depth - 1 along an axis of a tensor of one rank more."""
    line = [1] * (rank + 1)
    line[axis] = depth
    return np.arange(depth).reshape(line)


def _one_hot_decompose(
    graph: Any,
    indices: Tensor,
    *,
    depth: int,
    axis: int,
    dtype: DType,
    on_value: float,
    off_value: float,
) -> Tensor:
    wide = graph.cast(indices, "int64" if indices.dtype.size > 4 else "int32")
    classes = graph.constant(_classes(indices.rank, depth, axis), dtype=wide.dtype)
    hits = graph.equal(graph.expand_dims(wide, axis), classes)
    if (on_value, off_value) == (1, 0):
        hot: Tensor = graph.cast(hits, dtype)
        return hot
    shape = known_shape(hits.shape)
    on, off = (graph.constant(v, shape=shape, dtype=dtype) for v in (on_value, off_value))
    result: Tensor = graph.select(hits, on, off)
    return result


def _one_hot_samples(rng: np.random.Generator) -> Iterator[Sample]:
    labels = np.array([2, 0, 1, 2], "int32")
    yield Sample((labels, 3))
    yield Sample((np.stack([labels, labels]), 4), {"axis": 0, "dtype": "int32"}, label="first axis")
    yield Sample((labels, 3), {"axis": 1, "on_value": 0.9, "off_value": 0.05}, label="smoothed")
    yield Sample((np.array([3, -1, 0], "int64"), 3), label="outside")
    yield Sample((np.array(1, "uint8"), 2), {"dtype": "bool"}, label="rank 0")
    yield Sample((labels[:0], 3), label="empty")


def _one_hot_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.one_hot(g.placeholder((2,)), 3), "indices are float32", DTypeError)
    yield Misuse(lambda g: g.one_hot(g.placeholder((2,), "int32"), -1), "depth -1 is negative")
    yield Misuse(lambda g: g.one_hot(g.placeholder((2,), "int32"), 3, axis=2), "axis 2 is outside")


ONE_HOT = OpDefinition(
    "one_hot",
    inputs=("indices",),
    infer=_one_hot_infer,
    reference=_one_hot_reference,
    not_differentiable="discrete",
    decompose=_one_hot_decompose,
    mpsgraph="oneHotWithIndicesTensor:depth:axis:dataType:onValue:offValue:name:",
    samples=_one_hot_samples,
    misuses=_one_hot_misuses,
)

DEFINITIONS = (ONE_HOT,)


class OneHotOps(GraphCore):
    """Class numbers as vectors."""

    def one_hot(
        self,
        indices: Tensor,
        depth: int,
        axis: int = -1,
        dtype: DTypeLike = "float32",
        on_value: float = 1.0,
        off_value: float = 0.0,
        name: str | None = None,
    ) -> Tensor:
        """`on_value` at the place each index names along a new axis, `off_value` elsewhere.

        Args:
            indices: integers of any shape; one outside 0 to `depth` - 1 gives `off_value` only.
            depth: size of the new axis.
            axis: where it stands in the result; negative counts from the end.
            dtype: element type of the result.
            on_value: value at the index.
            off_value: value elsewhere.
            name: label in printed graphs and errors; made unique when taken.

        Returns:
            Tensor with one axis more than `indices`.

        Raises:
            DTypeError: the indices are no integers.
            ShapeError: the depth is negative or the axis outside the rank of the result.

        Source: MPSGraph ``oneHotWithIndicesTensor:depth:axis:dataType:onValue:offValue:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.run(targets=[graph.one_hot(graph.constant([1, 0]), 3)], device="reference")[0]
            array([[0., 1., 0.],
                   [1., 0., 0.]], dtype=float32)
        """
        try:
            where = normalize_axis(int(axis), indices.rank + 1)
        except Misfit as misfit:
            raise self._worded(misfit, ONE_HOT, (indices,), name) from None
        attributes = {
            "depth": int(depth),
            "axis": where,
            "dtype": as_dtype(dtype),
            "on_value": on_value,
            "off_value": off_value,
        }
        return self._one(ONE_HOT, (indices,), attributes, name=name)
