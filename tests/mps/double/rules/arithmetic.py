"""MPSGraphArithmeticOps: element by element, NumPy's broadcasting, one data type."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.mps.double import dtypes
from tests.mps.double.errors import Refused
from tests.mps.double.graph import Builder
from tests.mps.double.objects import Object

from .numbers import arithmetic, half

_erf = np.vectorize(math.erf, otypes=[np.float64])
_NUMBERS = (*dtypes.FLOATS, *dtypes.INTS)
_SIGNED = tuple(d for d in _NUMBERS if d not in dtypes.UNSIGNED)
_ANY = (*_NUMBERS, dtypes.BOOL)
_BITS = (*dtypes.INTS, dtypes.BOOL)


def _round(x: np.ndarray) -> np.ndarray:
    whole = np.trunc(x)
    away = np.where(np.abs(x - whole) >= 0.5, np.copysign(1, x), 0)
    return (whole + away + 0.0).astype(x.dtype)


def _sign(x: np.ndarray) -> np.ndarray:
    return ((x > 0).astype(x.dtype) - (x < 0).astype(x.dtype)).astype(x.dtype)


def _log(f: Callable[..., np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    def compute(x: np.ndarray) -> np.ndarray:
        result = np.asarray(f(x))
        if x.dtype == np.float16:
            result = np.where(x == 0, np.float16(-45440), result)
        return result

    return compute


def _square_root(x: np.ndarray) -> np.ndarray:
    return np.sqrt(np.where(x < 0, x.dtype.type(0), x) if x.dtype == np.float16 else x)


def _same(f: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """`f` with its result in the data type of its operand."""
    return lambda x, *rest: np.asarray(f(x, *rest)).astype(x.dtype)


# Name: (function, data types, what float16's NaN becomes).
_UNARY: dict[str, tuple[Callable[..., Any], tuple[int, ...], float]] = {
    "exponent": (np.exp, dtypes.FLOATS, np.inf),
    "exponentBase2": (np.exp2, dtypes.FLOATS, np.inf),
    "exponentBase10": (lambda x: np.power(x.dtype.type(10), x), dtypes.FLOATS, np.inf),
    "logarithm": (_log(np.log), dtypes.FLOATS, 0.0),
    "logarithmBase2": (_log(np.log2), dtypes.FLOATS, 0.0),
    "logarithmBase10": (_log(np.log10), dtypes.FLOATS, 0.0),
    "square": (np.square, _NUMBERS, np.inf),
    "squareRoot": (_square_root, dtypes.FLOATS, np.inf),
    "reciprocalSquareRoot": (lambda x: 1 / np.sqrt(x), dtypes.FLOATS, 0.0),
    "reverseSquareRoot": (lambda x: 1 / np.sqrt(x), dtypes.FLOATS, 0.0),
    "reciprocal": (lambda x: 1 / x, dtypes.FLOATS, 0.0),
    "absoluteSquare": (np.square, dtypes.FLOATS, np.inf),
    "ceil": (np.ceil, dtypes.FLOATS, np.inf),
    "floor": (np.floor, dtypes.FLOATS, np.inf),
    "rint": (np.rint, dtypes.FLOATS, np.inf),
    "truncate": (np.trunc, dtypes.FLOATS, np.inf),
    "sin": (np.sin, dtypes.FLOATS, np.inf),
    "cos": (np.cos, dtypes.FLOATS, np.inf),
    "tan": (np.tan, dtypes.FLOATS, np.inf),
    "sinh": (np.sinh, dtypes.FLOATS, np.inf),
    "cosh": (np.cosh, dtypes.FLOATS, np.inf),
    "tanh": (np.tanh, dtypes.FLOATS, np.inf),
    "asin": (np.arcsin, dtypes.FLOATS, np.inf),
    "acos": (np.arccos, dtypes.FLOATS, np.inf),
    "atan": (np.arctan, dtypes.FLOATS, np.inf),
    "asinh": (np.arcsinh, dtypes.FLOATS, np.inf),
    "acosh": (np.arccosh, dtypes.FLOATS, np.inf),
    "atanh": (np.arctanh, dtypes.FLOATS, np.inf),
    "erf": (_same(_erf), dtypes.FLOATS, np.inf),
}
# These move values and leave denormals alone.
_COPYING: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "identity": (lambda x: x, (*_ANY, dtypes.COMPLEX64)),
    "absolute": (np.abs, _SIGNED),
    "negative": (np.negative, _SIGNED),
    "round": (_round, dtypes.FLOATS),
    "sign": (_sign, _SIGNED),
    "signbit": (_same(np.signbit), dtypes.FLOATS),
    "not": (_same(np.logical_not), _BITS),
    "bitwiseNOT": (np.invert, dtypes.INTS),
    "bitwisePopulationCount": (_same(np.bitwise_count), dtypes.INTS)
    if hasattr(np, "bitwise_count")
    else (lambda x: x, ()),
}
_TESTS: dict[str, Callable[..., Any]] = {
    "isInfinite": np.isinf,
    "isFinite": np.isfinite,
    "isNaN": np.isnan,
}


def _nonnegative(x: np.ndarray, what: str) -> None:
    top = x.dtype.kind == "u" and (x > np.iinfo(x.dtype).max // 2).any()
    if top or (x.dtype.kind == "i" and (x < 0).any()):
        raise Refused(f"{what}: nothing says what a device gives here")


def _division(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind == "f":
        return a / b
    _nonnegative(a, "integer division of a negative or a large unsigned number")
    _nonnegative(b, "integer division by a negative or a large unsigned number")
    if (b == 0).any():
        raise Refused("integer division by 0")
    return a // b


def _no_zero(f: Callable[..., Any]) -> Callable[..., np.ndarray]:
    def compute(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if a.dtype.kind in "iu" and (b == 0).any():
            raise Refused("integer remainder of a division by 0")
        return f(a, b)

    return compute


def _floor_modulo(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    safe = np.where(b == 0, b.dtype.type(1), b)
    return np.where(b == 0, a.dtype.type(0), np.mod(a, safe))


def _right_shift(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind == "i" and (a < 0).any():
        raise Refused("a negative number shifted to the right: logical or arithmetic is unsettled")
    return a >> _count(a, b)


def _count(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The count of a shift is taken modulo the width."""
    return b & b.dtype.type(a.dtype.itemsize * 8 - 1)


_BINARY: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "addition": (np.add, (*_NUMBERS, dtypes.COMPLEX64)),
    "subtraction": (np.subtract, (*_NUMBERS, dtypes.COMPLEX64)),
    "multiplication": (np.multiply, (*_NUMBERS, dtypes.COMPLEX64)),
    "division": (_division, _NUMBERS),
    "divisionNoNaN": (
        lambda a, b: np.where(b == 0, a.dtype.type(0), a / np.where(b == 0, b.dtype.type(1), b)),
        dtypes.FLOATS,
    ),
    "modulo": (_no_zero(np.fmod), _NUMBERS),
    "floorModulo": (_floor_modulo, _NUMBERS),
    "power": (np.power, dtypes.FLOATS),
    "atan2": (np.arctan2, dtypes.FLOATS),
    "minimum": (np.fmin, _NUMBERS),
    "maximum": (np.fmax, _NUMBERS),
    "minimumWithNaNPropagation": (np.minimum, dtypes.FLOATS),
    "maximumWithNaNPropagation": (np.maximum, dtypes.FLOATS),
    "bitwiseAND": (np.bitwise_and, dtypes.INTS),
    "bitwiseOR": (np.bitwise_or, dtypes.INTS),
    "bitwiseXOR": (np.bitwise_xor, dtypes.INTS),
    "bitwiseLeftShift": (lambda a, b: a << _count(a, b), dtypes.INTS),
    "bitwiseRightShift": (_right_shift, dtypes.INTS),
}
_LOGICAL: dict[str, Callable[..., Any]] = {
    "logicalAND": np.logical_and,
    "logicalOR": np.logical_or,
    "logicalNAND": lambda a, b: ~np.logical_and(a, b),
    "logicalNOR": lambda a, b: ~np.logical_or(a, b),
    "logicalXOR": np.logical_xor,
    "logicalXNOR": lambda a, b: ~np.logical_xor(a, b),
}
_COMPARISONS: dict[str, Callable[..., Any]] = {
    "equal": np.equal,
    "notEqual": np.not_equal,
    "lessThan": np.less,
    "lessThanOrEqualTo": np.less_equal,
    "greaterThan": np.greater,
    "greaterThanOrEqualTo": np.greater_equal,
}


def _unary(f: Callable[..., Any], allowed: tuple[int, ...], result: int | None = None) -> Any:
    def rule(b: Builder, x: Object) -> Object:
        kind = b.dtype(x, allowed)
        return b.one([x], x.shape, kind if result is None else result, f)

    return rule


def _binary(f: Callable[..., Any], allowed: tuple[int, ...], result: int | None = None) -> Any:
    def rule(b: Builder, x: Object, y: Object) -> Object:
        b.dtype(x, allowed, "primary")
        kind = b.same_dtype(x, y)
        shape = b.broadcast(x.shape, y.shape)
        return b.one([x, y], shape, kind if result is None else result, f)

    return rule


def _comparison(name: str, f: Callable[..., Any]) -> Callable[..., np.ndarray]:
    def compute(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        if x.dtype.kind == "u" and "qual" not in name[:8]:
            for v in (x, y):
                _nonnegative(v, "a comparison of large unsigned numbers, which reads them signed")
        if x.dtype == np.float16 and (np.isnan(x).any() or np.isnan(y).any()):
            raise Refused("comparisons of float16 NaN may answer true: test in float32")
        return f(x, y)

    return compute


def _test(f: Callable[..., Any]) -> Callable[..., np.ndarray]:
    def compute(x: np.ndarray) -> np.ndarray:
        if x.dtype == np.float16 and np.isnan(x).any():
            raise Refused("NaN in float16 turns into something else: test in float32")
        return f(x)

    return compute


def select(b: Builder, predicate: Object, true: Object, false: Object) -> Object:
    kind = b.same_dtype(true, false)
    shape = b.broadcast(predicate.shape, true.shape, false.shape)
    return b.one(
        [predicate, true, false], shape, kind, lambda p, t, f: np.where(p.astype(bool), t, f)
    )


def clamp(b: Builder, x: Object, low: Object, high: Object) -> Object:
    b.dtype(x, _NUMBERS)
    kind = b.same_dtype(x, low, high)
    shape = b.broadcast(x.shape, low.shape, high.shape)
    return b.one([x, low, high], shape, kind, lambda v, lo, hi: np.fmin(np.fmax(v, lo), hi))


def _names() -> dict[str, Any]:
    one, two = "WithTensor:name:", "WithPrimaryTensor:secondaryTensor:name:"
    found: dict[str, Any] = {}
    for name, (f, allowed, of_nan) in _UNARY.items():
        found[name + one] = _unary(arithmetic(f, of_nan), allowed)
    for name, (f, allowed) in _COPYING.items():
        found[name + one] = _unary(lambda x, f=f: half(np.asarray(f(x))), allowed)
    for name, f in _TESTS.items():
        found[name + one] = _unary(_test(f), dtypes.FLOATS, dtypes.BOOL)
    for name, (f, allowed) in _BINARY.items():
        found[name + two] = _binary(arithmetic(f), allowed)
    for name, f in _LOGICAL.items():
        found[name + two] = _binary(_same(f), _BITS)
    for name, f in _COMPARISONS.items():
        found[name + two] = _binary(_comparison(name, f), _ANY, dtypes.BOOL)
    return found


RULES: dict[str, Any] = {
    **_names(),
    "selectWithPredicateTensor:truePredicateTensor:falsePredicateTensor:name:": select,
    "clampWithTensor:minValueTensor:maxValueTensor:name:": clamp,
}
