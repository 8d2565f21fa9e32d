"""Where the extremes along an axis are, and running sums (MPSGraphReductionOps)."""

from __future__ import annotations

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
)
from stepgraph.graph.dtypes import int32
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.arithmetic_common import require_kind
from stepgraph.graph.shapes import Shape, Spec, bad_shape, format_shape, normalize_axes
from stepgraph.graph.tensor import Tensor


def reduced_shape(shape: Shape, axes: tuple[int, ...], keep_dims: bool) -> Shape:
    """What is left of a shape when some axes are reduced: size 1 each, or nothing.

    Example:
        >>> reduced_shape((None, 3, 4), (0, 2), True), reduced_shape((None, 3, 4), (2,), False)
        ((1, 3, 1), (None, 3))
    """
    if keep_dims:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def apart(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Random numbers of which no two are close, so that small steps change no winner."""
    count = int(np.prod(shape))
    return (rng.permutation(count).reshape(shape) / max(count, 1) - 0.4).astype("float32")


def _arg_infer(x: Spec, *, axis: int, keep_dims: bool) -> Spec:
    require_kind("number", x)
    (axis,) = normalize_axes(axis, x.rank)
    if x.shape[axis] == 0:
        raise bad_shape(f"axis {axis} of {format_shape(x.shape)} has no element to point at")
    return Spec(reduced_shape(x.shape, (axis,), keep_dims), int32)


def _arg_maximum_reference(x: Array, *, axis: int, keep_dims: bool) -> Array:
    return np.asarray(np.argmax(x, axis=axis, keepdims=keep_dims)).astype(np.int32)


def _arg_minimum_reference(x: Array, *, axis: int, keep_dims: bool) -> Array:
    return np.asarray(np.argmin(x, axis=axis, keepdims=keep_dims)).astype(np.int32)


def _arg_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = apart(rng, (2, 3, 4))
    yield Sample((x,), {"axis": -1})
    yield Sample((x,), {"axis": 1, "keep_dims": False}, label="dropped middle axis")
    yield Sample((x[:0],), {"axis": 1}, label="empty result")
    ties = np.array([[1.0, 1.0, -1.0, -1.0], [0.0, -0.0, 0.0, -0.0]], "float32")
    yield Sample((ties,), {"axis": 1}, label="ties")
    hard = np.array([[1.0, np.nan, np.nan], [np.inf, -np.inf, 0.0], [-np.inf] * 3], "float32")
    yield Sample((hard,), {"axis": 1}, label="special values")
    yield Sample((rng.integers(-5, 6, (4, 3)).astype("int32"),), {"axis": 0}, label="integers")


def _arg_misuses(name: str) -> Callable[[], Iterator[Misuse]]:
    def misuses() -> Iterator[Misuse]:
        yield Misuse(lambda g: getattr(g, name)(g.placeholder((2, 3)), 2), "axis 2 is outside")
        yield Misuse(lambda g: getattr(g, name)(g.placeholder((2, 0)), 1), "no element to point at")
        yield Misuse(
            lambda g: getattr(g, name)(g.placeholder((3,), "bool"), 0), "needs numbers", DTypeError
        )

    return misuses


def _cumulative_infer(x: Spec, *, axis: int, exclusive: bool, reverse: bool) -> Spec:
    require_kind("number", x)
    normalize_axes(axis, x.rank)
    return x


def _cumulative_reference(x: Array, *, axis: int, exclusive: bool, reverse: bool) -> Array:
    if reverse:
        x = np.flip(x, axis)
    total = np.cumsum(x, axis=axis, dtype=x.dtype)
    if exclusive:
        # Shifted, not `total - x`: with an infinite element that would be NaN.
        total = np.roll(total, 1, axis)
        first: list[Any] = [slice(None)] * x.ndim
        first[axis] = slice(0, 1)
        total[tuple(first)] = 0
    return np.flip(total, axis) if reverse else total


def _cumulative_gradient(op: Operation, grads: Grads) -> Gradients:
    grad = arrived(grads)
    attributes = {**op.attributes, "reverse": not op.attributes["reverse"]}
    return [op.graph.cumulative_sum(grad, **attributes)]


def _cumulative_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((2, 3, 4)).astype("float32")
    yield Sample((x,), {"axis": -1})
    yield Sample((x,), {"axis": 1, "exclusive": True}, label="exclusive")
    yield Sample((x,), {"axis": 0, "reverse": True}, label="reverse")
    yield Sample((x,), {"axis": 2, "exclusive": True, "reverse": True}, label="exclusive reverse")
    yield Sample((x[:, :0],), {"axis": 1}, label="empty")
    hard = np.array([[1.0, np.inf, 2.0], [np.nan, 1.0, 2.0]], "float32")
    for exclusive in (False, True):
        setting = {"axis": 1, "exclusive": exclusive}
        yield Sample((hard,), setting, differentiable=(), label="special values")
    yield Sample((np.arange(5, dtype="int32"),), {"axis": 0}, label="integers")


def _cumulative_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.cumulative_sum(g.placeholder(()), 0), "axis 0 is outside")
    yield Misuse(
        lambda g: g.cumulative_sum(g.placeholder((3,), "bool"), 0), "needs numbers", DTypeError
    )


def _arg(name: str, mpsgraph: str, reference: Callable[..., Array]) -> OpDefinition:
    return OpDefinition(
        name,
        inputs=("x",),
        infer=_arg_infer,
        reference=reference,
        not_differentiable="discrete",
        mpsgraph=f"{mpsgraph}WithTensor:axis:name:",
        samples=_arg_samples,
        misuses=_arg_misuses(name),
    )


CUMULATIVE_SUM = OpDefinition(
    "cumulative_sum",
    inputs=("x",),
    infer=_cumulative_infer,
    reference=_cumulative_reference,
    gradient=_cumulative_gradient,
    mpsgraph="cumulativeSumWithTensor:axis:exclusive:reverse:name:",
    samples=_cumulative_samples,
    misuses=_cumulative_misuses,
)

DEFINITIONS: tuple[OpDefinition, ...] = (
    _arg("reduction_arg_maximum", "reductionArgMaximum", _arg_maximum_reference),
    _arg("reduction_arg_minimum", "reductionArgMinimum", _arg_minimum_reference),
    CUMULATIVE_SUM,
)

_TABLE = {definition.name: definition for definition in DEFINITIONS}


class PositionOps(GraphCore):
    """Where extremes are, and running sums."""

    def reduction_arg_maximum(
        self, x: Tensor, axis: int, keep_dims: bool = True, name: str | None = None
    ) -> Tensor:
        """The position along an axis of the largest element, as int32.

        The first of equal ones, and the first NaN if there is one.

        Args:
            x: tensor of floats or integers.
            axis: which axis; negative counts from the end.
            keep_dims: whether it stays, with size 1.
            name: label.

        Raises:
            ShapeError: `axis` is outside the rank, or has size 0.

        Source: MPSGraph ``reductionArgMaximumWithTensor:axis:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([[1.0, 5.0, 5.0]])
            >>> found = graph.reduction_arg_maximum(x, axis=1, keep_dims=False)
            >>> graph.run(targets=[found], device="reference")[0]
            array([1], dtype=int32)
        """
        return self._arg_reduce("reduction_arg_maximum", x, axis, keep_dims, name)

    def reduction_arg_minimum(
        self, x: Tensor, axis: int, keep_dims: bool = True, name: str | None = None
    ) -> Tensor:
        """The position along an axis of the smallest element; see `reduction_arg_maximum`.

        Source: MPSGraph ``reductionArgMinimumWithTensor:axis:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([[1.0, 5.0], [4.0, 2.0]])
            >>> y = graph.reduction_arg_minimum(x, axis=1, keep_dims=False)
            >>> graph.run(targets=[y], device="reference")[0]
            array([0, 1], dtype=int32)
        """
        return self._arg_reduce("reduction_arg_minimum", x, axis, keep_dims, name)

    def _arg_reduce(
        self, op: str, x: Tensor, axis: int, keep_dims: bool, name: str | None
    ) -> Tensor:
        definition = _TABLE[op]
        attributes = {"axis": self._axis(definition, x, axis), "keep_dims": bool(keep_dims)}
        return self._one(definition, (x,), attributes, name=name)

    def cumulative_sum(
        self,
        x: Tensor,
        axis: int,
        exclusive: bool = False,
        reverse: bool = False,
        name: str | None = None,
    ) -> Tensor:
        """Along an axis, the sum of each element and all before it.

        Args:
            x: tensor of floats or integers.
            axis: which axis; negative counts from the end.
            exclusive: leave the element itself out, so that the first sum is 0.
            reverse: sum from the end.
            name: label.

        Source: MPSGraph ``cumulativeSumWithTensor:axis:exclusive:reverse:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([1, 2, 3])
            >>> sums = [graph.cumulative_sum(x, 0), graph.cumulative_sum(x, 0, exclusive=True)]
            >>> graph.run(targets=sums, device="reference")
            [array([1, 3, 6], dtype=int32), array([0, 1, 3], dtype=int32)]
        """
        attributes = {
            "axis": self._axis(CUMULATIVE_SUM, x, axis),
            "exclusive": bool(exclusive),
            "reverse": bool(reverse),
        }
        return self._one(CUMULATIVE_SUM, (x,), attributes, name=name)
