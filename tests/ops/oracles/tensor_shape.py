"""Shapes, parts, joins and padding by NumPy and PyTorch, along other roads than the references."""

from __future__ import annotations

import numpy as np

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = None


def _torch(function):
    return lambda x, *args, **kwargs: function(torch.from_numpy(x), *args, **kwargs).numpy()


def _squeeze(x, axes=None):
    shape = [
        n for i, n in enumerate(x.shape) if n != 1 or (axes is not None and i != axes % x.ndim)
    ]
    return np.array(x.ravel().tolist()).reshape(shape)


def _strided_slice(x, starts, ends, strides, start_mask=0, end_mask=0, squeeze_mask=0):
    for axis in reversed(range(x.ndim)):
        size = x.shape[axis]
        if squeeze_mask >> axis & 1:
            x = np.take(x, starts[axis] % size, axis)
            continue
        start = None if start_mask >> axis & 1 else starts[axis]
        end = None if end_mask >> axis & 1 else ends[axis]
        x = np.take(x, list(range(size))[start : end : strides[axis]], axis)
    return x


def _slice_update(data, update, starts, strides=None):
    result = data.copy()
    strides = strides or (1,) * data.ndim
    for place in np.ndindex(update.shape):
        target = tuple(s + i * step for s, i, step in zip(starts, place, strides, strict=True))
        result[target] = update[place]
    return result


def _pad(x, paddings, mode="constant", value=0.0):
    if mode == "symmetric":  # PyTorch has none
        for axis, (before, after) in enumerate(paddings):
            size = x.shape[axis]
            line = [*range(size), *reversed(range(size))]
            x = np.take(x, [line[i % (2 * size)] for i in range(-before, size + after)], axis)
        return x
    flat = [n for pair in reversed(paddings) for n in pair]
    name = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}[mode]
    batched = torch.from_numpy(x)[None, None] if mode != "constant" else torch.from_numpy(x)
    padded = F.pad(batched, flat, name, **({"value": value} if mode == "constant" else {}))
    return (padded[0, 0] if mode != "constant" else padded).numpy()


def _reverse(x, axes=None):
    axes = range(x.ndim) if axes is None else np.atleast_1d(axes)
    for axis in axes:
        x = np.take(x, range(x.shape[axis] - 1, -1, -1), axis)
    return x


ORACLES = {
    "expand_dims": lambda x, axes: x.reshape((2, 1, 3) if axes == 1 else (1, 2, 3, 1)),
    "squeeze": _squeeze,
    "strided_slice": _strided_slice,
    "slice": lambda x, axis, start, length: np.take(
        x, [(start + i) % x.shape[axis] for i in range(length)], axis
    ),
    "slice_update": _slice_update,
    "reverse": _reverse,
    "coordinate_along_axis": lambda shape, axis: np.indices(shape, "int32")[axis],
    "shape_of": lambda x: np.array(x.shape, "int32"),
    "tile": lambda x, multiples: x[
        np.ix_(*[[i % n for i in range(n * m)] for n, m in zip(x.shape, multiples, strict=True)])
    ],
}
if torch is not None:
    ORACLES |= {
        "reshape": _torch(torch.reshape),
        "permute": _torch(torch.permute),
        "broadcast": _torch(torch.broadcast_to),
        "flatten_2d": _torch(
            lambda x, axis=1: x.reshape(int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:])))
        ),
        "concat": lambda *items: torch.cat(
            [torch.from_numpy(a) for a in items[:-1]], items[-1]
        ).numpy(),
        "cast": _torch(lambda x, dtype: x.to(getattr(torch, dtype))),
        "pad": _pad,
    }
