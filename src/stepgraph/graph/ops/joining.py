"""Tensors put together and taken apart: concat, stack, split, tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from stepgraph.graph.shapes import (
    Misfit,
    Shape,
    Spec,
    bad_shape,
    known_shape,
)
from stepgraph.graph.tensor import Tensor

# Of `concat_gradient` every input but the first gives its shape only.
_MANY = 1024


# -- concat --------------------------------------------------------------------------------------


def _concat_infer(*tensors: Spec, axis: int) -> Spec:
    require_same_dtype(*tensors)
    first = tensors[0]
    sizes: list[int | None] = list(first.shape)
    for spec in tensors[1:]:
        if spec.rank != first.rank:
            raise bad_shape(
                f"ranks differ: {first.rank} and {spec.rank}", expected="one rank for all"
            )
        for i, size in enumerate(spec.shape):
            if i == axis:
                continue
            if sizes[i] is not None and size is not None and sizes[i] != size:
                raise bad_shape(
                    f"axis {i} has size {sizes[i]} in one and {size} in another",
                    expected=f"equal sizes along every axis but axis {axis}",
                )
            sizes[i] = size if sizes[i] is None else sizes[i]
    along = [spec.shape[axis] for spec in tensors]
    sizes[axis] = None if None in along else sum(d for d in along if d is not None)
    return Spec(tuple(sizes), first.dtype)


def _concat_reference(*tensors: Array, axis: int) -> Array:
    return np.concatenate(tensors, axis)


def _concat_gradient(op: Operation, grads: Grads) -> Gradients:
    graph, grad, axis = op.graph, arrived(grads), op.attributes["axis"]
    sizes = [t.shape[axis] for t in op.inputs]
    if None not in sizes:
        return graph.split(grad, [d for d in sizes if d is not None], axis)
    return [
        graph.concat_gradient(grad, op.inputs, position, axis) if t.dtype.is_float else None
        for position, t in enumerate(op.inputs)
    ]


def _concat_samples(rng: np.random.Generator) -> Iterator[Sample]:
    a, b, c = (rng.standard_normal((2, n, 3)).astype("float32") for n in (1, 4, 0))
    yield Sample(([a, b, c], 1))
    yield Sample(([b, b], -1), label="last axis")
    yield Sample(([a], 0), label="one")


def _concat_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.concat([g.placeholder((2, 3)), g.placeholder((2, 4))], 0),
        "axis 1 has size 3 in one and 4 in another",
    )
    yield Misuse(
        lambda g: g.concat([g.placeholder((2, 3)), g.placeholder((2,))], 0), "ranks differ"
    )
    yield Misuse(lambda g: g.concat([g.placeholder((2,))], 1), "axis 1 is outside")
    yield Misuse(lambda g: g.concat([], 0), "nothing to join")


# -- concat_gradient -----------------------------------------------------------------------------


def _part_infer(incoming: Spec, *tensors: Spec, axis: int, position: int) -> Spec:
    joined = _concat_infer(*tensors, axis=axis)
    require_same_dtype(incoming, joined)
    require_shape(incoming.shape, joined.shape, "the gradient", "the concat")
    return tensors[position]


def _part_reference(incoming: Array, *tensors: Array, axis: int, position: int) -> Array:
    start = sum(t.shape[axis] for t in tensors[:position])
    return np.take(incoming, range(start, start + tensors[position].shape[axis]), axis=axis)


def _part_gradient(op: Operation, grads: Grads) -> Gradients:
    graph, position, grad = op.graph, op.attributes["position"], arrived(grads)
    parts = [grad if i == position else graph.zeros_like(t) for i, t in enumerate(op.inputs[1:])]
    joined = graph.concat(parts, op.attributes["axis"])
    return [joined, *(None for _ in parts)]


def _part_decompose(
    graph: Any, incoming: Tensor, *tensors: Tensor, axis: int, position: int
) -> Tensor:
    sizes = [known_shape(t.shape)[axis] for t in tensors]
    part: Tensor = graph.slice(incoming, axis, sum(sizes[:position]), sizes[position])
    return part


def _part_samples(rng: np.random.Generator) -> Iterator[Sample]:
    a, b = (rng.standard_normal((2, n)).astype("float32") for n in (3, 4))
    incoming = rng.standard_normal((2, 7)).astype("float32")
    yield Sample((incoming, [a, b], 1, 1), differentiable=(0,))
    yield Sample((incoming, [a, b], 0, -1), differentiable=(0,), label="first part")


def _part_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.concat_gradient(g.placeholder((4,)), [g.placeholder((3,))], 0, 0),
        r"gradient is \(4,\), that of the concat \(3,\)",
    )


# -- tile ----------------------------------------------------------------------------------------


def _tile_infer(x: Spec, *, multiples: tuple[int, ...]) -> Spec:
    _check_multiples(x, multiples)
    pairs = zip(x.shape, multiples, strict=True)
    return Spec(tuple(None if size is None else size * times for size, times in pairs), x.dtype)


def _check_multiples(x: Spec, multiples: tuple[int, ...]) -> None:
    if len(multiples) != x.rank:
        raise bad_shape(
            f"{len(multiples)} multiples for a tensor of rank {x.rank}",
            expected="one for each axis",
        )
    if any(times < 0 for times in multiples):
        raise bad_shape(f"{multiples} holds a negative multiple", expected="0 or more")


def _tile_reference(x: Array, *, multiples: tuple[int, ...]) -> Array:
    return np.tile(x, multiples)


def _tile_gradient(op: Operation, grads: Grads) -> Gradients:
    return [op.graph.tile_gradient(arrived(grads), op.inputs[0], op.attributes["multiples"])]


def _interleaved(shape: tuple[int, ...], multiples: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for pair in zip(multiples, shape, strict=True) for n in pair)


def _tile_decompose(graph: Any, x: Tensor, *, multiples: tuple[int, ...]) -> Tensor:
    shape = known_shape(x.shape)
    apart = graph.reshape(x, _interleaved(shape, (1,) * len(shape)))
    repeated = graph.broadcast(apart, _interleaved(shape, multiples))
    result: Tensor = graph.reshape(
        repeated, tuple(n * times for n, times in zip(shape, multiples, strict=True))
    )
    return result


def _tile_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((2, 3)).astype("float32")
    yield Sample((x, (2, 3)))
    yield Sample((x, (1, 0)), label="empty")


def _tile_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.tile(g.placeholder((2, 3)), (2,)), "1 multiples for .* rank 2")
    yield Misuse(lambda g: g.tile(g.placeholder((2,)), (-1,)), "negative multiple")


def _untile_infer(incoming: Spec, like: Spec, *, multiples: tuple[int, ...]) -> Spec:
    require_same_dtype(incoming, like)
    tiled = _tile_infer(like, multiples=multiples)
    require_shape(incoming.shape, tiled.shape, "the gradient", "the tiled tensor")
    return like


def _untile_reference(incoming: Array, like: Array, *, multiples: tuple[int, ...]) -> Array:
    apart = incoming.reshape(_interleaved(like.shape, multiples))
    return np.sum(apart, axis=tuple(range(0, apart.ndim, 2)), dtype=incoming.dtype)


def _untile_gradient(op: Operation, grads: Grads) -> Gradients:
    return [op.graph.tile(arrived(grads), op.attributes["multiples"]), None]


def _untile_decompose(
    graph: Any, incoming: Tensor, like: Tensor, *, multiples: tuple[int, ...]
) -> Tensor:
    shape = known_shape(like.shape)
    apart = graph.reshape(incoming, _interleaved(shape, multiples))
    summed = graph.reduction_sum(apart, axes=tuple(range(0, 2 * len(shape), 2)))
    result: Tensor = graph.reshape(summed, shape)
    return result


def _untile_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((4, 9)).astype("float32")
    yield Sample((x, x[:2, :3], (2, 3)), differentiable=(0,))


def _untile_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.tile_gradient(g.placeholder((4,)), g.placeholder((3,)), (2,)),
        r"gradient is \(4,\), that of the tiled tensor \(6,\)",
    )


CONCAT = OpDefinition(
    "concat",
    inputs=("tensors*",),
    infer=_concat_infer,
    reference=_concat_reference,
    gradient=_concat_gradient,
    mpsgraph="concatTensors:dimension:name:",
    samples=_concat_samples,
    misuses=_concat_misuses,
)
CONCAT_GRADIENT = OpDefinition(
    "concat_gradient",
    inputs=("incoming", "tensors*"),
    infer=_part_infer,
    reference=_part_reference,
    gradient=_part_gradient,
    decompose=_part_decompose,
    shape_only=tuple(range(1, _MANY)),
    samples=_part_samples,
    misuses=_part_misuses,
)
TILE = OpDefinition(
    "tile",
    inputs=("x",),
    infer=_tile_infer,
    reference=_tile_reference,
    gradient=_tile_gradient,
    decompose=_tile_decompose,
    mpsgraph="tileTensor:withMultiplier:name:",
    samples=_tile_samples,
    misuses=_tile_misuses,
)
TILE_GRADIENT = OpDefinition(
    "tile_gradient",
    inputs=("incoming", "like"),
    infer=_untile_infer,
    reference=_untile_reference,
    gradient=_untile_gradient,
    decompose=_untile_decompose,
    shape_only=(1,),
    mpsgraph="tileGradientWithIncomingGradientTensor:sourceTensor:withMultiplier:name:",
    samples=_untile_samples,
    misuses=_untile_misuses,
)

DEFINITIONS = (CONCAT, CONCAT_GRADIENT, TILE, TILE_GRADIENT)


class JoiningOps(GraphCore):
    """Tensors put together and taken apart."""

    def concat(self, tensors: Sequence[Tensor], axis: int = 0, name: str | None = None) -> Tensor:
        """Tensors joined along an axis.

        Args:
            tensors: one or more of one rank and dtype, of equal sizes along the other axes.
            axis: where to join; negative counts from the end.
            name: label in printed graphs and errors; made unique when taken.

        Raises:
            ShapeError: sizes or ranks differ, or there is no tensor.
            DTypeError: dtypes differ.

        Source: MPSGraph ``concatTensors:dimension:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> a, b = graph.constant([1, 2]), graph.constant([3])
            >>> graph.run(targets=[graph.concat([a, b])])[0]
            array([1, 2, 3], dtype=int32)
        """
        where = self._axis(CONCAT, self._some(tensors, name), axis)
        return self._one(CONCAT, tensors, {"axis": where}, name=name)

    def concat_gradient(
        self,
        incoming: Tensor,
        tensors: Sequence[Tensor],
        position: int,
        axis: int,
        name: str | None = None,
    ) -> Tensor:
        """The part of `concat`'s gradient that belongs to one of the tensors joined.

        Args:
            incoming: gradient of the joined tensor.
            tensors: what was joined; only their shapes are read.
            position: which of them.
            axis: where they were joined.
            name: label.
        """
        where = self._axis(CONCAT_GRADIENT, self._some(tensors, name), axis)
        attributes = {"axis": where, "position": int(position)}
        return self._one(CONCAT_GRADIENT, (incoming, *tensors), attributes, name=name)

    def _some(self, tensors: Sequence[Tensor], name: str | None) -> Tensor:
        if not tensors:
            raise self._worded(bad_shape("nothing to join", expected="a tensor"), CONCAT, (), name)
        return tensors[0]

    def stack(self, tensors: Sequence[Tensor], axis: int = 0, name: str | None = None) -> Tensor:
        """Tensors of one shape joined along a new axis.

        Args:
            tensors: one or more of one shape and dtype.
            axis: where the new axis stands in the result; negative counts from its end.
            name: label.

        Raises:
            ShapeError: the shapes differ, or there is no tensor.

        Source: MPSGraph ``stackTensors:axis:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> a, b = graph.constant([1, 2]), graph.constant([3, 4])
            >>> graph.run(targets=[graph.stack([a, b], axis=1)])[0]
            array([[1, 3],
                   [2, 4]], dtype=int32)
        """
        self._some(tensors, name)
        expanded = [self._graph.expand_dims(t, axis) for t in tensors]
        return self.concat(expanded, axis, name=name or "stack")

    def split(
        self, x: Tensor, sizes: int | Sequence[int], axis: int = 0, name: str | None = None
    ) -> list[Tensor]:
        """`x` cut into parts along an axis.

        Args:
            x: tensor of rank 1 or more.
            sizes: the size of every part, or the number of equal parts.
            axis: where to cut; negative counts from the end.
            name: label.

        Returns:
            The parts, in order.

        Raises:
            ShapeError: the sizes do not add up to the axis, or it does not divide into equal parts.

        Source: MPSGraph ``splitTensor:splitSizes:axis:name:``,
        ``splitTensor:numSplits:axis:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.run(targets=graph.split(graph.constant([1, 2, 3]), [1, 2]))
            [array([1], dtype=int32), array([2, 3], dtype=int32)]
        """
        from stepgraph.graph.ops.slicing import SLICE

        where = self._axis(SLICE, x, axis)
        try:
            parts = _split_sizes(x.shape, where, sizes)
        except Misfit as misfit:
            raise self._worded(misfit, SLICE, (x,), name or "split") from None
        starts = [sum(parts[:i]) for i in range(len(parts))]
        return [
            self._graph.slice(x, where, start, size, name=name or "split")
            for start, size in zip(starts, parts, strict=True)
        ]

    def tile(self, x: Tensor, multiples: Sequence[int], name: str | None = None) -> Tensor:
        """`x` laid side by side.

        Args:
            x: tensor of any shape.
            multiples: how many times along each axis.
            name: label.

        Raises:
            ShapeError: there is not one multiple for each axis, or one is negative.

        Source: MPSGraph ``tileTensor:withMultiplier:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.run(targets=[graph.tile(graph.constant([1, 2]), [2])])[0]
            array([1, 2, 1, 2], dtype=int32)
        """
        times = tuple(int(n) for n in multiples)
        return self._one(TILE, (x,), {"multiples": times}, name=name)

    def tile_gradient(
        self, incoming: Tensor, like: Tensor, multiples: Sequence[int], name: str | None = None
    ) -> Tensor:
        """The gradient of `tile`: each element gets the sum of its copies'.

        Args:
            incoming: gradient of the tiled tensor.
            like: the tensor that was tiled; only its shape is read.
            multiples: how many times along each axis.
            name: label.

        Source: MPSGraph
        ``tileGradientWithIncomingGradientTensor:sourceTensor:withMultiplier:name:``.
        """
        times = tuple(int(n) for n in multiples)
        return self._one(TILE_GRADIENT, (incoming, like), {"multiples": times}, name=name)


def _split_sizes(shape: Shape, axis: int, sizes: int | Sequence[int]) -> list[int]:
    """The size of every part."""
    size = shape[axis]
    if isinstance(sizes, int):
        if size is None:
            raise bad_shape(
                f"the size of axis {axis} is not known yet", fix="give the size of every part"
            )
        if sizes < 1 or size % sizes:
            raise bad_shape(
                f"axis {axis} of size {size} does not divide into {sizes} equal parts",
                fix="give the size of every part",
            )
        return [size // sizes] * sizes
    parts = [int(n) for n in sizes]
    if any(n < 0 for n in parts) or (size is not None and sum(parts) != size):
        raise bad_shape(
            f"parts of sizes {parts} do not make up axis {axis} of size {size}",
            expected="sizes of 0 or more that add up to the axis",
        )
    return parts
