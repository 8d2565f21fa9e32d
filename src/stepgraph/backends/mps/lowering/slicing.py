"""Parts of tensors (MPSGraphTensorShapeOps)."""

from __future__ import annotations

from stepgraph.backends.mps.lowering.emitter import Emitter, Sizes, Value, known, lowering
from stepgraph.backends.mps.lowering.table import Lowering
from stepgraph.graph.operation import Operation
from stepgraph.graph.slices import Range, resolve_slices


def ranges_of(shape: Sizes, operation: Operation) -> tuple[Range, ...]:
    """The elements of every axis that a strided slice means, first to last in their order."""
    return resolve_slices(shape, **operation.attributes)


def upwards(found: tuple[Range, ...]) -> tuple[list[int], list[int], list[int], list[int]]:
    """The same elements read from the lowest up: starts, lengths, strides, and axes to reverse."""
    starts, lengths, strides, backwards = [], [], [], []
    for axis, r in enumerate(found):
        length = r.length or 0
        lengths.append(length)
        strides.append(abs(r.stride))
        starts.append(r.start if r.stride > 0 else r.start + (length - 1) * r.stride)
        if r.stride < 0 and length > 1:
            backwards.append(axis)
    return starts, lengths, strides, backwards


def _slice(e: Emitter, operation: Operation, x: Value) -> Value:
    axis, start = operation.attributes["dimension"], operation.attributes["start"]
    first = start + x.shape[axis] if start < 0 else start
    return e.part(x, axis, first, operation.attributes["length"])


def _strided_slice(e: Emitter, operation: Operation, x: Value) -> Value:
    shape = operation.inputs[0].shape
    if not shape:
        return x
    # Ends of slices that walk backwards to the first element cannot be said without a mask.
    starts, lengths, strides, backwards = upwards(ranges_of(known(shape), operation))
    part = e.reverse(e.slice(x, starts, lengths, strides), backwards)
    return e.reshape(part, known(operation.output.shape))


LOWERINGS: dict[str, Lowering] = {
    "slice": lowering(_slice),
    "strided_slice": lowering(_strided_slice, note="strides are positive, masks none"),
}

DECOMPOSED: dict[str, str] = {
    "strided_slice_gradient": "sliceGradient refuses strides and squeezed axes",
}
