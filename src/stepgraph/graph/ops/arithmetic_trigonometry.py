"""Trigonometry, ordinary and hyperbolic (MPSGraphArithmeticOps)."""

from __future__ import annotations

import numpy as np

from stepgraph.graph.core import GraphCore
from stepgraph.graph.definition import (
    OpDefinition,
)
from stepgraph.graph.ops.arithmetic_common import (
    slope,
    unary,
    values_between,
)
from stepgraph.graph.tensor import Tensor

_real = values_between(-2.0, 2.0)
_unit = values_between(-0.7, 0.7)
_above_one = values_between(1.2, 4.0)

DEFINITIONS: tuple[OpDefinition, ...] = (
    unary("sin", "sin", np.sin, slope(lambda g, x, y: g.cos(x)), _real),
    unary("cos", "cos", np.cos, slope(lambda g, x, y: -g.sin(x)), _real),
    unary("tan", "tan", np.tan, slope(lambda g, x, y: 1.0 + y * y), values_between(-1.2, 1.2)),
    unary("sinh", "sinh", np.sinh, slope(lambda g, x, y: g.cosh(x)), _real),
    unary("cosh", "cosh", np.cosh, slope(lambda g, x, y: g.sinh(x)), _real),
    unary("tanh", "tanh", np.tanh, slope(lambda g, x, y: 1.0 - y * y), _real),
    unary(
        "asin",
        "asin",
        np.arcsin,
        slope(lambda g, x, y: g.reciprocal_square_root(1.0 - x * x)),
        _unit,
    ),
    unary(
        "acos",
        "acos",
        np.arccos,
        slope(lambda g, x, y: -g.reciprocal_square_root(1.0 - x * x)),
        _unit,
    ),
    unary("atan", "atan", np.arctan, slope(lambda g, x, y: 1.0 / (1.0 + x * x)), _real),
    unary(
        "asinh",
        "asinh",
        np.arcsinh,
        slope(lambda g, x, y: g.reciprocal_square_root(1.0 + x * x)),
        _real,
    ),
    unary(
        "acosh",
        "acosh",
        np.arccosh,
        slope(lambda g, x, y: g.reciprocal_square_root(x * x - 1.0)),
        _above_one,
    ),
    unary("atanh", "atanh", np.arctanh, slope(lambda g, x, y: 1.0 / (1.0 - x * x)), _unit),
)

_TABLE = {definition.name: definition for definition in DEFINITIONS}


class TrigonometryOps(GraphCore):
    """Trigonometry, element by element, of floats; angles are in radians."""

    def sin(self, x: Tensor, name: str | None = None) -> Tensor:
        """The sine of `x` in radians.

        Source: MPSGraph ``sinWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.sin(graph.constant([0.0, 1.0]))
            >>> graph.run(targets=[y], device="reference")[0].round(4)
            array([0.    , 0.8415], dtype=float32)
        """
        return self._one(_TABLE["sin"], (x,), name=name)

    def cos(self, x: Tensor, name: str | None = None) -> Tensor:
        """The cosine of `x` in radians.

        Source: MPSGraph ``cosWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.cos(graph.constant([0.0, 1.0]))
            >>> graph.run(targets=[y], device="reference")[0].round(4)
            array([1.    , 0.5403], dtype=float32)
        """
        return self._one(_TABLE["cos"], (x,), name=name)

    def tan(self, x: Tensor, name: str | None = None) -> Tensor:
        """The tangent of `x` in radians.

        Source: MPSGraph ``tanWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.tan(graph.constant([0.0, 1.0]))
            >>> graph.run(targets=[y], device="reference")[0].round(4)
            array([0.    , 1.5574], dtype=float32)
        """
        return self._one(_TABLE["tan"], (x,), name=name)

    def sinh(self, x: Tensor, name: str | None = None) -> Tensor:
        """The hyperbolic sine of `x`.

        Source: MPSGraph ``sinhWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.sinh(graph.constant([0.0, 1.0]))
            >>> graph.run(targets=[y], device="reference")[0].round(4)
            array([0.    , 1.1752], dtype=float32)
        """
        return self._one(_TABLE["sinh"], (x,), name=name)

    def cosh(self, x: Tensor, name: str | None = None) -> Tensor:
        """The hyperbolic cosine of `x`.

        Source: MPSGraph ``coshWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.cosh(graph.constant([0.0, 1.0]))
            >>> graph.run(targets=[y], device="reference")[0].round(4)
            array([1.    , 1.5431], dtype=float32)
        """
        return self._one(_TABLE["cosh"], (x,), name=name)

    def tanh(self, x: Tensor, name: str | None = None) -> Tensor:
        """The hyperbolic tangent of `x`, between -1 and 1.

        Source: MPSGraph ``tanhWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.tanh(graph.constant([0.0, 1.0]))
            >>> graph.run(targets=[y], device="reference")[0].round(4)
            array([0.    , 0.7616], dtype=float32)
        """
        return self._one(_TABLE["tanh"], (x,), name=name)

    def asin(self, x: Tensor, name: str | None = None) -> Tensor:
        """The angle in radians whose sine is `x`; NaN outside [-1, 1].

        Source: MPSGraph ``asinWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.asin(graph.constant([0.0, 1.0]))
            >>> graph.run(targets=[y], device="reference")[0].round(4)
            array([0.    , 1.5708], dtype=float32)
        """
        return self._one(_TABLE["asin"], (x,), name=name)

    def acos(self, x: Tensor, name: str | None = None) -> Tensor:
        """The angle in radians whose cosine is `x`; NaN outside [-1, 1].

        Source: MPSGraph ``acosWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.acos(graph.constant([0.0, 1.0]))
            >>> graph.run(targets=[y], device="reference")[0].round(4)
            array([1.5708, 0.    ], dtype=float32)
        """
        return self._one(_TABLE["acos"], (x,), name=name)

    def atan(self, x: Tensor, name: str | None = None) -> Tensor:
        """The angle in radians whose tangent is `x`.

        Source: MPSGraph ``atanWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.atan(graph.constant([0.0, 1.0]))
            >>> graph.run(targets=[y], device="reference")[0].round(4)
            array([0.    , 0.7854], dtype=float32)
        """
        return self._one(_TABLE["atan"], (x,), name=name)

    def asinh(self, x: Tensor, name: str | None = None) -> Tensor:
        """The number whose hyperbolic sine is `x`.

        Source: MPSGraph ``asinhWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.asinh(graph.constant([0.0, 1.0]))
            >>> graph.run(targets=[y], device="reference")[0].round(4)
            array([0.    , 0.8814], dtype=float32)
        """
        return self._one(_TABLE["asinh"], (x,), name=name)

    def acosh(self, x: Tensor, name: str | None = None) -> Tensor:
        """The number whose hyperbolic cosine is `x`; NaN below 1.

        Source: MPSGraph ``acoshWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.acosh(graph.constant([1.0, 2.0]))
            >>> graph.run(targets=[y], device="reference")[0].round(4)
            array([0.   , 1.317], dtype=float32)
        """
        return self._one(_TABLE["acosh"], (x,), name=name)

    def atanh(self, x: Tensor, name: str | None = None) -> Tensor:
        """The number whose hyperbolic tangent is `x`; NaN outside [-1, 1].

        Source: MPSGraph ``atanhWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.atanh(graph.constant([0.0, 0.5]))
            >>> graph.run(targets=[y], device="reference")[0].round(4)
            array([0.    , 0.5493], dtype=float32)
        """
        return self._one(_TABLE["atanh"], (x,), name=name)
