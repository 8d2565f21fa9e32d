"""Gather, scatter, one-hot, top-k and sort."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.mps.double import dtypes, sdk
from tests.mps.double.errors import Refused
from tests.mps.double.graph import Builder, Shape
from tests.mps.double.objects import Object
from tests.mps.double.rules.shapes import constants

_INDEX = (dtypes.INT32, dtypes.INT64)
_WIDE = tuple(np.dtype(k) for k in ("int32", "uint32", "int64", "uint64"))
_MODE = "MPSGraphScatterMode"
_SET = sdk.value(_MODE + "Set")


def _through_floats(b: Builder, f: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Whole numbers of 32 and 64 bits travel as float32: above 2^24 they arrive changed."""
    replayed = "integer_gather" in b.double.faults

    def compute(v: np.ndarray, *rest: np.ndarray) -> np.ndarray:
        if (rest[0] < 0).any():
            raise Refused("negative indices: whether they count from the end is unsettled")
        given = [v, *rest[1:]]
        for a in given:
            if a.dtype in _WIDE and (np.abs(a.astype(np.float64)) > 2**24).any():
                if not replayed:
                    raise Refused(
                        "whole numbers above 2^24 pass through float32 and are changed: "
                        "reinterpret them as float32 around it (known fault 'integer_gather')"
                    )
        if replayed and v.dtype in _WIDE:
            narrow = [a.astype(np.float32).astype(a.dtype) for a in given]
            v, rest = narrow[0], (rest[0], *narrow[1:])
        return f(v, *rest)

    return compute


def _picked(v: np.ndarray, index: Any, valid: np.ndarray) -> np.ndarray:
    """Out of range gives 0."""
    found = v[index]
    valid = valid.reshape(valid.shape + (1,) * (found.ndim - valid.ndim))
    return np.where(valid, found, v.dtype.type(0))


def gather(b: Builder, x: Object, indices: Object, axis: int, batch: int) -> Object:
    b.dtype(indices, _INDEX, "indices")
    rank = len(x.shape)
    b.need(axis < rank, f"axis {axis} is outside rank {rank}")
    b.need(batch <= axis, f"batchDimensions {batch} above the axis {axis}")
    b.need(batch <= len(indices.shape), f"batchDimensions {batch}, indices {indices.shape}")
    b.need(x.shape[:batch] == indices.shape[:batch], f"batches {x.shape}, {indices.shape}")
    b.need(indices.shape, "indices of rank 0")
    shape = (*x.shape[:axis], *indices.shape[batch:], *x.shape[axis + 1 :])

    def compute(v: np.ndarray, i: np.ndarray) -> np.ndarray:
        valid = (i >= 0) & (i < v.shape[axis])
        safe = np.where(valid, i, 0)
        lead = int(np.prod(v.shape[:batch], dtype=np.int64))
        v = v.reshape(lead, *v.shape[batch:])
        rows = []
        for n in range(lead):
            one = safe.reshape(lead, *i.shape[batch:])[n]
            good = valid.reshape(lead, *i.shape[batch:])[n]
            found = np.take(v[n], one, axis=axis - batch)
            after = v.ndim - 1 - (axis - batch) - 1
            rows.append(np.where(good.reshape(good.shape + (1,) * after), found, v.dtype.type(0)))
        return np.stack(rows).reshape(shape)

    return b.one([x, indices], shape, x.dtype, _through_floats(b, compute))


def _nd(b: Builder, x: Shape, indices: Object, batch: int) -> int:
    b.dtype(indices, _INDEX, "indices")
    b.need(len(indices.shape) >= 1, "indices of rank 0")
    depth = indices.shape[-1]
    b.need(batch < len(indices.shape), f"batchDimensions {batch}, indices {indices.shape}")
    b.need(x[:batch] == indices.shape[:batch], f"batches {x}, {indices.shape}")
    b.need(batch + depth <= len(x), f"{depth} indices after {batch} batches of {x}")
    return depth


def _nd_index(shape: Shape, i: np.ndarray, batch: int) -> tuple[tuple[Any, ...], np.ndarray]:
    depth = i.shape[-1]
    lead = np.indices(i.shape[:-1])[:batch]
    parts = [i[..., k] for k in range(depth)]
    valid = np.ones(i.shape[:-1], bool)
    for k, p in enumerate(parts):
        valid &= (p >= 0) & (p < shape[batch + k])
    return (*lead, *(np.where(valid, p, 0) for p in parts)), valid


def gather_nd(b: Builder, x: Object, indices: Object, batch: int) -> Object:
    depth = _nd(b, x.shape, indices, batch)
    shape = (*indices.shape[:-1], *x.shape[batch + depth :])

    def compute(v: np.ndarray, i: np.ndarray) -> np.ndarray:
        index, valid = _nd_index(v.shape, i, batch)
        return _picked(v, index, valid)

    return b.one([x, indices], shape, x.dtype, _through_floats(b, compute))


def gather_along(b: Builder, axis: int, x: Object, indices: Object) -> Object:
    b.dtype(indices, _INDEX, "indices")
    rank = len(x.shape)
    axis = b.axis(axis, rank)
    b.need(len(indices.shape) == rank, f"indices of {indices.shape} for {x.shape}")
    for i in range(rank):
        same = indices.shape[i] == x.shape[i] or i == axis
        b.need(same, f"indices of {indices.shape} for {x.shape}")

    def compute(v: np.ndarray, i: np.ndarray) -> np.ndarray:
        valid = (i >= 0) & (i < v.shape[axis])
        found = np.take_along_axis(v, np.where(valid, i, 0), axis)
        return np.where(valid, found, v.dtype.type(0))

    return b.one([x, indices], indices.shape, x.dtype, _through_floats(b, compute))


# Scatter ------------------------------------------------------------------------------------------


def _write(out: np.ndarray, index: Any, updates: np.ndarray, mode: int) -> None:
    """Collisions accumulate; which of several wins in Set is unspecified, so they must agree."""
    ufuncs = (np.add, np.subtract, np.multiply, np.divide, np.minimum, np.maximum)
    if mode != _SET:
        if ufuncs[mode] is np.divide and out.dtype.kind in "iu":
            raise Refused("integer division in a scatter")
        ufuncs[mode].at(out, index, updates)
        return
    out[index] = updates
    found = out[index]
    if not ((found == updates) | ((found != found) & (updates != updates))).all():
        raise Refused("two different updates are set at one place: the winner is unspecified")


def _start(mode: int, kind: np.dtype) -> Any:
    """What leaves an update unchanged under the mode."""
    info = np.finfo(kind) if kind.kind == "f" else np.iinfo(kind)
    return (0, 0, 1, 1, info.max, info.min, 0)[mode]


def _scattered(
    b: Builder,
    data: Object | Shape,
    updates: Object,
    indices: Object,
    put: Callable[[np.ndarray, np.ndarray, np.ndarray], None],
    start: Any,
) -> Object:
    shape = data.shape if isinstance(data, Object) else data
    if isinstance(data, Object):
        kind = b.same_dtype(data, updates)

        def onto(v: np.ndarray, i: np.ndarray, u: np.ndarray) -> np.ndarray:
            out = v.copy()
            put(out, i, u)
            return out

        return b.one([data, indices, updates], shape, kind, _through_floats(b, onto))

    def fresh(u: np.ndarray, i: np.ndarray) -> np.ndarray:
        out = np.full(shape, start, u.dtype)
        put(out, i, u)
        return out

    return b.one([updates, indices], shape, updates.dtype, _through_floats(b, fresh))


def _check_updates(b: Builder, updates: Object) -> None:
    b.dtype(updates, (*dtypes.FLOATS, *dtypes.INTS), "updates")
    b.need(updates.shape, "updates of rank 0")


def _scatter(
    b: Builder, data: Object | Shape, updates: Object, indices: Object, axis: int, mode: int
) -> Object:
    shape = data.shape if isinstance(data, Object) else tuple(data)
    _check_updates(b, updates)
    b.dtype(indices, _INDEX, "indices")
    axis = b.axis(axis, len(shape))
    b.need(len(indices.shape) == 1, f"indices of {indices.shape} must have rank 1")
    wanted = (*shape[:axis], indices.shape[0], *shape[axis + 1 :])
    b.need(updates.shape == wanted, f"updates of {updates.shape}, not {wanted}")
    if not isinstance(data, Object):
        b.need(mode == 0, "without data only Add is clear about what it starts from")

    def put(out: np.ndarray, i: np.ndarray, u: np.ndarray) -> None:
        valid = (i >= 0) & (i < shape[axis])
        index = (*[slice(None)] * axis, i[valid])
        _write(out, index, np.compress(valid, u, axis), mode)

    return _scattered(b, data if isinstance(data, Object) else shape, updates, indices, put, 0)


def _scatter_nd(
    b: Builder, data: Object | Shape, updates: Object, indices: Object, batch: int, mode: int = 0
) -> Object:
    shape = data.shape if isinstance(data, Object) else tuple(data)
    _check_updates(b, updates)
    depth = _nd(b, shape, indices, batch)
    wanted = (*indices.shape[:-1], *shape[batch + depth :])
    b.need(updates.shape == wanted, f"updates of {updates.shape}, not {wanted}")

    def put(out: np.ndarray, i: np.ndarray, u: np.ndarray) -> None:
        index, valid = _nd_index(shape, i, batch)
        _write(out, tuple(p[valid] for p in index), u[valid], mode)

    return _scattered(b, data if isinstance(data, Object) else shape, updates, indices, put, 0)


def _scatter_along(
    b: Builder, axis: int, data: Object | Shape, updates: Object, indices: Object, mode: int
) -> Object:
    shape = data.shape if isinstance(data, Object) else tuple(data)
    _check_updates(b, updates)
    b.dtype(indices, _INDEX, "indices")
    axis = b.axis(axis, len(shape))
    b.need(indices.shape == updates.shape, f"indices of {indices.shape}, {updates.shape}")
    for i, (d, n) in enumerate(zip(shape, updates.shape, strict=True)):
        b.need(d == n or i == axis, f"updates of {updates.shape} for {shape}")

    def put(out: np.ndarray, i: np.ndarray, u: np.ndarray) -> None:
        valid = (i >= 0) & (i < shape[axis])
        index = list(np.indices(i.shape))
        index[axis] = i
        _write(out, tuple(p[valid] for p in index), u[valid], mode)

    start = _start(mode, dtypes.numpy(updates.dtype))
    return _scattered(b, data if isinstance(data, Object) else shape, updates, indices, put, start)


# One-hot, top-k, sort -----------------------------------------------------------------------------


def one_hot(
    b: Builder,
    indices: Object,
    depth: int,
    axis: int | None = None,
    dtype: int = dtypes.FLOAT32,
    on: float = 1.0,
    off: float = 0.0,
) -> Object:
    b.dtype(indices, dtypes.INTS, "indices")
    rank = len(indices.shape)
    axis = rank if axis is None else axis
    b.need(axis <= rank, f"axis {axis} is outside rank {rank + 1}")
    b.need(depth > 0, "a depth of 0")
    b.need(dtype != dtypes.BOOL, "bool on and off values are written as 255")
    shape = (*indices.shape[:axis], depth, *indices.shape[axis:])
    kind = dtypes.numpy(dtype)

    def compute(i: np.ndarray) -> np.ndarray:
        if ((i < 0) | (i >= depth)).any():
            raise Refused(f"indices outside of 0..{depth - 1}: what they give is unsettled")
        line = np.arange(depth).reshape([-1 if k == axis else 1 for k in range(rank + 1)])
        return np.where(np.expand_dims(i, axis) == line, kind.type(on), kind.type(off))

    return b.one([indices], shape, dtype, compute)


_ORDERED = (*dtypes.FLOATS, dtypes.INT32, dtypes.INT64)


def _order(v: np.ndarray, axis: int, descending: bool) -> np.ndarray:
    """Stable also downwards: the first of equal ones first."""
    if v.dtype.kind == "f" and np.isnan(v).any():
        raise Refused("NaN among what is sorted: nothing says where it goes")
    if not descending:
        return np.argsort(v, axis=axis, kind="stable")
    turned = np.argsort(np.flip(v, axis), axis=axis, kind="stable")
    return v.shape[axis] - 1 - np.flip(turned, axis)


def top_k(b: Builder, x: Object, axis: int, k: int, *, largest: bool = True) -> list[Object]:
    kind = b.dtype(x, _ORDERED)
    rank = len(x.shape)
    axis = b.axis(axis, rank)
    b.need(rank - axis <= 4, f"axis {axis} of rank {rank} crashes: only the last four")
    b.need(1 <= k <= x.shape[axis], f"{k} of {x.shape[axis]}")
    shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])

    def compute(v: np.ndarray) -> list[np.ndarray]:
        order = np.take(_order(v, axis, largest), range(k), axis)
        return [np.take_along_axis(v, order, axis), order.astype(np.int32)]

    return b.many([x], [(shape, kind), (shape, dtypes.INT32)], compute)


def top_k_gradient(
    b: Builder, incoming: Object, x: Object, axis: int, k: int, *, largest: bool = True
) -> Object:
    kind = b.same_dtype(incoming, x)
    b.dtype(x, dtypes.FLOATS)
    axis = b.axis(axis, len(x.shape))
    wanted = (*x.shape[:axis], k, *x.shape[axis + 1 :])
    b.need(incoming.shape == wanted, f"a gradient of {incoming.shape}, not {wanted}")

    def compute(g: np.ndarray, v: np.ndarray) -> np.ndarray:
        out = np.zeros_like(v)
        order = np.take(_order(v, axis, largest), range(k), axis)
        np.put_along_axis(out, order, g, axis)
        return out

    return b.one([incoming, x], x.shape, kind, compute)


def sort(b: Builder, x: Object, axis: int, descending: bool = False) -> Object:
    kind = b.dtype(x, _ORDERED)
    axis = b.axis(axis, len(x.shape))
    return b.one(
        [x],
        x.shape,
        kind,
        lambda v: np.take_along_axis(v, _order(v, axis, descending), axis),
    )


def arg_sort(b: Builder, x: Object, axis: int, descending: bool = False) -> Object:
    b.dtype(x, _ORDERED)
    axis = b.axis(axis, len(x.shape))
    return b.one([x], x.shape, dtypes.INT32, lambda v: _order(v, axis, descending).astype(np.int32))


def _names() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, rule in (("sort", sort), ("argSort", arg_sort)):
        for flag in ("", "descending:"):
            found[f"{name}WithTensor:axis:{flag}name:"] = rule
            found[f"{name}WithTensor:axisTensor:{flag}name:"] = constants(rule, scalar=[1])
    for name, largest in (("topK", True), ("bottomK", False)):

        def values(b: Builder, x: Object, axis: int, k: int, up: bool = largest) -> list[Object]:
            return top_k(b, x, axis, k, largest=up)

        def grad(b: Builder, g: Object, x: Object, axis: int, k: int, up: bool = largest) -> Object:
            return top_k_gradient(b, g, x, axis, k, largest=up)

        source, gradient = f"{name}WithSourceTensor:", f"{name}WithGradientTensor:source:"
        found[f"{source}axis:k:name:"] = values
        found[f"{source}axisTensor:kTensor:name:"] = constants(values, scalar=[1, 2])
        found[f"{gradient}axis:k:name:"] = grad
        found[f"{gradient}axisTensor:kTensor:name:"] = constants(grad, scalar=[2, 3])
    found["topKWithSourceTensor:k:name:"] = lambda b, x, k: top_k(b, x, -1, k)
    found["topKWithGradientTensor:source:k:name:"] = lambda b, g, x, k: top_k_gradient(
        b, g, x, -1, k
    )
    for form in ("", "Tensor"):
        wrap = (lambda r: constants(r, scalar=[0])) if form else (lambda r: r)
        along = f"scatterAlongAxis{form}:with"
        found[f"{along}DataTensor:updatesTensor:indicesTensor:mode:name:"] = wrap(_scatter_along)
        found[f"{along}UpdatesTensor:indicesTensor:shape:mode:name:"] = wrap(
            lambda b, axis, u, i, shape, mode: _scatter_along(b, axis, tuple(shape), u, i, mode)
        )
        found[f"gatherAlongAxis{form}:withUpdatesTensor:indicesTensor:name:"] = wrap(gather_along)
    return found


_ND = "scatterNDWith"
_HOT = "oneHotWithIndicesTensor:depth:"
RULES: dict[str, Any] = {
    **_names(),
    "gatherWithUpdatesTensor:indicesTensor:axis:batchDimensions:name:": gather,
    "gatherNDWithUpdatesTensor:indicesTensor:batchDimensions:name:": gather_nd,
    "scatterWithDataTensor:updatesTensor:indicesTensor:axis:mode:name:": _scatter,
    "scatterWithUpdatesTensor:indicesTensor:shape:axis:mode:name:": (
        lambda b, u, i, shape, axis, mode: _scatter(b, tuple(shape), u, i, axis, mode)
    ),
    f"{_ND}DataTensor:updatesTensor:indicesTensor:batchDimensions:mode:name:": _scatter_nd,
    f"{_ND}UpdatesTensor:indicesTensor:shape:batchDimensions:mode:name:": (
        lambda b, u, i, shape, batch, mode: _scatter_nd(b, tuple(shape), u, i, batch, mode)
    ),
    f"{_ND}UpdatesTensor:indicesTensor:shape:batchDimensions:name:": (
        lambda b, u, i, shape, batch: _scatter_nd(b, tuple(shape), u, i, batch)
    ),
    f"{_HOT}axis:dataType:onValue:offValue:name:": one_hot,
    f"{_HOT}dataType:onValue:offValue:name:": (
        lambda b, i, depth, dtype, on, off: one_hot(b, i, depth, None, dtype, on, off)
    ),
    f"{_HOT}axis:dataType:name:": one_hot,
    f"{_HOT}axis:name:": one_hot,
    f"{_HOT}dataType:name:": lambda b, i, depth, dtype: one_hot(b, i, depth, None, dtype),
    f"{_HOT}name:": one_hot,
}
