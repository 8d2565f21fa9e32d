"""Order (MPSGraphTopKOps, MPSGraphSortOps).

The framework says nothing of equal elements and of NaN. So NaN is counted and put first, and where
an element came from is found by comparing: of equal ones the first comes first.
"""

from __future__ import annotations

import math

from stepgraph.backends.mps.lowering.emitter import Emitter, Value, count, known, lowering
from stepgraph.backends.mps.lowering.table import Lowering, when
from stepgraph.graph.dtypes import float32, int8, int16, int32
from stepgraph.graph.operation import Operation

_LARGEST = 2**28


def _as_rows(e: Emitter, x: Value, axis: int) -> Value:
    """The axis last, all others in one: other axes and high ranks were seen to crash."""
    order = [*(i for i in range(x.rank) if i != axis), axis]
    moved = e.permute(x, order)
    return e.reshape(moved, (count(moved.shape[:-1]), moved.shape[-1]))


def _from_rows(e: Emitter, rows: Value, shape: tuple[int, ...], axis: int) -> Value:
    """Back, where the axis may have got another size."""
    others = [size for i, size in enumerate(shape) if i != axis]
    apart = e.reshape(rows, (*others, rows.shape[-1]))
    order = list(range(len(shape) - 1))
    order.insert(axis, len(shape) - 1)
    return e.permute(apart, order)


def _key(e: Emitter, x: Value) -> Value:
    """Something of the same order in a dtype that can be sorted; NaN as infinity."""
    if x.dtype.is_float:
        return e.select(e.is_nan(x), e.constant(math.inf, x.dtype), x)
    if x.dtype in (int8, int16):
        return e.cast_plainly(x, int32)
    return e.ordered(x)


def _from_key(e: Emitter, key: Value, x: Value) -> Value:
    return e.cast_plainly(key, x.dtype) if x.dtype in (int8, int16) else e.unordered(key, x.dtype)


def _sorted(e: Emitter, key: Value, descending: bool) -> Value:
    selector = "sortWithTensor:axis:descending:name:"
    return e.send(selector, key, 1, descending, shape=key.shape, dtype=key.dtype)


def _nan_count(e: Emitter, rows: Value) -> Value:
    nans = e.cast_plainly(e.is_nan(rows), float32)
    return e.cast_plainly(e.reduce("reductionSum", nans, (1,)), int32)


def _largest(e: Emitter, rows: Value, k: int) -> Value:
    """The `k` largest of each row, the largest first, NaN before all."""
    key = _sorted(e, _key(e, rows), True)
    values = _from_key(e, e.part(key, 1, 0, k), rows)
    if not rows.dtype.is_float:
        return values
    first = e.compare("lessThan", e.coordinate(values.shape, 1), _nan_count(e, rows))
    return e.select(first, e.constant(math.nan, rows.dtype), values)


def _places(e: Emitter, rows: Value, values: Value) -> Value:
    """Where values stand in their row: the first of equal ones for the first of them."""
    (lines, size), k = rows.shape, values.shape[1]
    have, want = e.reshape(rows, (lines, 1, size)), e.reshape(values, (lines, k, 1))
    same = e.compare("equal", have, want)
    above = e.compare("equal", want, e.reshape(values, (lines, 1, k)))
    if rows.dtype.is_float:
        same = e.either(same, e.both(e.is_nan(have), e.is_nan(want)))
        nans = e.is_nan(want)
        above = e.either(above, e.both(nans, e.reshape(nans, (lines, 1, k))))
    # How many equal values come before this one, and how many equal elements up to each place.
    earlier = e.compare("greaterThan", e.coordinate((1, k, k), 1), e.coordinate((1, k, k), 2))
    rank = e.reduce("reductionSum", e.cast_plainly(e.both(above, earlier), int32), (2,))
    marks = e.cast_plainly(same, int32)
    ends = e.send(
        "cumulativeSumWithTensor:axis:exclusive:reverse:name:",
        marks,
        2,
        False,
        False,
        shape=marks.shape,
        dtype=int32,
    )
    chosen = e.both(same, e.compare("equal", ends, e.add(rank, e.constant(1, int32))))
    positions = e.select(chosen, e.coordinate((1, 1, size), 2), e.constant(0, int32))
    return e.reshape(e.reduce("reductionSum", positions, (2,)), (lines, k))


def _top_k(e: Emitter, operation: Operation, x: Value) -> list[Value]:
    axis, k = operation.attributes["axis"], operation.attributes["k"]
    rows = _as_rows(e, x, axis)
    values = _largest(e, rows, k)
    places = _places(e, rows, values)
    return [_from_rows(e, v, x.shape, axis) for v in (values, places)]


def _sort(e: Emitter, operation: Operation, x: Value) -> Value:
    axis = operation.attributes["axis"]
    rows = _as_rows(e, x, axis)
    values = _largest(e, rows, rows.shape[1])
    if not operation.attributes["descending"]:
        values = e.reverse(values, (1,))
    return _from_rows(e, values, x.shape, axis)


def _too_large(operation: Operation) -> bool:
    shape = known(operation.inputs[0].shape)
    return bool(count(shape) * operation.attributes["k"] > _LARGEST)


LOWERINGS: dict[str, Lowering] = {
    "top_k": lowering(
        _top_k,
        (
            when(
                "elements times k up to 2^28",
                _too_large,
                reason="each of the k is compared with each element, so that equal ones keep "
                "their order",
                fix="sort the values where their places do not matter",
            ),
        ),
        note="equal elements keep their order, NaN comes first",
    ),
    "sort": lowering(_sort, note="NaN is the largest"),
}

DECOMPOSED: dict[str, str] = {"arg_sort": "the places that top_k gives"}
