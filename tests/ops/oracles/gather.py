"""Gather, scatter, order and one_hot by PyTorch, or by loops over elements."""

from __future__ import annotations

import numpy as np

try:
    import torch
except ImportError:
    torch = None


def _gather(x, indices, axis=0, batch_dimensions=0):
    if batch_dimensions:
        parts = [
            _gather(a, i, axis % x.ndim - 1, batch_dimensions - 1)
            for a, i in zip(x, indices, strict=True)
        ]
        return np.stack(parts)
    picked = torch.index_select(
        torch.from_numpy(x), axis, torch.from_numpy(np.atleast_1d(indices).ravel().astype("int64"))
    )
    axis %= x.ndim
    return picked.numpy().reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


def _gather_nd(x, indices, batch_dimensions=0):
    if batch_dimensions:
        return np.stack(
            [_gather_nd(a, i, batch_dimensions - 1) for a, i in zip(x, indices, strict=True)]
        )
    result = np.empty(indices.shape[:-1] + x.shape[indices.shape[-1] :])
    for place in np.ndindex(indices.shape[:-1]):
        result[place] = x[tuple(indices[place])]
    return result


def _meet(old, new, mode):
    return {
        "add": old + new,
        "sub": old - new,
        "mul": old * new,
        "div": old / new if mode == "div" else 0,
        "min": np.minimum(old, new),
        "max": np.maximum(old, new),
        "set": new,
    }[mode]


def _scatter(data, updates, indices, axis=0, mode="add"):
    result = np.moveaxis(data.copy(), axis, 0)
    lead = axis % data.ndim
    for place in np.ndindex(indices.shape):
        key = (slice(None),) * lead + place
        target = indices[place]
        result[target] = _meet(result[target], updates[key], mode)
    return np.moveaxis(result, 0, axis)


def _scatter_nd(updates, indices, shape, mode="add", batch_dimensions=0):
    result = np.zeros(shape)
    for place in np.ndindex(indices.shape[:-1]):
        target = place[:batch_dimensions] + tuple(indices[place])
        result[target] = _meet(result[target], updates[place], mode)
    return result


def _scatter_along_axis(data, updates, indices, axis, mode="add"):
    result = data.copy()
    for place in np.ndindex(indices.shape):
        target = list(place)
        target[axis] = indices[place]
        result[tuple(target)] = _meet(result[tuple(target)], updates[place], mode)
    return result


def _one_hot(indices, depth, axis=-1, dtype="float32", on_value=1.0, off_value=0.0):
    shape = list(indices.shape)
    shape.insert(axis if axis >= 0 else axis + indices.ndim + 1, depth)
    result = np.full(shape, off_value)
    for place in np.ndindex(indices.shape):
        if 0 <= indices[place] < depth:
            target = list(place)
            target.insert(axis if axis >= 0 else axis + indices.ndim + 1, indices[place])
            result[tuple(target)] = on_value
    return result.astype("float64" if dtype.startswith("float") else dtype)


def _sorted(x, axis, descending):
    return torch.sort(torch.from_numpy(x), dim=axis, descending=descending, stable=True)


def _top_k(x, k, axis=-1):
    values, indices = _sorted(x, axis, True)
    return values.narrow(axis, 0, k).numpy(), indices.narrow(axis, 0, k).numpy().astype("int32")


ORACLES = {
    "gather_nd": _gather_nd,
    "scatter": _scatter,
    "scatter_nd": _scatter_nd,
    "scatter_along_axis": _scatter_along_axis,
    "one_hot": _one_hot,
}
if torch is not None:
    ORACLES |= {
        "gather": _gather,
        "gather_along_axis": lambda x, indices, axis: torch.take_along_dim(
            torch.from_numpy(x), torch.from_numpy(indices.astype("int64")), axis
        ).numpy(),
        "top_k": _top_k,
        "sort": lambda x, axis=-1, descending=False: _sorted(x, axis, descending)[0].numpy(),
        "arg_sort": lambda x, axis=-1, descending=False: (
            _sorted(x, axis, descending)[1].numpy().astype("int32")
        ),
    }
