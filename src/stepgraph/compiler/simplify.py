"""Arithmetic that does nothing, or costs more than it must.

A rule holds for every input, infinite, NaN and -0.0 too, and changes no rounding, but for small
whole powers, which become products. So ``x * 0`` stays, and ``x + 0`` goes only where x cannot be
-0.0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from stepgraph.compiler.program import Program
from stepgraph.compiler.rules import (
    Rule,
    apply_rules,
    as_output,
    constant_output,
    filled_with,
    is_filled,
    made_by,
)
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Operation
from stepgraph.graph.tensor import Tensor


def simplify(program: Program) -> Program:
    """Drops and cheapens arithmetic without changing what it gives."""
    return apply_rules(program, RULES)


# Ops whose output is never -0.0.
_NO_NEGATIVE_ZERO = ("absolute", "square", "exponent", "sigmoid", "softmax", "cosh")


def _input(graph: Graph, operation: Operation, inputs: Sequence[Tensor]) -> Tensor | None:
    return inputs[0]


def _sides(inputs: Sequence[Tensor]) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Both orders of two operands."""
    first, second = inputs
    return (first, second), (second, first)


# -- sums ----------------------------------------------------------------------------------------


def _add_zero(graph: Graph, operation: Operation, inputs: Sequence[Tensor]) -> Tensor | None:
    for x, other in _sides(inputs):
        exact = not x.dtype.is_float or made_by(x, *_NO_NEGATIVE_ZERO)
        if is_filled(other, -0.0) or (exact and is_filled(other, 0.0)):
            return as_output(graph, x, operation)
    return None


def _add_negative(graph: Graph, operation: Operation, inputs: Sequence[Tensor]) -> Tensor | None:
    for x, other in _sides(inputs):
        if negative := made_by(other, "negative"):
            return graph.subtraction(x, negative.inputs[0])
    return None


def _subtract_zero(graph: Graph, operation: Operation, inputs: Sequence[Tensor]) -> Tensor | None:
    x, other = inputs
    return as_output(graph, x, operation) if is_filled(other, 0.0) else None


def _subtract_negative(
    graph: Graph, operation: Operation, inputs: Sequence[Tensor]
) -> Tensor | None:
    negative = made_by(inputs[1], "negative")
    return graph.addition(inputs[0], negative.inputs[0]) if negative else None


def _negative_of_negative(
    graph: Graph, operation: Operation, inputs: Sequence[Tensor]
) -> Tensor | None:
    negative = made_by(inputs[0], "negative")
    return negative.inputs[0] if negative else None


# -- products ------------------------------------------------------------------------------------


def _multiply_by_one(graph: Graph, operation: Operation, inputs: Sequence[Tensor]) -> Tensor | None:
    for x, other in _sides(inputs):
        if is_filled(other, 1):
            return as_output(graph, x, operation)
    return None


def _multiply_by_minus_one(
    graph: Graph, operation: Operation, inputs: Sequence[Tensor]
) -> Tensor | None:
    for x, other in _sides(inputs):
        if is_filled(other, -1):
            return graph.negative(as_output(graph, x, operation))
    return None


def _multiply_negatives(
    graph: Graph, operation: Operation, inputs: Sequence[Tensor]
) -> Tensor | None:
    first, second = (made_by(t, "negative") for t in inputs)
    if first and second:
        return graph.multiplication(first.inputs[0], second.inputs[0])
    for x, other in _sides(inputs):
        negative, number = made_by(x, "negative"), filled_with(other)
        if negative and number is not None and other.dtype.is_float:
            opposite = graph.constant(-number, shape=other.shape, dtype=other.dtype)
            return graph.multiplication(negative.inputs[0], opposite)
    return None


def _multiply_by_itself(
    graph: Graph, operation: Operation, inputs: Sequence[Tensor]
) -> Tensor | None:
    return graph.square(inputs[0]) if inputs[0] is inputs[1] else None


def _divide_by_one(graph: Graph, operation: Operation, inputs: Sequence[Tensor]) -> Tensor | None:
    x, other = inputs
    return as_output(graph, x, operation) if is_filled(other, 1) else None


def _divide_by_power_of_two(
    graph: Graph, operation: Operation, inputs: Sequence[Tensor]
) -> Tensor | None:
    x, other = inputs
    number = filled_with(other)
    # Only then is the reciprocal exact; far from where it would overflow in any dtype.
    if not number or not math.isfinite(number) or abs(math.frexp(number)[0]) != 0.5:
        return None
    if not 2.0**-10 <= abs(number) <= 2.0**10:
        return None
    inverse = graph.constant(1 / number, shape=other.shape, dtype=other.dtype)
    return graph.multiplication(x, inverse)


def _even(graph: Graph, operation: Operation, inputs: Sequence[Tensor]) -> Tensor | None:
    """square, absolute and cosh do not see a sign."""
    negative = made_by(inputs[0], "negative")
    if negative is None:
        return None
    return graph._one(operation.definition, (negative.inputs[0],))


# -- powers --------------------------------------------------------------------------------------


def _whole_power(graph: Graph, operation: Operation, inputs: Sequence[Tensor]) -> Tensor | None:
    x, exponent = inputs
    number = filled_with(exponent)
    if number not in (-1, 0, 1, 2, 3):
        return None
    if number == 0:  # of anything, NaN too, it is 1
        return constant_output(graph, 1.0, operation)
    x = as_output(graph, x, operation)
    if number == -1:
        return graph.reciprocal(x)
    if number == 1:
        return x
    return graph.square(x) if number == 2 else graph.square(x) * x


# -- choices and truth values --------------------------------------------------------------------


def _select_known(graph: Graph, operation: Operation, inputs: Sequence[Tensor]) -> Tensor | None:
    predicate, true_tensor, false_tensor = inputs
    if true_tensor is false_tensor:
        return as_output(graph, true_tensor, operation)
    taken = filled_with(predicate)
    if taken is None:
        return None
    return as_output(graph, true_tensor if taken else false_tensor, operation)


def _select_not(graph: Graph, operation: Operation, inputs: Sequence[Tensor]) -> Tensor | None:
    negation = made_by(inputs[0], "logical_not")
    return graph.select(negation.inputs[0], inputs[2], inputs[1]) if negation else None


def _equal_sides(graph: Graph, operation: Operation, inputs: Sequence[Tensor]) -> Tensor | None:
    return inputs[0] if inputs[0] is inputs[1] else None


def _and_known(graph: Graph, operation: Operation, inputs: Sequence[Tensor]) -> Tensor | None:
    return _absorbed(graph, operation, inputs, neutral=True)


def _or_known(graph: Graph, operation: Operation, inputs: Sequence[Tensor]) -> Tensor | None:
    return _absorbed(graph, operation, inputs, neutral=False)


def _absorbed(
    graph: Graph, operation: Operation, inputs: Sequence[Tensor], neutral: bool
) -> Tensor | None:
    for x, other in _sides(inputs):
        known = filled_with(other)
        if known is not None:
            if known == neutral:
                return as_output(graph, x, operation)
            return constant_output(graph, known, operation)
    return None


def _not(graph: Graph, operation: Operation, inputs: Sequence[Tensor]) -> Tensor | None:
    inner = made_by(inputs[0], "logical_not", "equal", "not_equal")
    if inner is None:
        return None
    # An order has no such opposite: of two numbers one of which is NaN, no order holds.
    if inner.type == "logical_not":
        return inner.inputs[0]
    primary, secondary = inner.inputs
    opposite = graph.not_equal if inner.type == "equal" else graph.equal
    return opposite(primary, secondary)


RULES: dict[str, tuple[Rule, ...]] = {
    "identity": (_input,),
    "stop_gradient": (_input,),
    "addition": (_add_zero, _add_negative),
    "subtraction": (_subtract_zero, _subtract_negative),
    "negative": (_negative_of_negative,),
    "multiplication": (
        _multiply_by_one,
        _multiply_by_minus_one,
        _multiply_negatives,
        _multiply_by_itself,
    ),
    "division": (_divide_by_one, _divide_by_power_of_two),
    "square": (_even,),
    "absolute": (_even,),
    "cosh": (_even,),
    "power": (_whole_power,),
    "select": (_select_known, _select_not),
    "minimum": (_equal_sides,),
    "maximum": (_equal_sides,),
    "logical_and": (_and_known, _equal_sides),
    "logical_or": (_or_known, _equal_sides),
    "logical_not": (_not,),
}
