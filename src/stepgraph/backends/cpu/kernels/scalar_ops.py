"""What each elementwise op is in a kernel: one table for the fused loops.

An entry takes the function under construction and values of equal lanes, and the op's attributes as
keywords. Truth values are vectors of i1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from stepgraph.backends.cpu.native import vector_math as vm
from stepgraph.backends.cpu.native.emit import Function, Value, element, lanes
from stepgraph.backends.cpu.native.value import f32, i1, i32, i64, is_float

Emitter = Callable[..., Value]

SCALARS: dict[str, Any] = {"float32": f32, "int32": i32, "int64": i64, "bool": i1}


def _zero(x: Value) -> Value:
    return x.like(0)


def _relu(f: Function, x: Value) -> Value:
    return f.maximum(0.0, x)


def _relu_gradient(f: Function, incoming: Value, source: Value) -> Value:
    return f.select(source > 0.0, incoming, 0.0)


def _leaky(f: Function, x: Value, alpha: float) -> Value:
    return f.select(x > 0.0, x, x * alpha)


def _gelu(f: Function, x: Value, approximate: bool) -> Value:
    if approximate:
        inner = (x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)
        return x * 0.5 * (vm.tanh(f, inner) + 1.0)
    return x * 0.5 * (vm.erf(f, x * (1 / math.sqrt(2))) + 1.0)


def _absolute(f: Function, x: Value) -> Value:
    if is_float(x.type):
        return f.intrinsic("fabs", x)
    return f.select(x < 0, -x, x)


def _sign(f: Function, x: Value) -> Value:
    one = f.select(x > 0, x.like(1), _zero(x))
    result = f.select(x < 0, x.like(-1), one)
    return f.select(x != x, x, result) if is_float(x.type) else result


def _softplus(f: Function, x: Value) -> Value:
    # log1p loses nothing here: exp(-|x|) is at most 1, and for tiny values log1p(t) = t.
    t = vm.exp(f, -f.intrinsic("fabs", x))
    log = f.select(t < 1e-4, t - t * t * 0.5, vm.log(f, t + 1.0))
    return f.maximum(0.0, x) + log


def _floor_modulo(f: Function, a: Value, b: Value) -> Value:
    if is_float(a.type):
        rest = f.libm("fmod", a, b)
    else:
        # An integer division by zero ends the process; so does the least integer by -1.
        rest = a % f.select((b == 0) | (b == -1), b.like(1), b)
    wrong = (rest != 0) & ((rest < 0) ^ (b < 0))
    result = f.select(wrong, rest + b, rest)
    return result if is_float(a.type) else f.select(b == 0, _zero(a), result)


def _safe(f: Function, b: Value) -> Value:
    """A divisor that ends no process: zero and -1 are dealt with apart."""
    return f.select((b == 0) | (b == -1), b.like(1), b)


def _floor_division(f: Function, a: Value, b: Value) -> Value:
    if is_float(a.type):
        return f.intrinsic("floor", a / b)
    quotient, rest = a / _safe(f, b), a % _safe(f, b)
    below = (rest != 0) & ((rest < 0) ^ (b < 0))
    quotient = f.select(b == -1, -a, f.select(below, quotient - 1, quotient))
    return f.select(b == 0, _zero(a), quotient)


def _modulo(f: Function, a: Value, b: Value) -> Value:
    return f.libm("fmod", a, b) if is_float(a.type) else a % _safe(f, b)


def _shift(f: Function, x: Value, places: Value, left: bool) -> Value:
    bits = int(element(x.type).width)
    fits = (places >= 0) & (places < bits)
    known = f.select(fits, places, bits - 1)
    return f.select(fits, x << known, _zero(x)) if left else x >> known


def _signbit(f: Function, x: Value) -> Value:
    return f.bitcast(x, i32) < 0


def _division_no_nan(f: Function, a: Value, b: Value) -> Value:
    return f.select(b == 0.0, _zero(a), a / b)


def _is_nan(f: Function, x: Value) -> Value:
    return x != x


def _is_finite(f: Function, x: Value) -> Value:
    return f.intrinsic("fabs", x) < math.inf


def _is_infinite(f: Function, x: Value) -> Value:
    return f.intrinsic("fabs", x) == math.inf


def _cast(f: Function, x: Value, dtype: Any) -> Value:
    name = str(dtype)
    if name == "bool":
        return x if element(x.type) == i1 else x != 0
    return f.cast(x, SCALARS[name])


def _clamp(f: Function, x: Value, low: Value, high: Value) -> Value:
    raised = f.select(x < low, low, x)
    return f.select(raised > high, high, raised)


def _propagating(name: str) -> Emitter:
    def emit(f: Function, a: Value, b: Value) -> Value:
        if is_float(a.type):
            return f.intrinsic(name, a, b)
        return f.select(a > b if name == "maximum" else a < b, a, b)

    return emit


def _not(f: Function, x: Value) -> Value:
    return ~x


def _intrinsic(name: str) -> Emitter:
    return lambda f, x: f.intrinsic(name, x)


def _libm(name: str) -> Emitter:
    return lambda f, *values: f.libm(name, *values)


def _descend(f: Function, rate: Value, values: Value, gradient: Value) -> Value:
    return values - rate * gradient


# Operations that the C library computes whatever the dtype, number by number: some ten times as
# long as anything else here. (It also computes a power of ten, a float modulo, and in float64 what
# `vector_math` has in float32 alone.)
C_FUNCTIONS = {
    **{"power": "pow", "exponent_base2": "exp2", "atan2": "atan2"},
    **{"logarithm_base2": "log2", "logarithm_base10": "log10"},
    **{name: name for name in ("sin", "cos", "tan", "sinh", "cosh", "asin", "acos", "atan")},
    **{name: name for name in ("asinh", "acosh", "atanh")},
}

FLOAT_OPS: dict[str, Emitter] = {
    "division": lambda f, a, b: a / b,
    "division_no_nan": _division_no_nan,
    "square_root": _intrinsic("sqrt"),
    "reciprocal_square_root": lambda f, x: 1.0 / f.intrinsic("sqrt", x),
    "reciprocal": lambda f, x: 1.0 / x,
    "exponent": vm.exp,
    "exponent_base10": lambda f, x: f.libm("pow", x.like(10.0), x),
    "logarithm": vm.log,
    "tanh": vm.tanh,
    "sigmoid": vm.sigmoid,
    "erf": vm.erf,
    "relu": _relu,
    "relu_gradient": _relu_gradient,
    "leaky_relu": _leaky,
    "gelu": _gelu,
    "silu": lambda f, x: x * vm.sigmoid(f, x),
    "softplus": _softplus,
    "ceil": _intrinsic("ceil"),
    "floor": _intrinsic("floor"),
    "rint": _intrinsic("rint"),
    "round": _intrinsic("round"),
    "truncate": _intrinsic("trunc"),
    "signbit": _signbit,
    "stochastic_gradient_descent": _descend,
    "is_nan": _is_nan,
    "is_finite": _is_finite,
    "is_infinite": _is_infinite,
    **{name: _libm(function) for name, function in C_FUNCTIONS.items()},
}

NUMBER_OPS: dict[str, Emitter] = {
    "addition": lambda f, a, b: a + b,
    "subtraction": lambda f, a, b: a - b,
    "multiplication": lambda f, a, b: a * b,
    "negative": lambda f, x: -x,
    "absolute": _absolute,
    "square": lambda f, x: x * x,
    "sign": _sign,
    "minimum": _propagating("minimum"),
    "maximum": _propagating("maximum"),
    "modulo": _modulo,
    "floor_modulo": _floor_modulo,
    "floor_division": _floor_division,
    "less_than": lambda f, a, b: a < b,
    "less_than_or_equal_to": lambda f, a, b: a <= b,
    "greater_than": lambda f, a, b: a > b,
    "greater_than_or_equal_to": lambda f, a, b: a >= b,
}

ANY_OPS: dict[str, Emitter] = {
    "identity": lambda f, x: x,
    "stop_gradient": lambda f, x: x,
    "equal": lambda f, a, b: a == b,
    "not_equal": lambda f, a, b: a != b,
    "cast": _cast,
}

BOOL_OPS: dict[str, Emitter] = {
    "logical_and": lambda f, a, b: a & b,
    "logical_or": lambda f, a, b: a | b,
    "logical_xor": lambda f, a, b: a ^ b,
    "logical_nand": lambda f, a, b: ~(a & b),
    "logical_nor": lambda f, a, b: ~(a | b),
    "logical_xnor": lambda f, a, b: ~(a ^ b),
    "logical_not": _not,
}

INTEGER_OPS: dict[str, Emitter] = {
    "bitwise_and": lambda f, a, b: a & b,
    "bitwise_or": lambda f, a, b: a | b,
    "bitwise_xor": lambda f, a, b: a ^ b,
    "bitwise_not": _not,
    "bitwise_left_shift": lambda f, x, places: _shift(f, x, places, True),
    "bitwise_right_shift": lambda f, x, places: _shift(f, x, places, False),
}

# Whose operands differ in dtype or whose meaning needs more than one table.
SELECT: Emitter = lambda f, p, a, b: f.select(p, a, b)  # noqa: E731


def emitter(name: str, dtypes: tuple[str, ...]) -> Emitter | None:
    """How to compute an op on operands of these dtypes; None where there is no kernel for it."""
    if any(d not in SCALARS for d in dtypes) or not dtypes:
        return None
    if name == "select":
        return SELECT if dtypes[0] == "bool" else None
    if name == "clamp":
        return _clamp if dtypes[0] != "bool" else None
    first = dtypes[0]
    if name in ANY_OPS:
        return ANY_OPS[name]
    if first == "bool":
        return BOOL_OPS.get(name)
    if name in NUMBER_OPS:
        return NUMBER_OPS[name]
    return (FLOAT_OPS if first == "float32" else INTEGER_OPS).get(name)


def constant(f: Function, name: str, number: float, count: int) -> Value:
    """A number in every lane."""
    type_ = SCALARS[name]
    from stepgraph.backends.cpu.native.emit import vector

    return f.constant(vector(type_, count), number)


__all__ = ["SCALARS", "Emitter", "constant", "emitter", "lanes"]
