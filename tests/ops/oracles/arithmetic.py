"""Arithmetic by PyTorch; what it lacks, spelled out in NumPy or Python's own math."""

from __future__ import annotations

import math

import numpy as np

try:
    import torch
except ImportError:
    torch = None


def _by_torch(function):
    """An oracle that hands every array to a function of torch."""
    return lambda *arrays: function(*(torch.as_tensor(a) for a in arrays)).numpy()


def _elements(function, dtype=None):
    """An oracle that calls a function of plain Python numbers for each (broadcast) element."""

    def oracle(*arrays):
        kind = dtype or arrays[0].dtype
        many = np.broadcast_arrays(*arrays)
        values = [function(*v) for v in zip(*(m.reshape(-1).tolist() for m in many), strict=True)]
        return np.array(values, kind).reshape(many[0].shape)

    return oracle


def _half_away(x):
    if not math.isfinite(x):
        return x
    below = math.floor(abs(x))
    return math.copysign(below + (abs(x) - below >= 0.5), x)


def _sign(x):
    return x if math.isnan(x) else float(x > 0) - float(x < 0)


def _shift_left(x, n, bits):
    value = (x << n) & ((1 << bits) - 1)
    return value - (1 << bits) if value >> (bits - 1) else value


def _left(primary, secondary):
    bits = primary.dtype.itemsize * 8
    if primary.dtype.kind == "u":
        return _elements(lambda x, n: (x << n) & ((1 << bits) - 1))(primary, secondary)
    return _elements(lambda x, n: _shift_left(x, n, bits))(primary, secondary)


ORACLES = {
    "round": _elements(_half_away),
    "sign": _elements(_sign),
    "bitwise_left_shift": _left,
    "bitwise_right_shift": _elements(lambda x, n: x >> n),
    "logical_nand": _elements(lambda a, b: not (a and b), "bool"),
    "logical_nor": _elements(lambda a, b: not (a or b), "bool"),
    "logical_xnor": _elements(lambda a, b: a == b, "bool"),
    "division_no_nan": _elements(lambda a, b: 0.0 if b == 0 else a / b),
    "identity": lambda x: x,
    "stop_gradient": lambda x: x,
}
if torch is not None:
    ORACLES |= {
        ours: _by_torch(function)
        for ours, function in {
            "exponent": torch.exp,
            "exponent_base2": torch.exp2,
            "exponent_base10": lambda x: torch.pow(torch.tensor(10.0, dtype=x.dtype), x),
            "logarithm": torch.log,
            "logarithm_base2": torch.log2,
            "logarithm_base10": torch.log10,
            "square": torch.square,
            "square_root": torch.sqrt,
            "reciprocal_square_root": torch.rsqrt,
            "reciprocal": torch.reciprocal,
            "absolute": torch.abs,
            "negative": torch.neg,
            "ceil": torch.ceil,
            "floor": torch.floor,
            "rint": torch.round,
            "truncate": torch.trunc,
            "sin": torch.sin,
            "cos": torch.cos,
            "tan": torch.tan,
            "sinh": torch.sinh,
            "cosh": torch.cosh,
            "tanh": torch.tanh,
            "asin": torch.asin,
            "acos": torch.acos,
            "atan": torch.atan,
            "asinh": torch.asinh,
            "acosh": torch.acosh,
            "atanh": torch.atanh,
            "erf": torch.erf,
            "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
            "logical_not": torch.logical_not,
            "is_infinite": torch.isinf,
            "is_finite": torch.isfinite,
            "is_nan": torch.isnan,
            "signbit": torch.signbit,
            "bitwise_not": torch.bitwise_not,
            "addition": torch.add,
            "subtraction": torch.sub,
            "multiplication": torch.mul,
            "division": torch.div,
            "modulo": torch.fmod,
            "floor_modulo": torch.remainder,
            "floor_division": lambda a, b: torch.div(a, b, rounding_mode="floor"),
            "power": torch.pow,
            "minimum": torch.minimum,
            "maximum": torch.maximum,
            "atan2": torch.atan2,
            "equal": torch.eq,
            "not_equal": torch.ne,
            "less_than": torch.lt,
            "less_than_or_equal_to": torch.le,
            "greater_than": torch.gt,
            "greater_than_or_equal_to": torch.ge,
            "logical_and": torch.logical_and,
            "logical_or": torch.logical_or,
            "logical_xor": torch.logical_xor,
            "bitwise_and": torch.bitwise_and,
            "bitwise_or": torch.bitwise_or,
            "bitwise_xor": torch.bitwise_xor,
            "select": torch.where,
            "clamp": lambda x, low, high: torch.clamp(x, low, high),
        }.items()
    }
