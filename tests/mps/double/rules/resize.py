"""MPSGraphResizeOps, in the forms that are told a layout: one matrix for each spatial axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.mps.double import dtypes, sdk
from tests.mps.double.graph import Builder
from tests.mps.double.objects import Object
from tests.mps.double.rules.shapes import constants

_L = "MPSGraphTensorNamedDataLayout"
# Layout: places of height and width, and the rank.
_SPATIAL = {
    sdk.value(_L + "NHWC"): (1, 2, 4),
    sdk.value(_L + "NCHW"): (2, 3, 4),
    sdk.value(_L + "HWC"): (0, 1, 3),
    sdk.value(_L + "CHW"): (1, 2, 3),
}
_BILINEAR = sdk.value("MPSGraphResizeBilinear")
_ROUNDINGS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    0: lambda c: np.floor(c + 0.5),
    1: lambda c: np.ceil(c - 0.5),
    2: np.ceil,
    3: np.floor,
    4: np.rint,
    5: lambda c: np.where(c % 1 == 0.5, 2 * np.floor(c / 2) + 1, np.rint(c)),
}


def _coordinates(size: int, into: int, center: bool, align: bool) -> np.ndarray:
    """Where in the source each element of the result lies."""
    places = np.arange(into, dtype=np.float64)
    if align:
        return places * ((size - 1) / (into - 1) if into > 1 else 0.0)
    scale = size / into
    return (places + 0.5) * scale - 0.5 if center else places * scale


def _matrix(size: int, into: int, center: bool, align: bool, rounding: int | None) -> np.ndarray:
    """Result by source: what each element of the result takes of which of the source."""
    c = _coordinates(size, into, center, align)
    out = np.zeros((into, size))
    rows = np.arange(into)
    if rounding is not None:
        # Rounding noise of the coordinates must not decide.
        nearest = _ROUNDINGS[rounding](np.round(c, 9))
        out[rows, np.clip(nearest, 0, size - 1).astype(int)] = 1
        return out
    c = np.clip(c, 0, size - 1)
    low = np.floor(c).astype(int)
    np.add.at(out, (rows, low), 1 - (c - low))
    np.add.at(out, (rows, np.minimum(low + 1, size - 1)), c - low)
    return out


def _apply(v: np.ndarray, matrices: Sequence[np.ndarray], axes: Sequence[int]) -> np.ndarray:
    out = v.astype(np.float64)
    for m, axis in zip(matrices, axes, strict=True):
        out = np.moveaxis(np.tensordot(m, out, (1, axis)), 0, axis)
    return out.astype(v.dtype)


def _plan(
    b: Builder, x: Object, size: Sequence[int], flags: tuple[bool, bool, int], rounding: int | None
) -> tuple[list[np.ndarray], tuple[int, int]]:
    center, align, layout = flags
    b.dtype(x, dtypes.FLOATS)
    b.need(layout in _SPATIAL, f"layout {layout}")
    height, width, rank = _SPATIAL[layout]
    b.need(len(x.shape) == rank, f"rank {len(x.shape)} for a layout of {rank}")
    b.need(len(size) == 2 and min(size) > 0, f"size {list(size)}")
    b.need(not (center and align), "centered and aligned at the corners at once")
    matrices = [
        _matrix(x.shape[axis], into, center, align, rounding)
        for axis, into in zip((height, width), size, strict=True)
    ]
    return matrices, (height, width)


def _resize(
    b: Builder,
    x: Object,
    size: Sequence[int],
    center: bool,
    align: bool,
    layout: int,
    rounding: int | None = None,
) -> Object:
    matrices, axes = _plan(b, x, size, (center, align, layout), rounding)
    shape = list(x.shape)
    for axis, into in zip(axes, size, strict=True):
        shape[axis] = into
    return b.one([x], shape, x.dtype, lambda v: _apply(v, matrices, axes))


def _gradient(
    b: Builder,
    g: Object,
    x: Object,
    center: bool,
    align: bool,
    layout: int,
    rounding: int | None = None,
) -> Object:
    b.same_dtype(g, x)
    b.need(layout in _SPATIAL and len(g.shape) == len(x.shape), f"layout {layout}")
    size = [g.shape[axis] for axis in _SPATIAL[layout][:2]]
    matrices, axes = _plan(b, x, size, (center, align, layout), rounding)
    for i, (d, n) in enumerate(zip(x.shape, g.shape, strict=True)):
        b.need(d == n or i in axes, f"a gradient of {g.shape} for {x.shape}")
    turned = [m.T for m in matrices]
    return b.one([g, x], x.shape, x.dtype, lambda u, v: _apply(u, turned, axes))


def _by_mode(rule: Any) -> Any:
    def chosen(b: Builder, x: Object, y: Any, mode: int, *flags: Any) -> Object:
        b.need(mode == _BILINEAR, "nearest without a rounding mode: use resizeNearest")
        return rule(b, x, y, *flags)

    return chosen


def nearest(b: Builder, x: Object, size: Sequence[int], rounding: int, *flags: Any) -> Object:
    return _resize(b, x, size, *flags, rounding)


def nearest_gradient(b: Builder, g: Object, x: Object, rounding: int, *flags: Any) -> Object:
    return _gradient(b, g, x, *flags, rounding)


_FLAGS = "centerResult:alignCorners:layout:name:"
RULES: dict[str, Any] = {
    f"resizeTensor:size:mode:{_FLAGS}": _by_mode(_resize),
    f"resizeTensor:sizeTensor:mode:{_FLAGS}": constants(_by_mode(_resize), 1),
    f"resizeBilinearWithTensor:sizeTensor:{_FLAGS}": constants(_resize, 1),
    f"resizeNearestWithTensor:sizeTensor:nearestRoundingMode:{_FLAGS}": constants(nearest, 1),
    f"resizeWithGradientTensor:input:mode:{_FLAGS}": _by_mode(_gradient),
    f"resizeBilinearWithGradientTensor:input:{_FLAGS}": _gradient,
    f"resizeNearestWithGradientTensor:input:nearestRoundingMode:{_FLAGS}": nearest_gradient,
}
