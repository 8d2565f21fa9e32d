"""Order (MPSGraphTopKOps, MPSGraphSortOps): top_k, sort, arg_sort.

NaN counts as larger than every number. Of equal elements the one that stands first comes first.
"""

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
    bad_dtype,
)
from stepgraph.graph.dtypes import int32
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import Spec, bad_shape, known_shape
from stepgraph.graph.tensor import Tensor


def _require_order(x: Spec) -> None:
    if x.dtype.is_bool:
        raise bad_dtype("bools have no order", fix='graph.cast(x, "int32")')


def _order(x: Array, axis: int, descending: bool) -> Array:
    """Indices that sort along an axis; equal elements keep their order both ways."""
    if not descending:
        return np.asarray(np.argsort(x, axis=axis, kind="stable"))
    # Sorting the mirror image upwards and reading it backwards keeps equal elements in order.
    upwards = np.argsort(np.flip(x, axis), axis=axis, kind="stable")
    return np.asarray(x.shape[axis] - 1 - np.flip(upwards, axis))


# -- top_k ---------------------------------------------------------------------------------------


def _top_k_infer(x: Spec, *, k: int, axis: int) -> tuple[Spec, Spec]:
    _require_order(x)
    size = x.shape[axis]
    if k < 0 or (size is not None and k > size):
        raise bad_shape(
            f"k is {k}, axis {axis} has size {size}", expected="k from 0 to the size of the axis"
        )
    shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
    return Spec(shape, x.dtype), Spec(shape, int32)


def _top_k_reference(x: Array, *, k: int, axis: int) -> tuple[Array, Array]:
    indices = np.take(_order(x, axis, True), range(k), axis=axis)
    return np.take_along_axis(x, indices, axis), indices.astype(np.int32)


def _top_k_gradient(op: Operation, grads: Grads) -> Gradients:
    if grads[0] is None:
        return [None]
    x, indices = op.inputs[0], op.outputs[1]
    return [op.graph.gather_along_axis_gradient(grads[0], indices, x, op.attributes["axis"])]


def _ordered_samples(rng: np.random.Generator) -> Iterator[tuple[Array, int, str]]:
    # A permutation: finite differences must not change the order.
    x = (rng.permutation(60).reshape(3, 4, 5) / 7).astype("float32")
    yield x, -1, ""
    yield x, 1, "middle axis"
    yield np.array([[3, 1, 3, 2, 3, 1]], "int32"), 1, "ties"
    yield np.array([1.0, np.nan, np.inf, -np.inf, np.nan], "float32"), 0, "NaN"


def _top_k_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for x, axis, label in _ordered_samples(rng):
        differentiable = () if label == "NaN" else None
        yield Sample((x, 3), {"axis": axis}, differentiable, label=label)
    yield Sample((np.array([1.0, 2.0], "float32"), 0), label="k 0")


def _top_k_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.top_k(g.placeholder((3,)), 4), "k is 4, axis 0 has size 3")
    yield Misuse(lambda g: g.top_k(g.placeholder((3,)), 1, axis=1), "axis 1 is outside")
    yield Misuse(
        lambda g: g.top_k(g.placeholder((3,), "bool"), 1), "bools have no order", DTypeError
    )


# -- sort, arg_sort ------------------------------------------------------------------------------


def _sort_infer(x: Spec, *, axis: int, descending: bool) -> Spec:
    _require_order(x)
    return x


def _sort_reference(x: Array, *, axis: int, descending: bool) -> Array:
    return np.take_along_axis(x, _order(x, axis, descending), axis)


def _sort_gradient(op: Operation, grads: Grads) -> Gradients:
    graph, x, grad = op.graph, op.inputs[0], arrived(grads)
    order = graph.arg_sort(x, **op.attributes)
    return [graph.gather_along_axis_gradient(grad, order, x, op.attributes["axis"])]


def _sort_decompose(graph: Any, x: Tensor, *, axis: int, descending: bool) -> Tensor:
    values, _ = graph.top_k(x, known_shape(x.shape)[axis], axis=axis)
    result: Tensor = values if descending else graph.reverse(values, axis)
    return result


def _sort_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for x, axis, label in _ordered_samples(rng):
        differentiable = () if label == "NaN" else None
        yield Sample((x,), {"axis": axis}, differentiable, label=label)
        yield Sample(
            (x,), {"axis": axis, "descending": True}, differentiable, label=f"descending {label}"
        )


def _sort_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.sort(g.placeholder((3,)), axis=1), "axis 1 is outside")
    yield Misuse(lambda g: g.sort(g.placeholder((3,), "bool")), "bools have no order", DTypeError)


def _arg_sort_infer(x: Spec, *, axis: int, descending: bool) -> Spec:
    _require_order(x)
    return Spec(x.shape, int32)


def _arg_sort_reference(x: Array, *, axis: int, descending: bool) -> Array:
    return _order(x, axis, descending).astype(np.int32)


def _arg_sort_decompose(graph: Any, x: Tensor, *, axis: int, descending: bool) -> Tensor:
    size = known_shape(x.shape)[axis]
    if descending:
        order: Tensor = graph.top_k(x, size, axis=axis)[1]
        return order
    _, mirrored = graph.top_k(graph.reverse(x, axis), size, axis=axis)
    upwards: Tensor = (size - 1) - graph.reverse(mirrored, axis)
    return upwards


def _arg_sort_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.arg_sort(g.placeholder((3,)), axis=1), "axis 1 is outside")


TOP_K = OpDefinition(
    "top_k",
    inputs=("x",),
    infer=_top_k_infer,
    reference=_top_k_reference,
    gradient=_top_k_gradient,
    mpsgraph="topKWithSourceTensor:axis:k:name:",
    samples=_top_k_samples,
    misuses=_top_k_misuses,
)
SORT = OpDefinition(
    "sort",
    inputs=("x",),
    infer=_sort_infer,
    reference=_sort_reference,
    gradient=_sort_gradient,
    decompose=_sort_decompose,
    mpsgraph="sortWithTensor:axis:descending:name:",
    samples=_sort_samples,
    misuses=_sort_misuses,
)
ARG_SORT = OpDefinition(
    "arg_sort",
    inputs=("x",),
    infer=_arg_sort_infer,
    reference=_arg_sort_reference,
    not_differentiable="discrete",
    decompose=_arg_sort_decompose,
    mpsgraph="argSortWithTensor:axis:descending:name:",
    samples=_sort_samples,
    misuses=_arg_sort_misuses,
)

DEFINITIONS = (TOP_K, SORT, ARG_SORT)


class TopKOps(GraphCore):
    """Order. NaN counts as larger than every number; equal elements keep their order."""

    def top_k(
        self, x: Tensor, k: int, axis: int = -1, name: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """The `k` largest elements along an axis, largest first, and where they stand.

        Args:
            x: tensor of rank 1 or more, not of bools.
            k: how many, up to the size of the axis.
            axis: the axis; negative counts from the end.
            name: label in printed graphs and errors; made unique when taken.

        Returns:
            Values and int32 indices, both of size `k` along the axis. Of equal elements the first
            comes first.

        Raises:
            ShapeError: `k` is larger than the axis, or the axis is outside the rank.
            DTypeError: `x` holds bools.

        Source: MPSGraph ``topKWithSourceTensor:axis:k:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([1.0, 5.0, 3.0])
            >>> graph.run(targets=graph.top_k(x, 2), device="reference")
            [array([5., 3.], dtype=float32), array([1, 2], dtype=int32)]
        """
        attributes = {"k": int(k), "axis": self._axis(TOP_K, x, axis)}
        values, indices = self._add(TOP_K, (x,), attributes, name=name).outputs
        return values, indices

    def sort(
        self, x: Tensor, axis: int = -1, descending: bool = False, name: str | None = None
    ) -> Tensor:
        """The elements of `x` in order along an axis.

        Args:
            x: tensor of rank 1 or more, not of bools.
            axis: the axis; negative counts from the end.
            descending: whether the largest comes first.
            name: label.

        Raises:
            ShapeError: the axis is outside the rank.
            DTypeError: `x` holds bools.

        Source: MPSGraph ``sortWithTensor:axis:descending:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.run(targets=[graph.sort(graph.constant([3, 1, 2]))], device="reference")[0]
            array([1, 2, 3], dtype=int32)
        """
        attributes = {"axis": self._axis(SORT, x, axis), "descending": bool(descending)}
        return self._one(SORT, (x,), attributes, name=name)

    def arg_sort(
        self, x: Tensor, axis: int = -1, descending: bool = False, name: str | None = None
    ) -> Tensor:
        """The indices that sort `x` along an axis, int32; equal elements keep their order.

        Args:
            x: tensor of rank 1 or more, not of bools.
            axis: the axis; negative counts from the end.
            descending: whether the largest comes first.
            name: label.

        Raises:
            ShapeError: the axis is outside the rank.
            DTypeError: `x` holds bools.

        Source: MPSGraph ``argSortWithTensor:axis:descending:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> order = graph.arg_sort(graph.constant([3, 1, 2]))
            >>> graph.run(targets=[order], device="reference")[0]
            array([1, 2, 0], dtype=int32)
        """
        attributes = {"axis": self._axis(ARG_SORT, x, axis), "descending": bool(descending)}
        return self._one(ARG_SORT, (x,), attributes, name=name)
