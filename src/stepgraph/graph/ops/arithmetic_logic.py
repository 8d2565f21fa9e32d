"""Truth values and bits (MPSGraphArithmeticOps)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stepgraph.graph.core import GraphCore
from stepgraph.graph.definition import (
    OpDefinition,
    Sample,
)
from stepgraph.graph.ops.arithmetic_common import (
    binary,
    bool_pairs,
    integer_pairs,
    listed,
    unary,
)
from stepgraph.graph.tensor import Tensor, TensorLike


def _integer_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for dtype in ("int32", "uint8", "int64"):
        yield Sample((np.array([[0, 1, 2], [77, 100, 127]], dtype),), label=dtype)
    yield Sample((np.zeros((0, 2), "int32"),), label="empty")


def _long_shift_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield from _shifts(rng)
    x = np.array([-3, 3, -3, 3, 1], "int32")
    yield Sample((x, np.array([31, 31, 32, 40, 32], "int32")), label="all shifted out")


_truths = listed(0, 1, 1, 0, dtype="bool")
_bits = integer_pairs(0, 100)
_shifts = integer_pairs(0, 8)

DEFINITIONS: tuple[OpDefinition, ...] = (
    binary(
        "logical_and", "logicalAND", np.logical_and, None, bool_pairs, kind="bool", to_bool=True
    ),
    binary("logical_or", "logicalOR", np.logical_or, None, bool_pairs, kind="bool", to_bool=True),
    binary(
        "logical_nand",
        "logicalNAND",
        lambda a, b: ~(a & b),
        None,
        bool_pairs,
        kind="bool",
        to_bool=True,
        decompose=lambda graph, primary, secondary: ~(primary & secondary),
    ),
    binary(
        "logical_nor",
        "logicalNOR",
        lambda a, b: ~(a | b),
        None,
        bool_pairs,
        kind="bool",
        to_bool=True,
        decompose=lambda graph, primary, secondary: ~(primary | secondary),
    ),
    binary(
        "logical_xor", "logicalXOR", np.logical_xor, None, bool_pairs, kind="bool", to_bool=True
    ),
    binary(
        "logical_xnor",
        "logicalXNOR",
        lambda a, b: ~(a ^ b),
        None,
        bool_pairs,
        kind="bool",
        to_bool=True,
        decompose=lambda graph, primary, secondary: ~(primary ^ secondary),
    ),
    unary("logical_not", "not", np.logical_not, None, _truths, kind="bool", to_bool=True),
    unary("bitwise_not", "bitwiseNOT", np.invert, None, _integer_samples, kind="integer"),
    binary("bitwise_and", "bitwiseAND", np.bitwise_and, None, _bits, kind="integer"),
    binary("bitwise_or", "bitwiseOR", np.bitwise_or, None, _bits, kind="integer"),
    binary("bitwise_xor", "bitwiseXOR", np.bitwise_xor, None, _bits, kind="integer"),
    binary(
        "bitwise_left_shift",
        "bitwiseLeftShift",
        np.left_shift,
        None,
        _long_shift_samples,
        kind="integer",
    ),
    binary(
        "bitwise_right_shift",
        "bitwiseRightShift",
        np.right_shift,
        None,
        _long_shift_samples,
        kind="integer",
    ),
)

_TABLE = {definition.name: definition for definition in DEFINITIONS}


class LogicOps(GraphCore):
    """Truth values and bits, element by element, with NumPy's broadcasting."""

    def logical_and(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """True where both are; of bool tensors.

        Source: MPSGraph ``logicalANDWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.logical_and(graph.constant([True, True, False]), [True, False, False])
            >>> graph.run(targets=[y], device="reference")[0]
            array([ True, False, False])
        """
        return self._one(_TABLE["logical_and"], self._pair(primary, secondary), name=name)

    def logical_or(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """True where either is; of bool tensors.

        Source: MPSGraph ``logicalORWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.logical_or(graph.constant([True, True, False]), [True, False, False])
            >>> graph.run(targets=[y], device="reference")[0]
            array([ True,  True, False])
        """
        return self._one(_TABLE["logical_or"], self._pair(primary, secondary), name=name)

    def logical_nand(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """False where both are true; of bool tensors.

        Source: MPSGraph ``logicalNANDWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.logical_nand(graph.constant([True, True, False]), [True, False, False])
            >>> graph.run(targets=[y], device="reference")[0]
            array([False,  True,  True])
        """
        return self._one(_TABLE["logical_nand"], self._pair(primary, secondary), name=name)

    def logical_nor(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """True where neither is; of bool tensors.

        Source: MPSGraph ``logicalNORWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.logical_nor(graph.constant([True, True, False]), [True, False, False])
            >>> graph.run(targets=[y], device="reference")[0]
            array([False, False,  True])
        """
        return self._one(_TABLE["logical_nor"], self._pair(primary, secondary), name=name)

    def logical_xor(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """True where exactly one is; of bool tensors.

        Source: MPSGraph ``logicalXORWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.logical_xor(graph.constant([True, True, False]), [True, False, False])
            >>> graph.run(targets=[y], device="reference")[0]
            array([False,  True, False])
        """
        return self._one(_TABLE["logical_xor"], self._pair(primary, secondary), name=name)

    def logical_xnor(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """True where both are alike; of bool tensors.

        Source: MPSGraph ``logicalXNORWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.logical_xnor(graph.constant([True, True, False]), [True, False, False])
            >>> graph.run(targets=[y], device="reference")[0]
            array([ True, False,  True])
        """
        return self._one(_TABLE["logical_xnor"], self._pair(primary, secondary), name=name)

    def logical_not(self, x: Tensor, name: str | None = None) -> Tensor:
        """True where the bool tensor `x` is false.

        Source: MPSGraph ``notWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.logical_not(graph.constant([True, False]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([False,  True])
        """
        return self._one(_TABLE["logical_not"], (x,), name=name)

    def bitwise_not(self, x: Tensor, name: str | None = None) -> Tensor:
        """Every bit of an integer turned over.

        Source: MPSGraph ``bitwiseNOTWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.bitwise_not(graph.constant([0, 5]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([-1, -6], dtype=int32)
        """
        return self._one(_TABLE["bitwise_not"], (x,), name=name)

    def bitwise_and(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """The bits set in both integers.

        Source: MPSGraph ``bitwiseANDWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.bitwise_and(graph.constant([12, 10]), 6)
            >>> graph.run(targets=[y], device="reference")[0]
            array([4, 2], dtype=int32)
        """
        return self._one(_TABLE["bitwise_and"], self._pair(primary, secondary), name=name)

    def bitwise_or(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """The bits set in either integer.

        Source: MPSGraph ``bitwiseORWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.bitwise_or(graph.constant([12, 10]), 6)
            >>> graph.run(targets=[y], device="reference")[0]
            array([14, 14], dtype=int32)
        """
        return self._one(_TABLE["bitwise_or"], self._pair(primary, secondary), name=name)

    def bitwise_xor(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """The bits set in exactly one of two integers.

        Source: MPSGraph ``bitwiseXORWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.bitwise_xor(graph.constant([12, 10]), 6)
            >>> graph.run(targets=[y], device="reference")[0]
            array([10, 12], dtype=int32)
        """
        return self._one(_TABLE["bitwise_xor"], self._pair(primary, secondary), name=name)

    def bitwise_left_shift(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """`primary` with its bits moved up by `secondary` places; 0 once all are moved out.

        Source: MPSGraph ``bitwiseLeftShiftWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.bitwise_left_shift(graph.constant([1, 3]), 2)
            >>> graph.run(targets=[y], device="reference")[0]
            array([ 4, 12], dtype=int32)
        """
        return self._one(_TABLE["bitwise_left_shift"], self._pair(primary, secondary), name=name)

    def bitwise_right_shift(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """`primary` with its bits moved down by `secondary` places; a negative one keeps its sign.

        Source: MPSGraph ``bitwiseRightShiftWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.bitwise_right_shift(graph.constant([8, -3]), 1)
            >>> graph.run(targets=[y], device="reference")[0]
            array([ 4, -2], dtype=int32)
        """
        return self._one(_TABLE["bitwise_right_shift"], self._pair(primary, secondary), name=name)
