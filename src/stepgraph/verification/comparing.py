"""One tensor beside another: element by element, or as a whole by its norm."""

from __future__ import annotations

import math

import numpy as np

from stepgraph.graph.definition import Array
from stepgraph.graph.dtypes import DType
from stepgraph.verification.report import Comparison


def compare(got: Array, expected: Array, tolerance: Array, dtype: DType) -> Comparison:
    """Element by element.

    Args:
        got: from a device.
        expected: the same in float64 (integers and booleans as they are).
        tolerance: allowed distance, broadcastable; 0 where bits must agree.
        dtype: that `got` must have.

    Example:
        >>> from stepgraph.graph.dtypes import float32
        >>> found = compare(np.float32([1, 2]), np.array([1.0, 2.5]), np.array(0.1), float32)
        >>> found.error, found.index, found.outside
        (0.5, (1,), 1)
    """
    fault = _misfit(got, expected, dtype)
    if fault:
        return Comparison(math.inf, 0.0, fault=fault, size=expected.size)
    if not expected.size:
        return Comparison(0.0, 0.0)
    allowed = np.broadcast_to(np.asarray(tolerance, float), expected.shape)
    # What is finite in float64 alone is infinite for a narrower dtype.
    with np.errstate(all="ignore"):
        rounded = expected.astype(dtype.numpy)
        same = (got == rounded) | (_isnan(got) & _isnan(rounded))
        distance = np.abs(np.asarray(got, float) - np.asarray(expected, float))
    distance = np.where(same & ~(np.isfinite(distance)), 0.0, distance)
    distance = np.where(np.isnan(distance), np.inf, distance)
    # At the edge of the range, one rounding decides between the largest number and infinity.
    edge = np.isinf(distance) & _near_overflow(got, expected, dtype)
    distance = np.where(edge, 0.0, distance)
    with np.errstate(all="ignore"):
        ratio = np.where(distance > 0, distance / allowed, 0.0)
    outside = distance > allowed
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(ratio)), ratio.shape))
    return Comparison(
        float(distance[index]),
        float(allowed[index]),
        index,
        float(got[index]),
        float(expected[index]),
        int(outside.sum()),
        expected.size,
    )


def compare_norms(got: Array, expected: Array, tolerance: float) -> Comparison:
    """As vectors: the length of the difference against a tolerance.

    Example:
        >>> compare_norms(np.array([3.0, 4.0]), np.zeros(2), 1.0).error
        5.0
    """
    if got.shape != expected.shape:
        fault = f"the shape is {got.shape}, {expected.shape} is expected"
        return Comparison(math.inf, 0.0, fault=fault, size=expected.size)
    with np.errstate(all="ignore"):
        apart = np.asarray(got, float) - np.asarray(expected, float)
    both = (np.isnan(got) & np.isnan(expected)) | (got == expected)
    apart = np.where(both, 0.0, apart)
    error = float(np.linalg.norm(apart.reshape(-1))) if np.isfinite(apart).all() else math.inf
    if not expected.size:
        return Comparison(0.0, tolerance)
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(np.abs(apart))), apart.shape))
    outside = int(not error <= tolerance)
    return Comparison(
        error, tolerance, index, float(got[index]), float(expected[index]), outside, expected.size
    )


def _misfit(got: Array, expected: Array, dtype: DType) -> str:
    if got.shape != expected.shape:
        return f"the shape is {got.shape}, {expected.shape} is expected"
    if got.dtype != dtype.numpy:
        return f"the dtype is {got.dtype}, {dtype} is expected"
    return ""


def _isnan(values: Array) -> Array:
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)


def _near_overflow(got: Array, expected: Array, dtype: DType) -> Array:
    if not dtype.is_float:
        return np.zeros(got.shape, bool)
    largest = float(np.finfo(dtype.name).max)
    high = np.asarray(got, float), np.asarray(expected, float)
    near = [np.abs(v) >= largest * (1 - 1e-5) for v in high]
    return np.asarray(near[0] & near[1] & (np.sign(high[0]) == np.sign(high[1])))
