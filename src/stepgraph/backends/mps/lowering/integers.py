"""Division of integers, whose selector can be trusted for numbers that are not negative only."""

from __future__ import annotations

from stepgraph.backends.mps.lowering.emitter import Emitter, Value
from stepgraph.graph.dtypes import int32


def floor_divide(e: Emitter, x: Value, y: Value) -> Value:
    """``x // y``, rounded down; 0 where `y` is 0, the lowest integer over -1 is itself."""
    dtype = x.dtype
    if dtype.size <= 2:
        wide = (e.cast_plainly(v, int32) for v in (x, y))
        return e.cast(_signed(e, *wide), dtype)
    return _unsigned(e, x, y) if dtype.kind == "uint" else _signed(e, x, y)


def floor_modulo(e: Emitter, x: Value, y: Value) -> Value:
    """``x - x // y * y``, of the sign of `y`; 0 where `y` is 0."""
    zero = e.constant(0, x.dtype)
    rest = e.subtract(x, e.multiply(floor_divide(e, x, y), y))
    return e.select(e.compare("equal", y, zero), zero, rest)


def modulo(e: Emitter, x: Value, y: Value) -> Value:
    """The remainder of a division rounded toward 0, of the sign of `x`; 0 where `y` is 0."""
    rest = floor_modulo(e, x, y)
    if x.dtype.kind == "uint":
        return rest
    moves = e.both(
        e.differ(e.is_negative(x), e.is_negative(y)),
        e.compare("notEqual", rest, e.constant(0, x.dtype)),
    )
    return e.select(moves, e.subtract(rest, y), rest)


def _divide(e: Emitter, x: Value, y: Value) -> Value:
    return e.binary("division", x, y)


def _complement(e: Emitter, x: Value, where: Value) -> Value:
    """``-1 - x`` at some places: never overflows, and is never negative of a negative number."""
    return e.select(where, e.subtract(e.constant(-1, x.dtype), x), x)


def _signed(e: Emitter, x: Value, y: Value) -> Value:
    zero, one = e.constant(0, x.dtype), e.constant(1, x.dtype)
    lowest = e.constant(-(2 ** (8 * x.dtype.size - 1)), x.dtype)
    nothing, huge = e.compare("equal", y, zero), e.compare("equal", y, lowest)
    down, over = e.is_negative(x), e.is_negative(y)
    # |y|, but 1 where that is 0 or does not exist.
    size = e.select(over, e.subtract(zero, y), y)
    size = e.select(e.either(nothing, huge), one, size)
    # floor(x / |y|): of a negative x it is -1 - floor((-1 - x) / |y|).
    rest = _complement(e, x, down)
    quotient = _complement(e, _divide(e, rest, size), down)
    # Of a negative y it is -ceil(x / |y|), so one less than -floor where anything is left.
    left = e.compare("notEqual", e.subtract(x, e.multiply(quotient, size)), zero)
    turned = e.subtract(zero, quotient)
    turned = e.select(left, e.subtract(turned, one), turned)
    made = e.select(over, turned, quotient)
    # Over the lowest integer: 1 for itself, 0 for other negative numbers and 0, -1 above.
    above = e.select(
        e.compare("greaterThan", x, zero),
        e.constant(-1, x.dtype),
        e.select(e.compare("equal", x, lowest), one, zero),
    )
    made = e.select(huge, above, made)
    return e.select(nothing, zero, made)


def _unsigned(e: Emitter, x: Value, y: Value) -> Value:
    # Halved, a number is below the place of the sign; doubling back leaves at most one too few.
    zero, one = e.constant(0, x.dtype), e.constant(1, x.dtype)
    nothing = e.compare("equal", y, zero)
    top = e.bits(1 << (8 * x.dtype.size - 1), x.dtype)
    huge = e.compare("greaterThanOrEqualTo", y, top)
    size = e.select(e.either(nothing, huge), one, y)
    half = _divide(e, e.binary("bitwiseRightShift", x, one), size)
    quotient = e.binary("bitwiseLeftShift", half, one)
    rest = e.subtract(x, e.multiply(quotient, size))
    more = e.compare("greaterThanOrEqualTo", rest, size)
    quotient = e.select(more, e.add(quotient, one), quotient)
    once = e.select(e.compare("greaterThanOrEqualTo", x, y), one, zero)
    return e.select(nothing, zero, e.select(huge, once, quotient))
