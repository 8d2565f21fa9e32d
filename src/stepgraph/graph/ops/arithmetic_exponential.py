"""Exponentials, logarithms, powers and roots of one number (MPSGraphArithmeticOps)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from stepgraph.graph.core import GraphCore
from stepgraph.graph.definition import (
    Array,
    OpDefinition,
)
from stepgraph.graph.ops.arithmetic_common import (
    erf,
    slope,
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


_real = values_between(-2.0, 2.0)
_real_or_integer = values_between(-2.0, 2.0, integers=True)
_positive = values_between(0.2, 3.0)
_LN2, _LN10 = math.log(2.0), math.log(10.0)

DEFINITIONS: tuple[OpDefinition, ...] = (
    unary("exponent", "exponent", np.exp, slope(lambda g, x, y: y), _real),
    unary("exponent_base2", "exponentBase2", np.exp2, slope(lambda g, x, y: y * _LN2), _real),
    unary(
        "exponent_base10",
        "exponentBase10",
        lambda x: np.power(x.dtype.type(10), x),
        slope(lambda g, x, y: y * _LN10),
        _real,
    ),
    unary("logarithm", "logarithm", np.log, slope(lambda g, x, y: 1.0 / x), _positive),
    unary(
        "logarithm_base2",
        "logarithmBase2",
        np.log2,
        slope(lambda g, x, y: (1 / _LN2) / x),
        _positive,
    ),
    unary(
        "logarithm_base10",
        "logarithmBase10",
        np.log10,
        slope(lambda g, x, y: (1 / _LN10) / x),
        _positive,
    ),
    unary(
        "square",
        "square",
        np.square,
        slope(lambda g, x, y: 2.0 * x),
        _real_or_integer,
        kind="number",
    ),
    unary("square_root", "squareRoot", np.sqrt, slope(lambda g, x, y: 0.5 / y), _positive),
    unary(
        "reciprocal_square_root",
        "reciprocalSquareRoot",
        lambda x: 1 / np.sqrt(x),
        slope(lambda g, x, y: -0.5 * (y * y * y)),
        _positive,
    ),
    unary("reciprocal", "reciprocal", lambda x: 1 / x, slope(lambda g, x, y: -(y * y)), _positive),
    unary(
        "erf",
        "erf",
        erf,
        slope(lambda g, x, y: (2 / math.sqrt(math.pi)) * g.exponent(-(x * x))),
        _real,
    ),
    unary(
        "softplus",
        "",
        _softplus,
        slope(lambda g, x, y: g.sigmoid(x)),
        values_between(-30.0, 30.0),
        decompose=_softplus_decompose,
    ),
)

_TABLE = {definition.name: definition for definition in DEFINITIONS}


class ExponentialOps(GraphCore):
    """Exponentials, logarithms and roots, element by element, of floats."""

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
        return self._one(_TABLE["exponent"], (x,), name=name)

    def exponent_base2(self, x: Tensor, name: str | None = None) -> Tensor:
        """2 to the power of `x`.

        Source: MPSGraph ``exponentBase2WithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.exponent_base2(graph.constant([0.0, 3.0]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([1., 8.], dtype=float32)
        """
        return self._one(_TABLE["exponent_base2"], (x,), name=name)

    def exponent_base10(self, x: Tensor, name: str | None = None) -> Tensor:
        """10 to the power of `x`.

        Source: MPSGraph ``exponentBase10WithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.exponent_base10(graph.constant([0.0, 2.0]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([  1., 100.], dtype=float32)
        """
        return self._one(_TABLE["exponent_base10"], (x,), name=name)

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
        return self._one(_TABLE["logarithm"], (x,), name=name)

    def logarithm_base2(self, x: Tensor, name: str | None = None) -> Tensor:
        """The logarithm of `x` to base 2.

        Source: MPSGraph ``logarithmBase2WithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.logarithm_base2(graph.constant([1.0, 8.0]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([0., 3.], dtype=float32)
        """
        return self._one(_TABLE["logarithm_base2"], (x,), name=name)

    def logarithm_base10(self, x: Tensor, name: str | None = None) -> Tensor:
        """The logarithm of `x` to base 10.

        Source: MPSGraph ``logarithmBase10WithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.logarithm_base10(graph.constant([1.0, 100.0]))
            >>> graph.run(targets=[y], device="reference")[0].round(4)
            array([0., 2.], dtype=float32)
        """
        return self._one(_TABLE["logarithm_base10"], (x,), name=name)

    def square(self, x: Tensor, name: str | None = None) -> Tensor:
        """`x` times itself; integers wrap around.

        Source: MPSGraph ``squareWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.square(graph.constant([-3.0, 2.0]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([9., 4.], dtype=float32)
        """
        return self._one(_TABLE["square"], (x,), name=name)

    def square_root(self, x: Tensor, name: str | None = None) -> Tensor:
        """The square root of `x`; NaN below 0.

        Source: MPSGraph ``squareRootWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.square_root(graph.constant([0.0, 9.0]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([0., 3.], dtype=float32)
        """
        return self._one(_TABLE["square_root"], (x,), name=name)

    def reciprocal_square_root(self, x: Tensor, name: str | None = None) -> Tensor:
        """``1 / sqrt(x)``: inf at 0, NaN below.

        Source: MPSGraph ``reciprocalSquareRootWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.reciprocal_square_root(graph.constant([4.0, 0.25]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([0.5, 2. ], dtype=float32)
        """
        return self._one(_TABLE["reciprocal_square_root"], (x,), name=name)

    def reciprocal(self, x: Tensor, name: str | None = None) -> Tensor:
        """One divided by `x`: inf or -inf where it is 0.

        Source: MPSGraph ``reciprocalWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.reciprocal(graph.constant([4.0, 0.5]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([0.25, 2.  ], dtype=float32)
        """
        return self._one(_TABLE["reciprocal"], (x,), name=name)

    def erf(self, x: Tensor, name: str | None = None) -> Tensor:
        """The error function of `x`, between -1 and 1.

        Source: MPSGraph ``erfWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.erf(graph.constant([0.0, 1.0]))
            >>> graph.run(targets=[y], device="reference")[0].round(4)
            array([0.    , 0.8427], dtype=float32)
        """
        return self._one(_TABLE["erf"], (x,), name=name)

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
        return self._one(_TABLE["softplus"], (x,), name=name)
