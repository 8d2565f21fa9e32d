"""Arithmetic (MPSGraphArithmeticOps): mostly one selector each, NumPy's broadcasting.

The others are spelt out where the selector means something else: of NaN (`sign`, `minimum`), of a
zero divisor, of negative integers, of shifts by a whole word.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stepgraph.backends.mps.lowering.emitter import Emitter, Value, lowering
from stepgraph.backends.mps.lowering.integers import floor_divide, floor_modulo, modulo
from stepgraph.backends.mps.lowering.table import Lowering
from stepgraph.graph.dtypes import DTYPES, bool_, int8
from stepgraph.graph.operation import Operation

# Op to how its selector begins: one operand, the same dtype.
_UNARY: dict[str, str] = {
    "exponent": "exponent",
    "exponent_base2": "exponentBase2",
    "exponent_base10": "exponentBase10",
    "logarithm": "logarithm",
    "logarithm_base2": "logarithmBase2",
    "logarithm_base10": "logarithmBase10",
    "square_root": "squareRoot",
    "reciprocal": "reciprocal",
    "erf": "erf",
    "identity": "identity",
    "negative": "negative",
    "ceil": "ceil",
    "floor": "floor",
    "round": "round",
    "rint": "rint",
    "truncate": "truncate",
    "sin": "sin",
    "cos": "cos",
    "tan": "tan",
    "sinh": "sinh",
    "cosh": "cosh",
    "tanh": "tanh",
    "asin": "asin",
    "acos": "acos",
    "atan": "atan",
    "asinh": "asinh",
    "acosh": "acosh",
    "atanh": "atanh",
    "logical_not": "not",
}

# Two operands, the same dtype.
_BINARY: dict[str, str] = {
    "addition": "addition",
    "subtraction": "subtraction",
    "multiplication": "multiplication",
    "division": "division",
    "division_no_nan": "divisionNoNaN",
    "power": "power",
    "atan2": "atan2",
    "logical_and": "logicalAND",
    "logical_or": "logicalOR",
    "logical_nand": "logicalNAND",
    "logical_nor": "logicalNOR",
    "logical_xor": "logicalXOR",
    "logical_xnor": "logicalXNOR",
}

_TESTS: dict[str, str] = {
    "is_infinite": "isInfinite",
    "is_finite": "isFinite",
    "is_nan": "isNaN",
}

_COMPARISONS: dict[str, str] = {
    "equal": "equal",
    "not_equal": "notEqual",
    "less_than": "lessThan",
    "less_than_or_equal_to": "lessThanOrEqualTo",
    "greater_than": "greaterThan",
    "greater_than_or_equal_to": "greaterThanOrEqualTo",
}

_BITWISE: dict[str, str] = {
    "bitwise_and": "bitwiseAND",
    "bitwise_or": "bitwiseOR",
    "bitwise_xor": "bitwiseXOR",
}


def _unary(stem: str) -> Lowering:
    return lowering(lambda e, operation, x: e.unary(stem, x))


def _binary(stem: str) -> Lowering:
    return lowering(lambda e, operation, x, y: e.binary(stem, x, y))


def _test(stem: str) -> Lowering:
    return lowering(lambda e, operation, x: e.unary(stem, e.at_least_float32(x), bool_))


def _comparison(stem: str) -> Lowering:
    return lowering(lambda e, operation, x, y: e.compare(stem, x, y))


def _square(e: Emitter, operation: Operation, x: Value) -> Value:
    return e.unary("square", x) if x.dtype.is_float else e.multiply(x, x)


def _reciprocal_square_root(e: Emitter, operation: Operation, x: Value) -> Value:
    missing = e.b.quirk("reciprocal_square_root_missing")
    return e.unary("reverseSquareRoot" if missing else "reciprocalSquareRoot", x)


def _absolute(e: Emitter, operation: Operation, x: Value) -> Value:
    return e.identity(x) if x.dtype.kind == "uint" else e.unary("absolute", x)


def _sign(e: Emitter, operation: Operation, x: Value) -> Value:
    if x.dtype.is_float:
        return e.select(e.is_nan(x), x, e.unary("sign", x))
    zero, one = e.constant(0, x.dtype), e.constant(1, x.dtype)
    if x.dtype.kind == "uint":
        return e.select(e.compare("equal", x, zero), zero, one)
    above = e.select(e.compare("greaterThan", x, zero), one, zero)
    return e.select(e.is_negative(x), e.constant(-1, x.dtype), above)


def _signbit(e: Emitter, operation: Operation, x: Value) -> Value:
    # The selector answers in a number of the operand's dtype; the bits are sure.
    return e.is_negative(e.reinterpret(x, DTYPES[f"int{8 * x.dtype.size}"]))


def _extreme(stem: str) -> Lowering:
    def rule(e: Emitter, operation: Operation, x: Value, y: Value) -> Value:
        if x.dtype.is_float:
            return e.binary(f"{stem}WithNaNPropagation", x, y)
        found = e.binary(stem, e.ordered(x), e.ordered(y))
        return e.unordered(found, x.dtype)

    return lowering(rule, note="the plain selector ignores NaN")


def _of_integers(
    integers: Callable[[Emitter, Value, Value], Value],
    floats: Callable[[Emitter, Value, Value], Value],
) -> Lowering:
    def rule(e: Emitter, operation: Operation, x: Value, y: Value) -> Value:
        return (floats if x.dtype.is_float else integers)(e, x, y)

    return lowering(rule, note="of integers made of divisions of numbers that are not negative")


def _float_floor_divide(e: Emitter, x: Value, y: Value) -> Value:
    return e.unary("floor", e.binary("division", x, y))


def _float_modulo(e: Emitter, x: Value, y: Value) -> Value:
    return e.binary("modulo", x, y)


def _float_floor_modulo(e: Emitter, x: Value, y: Value) -> Value:
    # floorModulo gives 0, not NaN, where the divisor is 0.
    rest, zero = e.binary("modulo", x, y), e.constant(0, x.dtype)
    wrong = e.differ(e.compare("lessThan", rest, zero), e.compare("lessThan", y, zero))
    moves = e.both(wrong, e.compare("notEqual", rest, zero))
    return e.select(moves, e.add(rest, y), rest)


def _select(e: Emitter, operation: Operation, predicate: Value, x: Value, y: Value) -> Value:
    if not x.dtype.is_bool:
        return e.select(predicate, x, y)
    chosen = e.select(predicate, e.cast_plainly(x, int8), e.cast_plainly(y, int8))
    return e.compare("notEqual", chosen, e.constant(0, int8))


def _bitwise(stem: str) -> Lowering:
    return lowering(lambda e, operation, x, y: e.binary(stem, x, y))


def _bitwise_not(e: Emitter, operation: Operation, x: Value) -> Value:
    return e.unary("bitwiseNOT", x)


def _fits(operation: Operation) -> bool:
    """Whether the places to shift by are known to be fewer than there are bits."""
    by = operation.inputs[1].operation
    if by.type != "constant":
        return False
    places = by.attributes["value"]
    return bool(np.all((places >= 0) & (places < 8 * places.dtype.itemsize)))


def _shift(stem: str) -> Lowering:
    def rule(e: Emitter, operation: Operation, x: Value, y: Value) -> Value:
        signed = stem == "bitwiseRightShift" and x.dtype.kind == "int"
        negative = e.is_negative(x) if signed else None
        # What a right shift of a negative number fills in is not said: its complement is not.
        if negative is not None:
            x = e.select(negative, e.unary("bitwiseNOT", x), x)
        made = e.binary(stem, x, y)
        if not _fits(operation):
            # The framework takes the places modulo the number of bits.
            width = e.constant(8 * x.dtype.size, y.dtype)
            inside = e.compare("lessThan", y, width)
            if y.dtype.kind == "int":
                inside = e.both(
                    inside, e.compare("greaterThanOrEqualTo", y, e.constant(0, y.dtype))
                )
            made = e.select(inside, made, e.constant(0, x.dtype))
        return made if negative is None else e.select(negative, e.unary("bitwiseNOT", made), made)

    return lowering(rule, note="shifts by a whole word or more give 0, or the sign")


LOWERINGS: dict[str, Lowering] = {
    **{name: _unary(stem) for name, stem in _UNARY.items()},
    **{name: _binary(stem) for name, stem in _BINARY.items()},
    **{name: _test(stem) for name, stem in _TESTS.items()},
    **{name: _comparison(stem) for name, stem in _COMPARISONS.items()},
    **{name: _bitwise(stem) for name, stem in _BITWISE.items()},
    "square": lowering(_square),
    "reciprocal_square_root": lowering(_reciprocal_square_root),
    "absolute": lowering(_absolute),
    "sign": lowering(_sign, note="the selector gives 0 for NaN"),
    "signbit": lowering(_signbit, note="read from the bits"),
    "minimum": _extreme("minimum"),
    "maximum": _extreme("maximum"),
    "floor_division": _of_integers(floor_divide, _float_floor_divide),
    "modulo": _of_integers(modulo, _float_modulo),
    "floor_modulo": _of_integers(floor_modulo, _float_floor_modulo),
    "select": lowering(_select),
    "bitwise_not": lowering(_bitwise_not),
    "bitwise_left_shift": _shift("bitwiseLeftShift"),
    "bitwise_right_shift": _shift("bitwiseRightShift"),
}

DECOMPOSED: dict[str, str] = {
    "clamp": "clampWithTensor gives a bound for NaN",
    "softplus": "MPSGraph has none",
    "stop_gradient": "an identity",
}
