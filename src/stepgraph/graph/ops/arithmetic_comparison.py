"""Comparisons, tests of numbers, and select (MPSGraphArithmeticOps)."""

from __future__ import annotations

from collections.abc import Iterator

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
    bad_dtype,
    require_same_dtype,
)
from stepgraph.graph.dtypes import bool_
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.arithmetic_common import (
    binary,
    bool_pairs,
    listed,
    tied_pairs,
    unary,
)
from stepgraph.graph.shapes import Spec, broadcast_shapes
from stepgraph.graph.tensor import Tensor, TensorLike


def _equality_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield from tied_pairs(rng)
    yield from bool_pairs(rng)


_tested = listed(0.0, -0.0, 1.5, -1.5, np.inf, -np.inf, np.nan)

DEFINITIONS: tuple[OpDefinition, ...] = (
    binary("equal", "equal", np.equal, None, _equality_samples, kind="any", to_bool=True),
    binary(
        "not_equal", "notEqual", np.not_equal, None, _equality_samples, kind="any", to_bool=True
    ),
    binary("less_than", "lessThan", np.less, None, tied_pairs, to_bool=True),
    binary(
        "less_than_or_equal_to", "lessThanOrEqualTo", np.less_equal, None, tied_pairs, to_bool=True
    ),
    binary("greater_than", "greaterThan", np.greater, None, tied_pairs, to_bool=True),
    binary(
        "greater_than_or_equal_to",
        "greaterThanOrEqualTo",
        np.greater_equal,
        None,
        tied_pairs,
        to_bool=True,
    ),
    unary("is_infinite", "isInfinite", np.isinf, None, _tested, to_bool=True),
    unary("is_finite", "isFinite", np.isfinite, None, _tested, to_bool=True),
    unary("is_nan", "isNaN", np.isnan, None, _tested, to_bool=True),
    unary(
        "signbit",
        "signbit",
        np.signbit,
        None,
        listed(0.0, -0.0, 1.5, -1.5, np.inf, -np.inf),
        to_bool=True,
    ),
)

_TABLE = {definition.name: definition for definition in DEFINITIONS}

# -- select --------------------------------------------------------------------------------------


def _select_infer(predicate: Spec, true_tensor: Spec, false_tensor: Spec) -> Spec:
    if predicate.dtype != bool_:
        raise bad_dtype(
            f"the predicate is {predicate.dtype}",
            expected="bool",
            fix="compare it, as in graph.not_equal(x, 0.0)",
        )
    require_same_dtype(true_tensor, false_tensor)
    shape = broadcast_shapes(predicate.shape, true_tensor.shape, false_tensor.shape)
    return Spec(shape, true_tensor.dtype)


def _select_reference(predicate: Array, true_tensor: Array, false_tensor: Array) -> Array:
    return np.where(predicate, true_tensor, false_tensor)


def _select_gradient(op: Operation, grads: Grads) -> Gradients:
    g, predicate, grad = op.graph, op.inputs[0], arrived(grads)
    return [None, g.select(predicate, grad, 0.0), g.select(predicate, 0.0, grad)]


def _select_samples(rng: np.random.Generator) -> Iterator[Sample]:
    a, b = (rng.standard_normal((3, 4)).astype("float32") for _ in range(2))
    p = rng.integers(0, 2, (3, 4)).astype(bool)
    yield Sample((p, a, b))
    yield Sample((p[:1], a[:, :1], np.array(0.5, "float32")), label="broadcast")
    yield Sample((p[:0], a[:0], b[:0]), label="empty")
    one, two = np.array(1.5, "float32"), np.array(2.5, "float32")
    yield Sample((np.array(True), one, two), label="rank 0")
    hard = np.array([np.nan, np.inf, 1.0, -0.0], "float32")
    yield Sample((p, hard, b), differentiable=(), label="special values")
    yield Sample((p, a.astype("int32"), np.array(7, "int32")), label="integers")
    yield Sample((p, p, ~p), label="bool")


def _select_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.select(g.placeholder((3,)), 1.0, 2.0), "predicate is float32", DTypeError
    )
    yield Misuse(
        lambda g: g.select(
            g.placeholder((3,), "bool"), g.placeholder((3,)), g.placeholder((3,), "int32")
        ),
        "different dtypes",
        DTypeError,
    )
    yield Misuse(
        lambda g: g.select(g.placeholder((3,), "bool"), g.placeholder((2,)), 0.0),
        "do not broadcast",
    )


SELECT = OpDefinition(
    "select",
    inputs=("predicate", "true_tensor", "false_tensor"),
    infer=_select_infer,
    reference=_select_reference,
    gradient=_select_gradient,
    elementwise=True,
    mpsgraph="selectWithPredicateTensor:truePredicateTensor:falsePredicateTensor:name:",
    samples=_select_samples,
    misuses=_select_misuses,
)

DEFINITIONS = (*DEFINITIONS, SELECT)


class ComparisonOps(GraphCore):
    """Comparisons and tests of numbers, which give bool, and the choice by one."""

    def equal(self, primary: TensorLike, secondary: TensorLike, name: str | None = None) -> Tensor:
        """Where two tensors are equal, as bool; NaN equals nothing.

        Args:
            primary: tensor of any dtype; a number beside a tensor takes its dtype.
            secondary: likewise, of a shape that broadcasts with the other's.
            name: label in printed graphs and errors; made unique when taken.

        Returns:
            Bool tensor of the broadcast shape.

        Raises:
            ShapeError: the shapes do not broadcast.
            DTypeError: the dtypes differ.

        Source: MPSGraph ``equalWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> graph.run(targets=[graph.constant([1.0, 2.0]) == 2.0], device="reference")[0]
            array([False,  True])
        """
        return self._one(_TABLE["equal"], self._pair(primary, secondary), name=name)

    def not_equal(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """Where two tensors differ, as bool; NaN differs from everything.

        Source: MPSGraph ``notEqualWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.not_equal(graph.constant([1, 2]), 2)
            >>> graph.run(targets=[y], device="reference")[0]
            array([ True, False])
        """
        return self._one(_TABLE["not_equal"], self._pair(primary, secondary), name=name)

    def less_than(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """``primary < secondary`` as bool.

        Source: MPSGraph ``lessThanWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.less_than(graph.constant([1, 2, 3]), 2)
            >>> graph.run(targets=[y], device="reference")[0]
            array([ True, False, False])
        """
        return self._one(_TABLE["less_than"], self._pair(primary, secondary), name=name)

    def less_than_or_equal_to(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """``primary <= secondary`` as bool.

        Source: MPSGraph ``lessThanOrEqualToWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.less_than_or_equal_to(graph.constant([1, 2, 3]), 2)
            >>> graph.run(targets=[y], device="reference")[0]
            array([ True,  True, False])
        """
        return self._one(_TABLE["less_than_or_equal_to"], self._pair(primary, secondary), name=name)

    def greater_than(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """``primary > secondary`` as bool.

        Source: MPSGraph ``greaterThanWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.greater_than(graph.constant([1, 2, 3]), 2)
            >>> graph.run(targets=[y], device="reference")[0]
            array([False, False,  True])
        """
        return self._one(_TABLE["greater_than"], self._pair(primary, secondary), name=name)

    def greater_than_or_equal_to(
        self, primary: TensorLike, secondary: TensorLike, name: str | None = None
    ) -> Tensor:
        """``primary >= secondary`` as bool.

        Source: MPSGraph ``greaterThanOrEqualToWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.greater_than_or_equal_to(graph.constant([1, 2, 3]), 2)
            >>> graph.run(targets=[y], device="reference")[0]
            array([False,  True,  True])
        """
        return self._one(
            _TABLE["greater_than_or_equal_to"], self._pair(primary, secondary), name=name
        )

    def is_infinite(self, x: Tensor, name: str | None = None) -> Tensor:
        """True where `x` is inf or -inf.

        Source: MPSGraph ``isInfiniteWithTensor:name:``.

        Example:
            >>> import numpy as np
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.is_infinite(graph.constant([1.0, np.inf, np.nan]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([False,  True, False])
        """
        return self._one(_TABLE["is_infinite"], (x,), name=name)

    def is_finite(self, x: Tensor, name: str | None = None) -> Tensor:
        """True where `x` is neither infinite nor NaN.

        Source: MPSGraph ``isFiniteWithTensor:name:``.

        Example:
            >>> import numpy as np
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.is_finite(graph.constant([1.0, np.inf, np.nan]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([ True, False, False])
        """
        return self._one(_TABLE["is_finite"], (x,), name=name)

    def is_nan(self, x: Tensor, name: str | None = None) -> Tensor:
        """True where `x` is NaN.

        Source: MPSGraph ``isNaNWithTensor:name:``.

        Example:
            >>> import numpy as np
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.is_nan(graph.constant([1.0, np.inf, np.nan]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([False, False,  True])
        """
        return self._one(_TABLE["is_nan"], (x,), name=name)

    def signbit(self, x: Tensor, name: str | None = None) -> Tensor:
        """True where the sign bit of `x` is set, as in -0.0.

        Source: MPSGraph ``signbitWithTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.signbit(graph.constant([1.0, -2.0, -0.0]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([False,  True,  True])
        """
        return self._one(_TABLE["signbit"], (x,), name=name)

    def select(
        self,
        predicate: TensorLike,
        true_tensor: TensorLike,
        false_tensor: TensorLike,
        name: str | None = None,
    ) -> Tensor:
        """One of two tensors, element by element.

        What is not chosen counts for nothing, be it NaN; its gradient there is 0.

        Args:
            predicate: bool tensor.
            true_tensor: taken where it is true; a number takes the other's dtype.
            false_tensor: taken where it is false.
            name: label.

        Returns:
            Tensor of the shape to which all three broadcast.

        Raises:
            DTypeError: the predicate is not bool, or the other two have different dtypes.

        Source: MPSGraph
        ``selectWithPredicateTensor:truePredicateTensor:falsePredicateTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([-1.0, 2.0])
            >>> graph.run(targets=[graph.select(x > 0.0, x, 0.0)], device="reference")[0]
            array([0., 2.], dtype=float32)
        """
        pair = self._pair(true_tensor, false_tensor)
        return self._one(SELECT, (self.as_tensor(predicate), *pair), name=name)
