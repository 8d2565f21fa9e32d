"""Tensors with a part replaced (MPSGraphTensorShapeOps)."""

from __future__ import annotations

import numpy as np

from stepgraph.backends.mps.lowering.emitter import Emitter, Value, known, lowering
from stepgraph.backends.mps.lowering.slicing import ranges_of, upwards
from stepgraph.backends.mps.lowering.table import Lowering
from stepgraph.backends.mps.messages import numbers
from stepgraph.graph.operation import Operation


def _slice_update(e: Emitter, operation: Operation, data: Value, update: Value | None) -> Value:
    if update is None:
        return data
    shape = operation.inputs[0].shape
    if not shape:
        return e.identity(update)
    starts, lengths, strides, backwards = upwards(ranges_of(known(shape), operation))
    strides = [1 if n == 1 else s for n, s in zip(lengths, strides, strict=True)]
    update = e.reverse(update, backwards)
    ends = [a + (n - 1) * s + 1 for a, n, s in zip(starts, lengths, strides, strict=True)]
    if e.b.quirk("slice_update_missing"):
        return _spread(e, data, update, starts, ends, strides)

    def move(into: Value, part: Value) -> Value:
        return e.send(
            "sliceUpdateDataTensor:updateTensor:starts:ends:strides:name:",
            into,
            part,
            numbers(starts),
            numbers(ends),
            numbers(strides),
            shape=into.shape,
            dtype=into.dtype,
        )

    return move(data, update)


def _spread(
    e: Emitter,
    data: Value,
    update: Value,
    starts: list[int],
    ends: list[int],
    strides: list[int],
) -> Value:
    """The update spread out to the size of the data, and a choice by a mask made here."""
    mask = np.zeros(data.shape, bool)
    mask[tuple(slice(a, b, s) for a, b, s in zip(starts, ends, strides, strict=True))] = True
    for axis, stride in enumerate(strides):
        if stride == 1:
            continue
        shape = (*update.shape[: axis + 1], 1, *update.shape[axis + 1 :])
        gap = [stride - 1 if i == axis + 1 else 0 for i in range(len(shape))]
        apart = e.pad(e.reshape(update, shape), [0] * len(shape), gap, 0)
        length = update.shape[axis]
        line = (*update.shape[:axis], length * stride, *update.shape[axis + 1 :])
        update = e.part(e.reshape(apart, line), axis, 0, (length - 1) * stride + 1)
    behind = [n - b for n, b in zip(data.shape, ends, strict=True)]
    return e.select(e.constant(mask), e.pad(update, starts, behind, 0), data)


LOWERINGS: dict[str, Lowering] = {
    "slice_update": lowering(
        _slice_update, takes_empty=True, note="strides are positive, masks none"
    ),
}

DECOMPOSED: dict[str, str] = {}
