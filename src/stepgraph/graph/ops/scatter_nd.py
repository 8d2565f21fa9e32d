"""Elements put where index tensors say (MPSGraphScatterNDOps).

Where several updates meet in one place, ``"set"`` keeps the last in row-major order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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
    require_float,
    require_same_dtype,
    require_shape,
)
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.gather import check_indices, require_indices
from stepgraph.graph.ops.gather_along_axis import along_flat_tensor, along_shape
from stepgraph.graph.ops.gather_nd import nd_flat, nd_flat_tensor, nd_shape
from stepgraph.graph.shapes import ShapeLike, Spec, bad_shape, known_shape
from stepgraph.graph.tensor import Tensor


def _assign_at(data: Array, places: Any, updates: Array) -> None:
    data[places] = updates


# How updates meet what is there already; MPSGraphScatterMode's names.
MODES: dict[str, Callable[[Array, Any, Array], None]] = {
    "add": np.add.at,
    "sub": np.subtract.at,
    "mul": np.multiply.at,
    "div": np.divide.at,
    "min": np.minimum.at,
    "max": np.maximum.at,
    "set": _assign_at,
}


def _check(data: Spec, updates: Spec, indices: Spec, mode: str) -> None:
    require_indices(indices)
    require_same_dtype(data, updates)
    if mode not in MODES:
        raise bad_shape(f"mode {mode!r} is unknown", expected=f"one of {', '.join(MODES)}")
    if mode == "div":
        require_float(data)


def _gradient(op: Operation, grads: Grads) -> Gradients:
    """The rule of all three ops, in terms of the op itself and the gather that mirrors it."""
    graph, grad = op.graph, arrived(grads)
    data, updates, indices = op.inputs
    mode = op.attributes["mode"]
    settings = {k: v for k, v in op.attributes.items() if k != "mode"}

    def pick(x: Tensor) -> Tensor:
        mirror: Callable[..., Tensor] = getattr(graph, op.type.replace("scatter", "gather"))
        return mirror(x, indices, **settings)

    def put(into: Tensor, values: Tensor, how: str) -> Tensor:
        attributes = {**settings, "mode": how}
        return graph._one(op.definition, (into, values, indices), attributes)

    if mode == "add":
        return [grad, pick(grad), None]
    if mode == "sub":
        return [grad, graph.negative(pick(grad)), None]
    if mode == "mul":
        # Of an update that is 0 the rest of the product is lost: its gradient comes out as NaN.
        product = put(graph.ones_like(data), updates, "mul")
        return [grad * product, pick(grad * op.output) / updates, None]
    if mode == "div":
        return [put(grad, updates, "div"), graph.negative(pick(grad * op.output) / updates), None]
    if mode == "set":
        cleared = put(grad, graph.zeros_like(updates), "set")
        return [
            cleared,
            graph.cast(_lasting(graph, data, updates, put, pick), grad.dtype) * pick(grad),
            None,
        ]
    # min, max: those that reached the result share its gradient.
    stayed = graph.cast(graph.equal(data, op.output), grad.dtype)
    reached = graph.cast(graph.equal(updates, pick(op.output)), grad.dtype)
    share = grad / put(stayed, reached, "add")
    return [share * stayed, pick(share) * reached, None]


def _lasting(
    graph: Any,
    data: Tensor,
    updates: Tensor,
    put: Callable[[Tensor, Tensor, str], Tensor],
    pick: Callable[[Tensor], Tensor],
) -> Tensor:
    """Which updates no later one has overwritten: each leaves its number and looks who was last."""
    ones = graph.reshape(graph.cast(graph.ones_like(updates), "int32"), (-1,))
    numbers = graph.reshape_like(graph.cumulative_sum(ones, axis=0), updates)
    board = put(graph.cast(graph.zeros_like(data), "int32"), numbers, "set")
    result: Tensor = graph.equal(pick(board), numbers)
    return result


# -- scatter -------------------------------------------------------------------------------------


def _scatter_infer(data: Spec, updates: Spec, indices: Spec, *, axis: int, mode: str) -> Spec:
    _check(data, updates, indices, mode)
    wanted = (*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])
    require_shape(updates.shape, wanted, "the updates", "what the indices name")
    return data


def _scatter_reference(
    data: Array, updates: Array, indices: Array, *, axis: int, mode: str
) -> Array:
    check_indices("scatter", indices, data.shape[axis], axis)
    before, behind = data.shape[:axis], data.shape[axis + 1 :]
    result = data.copy()
    parts = updates.reshape(*before, indices.size, *behind)
    MODES[mode](np.moveaxis(result, axis, 0), indices.reshape(-1), np.moveaxis(parts, axis, 0))
    return result


def _modes(
    rng: np.random.Generator, data: Array, updates: Array
) -> Iterator[tuple[Array, Array, str]]:
    for mode in MODES:
        if mode in ("mul", "div"):
            # Products and quotients: away from zero.
            yield np.abs(data) + 0.5, np.abs(updates) + 0.5, mode
        else:
            yield data, updates, mode


def _scatter_samples(rng: np.random.Generator) -> Iterator[Sample]:
    data = rng.standard_normal((4, 3)).astype("float32")
    updates = rng.standard_normal((5, 3)).astype("float32")
    rows = np.array([1, 3, 1, 0, 1], "int32")
    for d, u, mode in _modes(rng, data, updates):
        yield Sample((d, u, rows), {"mode": mode}, label=mode)
    columns = np.array([[2, 0], [2, 2]], "int64")
    wide = rng.standard_normal((4, 2, 2)).astype("float32")
    yield Sample((data, wide, columns), {"axis": -1}, label="last axis")
    yield Sample((data, updates[:0], rows[:0]), label="no indices")
    whole = np.array([[7, 8, 9]], "int32")
    yield Sample(
        (whole.repeat(3, 0), whole, np.array([1], "uint8")), {"mode": "set"}, label="int32"
    )


def _scatter_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.scatter(
            g.placeholder((3, 2)), g.placeholder((2, 3)), g.placeholder((2,), "int32")
        ),
        r"updates is \(2, 3\), that of what the indices name \(2, 2\)",
    )
    yield Misuse(
        lambda g: g.scatter(
            g.placeholder((3,)), g.placeholder((2,)), g.placeholder((2,), "int32"), mode="xor"
        ),
        "mode 'xor' is unknown",
    )
    yield Misuse(
        lambda g: g.scatter(g.placeholder((3,)), g.placeholder((2,)), g.placeholder((2,))),
        "indices are float32",
        DTypeError,
    )


# -- scatter_nd ----------------------------------------------------------------------------------


def _nd_infer(
    data: Spec, updates: Spec, indices: Spec, *, batch_dimensions: int, mode: str
) -> Spec:
    _check(data, updates, indices, mode)
    wanted = nd_shape(data.shape, indices.shape, batch_dimensions)
    require_shape(updates.shape, wanted, "the updates", "what the indices name")
    return data


def _nd_reference(
    data: Array, updates: Array, indices: Array, *, batch_dimensions: int, mode: str
) -> Array:
    flat = nd_flat(data.shape, indices, batch_dimensions, "scatter_nd")
    behind = math.prod(data.shape[batch_dimensions + indices.shape[-1] :])
    rows = data.reshape(-1, behind).copy() if data.size else data.reshape(0, behind)
    MODES[mode](rows, flat, updates.reshape(flat.size, behind))
    return rows.reshape(data.shape)


def _nd_decompose(
    graph: Any, data: Tensor, updates: Tensor, indices: Tensor, *, batch_dimensions: int, mode: str
) -> Tensor:
    shape, sizes = known_shape(data.shape), known_shape(indices.shape)
    split = batch_dimensions + sizes[-1]
    lead, behind = math.prod(shape[:split]), math.prod(shape[split:])
    flat = nd_flat_tensor(graph, shape, indices, batch_dimensions)
    rows = graph.scatter(
        graph.reshape(data, (lead, behind)),
        graph.reshape(updates, (math.prod(sizes[:-1]), behind)),
        flat,
        mode=mode,
    )
    result: Tensor = graph.reshape(rows, shape)
    return result


def _nd_samples(rng: np.random.Generator) -> Iterator[Sample]:
    updates = rng.standard_normal((3, 2)).astype("float32")
    places = np.array([[1, 0], [0, 2], [1, 0]], "int32")
    yield Sample((updates, places, (2, 3, 2)), label="zeros")
    yield Sample((updates[:, 0].copy(), places, (2, 3)), {"mode": "set"}, label="elements")
    batched = rng.integers(0, 4, (3, 2, 1)).astype("int64")
    yield Sample((updates, batched, (3, 4)), {"batch_dimensions": 1}, label="batched")


def _nd_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.scatter_nd(g.placeholder((3,)), g.placeholder((2, 1), "int32"), (4,)),
        r"updates is \(3,\), that of what the indices name \(2,\)",
    )
    yield Misuse(
        lambda g: g.scatter_nd(g.placeholder((2,)), g.placeholder((2, 1), "int32")),
        "shape= or data=",
    )


# -- scatter_along_axis --------------------------------------------------------------------------


def _along_infer(data: Spec, updates: Spec, indices: Spec, *, axis: int, mode: str) -> Spec:
    _check(data, updates, indices, mode)
    wanted = along_shape(data.shape, indices.shape, axis, "the data")
    require_shape(updates.shape, wanted, "the updates", "what the indices name")
    return data


def _along_reference(data: Array, updates: Array, indices: Array, *, axis: int, mode: str) -> Array:
    check_indices("scatter_along_axis", indices, data.shape[axis], axis)
    result = data.copy()
    places: list[Array] = list(np.indices(indices.shape, sparse=True))
    places[axis] = indices
    MODES[mode](result, tuple(places), updates)
    return result


def _along_decompose(
    graph: Any, data: Tensor, updates: Tensor, indices: Tensor, *, axis: int, mode: str
) -> Tensor:
    shape = known_shape(data.shape)
    flat = along_flat_tensor(graph, shape, indices, axis)
    count = math.prod(known_shape(updates.shape))
    line = graph.scatter(
        graph.reshape(data, (math.prod(shape),)), graph.reshape(updates, (count,)), flat, mode=mode
    )
    result: Tensor = graph.reshape(line, shape)
    return result


def _along_samples(rng: np.random.Generator) -> Iterator[Sample]:
    data = rng.standard_normal((3, 4)).astype("float32")
    updates = rng.standard_normal((3, 6)).astype("float32")
    places = rng.integers(0, 4, (3, 6)).astype("int32")
    for d, u, mode in _modes(rng, data, updates):
        yield Sample((d, u, places, 1), {"mode": mode}, label=mode)
    yield Sample((data, updates[:2, :4], places[:2, :4] % 3, 0), label="first axis")


def _along_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.scatter_along_axis(
            g.placeholder((3, 4)), g.placeholder((2, 2)), g.placeholder((2, 2), "int32"), 1
        ),
        "equal sizes along every axis but axis 1",
    )


SCATTER = OpDefinition(
    "scatter",
    inputs=("data", "updates", "indices"),
    infer=_scatter_infer,
    reference=_scatter_reference,
    gradient=_gradient,
    mpsgraph="scatterWithDataTensor:updatesTensor:indicesTensor:axis:mode:name:",
    samples=_scatter_samples,
    misuses=_scatter_misuses,
)
SCATTER_ND = OpDefinition(
    "scatter_nd",
    inputs=("data", "updates", "indices"),
    infer=_nd_infer,
    reference=_nd_reference,
    gradient=_gradient,
    decompose=_nd_decompose,
    mpsgraph="scatterNDWithDataTensor:updatesTensor:indicesTensor:batchDimensions:mode:name:",
    samples=_nd_samples,
    misuses=_nd_misuses,
)
SCATTER_ALONG_AXIS = OpDefinition(
    "scatter_along_axis",
    inputs=("data", "updates", "indices"),
    infer=_along_infer,
    reference=_along_reference,
    gradient=_gradient,
    decompose=_along_decompose,
    mpsgraph="scatterAlongAxis:withDataTensor:updatesTensor:indicesTensor:mode:name:",
    samples=_along_samples,
    misuses=_along_misuses,
)

DEFINITIONS = (SCATTER, SCATTER_ND, SCATTER_ALONG_AXIS)


class ScatterNdOps(GraphCore):
    """Elements put where index tensors say.

    Modes are ``"add"``, ``"sub"``, ``"mul"``, ``"div"``, ``"min"``, ``"max"`` and ``"set"``; of
    several updates set in one place the last in row-major order stays.
    """

    def scatter(
        self,
        data: Tensor,
        updates: Tensor,
        indices: Tensor,
        axis: int = 0,
        mode: str = "add",
        name: str | None = None,
    ) -> Tensor:
        """`data` with slices along an axis updated: the mirror of `gather`.

        Args:
            data: tensor of rank 1 or more.
            updates: tensor of shape ``data.shape[:axis] + indices.shape + data.shape[axis + 1:]``.
            indices: integers from 0 to the size of the axis, excluded; repeats allowed.
            axis: the axis the indices count along; negative counts from the end.
            mode: how an update meets what is there.
            name: label in printed graphs and errors; made unique when taken.

        Raises:
            ShapeError: the updates do not fit, or the mode is unknown.
            DTypeError: the indices are no integers, or data and updates differ in dtype.
            FeedError: at run, an index is outside the axis.

        Source: MPSGraph ``scatterWithDataTensor:updatesTensor:indicesTensor:axis:mode:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> zeros, ones = graph.constant([0, 0, 0]), graph.constant([1, 1, 1])
            >>> graph.run(targets=[graph.scatter(zeros, ones, graph.constant([2, 0, 2]))])[0]
            array([1, 0, 2], dtype=int32)
        """
        attributes = {"axis": self._axis(SCATTER, data, axis), "mode": mode}
        return self._one(SCATTER, (data, updates, indices), attributes, name=name)

    def scatter_nd(
        self,
        updates: Tensor,
        indices: Tensor,
        shape: ShapeLike | None = None,
        mode: str = "add",
        data: Tensor | None = None,
        batch_dimensions: int = 0,
        name: str | None = None,
    ) -> Tensor:
        """Updates put at places named by tuples of indices: the mirror of `gather_nd`.

        Args:
            updates: tensor of shape ``indices.shape[:-1] + shape[batch_dimensions + k:]``.
            indices: integers; the last axis, of known size k, holds the tuples.
            shape: sizes of the result, which starts from zeros.
            mode: how an update meets what is there.
            data: what to start from, instead of `shape`.
            batch_dimensions: leading axes that the result and `indices` share.
            name: label.

        Raises:
            ShapeError: the updates do not fit, or neither or both of `shape` and `data` are given.
            DTypeError: the indices are no integers, or data and updates differ in dtype.
            FeedError: at run, an index is outside its axis.

        Source: MPSGraph
        ``scatterNDWithUpdatesTensor:indicesTensor:shape:batchDimensions:mode:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> values, places = graph.constant([5, 7]), graph.constant([[1, 0], [0, 1]])
            >>> graph.run(targets=[graph.scatter_nd(values, places, (2, 2))])[0]
            array([[0, 7],
                   [5, 0]], dtype=int32)
        """
        if (shape is None) == (data is None):
            misfit = bad_shape("what is the size of the result?", expected="either shape= or data=")
            raise self._worded(misfit, SCATTER_ND, (), name)
        if data is None:
            assert shape is not None
            data = self._graph.constant(0, shape=shape, dtype=updates.dtype)
        attributes = {"batch_dimensions": int(batch_dimensions), "mode": mode}
        return self._one(SCATTER_ND, (data, updates, indices), attributes, name=name)

    def scatter_along_axis(
        self,
        data: Tensor,
        updates: Tensor,
        indices: Tensor,
        axis: int,
        mode: str = "add",
        name: str | None = None,
    ) -> Tensor:
        """`data` updated along an axis, every line at its own indices; mirrors `gather_along_axis`.

        Args:
            data: tensor of rank 1 or more.
            updates: tensor of the shape of `indices`.
            indices: integers, of the shape of `data` but along the axis.
            axis: the axis the indices count along; negative counts from the end.
            mode: how an update meets what is there.
            name: label.

        Raises:
            ShapeError: sizes differ, or the mode is unknown.
            DTypeError: the indices are no integers, or data and updates differ in dtype.
            FeedError: at run, an index is outside its axis.

        Source: MPSGraph ``scatterAlongAxis:withDataTensor:updatesTensor:indicesTensor:mode:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x, new = graph.constant([[1, 2], [3, 4]]), graph.constant([[8], [9]])
            >>> places = graph.constant([[1], [0]])
            >>> graph.run(targets=[graph.scatter_along_axis(x, new, places, 1, "set")])[0]
            array([[1, 8],
                   [9, 4]], dtype=int32)
        """
        attributes = {"axis": self._axis(SCATTER_ALONG_AXIS, data, axis), "mode": mode}
        return self._one(SCATTER_ALONG_AXIS, (data, updates, indices), attributes, name=name)
