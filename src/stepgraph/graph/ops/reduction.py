"""Reductions (MPSGraphReductionOps): sums, products, extremes, where they are; running sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from stepgraph.errors import DTypeError
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
from stepgraph.graph.ops import reduction_positions
from stepgraph.graph.ops.arithmetic_common import require_kind
from stepgraph.graph.ops.reduction_positions import PositionOps, apart, reduced_shape
from stepgraph.graph.shapes import Axes, Spec, normalize_axes
from stepgraph.graph.tensor import Tensor

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph

# (graph, x, output with its axes kept, gradient with its axes kept, axes) to the gradient of x.
Rule = Callable[["Graph", Tensor, Tensor, Tensor, tuple[int, ...]], Tensor]


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


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = apart(rng, (2, 3, 4))
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
    *reduction_positions.DEFINITIONS,
)

_TABLE = {definition.name: definition for definition in DEFINITIONS}


class ReductionOps(PositionOps):
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
