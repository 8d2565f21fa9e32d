"""Ops of one number: exponentials, roots, trigonometry, rounding (MPSGraphArithmeticOps)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from stepgraph.graph.core import GraphCore
from stepgraph.graph.definition import Array, OpDefinition
from stepgraph.graph.ops.arithmetic_common import (
    apart_from,
    erf,
    listed,
    unary,
    values_between,
)
from stepgraph.graph.tensor import Tensor

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph


def _softplus(x: Array) -> Array:
    result: Array = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return result


def _softplus_decompose(graph: Graph, x: Tensor) -> Tensor:
    # log(1 + e), where the sum of the two has lost the low digits of e: Kahan's correction.
    e = graph.exponent(-graph.absolute(x))
    rounded = 1.0 + e
    lost = graph.equal(rounded, 1.0)
    ratio = e / graph.select(lost, 1.0, rounded - 1.0)
    return graph.maximum(x, 0.0) + graph.select(lost, e, graph.logarithm(rounded) * ratio)


def _round(x: Array) -> Array:
    # Adding 0.5 and truncating would turn the float just below 0.5 into 1.
    whole = np.trunc(x)
    result: Array = np.copysign(np.abs(whole) + (np.abs(x - whole) >= 0.5), x)
    return result


def _same(x: Array) -> Array:
    return x


def _slope(factor: Callable[[Graph, Tensor, Tensor], Tensor]) -> Any:
    """The chain rule for a slope given by (graph, x, output)."""
    return lambda g, x, y, grad: grad * factor(g, x, y)


_real = values_between(-2.0, 2.0)
_real_or_integer = values_between(-2.0, 2.0, integers=True)
_positive = values_between(0.2, 3.0)
_unit = values_between(-0.7, 0.7)
_above_one = values_between(1.2, 4.0)
_steps = listed(
    -2.5, -1.5, -0.5, -0.25, 0.0, 0.25, 0.5, 1.5, 2.5, 0.49999997, 8388609.0, np.inf, np.nan
)
_LN2, _LN10 = math.log(2.0), math.log(10.0)

DEFINITIONS: tuple[OpDefinition, ...] = (
    unary("identity", "identity", _same, lambda g, x, y, grad: grad, _real_or_integer, kind="any"),
    unary(
        "stop_gradient",
        "",
        _same,
        None,
        _real_or_integer,
        kind="any",
        decompose=lambda graph, x: graph.identity(x),
    ),
    unary("exponent", "exponent", np.exp, _slope(lambda g, x, y: y), _real),
    unary("exponent_base2", "exponentBase2", np.exp2, _slope(lambda g, x, y: y * _LN2), _real),
    unary(
        "exponent_base10",
        "exponentBase10",
        lambda x: np.power(x.dtype.type(10), x),
        _slope(lambda g, x, y: y * _LN10),
        _real,
    ),
    unary("logarithm", "logarithm", np.log, _slope(lambda g, x, y: 1.0 / x), _positive),
    unary(
        "logarithm_base2",
        "logarithmBase2",
        np.log2,
        _slope(lambda g, x, y: (1 / _LN2) / x),
        _positive,
    ),
    unary(
        "logarithm_base10",
        "logarithmBase10",
        np.log10,
        _slope(lambda g, x, y: (1 / _LN10) / x),
        _positive,
    ),
    unary(
        "square",
        "square",
        np.square,
        _slope(lambda g, x, y: 2.0 * x),
        _real_or_integer,
        kind="number",
    ),
    unary("square_root", "squareRoot", np.sqrt, _slope(lambda g, x, y: 0.5 / y), _positive),
    unary(
        "reciprocal_square_root",
        "reciprocalSquareRoot",
        lambda x: 1 / np.sqrt(x),
        _slope(lambda g, x, y: -0.5 * (y * y * y)),
        _positive,
    ),
    unary("reciprocal", "reciprocal", lambda x: 1 / x, _slope(lambda g, x, y: -(y * y)), _positive),
    unary(
        "absolute",
        "absolute",
        np.abs,
        _slope(lambda g, x, y: g.sign(x)),
        apart_from(0.0),
        kind="number",
    ),
    unary(
        "negative",
        "negative",
        np.negative,
        lambda g, x, y, grad: -grad,
        _real_or_integer,
        kind="signed",
    ),
    unary("sign", "sign", np.sign, None, _real_or_integer, kind="number"),
    unary("ceil", "ceil", np.ceil, None, _steps),
    unary("floor", "floor", np.floor, None, _steps),
    unary("round", "round", _round, None, _steps),
    unary("rint", "rint", np.rint, None, _steps),
    unary("truncate", "truncate", np.trunc, None, _steps),
    unary("sin", "sin", np.sin, _slope(lambda g, x, y: g.cos(x)), _real),
    unary("cos", "cos", np.cos, _slope(lambda g, x, y: -g.sin(x)), _real),
    unary("tan", "tan", np.tan, _slope(lambda g, x, y: 1.0 + y * y), values_between(-1.2, 1.2)),
    unary("sinh", "sinh", np.sinh, _slope(lambda g, x, y: g.cosh(x)), _real),
    unary("cosh", "cosh", np.cosh, _slope(lambda g, x, y: g.sinh(x)), _real),
    unary("tanh", "tanh", np.tanh, _slope(lambda g, x, y: 1.0 - y * y), _real),
    unary(
        "asin",
        "asin",
        np.arcsin,
        _slope(lambda g, x, y: g.reciprocal_square_root(1.0 - x * x)),
        _unit,
    ),
    unary(
        "acos",
        "acos",
        np.arccos,
        _slope(lambda g, x, y: -g.reciprocal_square_root(1.0 - x * x)),
        _unit,
    ),
    unary("atan", "atan", np.arctan, _slope(lambda g, x, y: 1.0 / (1.0 + x * x)), _real),
    unary(
        "asinh",
        "asinh",
        np.arcsinh,
        _slope(lambda g, x, y: g.reciprocal_square_root(1.0 + x * x)),
        _real,
    ),
    unary(
        "acosh",
        "acosh",
        np.arccosh,
        _slope(lambda g, x, y: g.reciprocal_square_root(x * x - 1.0)),
        _above_one,
    ),
    unary("atanh", "atanh", np.arctanh, _slope(lambda g, x, y: 1.0 / (1.0 - x * x)), _unit),
    unary(
        "erf",
        "erf",
        erf,
        _slope(lambda g, x, y: (2 / math.sqrt(math.pi)) * g.exponent(-(x * x))),
        _real,
    ),
    unary(
        "softplus",
        "",
        _softplus,
        _slope(lambda g, x, y: g.sigmoid(x)),
        values_between(-30.0, 30.0),
        decompose=_softplus_decompose,
    ),
)

_TABLE = {definition.name: definition for definition in DEFINITIONS}


class UnaryOps(GraphCore):
    """Ops of one number, element by element."""

    def _unary(self, op: str, x: Tensor, name: str | None) -> Tensor:
        return self._one(_TABLE[op], (x,), name=name)

    def identity(self, x: Tensor, name: str | None = None) -> Tensor:
        """`x` itself, under another name.

        Args:
            x: tensor of any shape and dtype.
            name: label in printed graphs and errors; made unique when taken.

        Returns:
            Tensor of the shape and dtype of `x`.

        Source: MPSGraph ``identityWithTensor:name:``.
        """
        return self._unary("identity", x, name)

    def stop_gradient(self, x: Tensor, name: str | None = None) -> Tensor:
        """`x` itself, but no gradient flows back through it.

        Args:
            x: tensor of any shape and dtype.
            name: label.

        Source: Keras ``ops.stop_gradient``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant(3.0)
            >>> grads = graph.gradients(of=x * graph.stop_gradient(x), with_=[x])
            >>> float(graph.run(targets=[grads[x]], device="reference")[0])
            3.0
        """
        return self._unary("stop_gradient", x, name)

    def exponent(self, x: Tensor, name: str | None = None) -> Tensor:
        """The number e to the power of `x`.

        Args:
            x: float tensor of any shape.
            name: label in printed graphs and errors; made unique when taken.

        Returns:
            Tensor of the shape and dtype of `x`.

        Raises:
            DTypeError: `x` is not floating point.

        Source: MPSGraph ``exponentWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.exponent(graph.constant([0.0, 1.0]))
            >>> graph.run(targets=[y], device="reference")[0].round(4)
            array([1.    , 2.7183], dtype=float32)
        """
        return self._unary("exponent", x, name)

    def exponent_base2(self, x: Tensor, name: str | None = None) -> Tensor:
        """2 to the power of `x`. Source: MPSGraph ``exponentBase2WithTensor:name:``."""
        return self._unary("exponent_base2", x, name)

    def exponent_base10(self, x: Tensor, name: str | None = None) -> Tensor:
        """10 to the power of `x`. Source: MPSGraph ``exponentBase10WithTensor:name:``."""
        return self._unary("exponent_base10", x, name)

    def logarithm(self, x: Tensor, name: str | None = None) -> Tensor:
        """The natural logarithm of `x`: -inf at 0, NaN below.

        Source: MPSGraph ``logarithmWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.logarithm(graph.constant([0.0, 1.0]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([-inf,   0.], dtype=float32)
        """
        return self._unary("logarithm", x, name)

    def logarithm_base2(self, x: Tensor, name: str | None = None) -> Tensor:
        """The logarithm of `x` to base 2. Source: MPSGraph ``logarithmBase2WithTensor:name:``."""
        return self._unary("logarithm_base2", x, name)

    def logarithm_base10(self, x: Tensor, name: str | None = None) -> Tensor:
        """The logarithm of `x` to base 10. Source: MPSGraph ``logarithmBase10WithTensor:name:``."""
        return self._unary("logarithm_base10", x, name)

    def square(self, x: Tensor, name: str | None = None) -> Tensor:
        """`x` times itself; integers wrap around. Source: MPSGraph ``squareWithTensor:name:``."""
        return self._unary("square", x, name)

    def square_root(self, x: Tensor, name: str | None = None) -> Tensor:
        """The square root of `x`; NaN below 0. Source: MPSGraph ``squareRootWithTensor:name:``."""
        return self._unary("square_root", x, name)

    def reciprocal_square_root(self, x: Tensor, name: str | None = None) -> Tensor:
        """``1 / sqrt(x)``. Source: MPSGraph ``reciprocalSquareRootWithTensor:name:``."""
        return self._unary("reciprocal_square_root", x, name)

    def reciprocal(self, x: Tensor, name: str | None = None) -> Tensor:
        """``1 / x``. Source: MPSGraph ``reciprocalWithTensor:name:``."""
        return self._unary("reciprocal", x, name)

    def absolute(self, x: Tensor, name: str | None = None) -> Tensor:
        """`x` without its sign. Its gradient at 0 is 0.

        Source: MPSGraph ``absoluteWithTensor:name:``.
        """
        return self._unary("absolute", x, name)

    def negative(self, x: Tensor, name: str | None = None) -> Tensor:
        """``-x``; refuses unsigned integers. Source: MPSGraph ``negativeWithTensor:name:``."""
        return self._unary("negative", x, name)

    def sign(self, x: Tensor, name: str | None = None) -> Tensor:
        """1, 0 or -1 as `x` is above, at or below 0; NaN stays.

        Source: MPSGraph ``signWithTensor:name:``.
        """
        return self._unary("sign", x, name)

    def ceil(self, x: Tensor, name: str | None = None) -> Tensor:
        """The smallest whole number not below `x`. Source: MPSGraph ``ceilWithTensor:name:``."""
        return self._unary("ceil", x, name)

    def floor(self, x: Tensor, name: str | None = None) -> Tensor:
        """The largest whole number not above `x`. Source: MPSGraph ``floorWithTensor:name:``."""
        return self._unary("floor", x, name)

    def round(self, x: Tensor, name: str | None = None) -> Tensor:
        """The nearest whole number, halves away from zero (unlike `rint`).

        Source: MPSGraph ``roundWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([-1.5, 0.5, 2.5])
            >>> graph.run(targets=[graph.round(x), graph.rint(x)], device="reference")
            [array([-2.,  1.,  3.], dtype=float32), array([-2.,  0.,  2.], dtype=float32)]
        """
        return self._unary("round", x, name)

    def rint(self, x: Tensor, name: str | None = None) -> Tensor:
        """The nearest whole number, halves to the even one.

        Source: MPSGraph ``rintWithTensor:name:``.
        """
        return self._unary("rint", x, name)

    def truncate(self, x: Tensor, name: str | None = None) -> Tensor:
        """`x` without its fraction: rounded toward 0.

        Source: MPSGraph ``truncateWithTensor:name:``.
        """
        return self._unary("truncate", x, name)

    def sin(self, x: Tensor, name: str | None = None) -> Tensor:
        """The sine of `x` in radians. Source: MPSGraph ``sinWithTensor:name:``."""
        return self._unary("sin", x, name)

    def cos(self, x: Tensor, name: str | None = None) -> Tensor:
        """The cosine of `x` in radians. Source: MPSGraph ``cosWithTensor:name:``."""
        return self._unary("cos", x, name)

    def tan(self, x: Tensor, name: str | None = None) -> Tensor:
        """The tangent of `x` in radians. Source: MPSGraph ``tanWithTensor:name:``."""
        return self._unary("tan", x, name)

    def sinh(self, x: Tensor, name: str | None = None) -> Tensor:
        """The hyperbolic sine of `x`. Source: MPSGraph ``sinhWithTensor:name:``."""
        return self._unary("sinh", x, name)

    def cosh(self, x: Tensor, name: str | None = None) -> Tensor:
        """The hyperbolic cosine of `x`. Source: MPSGraph ``coshWithTensor:name:``."""
        return self._unary("cosh", x, name)

    def tanh(self, x: Tensor, name: str | None = None) -> Tensor:
        """The hyperbolic tangent of `x`, between -1 and 1.

        Source: MPSGraph ``tanhWithTensor:name:``.
        """
        return self._unary("tanh", x, name)

    def asin(self, x: Tensor, name: str | None = None) -> Tensor:
        """The angle in radians whose sine is `x`; NaN outside [-1, 1].

        Source: MPSGraph ``asinWithTensor:name:``.
        """
        return self._unary("asin", x, name)

    def acos(self, x: Tensor, name: str | None = None) -> Tensor:
        """The angle in radians whose cosine is `x`; NaN outside [-1, 1].

        Source: MPSGraph ``acosWithTensor:name:``.
        """
        return self._unary("acos", x, name)

    def atan(self, x: Tensor, name: str | None = None) -> Tensor:
        """The angle in radians whose tangent is `x`. Source: MPSGraph ``atanWithTensor:name:``."""
        return self._unary("atan", x, name)

    def asinh(self, x: Tensor, name: str | None = None) -> Tensor:
        """The number whose hyperbolic sine is `x`. Source: MPSGraph ``asinhWithTensor:name:``."""
        return self._unary("asinh", x, name)

    def acosh(self, x: Tensor, name: str | None = None) -> Tensor:
        """The number whose hyperbolic cosine is `x`; NaN below 1.

        Source: MPSGraph ``acoshWithTensor:name:``.
        """
        return self._unary("acosh", x, name)

    def atanh(self, x: Tensor, name: str | None = None) -> Tensor:
        """The number whose hyperbolic tangent is `x`; NaN outside [-1, 1].

        Source: MPSGraph ``atanhWithTensor:name:``.
        """
        return self._unary("atanh", x, name)

    def erf(self, x: Tensor, name: str | None = None) -> Tensor:
        """The error function of `x`, between -1 and 1. Source: MPSGraph ``erfWithTensor:name:``."""
        return self._unary("erf", x, name)

    def softplus(self, x: Tensor, name: str | None = None) -> Tensor:
        """``log(1 + exp(x))``, computed so that nothing overflows.

        Source: Keras ``softplus``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.softplus(graph.constant([0.0, 500.0]))
            >>> graph.run(targets=[y], device="reference")[0].round(4)
            array([  0.6931, 500.    ], dtype=float32)
        """
        return self._unary("softplus", x, name)
