"""Reductions (MPSGraphReductionOps): sums, products, extremes, where they are; running sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

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
from stepgraph.graph.shapes import Axes, Shape, Spec, bad_shape, format_shape, normalize_axes
from stepgraph.graph.tensor import Tensor

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph

# (graph, x, output with its axes kept, gradient with its axes kept, axes) to the gradient of x.
Rule = Callable[["Graph", Tensor, Tensor, Tensor, tuple[int, ...]], Tensor]


def reduced_shape(shape: Shape, axes: tuple[int, ...], keep_dims: bool) -> Shape:
    """What is left of a shape when some axes are reduced: size 1 each, or nothing.

    Example:
        >>> reduced_shape((None, 3, 4), (0, 2), True), reduced_shape((None, 3, 4), (2,), False)
        ((1, 3, 1), (None, 3))
    """
    if keep_dims:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def _kept(graph: Graph, tensor: Tensor, axes: tuple[int, ...], keep_dims: bool) -> Tensor:
    """Gives dropped axes back, so that the tensor broadcasts against what was reduced."""
    done = keep_dims or not axes or tensor.rank == 0
    return tensor if done else graph.expand_dims(tensor, axes)


def _reduction(
    name: str,
    mpsgraph: str,
    reference: Callable[[Array, tuple[int, ...]], Any],
    rule: Rule | None,
    samples: Callable[[np.random.Generator], Iterator[Sample]],
    *,
    kind: str = "number",
) -> OpDefinition:
    """An op that makes one element of all those along some axes.

    `mpsgraph` is how its selector begins.
    """

    def infer(x: Spec, *, axes: tuple[int, ...], keep_dims: bool) -> Spec:
        require_kind(kind, x)
        normalize_axes(axes, x.rank)
        return Spec(reduced_shape(x.shape, axes, keep_dims), x.dtype)

    def compute(x: Array, *, axes: tuple[int, ...], keep_dims: bool) -> Array:
        shape = reduced_shape(x.shape, axes, keep_dims)
        return np.asarray(reference(x, axes), x.dtype).reshape(shape)  # type: ignore[arg-type]

    def gradient(op: Operation, grads: Grads) -> Gradients:
        assert rule is not None
        axes, keep_dims = op.attributes["axes"], op.attributes["keep_dims"]
        both = op.output, arrived(grads)
        output, grad = (_kept(op.graph, t, axes, keep_dims) for t in both)
        return [rule(op.graph, op.inputs[0], output, grad, axes)]

    def misuses() -> Iterator[Misuse]:
        right, wrong = ("bool", "float32") if kind == "bool" else ("float32", "bool")
        yield Misuse(
            lambda g: getattr(g, name)(g.placeholder((2, 3), right), axes=(2,)), "axis 2 is outside"
        )
        yield Misuse(
            lambda g: getattr(g, name)(g.placeholder((3,), wrong)),
            f"needs .* got {wrong}",
            DTypeError,
        )

    return OpDefinition(
        name,
        inputs=("x",),
        infer=infer,
        reference=compute,
        gradient=gradient if rule else None,
        not_differentiable="" if rule else "discrete",
        mpsgraph=f"{mpsgraph}WithTensor:axes:name:",
        samples=samples,
        misuses=misuses,
    )


# -- meanings ------------------------------------------------------------------------------------


def _sum(x: Array, axes: tuple[int, ...]) -> Array:
    # Half precision has too few digits to add many terms in.
    wide = np.float32 if x.dtype == np.float16 else x.dtype
    return np.asarray(np.sum(x, axis=axes, dtype=wide)).astype(x.dtype)


def _product(x: Array, axes: tuple[int, ...]) -> Array:
    return np.asarray(np.prod(x, axis=axes, dtype=x.dtype))


def lowest(dtype: np.dtype[Any]) -> Any:
    """The value that any other exceeds: what a maximum of nothing is."""
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def highest(dtype: np.dtype[Any]) -> Any:
    """The value that exceeds any other: what a minimum of nothing is."""
    return np.inf if dtype.kind == "f" else np.iinfo(dtype).max


def _maximum(x: Array, axes: tuple[int, ...]) -> Array:
    return np.asarray(np.max(x, axis=axes, initial=lowest(x.dtype)))


def _minimum(x: Array, axes: tuple[int, ...]) -> Array:
    return np.asarray(np.min(x, axis=axes, initial=highest(x.dtype)))


# -- gradients -----------------------------------------------------------------------------------


def _sum_rule(g: Graph, x: Tensor, y: Tensor, grad: Tensor, axes: tuple[int, ...]) -> Tensor:
    return g.broadcast_like(grad, x)


def _extreme_rule(g: Graph, x: Tensor, y: Tensor, grad: Tensor, axes: tuple[int, ...]) -> Tensor:
    winners = g.select(g.equal(x, y), g.ones_like(x), 0.0)
    return winners * (grad / g.reduction_sum(winners, axes))


def _product_rule(g: Graph, x: Tensor, y: Tensor, grad: Tensor, axes: tuple[int, ...]) -> Tensor:
    # The product of the others is y / x, except where x is 0: then it is the product of the rest
    # if that is the only 0, and 0 if there are more.
    zero = g.equal(x, 0.0)
    others = g.select(zero, 1.0, x)
    zeros = g.reduction_sum(g.select(zero, g.ones_like(x), 0.0), axes)
    alone = g.logical_and(zero, g.equal(zeros, 1.0))
    rest = g.select(alone, g.reduction_product(others, axes), 0.0)
    return grad * g.select(g.equal(zeros, 0.0), y / others, rest)


# -- samples -------------------------------------------------------------------------------------


def _apart(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Random numbers of which no two are close, so that small steps change no winner."""
    count = int(np.prod(shape))
    return (rng.permutation(count).reshape(shape) / max(count, 1) - 0.4).astype("float32")


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = _apart(rng, (2, 3, 4))
    yield Sample((x,))
    yield Sample((x,), {"axes": (1,)}, label="middle axis")
    yield Sample((x,), {"axes": (0, -1), "keep_dims": False}, label="dropped axes")
    yield Sample((x,), {"axes": (2,), "keep_dims": False}, label="dropped last axis")
    yield Sample((x,), {"axes": ()}, label="no axes")
    yield Sample((np.array(2.5, "float32"),), label="rank 0")
    yield Sample((x[:0],), {"axes": (1,)}, label="empty result")
    yield Sample((x[:, :0],), {"axes": (1,)}, differentiable=(), label="nothing to reduce")
    hard = np.array([[np.nan, 1.0], [np.inf, -1.0], [-np.inf, 2.0], [np.inf, -np.inf]], "float32")
    yield Sample((hard,), {"axes": (1,)}, differentiable=(), label="special values")
    yield Sample((rng.integers(-5, 6, (4, 3)).astype("int32"),), {"axes": 0}, label="integers")


def _long_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield from _samples(rng)
    yield Sample((rng.uniform(0.0, 1.0, (3, 5000)).astype("float32"),), {"axes": 1}, label="long")
    yield Sample(
        (rng.uniform(0.0, 1.0, (500, 37)).astype("float32"),), {"axes": 0}, label="columns"
    )


def _extreme_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield from _samples(rng)
    ties = np.array([[1.0, 1.0, -1.0], [-1.0, 0.5, -1.0]], "float32")
    yield Sample((ties,), {"axes": (1,)}, differentiable=(), label="ties")


def _product_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield from _samples(rng)
    one_zero = np.array([[2.0, 0.0, 3.0], [1.0, 2.0, -1.0]], "float32")
    yield Sample((one_zero,), {"axes": (1,)}, label="one zero")
    yield Sample((np.array([[0.0, 0.0, 3.0]], "float32"),), {"axes": (1,)}, label="two zeros")


def _bool_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = np.array([[True, True, True], [True, False, True], [False, False, False]])
    yield Sample((x,))
    yield Sample((x,), {"axes": (1,), "keep_dims": False}, label="rows")
    yield Sample((x[:, :0],), {"axes": (1,)}, label="nothing to reduce")


# -- where the extremes are, running sums --------------------------------------------------------


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
    x = _apart(rng, (2, 3, 4))
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
    _reduction("reduction_sum", "reductionSum", _sum, _sum_rule, _long_samples),
    _reduction("reduction_product", "reductionProduct", _product, _product_rule, _product_samples),
    _reduction(
        "reduction_maximum",
        "reductionMaximumPropagateNaN",
        _maximum,
        _extreme_rule,
        _extreme_samples,
    ),
    _reduction(
        "reduction_minimum",
        "reductionMinimumPropagateNaN",
        _minimum,
        _extreme_rule,
        _extreme_samples,
    ),
    _reduction(
        "reduction_and",
        "reductionAnd",
        lambda x, axes: np.all(x, axis=axes),
        None,
        _bool_samples,
        kind="bool",
    ),
    _reduction(
        "reduction_or",
        "reductionOr",
        lambda x, axes: np.any(x, axis=axes),
        None,
        _bool_samples,
        kind="bool",
    ),
    _arg("reduction_arg_maximum", "reductionArgMaximum", _arg_maximum_reference),
    _arg("reduction_arg_minimum", "reductionArgMinimum", _arg_minimum_reference),
    CUMULATIVE_SUM,
)

_TABLE = {definition.name: definition for definition in DEFINITIONS}


class ReductionOps(GraphCore):
    """Reductions and running sums."""

    def _reduce(self, op: str, x: Tensor, axes: Axes, keep_dims: bool, name: str | None) -> Tensor:
        definition = _TABLE[op]
        attributes = {"axes": self._axes(definition, x, axes), "keep_dims": bool(keep_dims)}
        return self._one(definition, (x,), attributes, name=name)

    def reduction_sum(
        self, x: Tensor, axes: Axes = None, keep_dims: bool = True, name: str | None = None
    ) -> Tensor:
        """The sum of the elements along some axes; 0 of nothing.

        Args:
            x: tensor of floats or integers, which wrap around.
            axes: which axes; negative ones count from the end, None means all.
            keep_dims: whether reduced axes stay, with size 1.
            name: label in printed graphs and errors; made unique when taken.

        Returns:
            Tensor of the dtype of `x`.

        Raises:
            ShapeError: an axis is outside the rank of `x`.
            DTypeError: `x` is bool; cast it to count.

        Source: MPSGraph ``reductionSumWithTensor:axes:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([[1.0, 2.0], [3.0, 4.0]])
            >>> graph.run(targets=[graph.reduction_sum(x, axes=1)], device="reference")[0]
            array([[3.],
                   [7.]], dtype=float32)
        """
        return self._reduce("reduction_sum", x, axes, keep_dims, name)

    def reduction_product(
        self, x: Tensor, axes: Axes = None, keep_dims: bool = True, name: str | None = None
    ) -> Tensor:
        """The product of the elements along some axes; 1 of nothing. See `reduction_sum`.

        Its gradient is right also where elements are 0; second derivatives are not there.

        Source: MPSGraph ``reductionProductWithTensor:axes:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([[1.0, 5.0], [4.0, 2.0]])
            >>> y = graph.reduction_product(x, axes=1, keep_dims=False)
            >>> graph.run(targets=[y], device="reference")[0]
            array([5., 8.], dtype=float32)
        """
        return self._reduce("reduction_product", x, axes, keep_dims, name)

    def reduction_maximum(
        self, x: Tensor, axes: Axes = None, keep_dims: bool = True, name: str | None = None
    ) -> Tensor:
        """The largest element along some axes; NaN if any is. See `reduction_sum`.

        Of nothing it is -inf (the lowest integer). Equal ones share the gradient.

        Source: MPSGraph ``reductionMaximumPropagateNaNWithTensor:axes:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([[1.0, 5.0], [4.0, 2.0]])
            >>> y = graph.reduction_maximum(x, axes=1, keep_dims=False)
            >>> graph.run(targets=[y], device="reference")[0]
            array([5., 4.], dtype=float32)
        """
        return self._reduce("reduction_maximum", x, axes, keep_dims, name)

    def reduction_minimum(
        self, x: Tensor, axes: Axes = None, keep_dims: bool = True, name: str | None = None
    ) -> Tensor:
        """The smallest element along some axes; NaN if any is. See `reduction_sum`.

        Of nothing it is inf (the highest integer). Equal ones share the gradient.

        Source: MPSGraph ``reductionMinimumPropagateNaNWithTensor:axes:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([[1.0, 5.0], [4.0, 2.0]])
            >>> y = graph.reduction_minimum(x, axes=1, keep_dims=False)
            >>> graph.run(targets=[y], device="reference")[0]
            array([1., 2.], dtype=float32)
        """
        return self._reduce("reduction_minimum", x, axes, keep_dims, name)

    def reduction_and(
        self, x: Tensor, axes: Axes = None, keep_dims: bool = True, name: str | None = None
    ) -> Tensor:
        """Whether all of the bool elements along some axes are true. See `reduction_sum`.

        Source: MPSGraph ``reductionAndWithTensor:axes:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([[True, True], [True, False]])
            >>> y = graph.reduction_and(x, axes=1, keep_dims=False)
            >>> graph.run(targets=[y], device="reference")[0]
            array([ True, False])
        """
        return self._reduce("reduction_and", x, axes, keep_dims, name)

    def reduction_or(
        self, x: Tensor, axes: Axes = None, keep_dims: bool = True, name: str | None = None
    ) -> Tensor:
        """Whether any of the bool elements along some axes is true. See `reduction_sum`.

        Source: MPSGraph ``reductionOrWithTensor:axes:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([[True, True], [True, False]])
            >>> y = graph.reduction_or(x, axes=1, keep_dims=False)
            >>> graph.run(targets=[y], device="reference")[0]
            array([ True,  True])
        """
        return self._reduce("reduction_or", x, axes, keep_dims, name)

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
