"""Pictures in another size (MPSGraphResizeOps), by nearest element or bilinear, and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
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
    require_rank,
    require_same_dtype,
    require_shape,
)
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import Shape, Spec, bad_shape, known_shape
from stepgraph.graph.tensor import Tensor

# For every index of a result axis: its source indices, each with a weight.
Pairs = list[tuple[Array, Array]]
# (source size, result size, align_corners, center_result) to those.
Taps = Callable[[int, int, bool, bool], Pairs]

_LAYOUTS = {"NHWC": (1, 2), "NCHW": (2, 3)}


def source_positions(size: int, wanted: int, align_corners: bool, center_result: bool) -> Array:
    """Where in a source axis the elements of a result axis lie, in source elements.

    Args:
        size: of the source axis.
        wanted: size of the result axis.
        align_corners: whether the first and last elements of both lie on each other.
        center_result: whether the middles of the elements count (not with `align_corners`).

    Returns:
        float64 array of `wanted` positions; with `center_result` they may lie outside the source.
    """
    index = np.arange(wanted, dtype=np.float64)
    if align_corners:
        return index * ((size - 1) / (wanted - 1) if wanted > 1 else 0.0)
    scale = size / wanted if wanted else 0.0
    return (index + 0.5) * scale - 0.5 if center_result else index * scale


def nearest_taps(size: int, wanted: int, align_corners: bool, center_result: bool) -> Pairs:
    """One source element for each element of the result.

    A position halfway between two takes the right one; without centring (and without aligned
    corners) positions are rounded down.
    """
    if align_corners or center_result:
        # In integers: the middle of element i is (2 i + 1) size / (2 wanted).
        index = np.arange(wanted, dtype=np.int64)
        if align_corners:
            steps = max(wanted - 1, 1)
            picked = (2 * index * (size - 1) + steps) // (2 * steps)
        else:
            picked = (2 * index + 1) * size // (2 * max(wanted, 1))
    else:
        picked = np.arange(wanted, dtype=np.int64) * size // max(wanted, 1)
    return [(np.clip(picked, 0, size - 1).astype(np.int32), np.ones(wanted))]


def bilinear_taps(size: int, wanted: int, align_corners: bool, center_result: bool) -> Pairs:
    """Two neighbours for each element of the result, with weights that sum to 1."""
    position = source_positions(size, wanted, align_corners, center_result)
    position = np.clip(position, 0, size - 1)
    low = np.floor(position)
    right = position - low
    first = low.astype(np.int32)
    return [(first, 1 - right), (np.minimum(first + 1, size - 1), right)]


def _check(x: Spec, size: tuple[int, int], data_layout: str) -> None:
    require_rank(x, 4)
    require_float(x)
    if data_layout not in _LAYOUTS:
        raise bad_shape(f"layout {data_layout!r} is unknown", expected="NHWC or NCHW")
    for axis, wanted in zip(_LAYOUTS[data_layout], size, strict=True):
        if wanted < 0 or (wanted and x.shape[axis] == 0):
            raise bad_shape(f"axis {axis} of size {x.shape[axis]} cannot be resized to {wanted}")


def _resized(shape: Shape, size: tuple[int, int], data_layout: str) -> Shape:
    sizes = list(shape)
    for axis, wanted in zip(_LAYOUTS[data_layout], size, strict=True):
        sizes[axis] = wanted
    return tuple(sizes)


def _infer(
    x: Spec, *, size: tuple[int, int], align_corners: bool, center_result: bool, data_layout: str
) -> Spec:
    _check(x, size, data_layout)
    return Spec(_resized(x.shape, size, data_layout), x.dtype)


def _gradient_infer(
    incoming: Spec,
    like: Spec,
    *,
    size: tuple[int, int],
    align_corners: bool,
    center_result: bool,
    data_layout: str,
) -> Spec:
    _check(like, size, data_layout)
    require_same_dtype(incoming, like)
    wanted = _resized(like.shape, size, data_layout)
    require_shape(incoming.shape, wanted, "the gradient", "what was resized")
    return like


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((2, 3, 4, 2)).astype("float32")
    yield Sample((x, (6, 8)), label="twice")
    yield Sample((x, (5, 3)), label="odd ratio")
    yield Sample((x, (2, 2)), label="smaller")
    yield Sample((x, (7, 9)), {"center_result": False}, label="corner")
    yield Sample((x, (7, 9)), {"align_corners": True}, label="aligned")
    yield Sample((x, (4, 5)), {"data_layout": "NCHW"}, label="NCHW")
    yield Sample((x, (1, 1)), label="one")
    yield Sample((x[:0], (6, 8)), label="empty batch")


def _gradient_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for sample in _samples(rng):
        x, size = sample.inputs
        shape = known_shape(_resized(x.shape, size, sample.arguments.get("data_layout", "NHWC")))
        incoming = rng.standard_normal(shape).astype("float32")
        yield Sample((incoming, x, size), sample.arguments, (0,), label=sample.label)


def _axes(
    taps: Taps,
    shape: Shape,
    *,
    size: tuple[int, int],
    align_corners: bool,
    center_result: bool,
    data_layout: str,
) -> list[tuple[int, int, Pairs]]:
    """(axis, source size, index and weight pairs) of the axes to resize."""
    known = known_shape(shape)
    return [
        (axis, known[axis], taps(known[axis], wanted, align_corners, center_result))
        for axis, wanted in zip(_LAYOUTS[data_layout], size, strict=True)
    ]


def _weights(axis: int, values: Array) -> Array:
    """Weights along an axis of a tensor of rank 4."""
    line = [1] * 4
    line[axis] = len(values)
    return values.reshape(line)


def _reference(taps: Taps, x: Array, **attributes: Any) -> Array:
    for axis, _, pairs in _axes(taps, x.shape, **attributes):
        parts = [np.take(x, i, axis) * _weights(axis, w).astype(x.dtype) for i, w in pairs]
        x = sum(parts[1:], parts[0])
    return x


def _decompose(taps: Taps, graph: Any, x: Tensor, **attributes: Any) -> Tensor:
    for axis, _, pairs in _axes(taps, x.shape, **attributes):
        parts = [
            _weighted(graph, graph.gather(x, graph.constant(i), axis=axis), axis, w)
            for i, w in pairs
        ]
        x = sum(parts[1:], parts[0])
    return x


def _weighted(graph: Any, part: Tensor, axis: int, values: Array) -> Tensor:
    if np.all(values == 1):
        return part
    factor: Tensor = graph.constant(_weights(axis, values), dtype=part.dtype)
    return part * factor


def _gradient(op: Operation, grads: Grads) -> Gradients:
    rule = getattr(op.graph, f"{op.type}_gradient")
    return [rule(arrived(grads), op.inputs[0], **op.attributes)]


def _backward_reference(taps: Taps, incoming: Array, like: Array, **attributes: Any) -> Array:
    for axis, source, pairs in reversed(_axes(taps, like.shape, **attributes)):
        shape = list(incoming.shape)
        shape[axis] = source
        total = np.zeros(shape, incoming.dtype)
        for i, w in pairs:
            part = incoming * _weights(axis, w).astype(incoming.dtype)
            np.add.at(np.moveaxis(total, axis, 0), i, np.moveaxis(part, axis, 0))
        incoming = total
    return incoming


def _backward_decompose(
    taps: Taps, graph: Any, incoming: Tensor, like: Tensor, **attributes: Any
) -> Tensor:
    for axis, source, pairs in reversed(_axes(taps, like.shape, **attributes)):
        shape = list(known_shape(incoming.shape))
        shape[axis] = source
        total = graph.constant(0, shape=shape, dtype=incoming.dtype)
        for i, w in pairs:
            part = _weighted(graph, incoming, axis, w)
            total = graph.scatter(total, part, graph.constant(i), axis=axis)
        incoming = total
    return incoming


def _backward_gradient(op: Operation, grads: Grads) -> Gradients:
    resize = getattr(op.graph, op.type.removesuffix("_gradient"))
    return [resize(arrived(grads), **op.attributes), None]


def _misuses(name: str) -> Iterator[Misuse]:
    def build(graph: Any, x: Tensor, **arguments: Any) -> object:
        return getattr(graph, name)(x, (4, 4), **arguments)

    yield Misuse(lambda g: build(g, g.placeholder((2, 3))), "rank 2")
    yield Misuse(
        lambda g: build(g, g.placeholder((1, 2, 2, 1), "int32")), "floating point", DTypeError
    )
    yield Misuse(
        lambda g: build(g, g.placeholder((1, 2, 2, 1)), data_layout="HWNC"), "layout 'HWNC'"
    )
    yield Misuse(lambda g: build(g, g.placeholder((1, 0, 2, 1))), "cannot be resized to 4")


def _backward_misuses(name: str) -> Iterator[Misuse]:
    yield Misuse(
        lambda g: getattr(g, name)(
            g.placeholder((1, 4, 5, 1)), g.placeholder((1, 2, 2, 1)), (4, 4)
        ),
        r"gradient is \(1, 4, 5, 1\), that of what was resized \(1, 4, 4, 1\)",
    )


def _define(name: str, taps: Taps, selector: str) -> tuple[OpDefinition, OpDefinition]:
    """A resize and its gradient, which differ between kinds in their taps alone."""
    forward = OpDefinition(
        name,
        inputs=("x",),
        infer=_infer,
        reference=partial(_reference, taps),
        gradient=_gradient,
        decompose=partial(_decompose, taps),
        mpsgraph=selector,
        samples=_samples,
        misuses=partial(_misuses, name),
    )
    backward = OpDefinition(
        f"{name}_gradient",
        inputs=("incoming", "like"),
        infer=_gradient_infer,
        reference=partial(_backward_reference, taps),
        gradient=_backward_gradient,
        decompose=partial(_backward_decompose, taps),
        shape_only=(1,),
        samples=_gradient_samples,
        misuses=partial(_backward_misuses, f"{name}_gradient"),
    )
    return forward, backward


RESIZE_NEAREST, RESIZE_NEAREST_GRADIENT = _define(
    "resize_nearest",
    nearest_taps,
    "resizeNearestWithTensor:sizeTensor:nearestRoundingMode:centerResult:alignCorners:layout:name:",
)
RESIZE_BILINEAR, RESIZE_BILINEAR_GRADIENT = _define(
    "resize_bilinear",
    bilinear_taps,
    "resizeBilinearWithTensor:sizeTensor:centerResult:alignCorners:layout:name:",
)

DEFINITIONS = (
    RESIZE_NEAREST,
    RESIZE_NEAREST_GRADIENT,
    RESIZE_BILINEAR,
    RESIZE_BILINEAR_GRADIENT,
)


def _attributes(
    size: tuple[int, int], align_corners: bool, center_result: bool, data_layout: str
) -> dict[str, Any]:
    height, width = size
    return {
        "size": (int(height), int(width)),
        "align_corners": bool(align_corners),
        "center_result": bool(center_result),
        "data_layout": data_layout,
    }


class ResizeOps(GraphCore):
    """Pictures in another size."""

    def resize_nearest(
        self,
        x: Tensor,
        size: tuple[int, int],
        align_corners: bool = False,
        center_result: bool = True,
        data_layout: str = "NHWC",
        name: str | None = None,
    ) -> Tensor:
        """Every element of the result is the source element that lies nearest.

        By a whole factor this repeats each element that often (Keras ``UpSampling2D``).

        Args:
            x: float tensor of rank 4.
            size: height and width of the result.
            align_corners: whether the corner elements of both pictures lie on each other.
            center_result: whether the middles of the elements are compared, not their first
                corners; `align_corners` goes before it.
            data_layout: ``"NHWC"`` or ``"NCHW"``.
            name: label in printed graphs and errors; made unique when taken.

        Raises:
            ShapeError: `x` has another rank, or nothing to resize.
            DTypeError: `x` is not floating point.

        Source: MPSGraph
        ``resizeNearestWithTensor:sizeTensor:nearestRoundingMode:centerResult:alignCorners:layout:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.reshape(graph.constant([1.0, 2.0]), (1, 1, 2, 1))
            >>> y = graph.reshape(graph.resize_nearest(x, (1, 4)), (4,))
            >>> graph.run(targets=[y], device="reference")[0]
            array([1., 1., 2., 2.], dtype=float32)
        """
        attributes = _attributes(size, align_corners, center_result, data_layout)
        return self._one(RESIZE_NEAREST, (x,), attributes, name=name)

    def resize_nearest_gradient(
        self,
        incoming: Tensor,
        like: Tensor,
        size: tuple[int, int],
        align_corners: bool = False,
        center_result: bool = True,
        data_layout: str = "NHWC",
        name: str | None = None,
    ) -> Tensor:
        """The gradient of `resize_nearest`: each source element gets the sum of its copies'.

        Args:
            incoming: gradient of the result.
            like: what was resized; only its shape is read.
            size: as for `resize_nearest`.
            align_corners: as for `resize_nearest`.
            center_result: as for `resize_nearest`.
            data_layout: as for `resize_nearest`.
            name: label.
        """
        attributes = _attributes(size, align_corners, center_result, data_layout)
        return self._one(RESIZE_NEAREST_GRADIENT, (incoming, like), attributes, name=name)

    def resize_bilinear(
        self,
        x: Tensor,
        size: tuple[int, int],
        align_corners: bool = False,
        center_result: bool = True,
        data_layout: str = "NHWC",
        name: str | None = None,
    ) -> Tensor:
        """Every element of the result lies on straight lines between its source neighbours.

        Outside the middles of the border elements the border is repeated. Nothing is averaged when
        a picture is made smaller.

        Args:
            x: float tensor of rank 4.
            size: height and width of the result.
            align_corners: whether the corner elements of both pictures lie on each other.
            center_result: whether the middles of the elements are compared, not their first
                corners; `align_corners` goes before it.
            data_layout: ``"NHWC"`` or ``"NCHW"``.
            name: label.

        Raises:
            ShapeError: `x` has another rank, or nothing to resize.
            DTypeError: `x` is not floating point.

        Source: MPSGraph
        ``resizeBilinearWithTensor:sizeTensor:centerResult:alignCorners:layout:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.reshape(graph.constant([1.0, 2.0]), (1, 1, 2, 1))
            >>> y = graph.reshape(graph.resize_bilinear(x, (1, 4)), (4,))
            >>> graph.run(targets=[y], device="reference")[0]
            array([1.  , 1.25, 1.75, 2.  ], dtype=float32)
        """
        attributes = _attributes(size, align_corners, center_result, data_layout)
        return self._one(RESIZE_BILINEAR, (x,), attributes, name=name)

    def resize_bilinear_gradient(
        self,
        incoming: Tensor,
        like: Tensor,
        size: tuple[int, int],
        align_corners: bool = False,
        center_result: bool = True,
        data_layout: str = "NHWC",
        name: str | None = None,
    ) -> Tensor:
        """The gradient of `resize_bilinear`: each source element gets its share of its neighbours'.

        Args:
            incoming: gradient of the result.
            like: what was resized; only its shape is read.
            size: as for `resize_bilinear`.
            align_corners: as for `resize_bilinear`.
            center_result: as for `resize_bilinear`.
            data_layout: as for `resize_bilinear`.
            name: label.
        """
        attributes = _attributes(size, align_corners, center_result, data_layout)
        return self._one(RESIZE_BILINEAR_GRADIENT, (incoming, like), attributes, name=name)
