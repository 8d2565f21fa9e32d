"""Padding: a tensor with elements added around it, and the gradient of that."""

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
)
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.slicing import STRIDED_SLICE
from stepgraph.graph.shapes import Shape, Spec, bad_shape, known_shape
from stepgraph.graph.tensor import Tensor

Paddings = tuple[tuple[int, int], ...]
PAD_MODES = ("constant", "reflect", "symmetric", "edge")


def pad_sources(size: int, before: int, after: int, mode: str) -> Array:
    """For every index of a padded axis the index it repeats; modes other than ``"constant"``."""
    if not before + after:
        return np.arange(size)
    line: Array = np.pad(np.arange(size), (before, after), mode=mode)  # type: ignore[call-overload]
    return line


def _pad_infer(x: Spec, *, paddings: Paddings, mode: str, value: float) -> Spec:
    return Spec(_padded(x.shape, paddings, mode), x.dtype)


def _padded(shape: Shape, paddings: Paddings, mode: str) -> Shape:
    if len(paddings) != len(shape):
        raise bad_shape(
            f"{len(paddings)} paddings for a tensor of rank {len(shape)}",
            expected="(before, after) for each axis",
        )
    if mode not in PAD_MODES:
        raise bad_shape(f"mode {mode!r} is unknown", expected=f"one of {', '.join(PAD_MODES)}")
    for axis, ((before, after), size) in enumerate(zip(paddings, shape, strict=True)):
        if before < 0 or after < 0:
            raise bad_shape(
                f"padding ({before}, {after}) of axis {axis} is negative",
                expected="0 or more",
                fix="cut with graph.slice or x[...]",
            )
        if size == 0 and mode != "constant" and before + after:
            raise bad_shape(f"axis {axis} has nothing to repeat: its size is 0")
    return tuple(
        None if size is None else size + before + after
        for size, (before, after) in zip(shape, paddings, strict=True)
    )


def _pad_reference(x: Array, *, paddings: Paddings, mode: str, value: float) -> Array:
    if not paddings:
        return x.copy()
    if mode == "constant":
        return np.pad(x, paddings, constant_values=np.asarray(value).astype(x.dtype))
    return np.pad(x, paddings, mode=mode)  # type: ignore[call-overload, no-any-return]


def _pad_gradient(op: Operation, grads: Grads) -> Gradients:
    graph, grad = op.graph, arrived(grads)
    paddings, mode = op.attributes["paddings"], op.attributes["mode"]
    if mode != "constant":
        attributes = {"paddings": paddings, "mode": mode}
        return [graph._one(PAD_GRADIENT, (grad,), attributes)]
    rank = len(paddings)
    attributes = {
        "starts": tuple(before for before, _ in paddings),
        "ends": tuple(-after for _, after in paddings),
        "strides": (1,) * rank,
        "start_mask": (False,) * rank,
        "end_mask": tuple(after == 0 for _, after in paddings),
        "squeeze_mask": (False,) * rank,
    }
    return [graph._one(STRIDED_SLICE, (grad,), attributes)]


def _pad_decompose(graph: Any, x: Tensor, *, paddings: Paddings, mode: str, value: float) -> Tensor:
    shape = known_shape(x.shape)
    if mode == "constant":
        whole = known_shape(_padded(shape, paddings, mode))
        filled = graph.constant(value, shape=whole, dtype=x.dtype)
        updated: Tensor = graph.slice_update(filled, x, [before for before, _ in paddings])
        return updated
    for axis, (before, after) in enumerate(paddings):
        if before + after:
            line = pad_sources(shape[axis], before, after, mode).astype(np.int32)
            x = graph.gather(x, graph.constant(line), axis=axis)
    return x


def _pad_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((3, 4)).astype("float32")
    yield Sample((x, ((1, 2), (0, 3))))
    yield Sample((x, ((1, 0), (2, 2)), "constant", -1.5), label="value")
    yield Sample((x, ((2, 1), (3, 2)), "reflect"), label="reflect")
    yield Sample((x, ((2, 1), (3, 2)), "symmetric"), label="symmetric")
    yield Sample((x, ((2, 1), (0, 5)), "edge"), label="edge")
    yield Sample((x[:, :0], ((0, 1), (1, 1))), label="empty")


def _pad_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.pad(g.placeholder((3, 4)), ((1, 1),)), "1 paddings for .* rank 2")
    yield Misuse(lambda g: g.pad(g.placeholder((3,)), ((-1, 1),)), "is negative")
    yield Misuse(lambda g: g.pad(g.placeholder((3,)), ((1, 1),), "wrap"), "mode 'wrap' is unknown")
    yield Misuse(lambda g: g.pad(g.placeholder((0,)), ((1, 1),), "edge"), "nothing to repeat")


def _pad_gradient_infer(incoming: Spec, *, paddings: Paddings, mode: str) -> Spec:
    sizes: list[int | None] = []
    for axis, (size, (before, after)) in enumerate(zip(incoming.shape, paddings, strict=True)):
        if size is not None and size < before + after:
            raise bad_shape(f"axis {axis} has size {size}, less than its padding {before + after}")
        sizes.append(None if size is None else size - before - after)
    _padded(tuple(sizes), paddings, mode)
    return Spec(tuple(sizes), incoming.dtype)


def _pad_gradient_reference(incoming: Array, *, paddings: Paddings, mode: str) -> Array:
    for axis, (before, after) in enumerate(paddings):
        size = incoming.shape[axis] - before - after
        moved = np.moveaxis(incoming, axis, 0)
        summed = np.zeros((size, *moved.shape[1:]), incoming.dtype)
        np.add.at(summed, pad_sources(size, before, after, mode), moved)
        incoming = np.moveaxis(summed, 0, axis)
    return np.array(incoming, order="C")


def _pad_gradient_gradient(op: Operation, grads: Grads) -> Gradients:
    return [op.graph.pad(arrived(grads), op.attributes["paddings"], op.attributes["mode"])]


def _pad_gradient_decompose(
    graph: Any, incoming: Tensor, *, paddings: Paddings, mode: str
) -> Tensor:
    for axis, (before, after) in enumerate(paddings):
        if not before + after:
            continue
        shape = list(known_shape(incoming.shape))
        shape[axis] -= before + after
        line = pad_sources(shape[axis], before, after, mode).astype(np.int32)
        like = graph.constant(0, shape=shape, dtype=incoming.dtype)
        incoming = graph.gather_gradient(incoming, graph.constant(line), like, axis=axis)
    return incoming


def _pad_gradient_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((6, 9)).astype("float32")
    for mode in PAD_MODES[1:]:
        yield Sample((x, ((2, 1), (3, 2)), mode), label=mode)


def _pad_gradient_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.pad_gradient(g.placeholder((3,)), ((2, 2),), "edge"), "less than its padding 4"
    )


PAD = OpDefinition(
    "pad",
    inputs=("x",),
    infer=_pad_infer,
    reference=_pad_reference,
    gradient=_pad_gradient,
    decompose=_pad_decompose,
    mpsgraph="padTensor:withPaddingMode:leftPadding:rightPadding:constantValue:name:",
    samples=_pad_samples,
    misuses=_pad_misuses,
)
PAD_GRADIENT = OpDefinition(
    "pad_gradient",
    inputs=("incoming",),
    infer=_pad_gradient_infer,
    reference=_pad_gradient_reference,
    gradient=_pad_gradient_gradient,
    decompose=_pad_gradient_decompose,
    mpsgraph="padGradientWithIncomingGradientTensor:sourceTensor:paddingMode:leftPadding:"
    "rightPadding:name:",
    samples=_pad_gradient_samples,
    misuses=_pad_gradient_misuses,
)

DEFINITIONS = (PAD, PAD_GRADIENT)


class PaddingOps(GraphCore):
    """Elements added around a tensor."""

    def pad(
        self,
        x: Tensor,
        paddings: Sequence[Sequence[int]],
        mode: str = "constant",
        value: float = 0.0,
        name: str | None = None,
    ) -> Tensor:
        """`x` with elements added around it.

        Args:
            x: tensor of any shape.
            paddings: how many before and after, for every axis.
            mode: ``"constant"``; ``"reflect"`` mirrors without repeating the border,
                ``"symmetric"`` mirrors with it, ``"edge"`` repeats the border; as in NumPy.
            value: what constant padding holds.
            name: label.

        Raises:
            ShapeError: the paddings do not match the rank or are negative, or the mode is unknown.

        Source: MPSGraph ``padTensor:withPaddingMode:leftPadding:rightPadding:constantValue:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.run(targets=[graph.pad(graph.constant([1, 2, 3]), [(2, 1)], "reflect")])[0]
            array([3, 2, 1, 2, 3, 2], dtype=int32)
        """
        pairs = tuple((int(before), int(after)) for before, after in paddings)
        attributes = {"paddings": pairs, "mode": mode, "value": value}
        return self._one(PAD, (x,), attributes, name=name)

    def pad_gradient(
        self,
        incoming: Tensor,
        paddings: Sequence[Sequence[int]],
        mode: str,
        name: str | None = None,
    ) -> Tensor:
        """The gradient of `pad` in the modes that repeat: each element gets its copies' sum.

        Args:
            incoming: gradient of the padded tensor.
            paddings: how many were added before and after, for every axis.
            mode: ``"reflect"``, ``"symmetric"`` or ``"edge"``.
            name: label.

        Source: MPSGraph ``padGradientWithIncomingGradientTensor:sourceTensor:paddingMode:...``.
        """
        pairs = tuple((int(before), int(after)) for before, after in paddings)
        return self._one(PAD_GRADIENT, (incoming,), {"paddings": pairs, "mode": mode}, name=name)
