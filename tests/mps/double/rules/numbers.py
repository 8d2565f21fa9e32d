"""How the device counts: float32 without denormals, its own float16."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_TINY = np.finfo(np.float32).tiny
# Beyond this many elements the flush is left out: it would cost more than it shows.
_MOST = 1 << 16


def flush(x: np.ndarray) -> np.ndarray:
    """Denormals of float32 read and written as signed zeros."""
    if x.dtype != np.float32 or x.size > _MOST:
        return x
    small = (np.abs(x) < _TINY) & (x != 0)
    return np.where(small, np.copysign(np.float32(0), x), x) if small.any() else x


def half(x: np.ndarray, of_nan: float = np.inf) -> np.ndarray:
    """What becomes of NaN and -0 in float16."""
    if x.dtype != np.float16:
        return x
    nan = np.isnan(x)
    if nan.any():
        x = np.where(nan, np.float16(of_nan), x)
    return x + np.float16(0)


def arithmetic(f: Callable[..., np.ndarray], of_nan: float = np.inf) -> Callable[..., np.ndarray]:
    """`f` with the device's treatment of special values around it."""

    def compute(*inputs: np.ndarray) -> np.ndarray:
        kind = inputs[0].dtype
        result = np.asarray(f(*(flush(x) for x in inputs)))
        if result.dtype != kind and result.dtype.kind == "f":
            result = result.astype(kind)
        return half(flush(result), of_nan)

    return compute


def total(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """A sum that keeps the axes; of float32 in float64, of float16 in float32."""
    wide = {"float32": np.float64, "float16": np.float32}.get(x.dtype.name, x.dtype)
    return np.sum(x, axis=axes, keepdims=True, dtype=wide).astype(x.dtype)
