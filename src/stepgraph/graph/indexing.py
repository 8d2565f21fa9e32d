"""Reads what stands between the brackets of ``x[...]``."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepgraph.errors import GraphError
from stepgraph.graph.definition import Array
from stepgraph.graph.shapes import Misfit, Shape, bad_shape, format_shape
from stepgraph.graph.tensor import Tensor


@dataclass
class Key:
    """An index in steps: slice, then insert axes, then gather.

    Attributes:
        slices: attributes of a `strided_slice`; None where everything is kept.
        new_axes: axes of size 1 to insert, as they stand in the result.
        indices: what to gather along `index_axis`, or None.
        index_axis: an axis of the sliced tensor with its new axes.
    """

    slices: dict[str, Any] | None
    new_axes: tuple[int, ...]
    indices: Tensor | Array | None
    index_axis: int


def read_key(shape: Shape, key: Any) -> Key:
    """Takes an index apart.

    Raises:
        Misfit: it is of no kind that can be done, or does not fit the shape.
    """
    given = list(key) if isinstance(key, tuple) else [key]
    parts = _expand_ellipsis(shape, given)
    rank = len(shape)
    starts, ends, strides = [0] * rank, [0] * rank, [1] * rank
    start_mask, end_mask, squeeze_mask = [True] * rank, [True] * rank, [False] * rank
    new_axes: list[int] = []
    indices: Tensor | Array | None = None
    index_axis = axis = out = 0
    for part in parts:
        if part is None:
            new_axes.append(out)
            out += 1
            continue
        if isinstance(part, slice):
            start, stop, step = (_bound(b) for b in (part.start, part.stop, part.step))
            strides[axis] = 1 if step is None else step
            if strides[axis] == 0:
                raise bad_shape("a slice has step 0", expected="a step other than 0")
            start_mask[axis], end_mask[axis] = start is None, stop is None
            starts[axis], ends[axis] = start or 0, stop or 0
            out += 1
        elif _is_index(part):
            starts[axis], squeeze_mask[axis] = operator.index(part), True
            start_mask[axis] = end_mask[axis] = False
        else:
            indices, index_axis = _indices(part, shape[axis], axis), out
            out += 1
        axis += 1
    if indices is not None:
        _refuse_scattered(given)
    whole = all(start_mask) and all(end_mask) and all(s == 1 for s in strides)
    slices = {
        "starts": tuple(starts),
        "ends": tuple(ends),
        "strides": tuple(strides),
        "start_mask": tuple(start_mask),
        "end_mask": tuple(end_mask),
        "squeeze_mask": tuple(squeeze_mask),
    }
    return Key(None if whole else slices, tuple(new_axes), indices, index_axis)


def _expand_ellipsis(shape: Shape, parts: list[Any]) -> list[Any]:
    """Full slices in place of ``...`` and behind the last part."""
    dots = [i for i, part in enumerate(parts) if part is Ellipsis]
    if len(dots) > 1:
        raise bad_shape("an index can only have one ellipsis ('...')")
    used = sum(part is not None and part is not Ellipsis for part in parts)
    if used > len(shape):
        raise bad_shape(
            f"{used} indices for a tensor of shape {format_shape(shape)}",
            expected=f"up to {len(shape)}",
        )
    fill = [slice(None)] * (len(shape) - used)
    where = dots[0] if dots else len(parts)
    return [*parts[:where], *fill, *parts[where + 1 :]]


def _is_index(part: Any) -> bool:
    if isinstance(part, bool | np.bool_ | Tensor):
        return False
    if isinstance(part, np.ndarray) and (part.ndim or part.dtype.kind not in "iu"):
        return False
    return hasattr(part, "__index__")


def _bound(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, Tensor) or not hasattr(value, "__index__"):
        raise Misfit(
            GraphError,
            f"{value!r} cannot bound a slice",
            "an integer or nothing",
            "gather with an index tensor where the place is only known at run time",
        )
    return operator.index(value)


def _indices(part: Any, size: int | None, axis: int) -> Tensor | Array:
    """Integers to gather; those known now are checked, and counted from the front."""
    if isinstance(part, Tensor):
        if not part.dtype.is_integer:
            raise _no_index(part)
        return part
    array = np.asarray(part)
    if array.dtype.kind not in "iu" and not (array.size == 0 and isinstance(part, list)):
        raise _no_index(part)
    array = array.astype(np.int64)
    if size is None:
        if np.any(array < 0):
            raise bad_shape(
                f"a negative index along axis {axis}, whose size is not known yet",
                fix="count from the front",
            )
        return array.astype(np.int32)
    if np.any((array < -size) | (array >= size)):
        raise bad_shape(
            f"an index is outside axis {axis} of size {size}",
            expected=f"indices from {-size} to {size - 1}" if size else "no index",
        )
    return np.where(array < 0, array + size, array).astype(np.int32)


def _no_index(part: Any) -> Misfit:
    mask = isinstance(part, bool | np.bool_) or "bool" in str(getattr(part, "dtype", ""))
    return Misfit(
        GraphError,
        f"{part!r} cannot index a tensor" if not mask else "a mask of bools cannot index a tensor",
        "integers, slices, None, '...' and at most one list, array or tensor of integers",
        "use graph.select: a result whose size depends on values has no shape" if mask else None,
    )


def _refuse_scattered(parts: list[Any]) -> None:
    """NumPy moves the axes of index arrays to the front when anything else stands between them."""
    between = (type(None), slice, type(Ellipsis))
    places = [i for i, part in enumerate(parts) if not isinstance(part, between)]
    if sum(not _is_index(parts[i]) for i in places) > 1:
        raise Misfit(GraphError, "more than one index array", "at most one", "use graph.gather_nd")
    if places[-1] - places[0] >= len(places):
        raise Misfit(
            GraphError,
            "an integer and an index array with something between them",
            "both side by side, or one of them",
            "index twice: x[...][...]",
        )
