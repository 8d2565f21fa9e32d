"""Ops of two numbers, and clamp (MPSGraphArithmeticOps): sums, products, remainders, powers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

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
)
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.arithmetic_common import binary, pairs_between, require_kind
from stepgraph.graph.shapes import Spec, broadcast_shapes
from stepgraph.graph.tensor import Tensor, TensorLike

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph

Pair = tuple[Tensor, Tensor]


def _multiplication_rule(g: Graph, a: Tensor, b: Tensor, y: Tensor, grad: Tensor) -> Pair:
    return grad * b, grad * a


def _division_rule(g: Graph, a: Tensor, b: Tensor, y: Tensor, grad: Tensor) -> Pair:
    part = grad / b
    return part, -(part * y)


def _division_no_nan_rule(g: Graph, a: Tensor, b: Tensor, y: Tensor, grad: Tensor) -> Pair:
    part = g.division_no_nan(grad, b)
    return part, -(part * y)


def _division_no_nan(a: Array, b: Array) -> Array:
    return np.where(b == 0, 0, a / np.where(b == 0, 1, b))


def _division_no_nan_decompose(graph: Graph, primary: Tensor, secondary: Tensor) -> Tensor:
    zero = graph.equal(secondary, 0.0)
    return graph.select(zero, 0.0, primary / graph.select(zero, 1.0, secondary))


def _floor_division(a: Array, b: Array) -> Array:
    # The quotient of floats is rounded before it is floored, as every device does it.
    result: Array = np.floor(a / b) if a.dtype.kind == "f" else np.floor_divide(a, b)
    return result


def _remainder_rule(g: Graph, a: Tensor, b: Tensor, y: Tensor, grad: Tensor) -> Pair:
    # (a - y) / b is whole but for rounding; flooring a / b anew could land one off.
    return grad, -(grad * g.rint((a - y) / b))


def _power_rule(g: Graph, a: Tensor, b: Tensor, y: Tensor, grad: Tensor) -> Pair:
    # 0 ** (0 - 1) and log(0) are infinite where the product with the 0 beside them is 0.
    by_base = g.select(g.equal(b, 0.0), 0.0, b * g.power(a, b - 1.0))
    by_exponent = y * g.logarithm(g.select(g.equal(a, 0.0), 1.0, a))
    return grad * by_base, grad * by_exponent


def _extreme_rule(wins: str) -> Callable[[Graph, Tensor, Tensor, Tensor, Tensor], Pair]:
    """The gradient goes to the side that wins, in halves if they are equal.

    The sides alone decide, not the result, which so need not be kept.
    """

    def rule(g: Graph, a: Tensor, b: Tensor, y: Tensor, grad: Tensor) -> Pair:
        half = g.select(g.equal(a, b), 0.5 * grad, 0.0)
        compare = getattr(g, wins)
        return g.select(compare(a, b), grad, half), g.select(compare(b, a), grad, half)

    return rule


_least_rule, _greatest_rule = _extreme_rule("less_than"), _extreme_rule("greater_than")


def _atan2_rule(g: Graph, a: Tensor, b: Tensor, y: Tensor, grad: Tensor) -> Pair:
    part = grad / (a * a + b * b)
    return part * b, -(part * a)


_numbers = pairs_between(-2.0, 2.0, integers=True)
_divisors = pairs_between(-3.0, 3.0, 0.6, 2.5)
# Whole quotients are where remainders jump; these stay away from them.
_remainders = pairs_between(5.1, 5.9, 2.1, 2.4, integers=True, special=False)
_extremes = pairs_between(-2.0, 2.0, integers=True)


def _remainder_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield from _remainders(rng)
    a = np.array([5.5, -5.5, 5.5, -5.5, 6.0, -6.0], "float32")
    yield Sample((a, np.array([2, 2, -2, -2, 4, 4], "float32")), label="signs")
    hard = (
        np.array([np.inf, 1.0, np.nan, 1.0, -1.0], "float32"),
        np.array([2, 0, 1, np.inf, np.inf]),
    )
    yield Sample((hard[0], hard[1].astype("float32")), differentiable=(), label="special values")


def _power_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield from pairs_between(0.3, 2.0, -2.0, 2.0)(rng)
    x = rng.uniform(-2, 2, (5,)).astype("float32")
    yield Sample((x, np.array(3.0, "float32")), differentiable=(0,), label="negative base")
    base, exponent = np.zeros(3, "float32"), np.array([1.0, 2.0, 3.0], "float32")
    yield Sample((base, exponent), differentiable=(0,), label="zero base")


def _floor_division_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield from pairs_between(5.1, 5.9, 2.1, 2.4, integers=True, special=False)(rng)
    yield Sample(
        (np.array([-7.0, 7.0, -7.0, 1.0], "float32"), np.array([2.0, -2.0, -2.0, 0.0], "float32")),
        label="signs",
    )


DEFINITIONS: tuple[OpDefinition, ...] = (
    binary("addition", "addition", np.add, lambda g, a, b, y, grad: (grad, grad), _numbers),
    binary(
        "subtraction", "subtraction", np.subtract, lambda g, a, b, y, grad: (grad, -grad), _numbers
    ),
    binary("multiplication", "multiplication", np.multiply, _multiplication_rule, _numbers),
    binary("division", "division", np.divide, _division_rule, _divisors, kind="float"),
    binary(
        "division_no_nan",
        "divisionNoNaN",
        _division_no_nan,
        _division_no_nan_rule,
        _divisors,
        kind="float",
        decompose=_division_no_nan_decompose,
    ),
    binary("floor_division", "", _floor_division, None, _floor_division_samples),
    binary("modulo", "modulo", np.fmod, _remainder_rule, _remainder_samples),
    binary("floor_modulo", "floorModulo", np.mod, _remainder_rule, _remainder_samples),
    binary("power", "power", np.power, _power_rule, _power_samples, kind="float"),
    binary("minimum", "minimumWithNaNPropagation", np.minimum, _least_rule, _extremes),
    binary("maximum", "maximumWithNaNPropagation", np.maximum, _greatest_rule, _extremes),
    binary(
        "atan2", "atan2", np.arctan2, _atan2_rule, pairs_between(0.3, 2.0, -2.0, 2.0), kind="float"
    ),
)

_TABLE = {definition.name: definition for definition in DEFINITIONS}

# -- clamp ---------------------------------------------------------------------------------------


def _clamp_infer(x: Spec, minimum: Spec, maximum: Spec) -> Spec:
    require_kind("number", x, minimum, maximum)
    require_same_dtype(x, minimum, maximum)
    return Spec(broadcast_shapes(x.shape, minimum.shape, maximum.shape), x.dtype)


def _clamp_reference(x: Array, minimum: Array, maximum: Array) -> Array:
    return np.asarray(np.minimum(np.maximum(x, minimum), maximum))


def _clamp_gradient(op: Operation, grads: Grads) -> Gradients:
    g, grad = op.graph, arrived(grads)
    x, low, high = op.inputs
    is_high = g.greater_than(g.maximum(x, low), high)
    is_low = g.logical_and(g.less_than(x, low), g.logical_not(is_high))
    inside = g.logical_not(g.logical_or(is_low, is_high))
    return [g.select(which, grad, 0.0) for which in (inside, is_low, is_high)]


def _clamp_decompose(graph: Graph, x: Tensor, minimum: Tensor, maximum: Tensor) -> Tensor:
    return graph.minimum(graph.maximum(x, minimum), maximum)


def _clamp_samples(rng: np.random.Generator) -> Iterator[Sample]:
    low, high = np.array(-1.0, "float32"), np.array(1.0, "float32")
    x = np.array([-3.0, -0.5, 0.25, 0.75, 4.0], "float32")
    yield Sample((x, low, high))
    yield Sample((x[:, None], np.array([-1.0, 0.0], "float32"), high), label="broadcast")
    yield Sample((np.zeros((0, 2), "float32"), low, high), label="empty")
    yield Sample((x, high, low), label="maximum below minimum")
    hard = np.array([np.nan, np.inf, -np.inf], "float32")
    yield Sample((hard, low, high), differentiable=(), label="special values")
    yield Sample((np.arange(-4, 4, dtype="int32"), -2, 2), label="integers")


def _clamp_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.clamp(g.placeholder((3,), "bool"), 0, 1), "needs numbers", DTypeError)
    yield Misuse(lambda g: g.clamp(g.placeholder((3,), "int32"), 0.5, 1.5), "dtypes", DTypeError)
    yield Misuse(lambda g: g.clamp(g.placeholder((3,)), [0.0, 0.0], 1.0), "do not broadcast")


CLAMP = OpDefinition(
    "clamp",
    inputs=("x", "minimum", "maximum"),
    infer=_clamp_infer,
    reference=_clamp_reference,
    gradient=_clamp_gradient,
    decompose=_clamp_decompose,
    elementwise=True,
    mpsgraph="clampWithTensor:minValueTensor:maxValueTensor:name:",
    samples=_clamp_samples,
    misuses=_clamp_misuses,
)

DEFINITIONS = (*DEFINITIONS, CLAMP)


class BinaryOps(GraphCore):
    """Ops of two numbers, element by element, with NumPy's broadcasting."""

    def _binary(
        self, op: str, primary: TensorLike, secondary: TensorLike, name: str | None
    ) -> Tensor:
        return self._one(_TABLE[op], self._pair(primary, secondary), name=name)

    def addition(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """``primary + secondary``, also written so.

        Args:
            primary: tensor of floats or integers; a number beside a tensor takes its dtype.
            secondary: likewise, of a shape that broadcasts with the other's.
            name: label in printed graphs and errors; made unique when taken.

        Returns:
            Tensor of the broadcast shape. Integers wrap around.

        Raises:
            ShapeError: the shapes do not broadcast.
            DTypeError: the dtypes differ, or are bool.

        Source: MPSGraph ``additionWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([[1.0], [2.0]])
            >>> graph.run(targets=[x + [10.0, 20.0]], device="reference")[0]
            array([[11., 21.],
                   [12., 22.]], dtype=float32)
        """
        return self._binary("addition", primary, secondary, name)

    def subtraction(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """``primary - secondary``; see `addition`.

        Source: MPSGraph ``subtractionWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.subtraction(graph.constant([5.0, 1.0]), 2.0)
            >>> graph.run(targets=[y], device="reference")[0]
            array([ 3., -1.], dtype=float32)
        """
        return self._binary("subtraction", primary, secondary, name)

    def multiplication(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """``primary * secondary``, element by element; see `addition`.

        Source: MPSGraph ``multiplicationWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.multiplication(graph.constant([5.0, 1.0]), 2.0)
            >>> graph.run(targets=[y], device="reference")[0]
            array([10.,  2.], dtype=float32)
        """
        return self._binary("multiplication", primary, secondary, name)

    def division(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """``primary / secondary`` of floats; infinite or NaN where `secondary` is 0.

        Raises:
            DTypeError: integers; cast them, or use `floor_division`.

        Source: MPSGraph ``divisionWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.division(graph.constant([5.0, 1.0]), 2.0)
            >>> graph.run(targets=[y], device="reference")[0]
            array([2.5, 0.5], dtype=float32)
        """
        return self._binary("division", primary, secondary, name)

    def division_no_nan(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """``primary / secondary``, but 0 where `secondary` is 0.

        Source: MPSGraph ``divisionNoNaNWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.division_no_nan(graph.constant([1.0, 3.0]), [0.0, 2.0])
            >>> graph.run(targets=[x], device="reference")[0]
            array([0. , 1.5], dtype=float32)
        """
        return self._binary("division_no_nan", primary, secondary, name)

    def floor_division(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """``primary / secondary`` rounded down, of floats or integers.

        An integer divided by 0 gives 0, and the lowest integer divided by -1 itself, as in NumPy.

        Source: Keras ``ops.floor_divide``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.floor_division(graph.constant([7, -7]), 2)
            >>> graph.run(targets=[y], device="reference")[0]
            array([ 3, -4], dtype=int32)
        """
        return self._binary("floor_division", primary, secondary, name)

    def modulo(self, primary: TensorLike, secondary: TensorLike, name: str | None = None) -> Tensor:
        """The remainder of a division rounded toward 0, signed as `primary` (C's ``fmod``).

        Of integers it is 0 where `secondary` is 0.

        Source: MPSGraph ``moduloWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([-5.0, 5.0])
            >>> graph.run(targets=[graph.modulo(x, 3.0), x % 3.0], device="reference")
            [array([-2.,  2.], dtype=float32), array([1., 2.], dtype=float32)]
        """
        return self._binary("modulo", primary, secondary, name)

    def floor_modulo(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """The remainder of a division rounded down, signed as `secondary` (Python's ``%``).

        Of integers it is 0 where `secondary` is 0.

        Source: MPSGraph ``floorModuloWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.floor_modulo(graph.constant([5.0, -5.0]), 3.0)
            >>> graph.run(targets=[y], device="reference")[0]
            array([2., 1.], dtype=float32)
        """
        return self._binary("floor_modulo", primary, secondary, name)

    def power(self, primary: TensorLike, secondary: TensorLike, name: str | None = None) -> Tensor:
        """`primary` to the power of `secondary`, of floats; NaN for a root of a negative number.

        The gradient of the exponent where the base is 0 is 0, and NaN where it is negative.

        Source: MPSGraph ``powerWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.power(graph.constant([2.0, 9.0]), [3.0, 0.5])
            >>> graph.run(targets=[y], device="reference")[0]
            array([8., 3.], dtype=float32)
        """
        return self._binary("power", primary, secondary, name)

    def minimum(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """The smaller of two; NaN if either is. Equal ones share the gradient half and half.

        Source: MPSGraph ``minimumWithNaNPropagationWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.minimum(graph.constant([1.0, 5.0]), 2.0)
            >>> graph.run(targets=[y], device="reference")[0]
            array([1., 2.], dtype=float32)
        """
        return self._binary("minimum", primary, secondary, name)

    def maximum(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """The larger of two; NaN if either is. Equal ones share the gradient half and half.

        Source: MPSGraph ``maximumWithNaNPropagationWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.maximum(graph.constant([1.0, 5.0]), 2.0)
            >>> graph.run(targets=[y], device="reference")[0]
            array([2., 5.], dtype=float32)
        """
        return self._binary("maximum", primary, secondary, name)

    def atan2(self, primary: TensorLike, secondary: TensorLike, name: str | None = None) -> Tensor:
        """The angle in radians of the point (x=`secondary`, y=`primary`), from -pi to pi.

        Source: MPSGraph ``atan2WithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.atan2(graph.constant([0.0, 1.0]), [1.0, 0.0])
            >>> graph.run(targets=[y], device="reference")[0].round(4)
            array([0.    , 1.5708], dtype=float32)
        """
        return self._binary("atan2", primary, secondary, name)

    def clamp(
        self, x: Tensor, minimum: TensorLike, maximum: TensorLike, name: str | None = None
    ) -> Tensor:
        """`x` held between two bounds: ``min(max(x, minimum), maximum)``; NaN stays NaN.

        Args:
            x: tensor of floats or integers.
            minimum: lower bound, a number or a tensor that broadcasts.
            maximum: upper bound; it wins where it is below `minimum`.
            name: label.

        Returns:
            Tensor of the broadcast shape. At a bound the gradient flows to `x`.

        Source: MPSGraph ``clampWithTensor:minValueTensor:maxValueTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.clamp(graph.constant([-2.0, 0.5, 7.0]), 0.0, 1.0)
            >>> graph.run(targets=[x], device="reference")[0]
            array([0. , 0.5, 1. ], dtype=float32)
        """
        _, low = self._pair(x, minimum)
        _, high = self._pair(x, maximum)
        return self._one(CLAMP, (x, low, high), name=name)
