"""Reductions by PyTorch, or by a loop over slices where it has no counterpart."""

from __future__ import annotations

import numpy as np

try:
    import torch
except ImportError:
    torch = None


def _slices(function):
    """An oracle that reduces each slice by a function of a flat list."""

    def oracle(x, axes=None, keep_dims=True):
        axes = range(x.ndim) if axes is None else [axes] if isinstance(axes, int) else axes
        axes = {a % x.ndim for a in axes} if x.ndim else set()
        rest = [i for i in range(x.ndim) if i not in axes]
        moved = np.transpose(x, [*rest, *sorted(axes)])
        outer = [x.shape[i] for i in rest]
        count = int(np.prod([x.shape[i] for i in axes]))
        rows = moved.reshape(int(np.prod(outer)), count)
        flat = np.array([function(row) for row in rows.tolist()], x.dtype)
        kept = [1 if i in axes else x.shape[i] for i in range(x.ndim)]
        return flat.reshape(kept if keep_dims else outer)

    return oracle


def _extreme(better, worst):
    def reduce(values):
        best = worst
        for v in values:
            if v != v:
                return v
            best = v if better(v, best) else best
        return best

    return reduce


def _product(values):
    total = 1
    for v in values:
        total *= v
    return total


def _arg(better):
    """The first of equal ones; NaN beats everything."""

    def reduce(values):
        best = 0
        for i, v in enumerate(values):
            if values[best] == values[best] and (v != v or better(v, values[best])):
                best = i
        return best

    def oracle(x, axis, keep_dims=True):
        found = _slices(reduce)(x.astype("float64"), axis, keep_dims)
        return found.astype("int32")

    return oracle


def _cumulative(x, axis, exclusive=False, reverse=False):
    values = torch.from_numpy(x)
    if reverse:
        values = values.flip(axis)
    total = torch.cumsum(values, axis, dtype=values.dtype)
    if exclusive:
        total = torch.cat(
            [torch.zeros_like(total.narrow(axis, 0, min(1, x.shape[axis]))), total], axis
        )
        total = total.narrow(axis, 0, x.shape[axis])
    return (total.flip(axis) if reverse else total).numpy()


ORACLES = {
    "reduction_sum": _slices(lambda values: sum(values)),
    "reduction_product": _slices(_product),
    "reduction_maximum": _slices(_extreme(lambda a, b: a > b, -np.inf)),
    "reduction_minimum": _slices(_extreme(lambda a, b: a < b, np.inf)),
    "reduction_and": _slices(all),
    "reduction_or": _slices(any),
    "reduction_arg_maximum": _arg(lambda a, b: a > b),
    "reduction_arg_minimum": _arg(lambda a, b: a < b),
}
if torch is not None:
    ORACLES["cumulative_sum"] = _cumulative
