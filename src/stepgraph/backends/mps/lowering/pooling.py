"""Maximum and average over a sliding window, and their gradients (MPSGraphPoolingOps)."""

from __future__ import annotations

import math

import numpy as np

from stepgraph.backends.mps.lowering import windows
from stepgraph.backends.mps.lowering.emitter import Emitter, Value, known, lowering
from stepgraph.backends.mps.lowering.table import Lowering
from stepgraph.backends.mps.messages import Handle
from stepgraph.graph.operation import Operation
from stepgraph.graph.windows import NO_PADS, Window


def _send(e: Emitter, stem: str, operation: Operation, source: Value, descriptor: Handle) -> Value:
    return e.send(
        f"{stem}WithSourceTensor:descriptor:name:",
        source,
        descriptor,
        shape=known(operation.output.shape),
        dtype=source.dtype,
    )


def _maximum(e: Emitter, operation: Operation, source: Value) -> Value:
    descriptor = windows.pooling(e, operation.attributes, source.shape)
    largest = _send(e, "maxPooling2D", operation, source, descriptor)
    # Whether NaN wins is not documented: windows that see one are found by another pooling.
    nans = e.cast_plainly(e.is_nan(source), source.dtype)
    seen = _send(e, "maxPooling2D", operation, nans, descriptor)
    zero, nan = e.constant(0, source.dtype), e.constant(math.nan, source.dtype)
    return e.select(e.compare("greaterThan", seen, zero), nan, largest)


def _average(e: Emitter, operation: Operation, source: Value) -> Value:
    descriptor = windows.pooling(e, operation.attributes, source.shape)
    return _send(e, "avgPooling2D", operation, source, descriptor)


def _gradient(e: Emitter, stem: str, operation: Operation, incoming: Value, source: Value) -> Value:
    return e.send(
        f"{stem}GradientWithGradientTensor:sourceTensor:descriptor:name:",
        incoming,
        source,
        windows.pooling(e, operation.attributes, source.shape),
        shape=source.shape,
        dtype=incoming.dtype,
    )


def _maximum_gradient(e: Emitter, operation: Operation, incoming: Value, source: Value) -> Value:
    window = Window.of(operation.attributes["kernel_size"], operation.attributes)
    source = e.select(e.is_nan(source), e.constant(math.inf, source.dtype), source)
    if windows.pads_of(window, source.shape, operation.attributes["data_layout"]) != NO_PADS:
        # Padding counts as -inf: nothing in the source may be as low, or it might be taken.
        lowest = e.constant(float(np.finfo(source.dtype.name).min), source.dtype)
        source = e.binary("maximum", source, lowest)
    return _gradient(e, "maxPooling2D", operation, incoming, source)


def _average_gradient(e: Emitter, operation: Operation, incoming: Value, source: Value) -> Value:
    return _gradient(e, "avgPooling2D", operation, incoming, source)


LOWERINGS: dict[str, Lowering] = {
    "max_pooling_2d": lowering(_maximum, note="NaN is looked for in a pooling of its own"),
    "max_pooling_2d_gradient": lowering(
        _maximum_gradient, note="which of equal maxima gets it is not documented"
    ),
    "avg_pooling_2d": lowering(_average),
    "avg_pooling_2d_gradient": lowering(_average_gradient),
}

DECOMPOSED: dict[str, str] = {"max_pooling_2d_at_maximum": "MPSGraph has none"}
