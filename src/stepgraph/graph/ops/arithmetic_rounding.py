"""Signs, rounding, and what leaves a number as it is (MPSGraphArithmeticOps)."""

from __future__ import annotations

import numpy as np

from stepgraph.graph.core import GraphCore
from stepgraph.graph.definition import (
    Array,
    OpDefinition,
)
from stepgraph.graph.ops.arithmetic_common import (
    apart_from,
    listed,
    slope,
    unary,
    values_between,
)
from stepgraph.graph.tensor import Tensor


def _round(x: Array) -> Array:
    # Adding 0.5 and truncating would turn the float just below 0.5 into 1.
    whole = np.trunc(x)
    result: Array = np.copysign(np.abs(whole) + (np.abs(x - whole) >= 0.5), x)
    return result


def _same(x: Array) -> Array:
    return x


_real_or_integer = values_between(-2.0, 2.0, integers=True)
_steps = listed(
    -2.5, -1.5, -0.5, -0.25, 0.0, 0.25, 0.5, 1.5, 2.5, 0.49999997, 8388609.0, np.inf, np.nan
)

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
    unary(
        "absolute",
        "absolute",
        np.abs,
        slope(lambda g, x, y: g.sign(x)),
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
)

_TABLE = {definition.name: definition for definition in DEFINITIONS}


class RoundingOps(GraphCore):
    """Signs and rounding, element by element."""

    def identity(self, x: Tensor, name: str | None = None) -> Tensor:
        """`x` itself, under another name.

        Args:
            x: tensor of any shape and dtype.
            name: label in printed graphs and errors; made unique when taken.

        Returns:
            Tensor of the shape and dtype of `x`.

        Source: MPSGraph ``identityWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.identity(graph.constant([1, 2]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([1, 2], dtype=int32)
        """
        return self._one(_TABLE["identity"], (x,), name=name)

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
        return self._one(_TABLE["stop_gradient"], (x,), name=name)

    def absolute(self, x: Tensor, name: str | None = None) -> Tensor:
        """`x` without its sign. Its gradient at 0 is 0.

        Source: MPSGraph ``absoluteWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.absolute(graph.constant([-1.5, 2.0]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([1.5, 2. ], dtype=float32)
        """
        return self._one(_TABLE["absolute"], (x,), name=name)

    def negative(self, x: Tensor, name: str | None = None) -> Tensor:
        """``-x``; refuses unsigned integers.

        Source: MPSGraph ``negativeWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.negative(graph.constant([-1.5, 2.0]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([ 1.5, -2. ], dtype=float32)
        """
        return self._one(_TABLE["negative"], (x,), name=name)

    def sign(self, x: Tensor, name: str | None = None) -> Tensor:
        """1, 0 or -1 as `x` is above, at or below 0; NaN stays.

        Source: MPSGraph ``signWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.sign(graph.constant([-2.0, 0.0, 3.0]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([-1.,  0.,  1.], dtype=float32)
        """
        return self._one(_TABLE["sign"], (x,), name=name)

    def ceil(self, x: Tensor, name: str | None = None) -> Tensor:
        """The smallest whole number not below `x`.

        Source: MPSGraph ``ceilWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.ceil(graph.constant([-1.5, 1.2]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([-1.,  2.], dtype=float32)
        """
        return self._one(_TABLE["ceil"], (x,), name=name)

    def floor(self, x: Tensor, name: str | None = None) -> Tensor:
        """The largest whole number not above `x`.

        Source: MPSGraph ``floorWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.floor(graph.constant([-1.5, 1.2]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([-2.,  1.], dtype=float32)
        """
        return self._one(_TABLE["floor"], (x,), name=name)

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
        return self._one(_TABLE["round"], (x,), name=name)

    def rint(self, x: Tensor, name: str | None = None) -> Tensor:
        """The nearest whole number, halves to the even one.

        Source: MPSGraph ``rintWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.rint(graph.constant([0.5, 1.5, 2.5]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([0., 2., 2.], dtype=float32)
        """
        return self._one(_TABLE["rint"], (x,), name=name)

    def truncate(self, x: Tensor, name: str | None = None) -> Tensor:
        """`x` without its fraction: rounded toward 0.

        Source: MPSGraph ``truncateWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.truncate(graph.constant([-1.7, 1.7]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([-1.,  1.], dtype=float32)
        """
        return self._one(_TABLE["truncate"], (x,), name=name)
