"""MPSGraphReductionOps and MPSGraphCumulativeOps: reduced axes stay, with extent 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.mps.double import dtypes
from tests.mps.double.graph import Builder, Shape
from tests.mps.double.objects import Object

from .numbers import total

_NUMBERS = (*dtypes.FLOATS, *dtypes.INTS)
_SIGNED = tuple(d for d in _NUMBERS if d not in dtypes.UNSIGNED)
_BITS = (*dtypes.INTS, dtypes.BOOL)


def kept(shape: Shape, axes: Sequence[int]) -> Shape:
    return tuple(1 if i in axes else d for i, d in enumerate(shape))


def _lowest(kind: np.dtype) -> Any:
    return -np.inf if kind.kind == "f" else np.iinfo(kind).min


def _highest(kind: np.dtype) -> Any:
    return np.inf if kind.kind == "f" else np.iinfo(kind).max


def _product(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    wide = np.float64 if x.dtype.kind == "f" else x.dtype
    return np.prod(x, axis=axes, keepdims=True, dtype=wide).astype(x.dtype)


def _fold(f: np.ufunc, start: Callable[[np.dtype], Any]) -> Callable[..., np.ndarray]:
    def compute(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        return f.reduce(x, axis=axes, keepdims=True, initial=start(x.dtype))

    return compute


def _logical(f: np.ufunc) -> Callable[..., np.ndarray]:
    return lambda x, axes: f.reduce(x.astype(bool), axis=axes, keepdims=True).astype(x.dtype)


_REDUCTIONS: dict[str, tuple[Callable[..., np.ndarray], tuple[int, ...]]] = {
    "reductionSum": (total, _NUMBERS),
    "reductionProduct": (_product, _NUMBERS),
    "reductionMaximum": (_fold(np.fmax, _lowest), _SIGNED),
    "reductionMinimum": (_fold(np.fmin, _highest), _SIGNED),
    "reductionMaximumPropagateNaN": (_fold(np.maximum, _lowest), dtypes.FLOATS),
    "reductionMinimumPropagateNaN": (_fold(np.minimum, _highest), dtypes.FLOATS),
    "reductionAnd": (_logical(np.logical_and), _BITS),
    "reductionOr": (_logical(np.logical_or), _BITS),
}


def _reduction(f: Callable[..., np.ndarray], allowed: tuple[int, ...]) -> tuple[Any, Any]:
    def over(b: Builder, x: Object, axes: Sequence[int] | None) -> Object:
        kind = b.dtype(x, allowed)
        b.need(x.shape, "a reduction needs a rank of 1 at least")
        where = b.axes(axes, len(x.shape))
        return b.one([x], kept(x.shape, where), kind, lambda v: f(v, where) if where else v)

    def single(b: Builder, x: Object, axis: int) -> Object:
        return over(b, x, [axis])

    return single, over


def _arg(largest: bool) -> Any:
    def rule(b: Builder, x: Object, axis: int) -> Object:
        b.dtype(x, _SIGNED)
        b.need(x.shape, "a reduction needs a rank of 1 at least")
        axis = b.axis(axis, len(x.shape))

        def compute(v: np.ndarray) -> np.ndarray:
            nan = np.isnan(v) if v.dtype.kind == "f" else np.zeros(v.shape, bool)
            fold = np.fmax if largest else np.fmin
            best = (v == fold.reduce(v, axis=axis, keepdims=True)) & ~nan
            found = np.argmax(best, axis=axis, keepdims=True)
            found = np.where(nan.all(axis=axis, keepdims=True), -1, found)
            return found.astype(np.int32)

        return b.one([x], kept(x.shape, [axis]), dtypes.INT32, compute)

    return rule


def _finite_extreme(kind: np.dtype, sign: int) -> Any:
    info = np.finfo(kind) if kind.kind == "f" else np.iinfo(kind)
    return info.max if sign > 0 else info.min


_CUMULATIVE: dict[str, tuple[np.ufunc, Callable[[np.dtype], Any]]] = {
    "cumulativeSum": (np.add, lambda kind: 0),
    "cumulativeProduct": (np.multiply, lambda kind: 1),
    "cumulativeMinimum": (np.minimum, lambda kind: _finite_extreme(kind, 1)),
    "cumulativeMaximum": (np.maximum, lambda kind: _finite_extreme(kind, -1)),
}


def _cumulative(f: np.ufunc, start: Callable[[np.dtype], Any]) -> Any:
    def rule(
        b: Builder, x: Object, axis: int, exclusive: bool = False, reverse: bool = False
    ) -> Object:
        kind = b.dtype(x, _SIGNED)
        rank = len(x.shape)
        axis = b.axis(axis, rank)
        b.need(rank - axis <= 4, f"axis {axis} of rank {rank} is not among the last four")

        def compute(v: np.ndarray) -> np.ndarray:
            v = np.flip(v, axis) if reverse else v
            wide = np.float64 if f in (np.add, np.multiply) and v.dtype.kind == "f" else v.dtype
            out = f.accumulate(v, axis=axis, dtype=wide).astype(v.dtype)
            if exclusive:
                out = np.roll(out, 1, axis)
                first = [slice(None)] * rank
                first[axis] = slice(0, 1)
                out[tuple(first)] = start(v.dtype)
            return np.flip(out, axis) if reverse else out

        return b.one([x], x.shape, kind, compute)

    return rule


def _with_axis_tensor(rule: Any) -> Any:
    def tensor_form(b: Builder, x: Object, axis: Object, *rest: Any) -> Object:
        return rule(b, x, int(b.constant_of(axis, "axis").reshape(())), *rest)

    return tensor_form


def _names() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (f, allowed) in _REDUCTIONS.items():
        single, over = _reduction(f, allowed)
        found[name + "WithTensor:axis:name:"] = single
        found[name + "WithTensor:axes:name:"] = over
    for name, (f, start) in _CUMULATIVE.items():
        rule = _cumulative(f, start)
        for flags in ("", "exclusive:reverse:"):
            found[f"{name}WithTensor:axis:{flags}name:"] = rule
            found[f"{name}WithTensor:axisTensor:{flags}name:"] = _with_axis_tensor(rule)
    return found


RULES: dict[str, Any] = {
    **_names(),
    "reductionArgMaximumWithTensor:axis:name:": _arg(True),
    "reductionArgMinimumWithTensor:axis:name:": _arg(False),
}
