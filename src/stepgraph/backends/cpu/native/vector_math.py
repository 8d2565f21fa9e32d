"""exp, log, tanh, sigmoid and erf for any number of lanes.

float32 is computed here, branch-free, so that it runs at vector speed; float64 goes lane by lane
through the C library. The polynomials were fitted for least greatest relative error (least squares
at 400 Chebyshev nodes with Lawson's reweighting), then rounded to float32; the fits' own errors are
below a tenth of half a unit in the last place. Errors in units in the last place (the tests
measure them): exp 1, log 1, tanh 2, sigmoid 3, erf 2. NaN comes through, infinities give the
limits, subnormals are met.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from stepgraph.backends.cpu.native.emit import Function, Value
from stepgraph.backends.cpu.native.value import element, f32, i32

# ln 2 in two float32 parts: the first has trailing zeros, so that n * part is exact.
_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.42860682030941723212e-6
# Logarithm of the least normal number, rounded towards 0.
_LEAST = -87.33654
_EXP = (
    *(0.4999999403953552, 0.1666652113199234, 0.04166838899254799, 0.008368715643882751),
    0.0013814599951729178,
)
_LOG = (
    *(0.3333331346511841, -0.25000008940696716, 0.2000211924314499, -0.1666799634695053),
    *(0.14219550788402557, -0.12405592203140259, 0.11888177692890167, -0.1167563870549202),
    0.06746591627597809,
)
_TANH = (
    *(-0.3333328068256378, 0.13331441581249237, -0.05373971164226532, 0.020639078691601753),
    -0.005704978480935097,
)
_ERF = (
    *(0.12837916612625122, -0.37612634897232056, 0.11283715069293976, -0.02686050906777382),
    *(0.005203858949244022, -0.0008175639086402953, 8.513102511642501e-05),
)
_ERFC = (
    *(-0.0001664390874793753, -1.127797245979309, 0.3630239963531494, -0.10411374270915985),
    *(0.02231524884700775, -0.003065499709919095, 0.00019822070316877216),
)


def _polynomial(f: Function, x: Value, coefficients: Sequence[float]) -> Value:
    """Horner's scheme; the constant coefficient comes first."""
    total = x.like(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = f.fma(total, x, coefficient)
    return total


def exp(f: Function, x: Value) -> Value:
    """Exponential function: 2^n * e^r, with n the nearest integer to x / ln 2.

    The power is applied in two factors, so that results next to zero and to infinity are met.
    """
    if element(x.type) != f32:
        return f.libm("exp", x)
    value, whole = _reduced_exp(f, f.maximum(-105.0, f.minimum(89.0, x)))
    half = whole >> 1
    return value * _power_of_two(f, half) * _power_of_two(f, whole - half)


def exp_of_negative(f: Function, x: Value) -> Value:
    """Exponential function of float32 numbers up to 0; a third less work, subnormals become 0."""
    value, whole = _reduced_exp(f, f.maximum(_LEAST, x))
    return f.select(x < _LEAST, x.like(0.0), value * _power_of_two(f, whole))


def _reduced_exp(f: Function, x: Value) -> tuple[Value, Value]:
    """e^r and n."""
    n = f.intrinsic("rint", x * (1 / math.log(2)))
    r = f.fma(-n, x.like(_LN2_LOW), f.fma(-n, x.like(_LN2_HIGH), x))
    tail = _polynomial(f, r, _EXP)
    return f.fma(r * r, tail, r) + 1.0, f.cast(n, i32)


def _power_of_two(f: Function, n: Value) -> Value:
    """2^n for integers from -126 to 127."""
    return f.bitcast((n + 127) << 23, f32)


def log(f: Function, x: Value) -> Value:
    """Natural logarithm: x = 2^e * (1 + m) with 1 + m between sqrt(1/2) and sqrt(2)."""
    if element(x.type) != f32:
        return f.libm("log", x)
    tiny = x < 1.1754943508222875e-38
    scaled = f.select(tiny, x * 8388608.0, x)
    bits = f.bitcast(scaled, i32)
    # Subtracting the bits of sqrt(1/2) puts the exponent's step where 1 + m has its border.
    shifted = bits - 0x3F3504F3
    exponent = f.cast(shifted >> 23, f32) - f.select(tiny, x.like(23.0), 0.0)
    m = f.bitcast((shifted & 0x007FFFFF) + 0x3F3504F3, f32) - 1.0
    square = m * m
    tail = _polynomial(f, m, _LOG) * m * square
    low = f.fma(exponent, x.like(_LN2_LOW), tail)
    result = f.fma(exponent, x.like(_LN2_HIGH), m + f.fma(square, x.like(-0.5), low))
    infinity = float("inf")
    result = f.select(x == infinity, x, result)
    result = f.select(x == 0.0, x.like(-infinity), result)
    # The test is false for negative numbers and for NaN.
    return f.select(x >= 0.0, result, float("nan"))


def tanh(f: Function, x: Value) -> Value:
    """Hyperbolic tangent: odd polynomial near 0, 1 - 2 / (exp(2|x|) + 1) elsewhere."""
    if element(x.type) != f32:
        return f.libm("tanh", x)
    size = f.intrinsic("fabs", x)
    square = x * x
    near = f.fma(x * square, _polynomial(f, square, _TANH), x)
    # From 10 on the result is 1, and the power of two needs no second factor.
    value, whole = _reduced_exp(f, f.minimum(20.0, size + size))
    far = 1.0 - 2.0 / (value * _power_of_two(f, whole) + 1.0)
    return f.select(size < 0.625, near, f.intrinsic("copysign", far, x))


def sigmoid(f: Function, x: Value) -> Value:
    """1 / (1 + exp(-x)), from exp(-|x|), which never overflows."""
    if element(x.type) != f32:
        return 1.0 / (exp(f, -x) + 1.0)
    power = exp(f, -f.intrinsic("fabs", x))
    inverse = 1.0 / (power + 1.0)
    return f.select(x < 0.0, power * inverse, inverse)


def erf(f: Function, x: Value) -> Value:
    """Error function: odd polynomial near 0, 1 - exp(q(|x|) - x^2) elsewhere."""
    if element(x.type) != f32:
        return f.libm("erf", x)
    size = f.intrinsic("fabs", x)
    square = x * x
    near = f.fma(x, _polynomial(f, square, _ERF), x)
    bounded = f.minimum(4.0, size)
    power = f.fma(-bounded, bounded, _polynomial(f, bounded, _ERFC))
    far = f.intrinsic("copysign", 1.0 - exp_of_negative(f, power), x)
    return f.select(size < 0.9, near, far)
