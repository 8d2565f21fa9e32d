"""Elements put where an index tensor says (MPSGraphScatterNDOps)."""

from __future__ import annotations

import math

import numpy as np

from stepgraph.backends.mps.enums import MPSGraphScatterMode
from stepgraph.backends.mps.lowering.emitter import Emitter, Value, count, known, lowering
from stepgraph.backends.mps.lowering.reduction import extreme
from stepgraph.backends.mps.lowering.table import Lowering, when
from stepgraph.graph.dtypes import float32, int32
from stepgraph.graph.operation import Operation

_LARGEST = 2**26

_MODES = {
    "add": MPSGraphScatterMode.Add,
    "sub": MPSGraphScatterMode.Sub,
    "mul": MPSGraphScatterMode.Mul,
    "div": MPSGraphScatterMode.Div,
    "min": MPSGraphScatterMode.Min,
    "max": MPSGraphScatterMode.Max,
    "set": MPSGraphScatterMode.Set,
}


def _scatter(
    e: Emitter,
    operation: Operation,
    data: Value,
    updates: Value | None,
    indices: Value | None,
) -> Value:
    if updates is None or indices is None:
        return data
    axis, mode = operation.attributes["axis"], operation.attributes["mode"]
    places = count(indices.shape)
    line = e.as_indices(e.reshape(indices, (places,)))
    updates = e.reshape(updates, (*data.shape[:axis], places, *data.shape[axis + 1 :]))
    if mode == "set":
        if _distinct(operation):
            return e.moved(lambda d, u: _send(e, d, u, line, axis, "set"), data, updates)
        return _last(e, data, updates, line, axis)
    if not data.dtype.is_float:
        return _dense(e, data, updates, line, axis, mode)
    made = _send(e, data, updates, line, axis, mode)
    return _keep_nan(e, made, data, updates, line, axis) if mode in ("min", "max") else made


def _send(e: Emitter, data: Value, updates: Value, line: Value, axis: int, mode: str) -> Value:
    selector = "scatterWithDataTensor:updatesTensor:indicesTensor:axis:mode:name:"
    how = int(_MODES[mode])
    return e.send(selector, data, updates, line, axis, how, shape=data.shape, dtype=data.dtype)


def _distinct(operation: Operation) -> bool:
    """Whether no place is set twice for sure: then nobody can tell in what order."""
    indices = operation.inputs[2]
    if count(known(indices.shape)) == 1:
        return True
    if indices.operation.type != "constant":
        return False
    values = indices.operation.attributes["value"]
    return bool(np.unique(values).size == values.size)


def _last(e: Emitter, data: Value, updates: Value, line: Value, axis: int) -> Value:
    """Each place gets the last of its updates; the framework does not say which it takes."""
    places, size = line.shape[0], data.shape[axis]
    numbered = e.constant(np.arange(1, places + 1, dtype=np.float32))
    board = _send(e, e.filled((size,), 0, float32), numbered, line, 0, "max")
    written = e.compare("greaterThan", board, e.constant(0.0, float32))
    behind = (1,) * (data.rank - axis - 1)
    number = e.select(written, board, e.constant(1.0, float32))
    which = e.cast_plainly(e.subtract(number, e.constant(1.0, float32)), int32)
    picked = e.gather(updates, which, axis)
    mask = e.reshape(written, (*(1,) * axis, size, *behind))
    return e.select(mask, picked, data)


def _keep_nan(
    e: Emitter, made: Value, data: Value, updates: Value, line: Value, axis: int
) -> Value:
    """NaN where the data or one of its updates is: the framework ignores NaN."""
    before, added = (e.cast_plainly(e.is_nan(v), float32) for v in (data, updates))
    found = _send(e, before, added, line, axis, "add")
    mask = e.compare("greaterThan", found, e.constant(0.0, float32))
    return e.select(mask, e.constant(math.nan, data.dtype), made)


def _dense(e: Emitter, data: Value, updates: Value, line: Value, axis: int, mode: str) -> Value:
    """Every update offered to every place: integers in a scatter lose bits on the way."""
    before, size = count(data.shape[:axis]), data.shape[axis]
    behind, places = count(data.shape[axis + 1 :]), line.shape[0]
    into = e.reshape(data, (before, 1, size, behind))
    offered = e.reshape(updates, (before, places, 1, behind))
    slots = e.constant(np.arange(size), line.dtype)
    hits = e.compare("equal", e.reshape(line, (places, 1)), e.reshape(slots, (1, size)))
    mask = e.reshape(hits, (1, places, size, 1))
    if mode in ("min", "max"):
        stem = "reductionMinimum" if mode == "min" else "reductionMaximum"
        chosen = extreme(e, stem, e.select(mask, offered, into), (1,))
        pair = e.ordered(chosen), e.ordered(into)
        made = e.unordered(e.binary("minimum" if mode == "min" else "maximum", *pair), data.dtype)
    elif mode == "mul":
        factor = e.reduce(
            "reductionProduct", e.select(mask, offered, e.constant(1, data.dtype)), (1,)
        )
        made = e.multiply(into, factor)
    else:
        total = e.reduce("reductionSum", e.select(mask, offered, e.constant(0, data.dtype)), (1,))
        made = e.binary("addition" if mode == "add" else "subtraction", into, total)
    return e.reshape(made, data.shape)


def _too_large(operation: Operation) -> bool:
    data, updates, _ = operation.inputs
    axis, mode = operation.attributes["axis"], operation.attributes["mode"]
    if data.dtype.is_float or mode == "set":
        return False
    return bool(count(known(updates.shape)) * known(data.shape)[axis] > _LARGEST)


def _too_many(operation: Operation) -> bool:
    is_set = bool(operation.attributes["mode"] == "set")
    return is_set and count(known(operation.inputs[2].shape)) > 2**24


LOWERINGS: dict[str, Lowering] = {
    "scatter": lowering(
        _scatter,
        (
            when(
                "arithmetic of integers: updates times the size of the axis up to 2^26",
                _too_large,
                reason="a scatter of integers goes through float32, so it is done by comparing "
                "every index with every place",
                source="measured by tillahoffmann/jax-mps",
                fix="scatter float32 where the numbers fit it",
            ),
            when(
                "mode 'set': up to 2^24 indices",
                _too_many,
                reason="the last update of a place is found by numbers in float32",
            ),
        ),
        takes_empty=True,
        note="of several updates set in one place the last is looked for first",
    ),
}

DECOMPOSED: dict[str, str] = {
    "scatter_nd": "a scatter of rows",
    "scatter_along_axis": "a scatter of single elements",
}
