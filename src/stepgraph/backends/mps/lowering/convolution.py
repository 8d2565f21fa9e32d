"""Convolutions over height and width, and their gradients (MPSGraphConvolutionOps)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepgraph.backends.mps.lowering import windows
from stepgraph.backends.mps.lowering.emitter import Emitter, Sizes, Value, known, lowering
from stepgraph.backends.mps.lowering.table import Limit, Lowering, not_large_before
from stepgraph.backends.mps.messages import numbers
from stepgraph.graph.operation import Operation

LIMITS: tuple[Limit, ...] = (
    not_large_before(
        2**16,
        18,
        1,
        reason="convolutions of larger extents give wrong numbers on older systems",
        source="pytorch/pytorch, aten/src/ATen/native/mps/operations/Convolution.mm",
    ),
)


def forward(
    e: Emitter,
    attributes: Mapping[str, Any],
    source: Value,
    weights: Value,
    shape: Sizes,
    groups: int,
) -> Value:
    """The convolution; `shape` is the result's."""
    descriptor = windows.convolution(e, attributes, source.shape, weights.shape, groups)
    selector = "convolution2DWithSourceTensor:weightsTensor:descriptor:name:"
    return e.send(selector, source, weights, descriptor, shape=shape, dtype=source.dtype)


def data_gradient(
    e: Emitter,
    attributes: Mapping[str, Any],
    incoming: Value,
    weights: Value,
    shape: Sizes,
    groups: int,
) -> Value:
    """The gradient of the source, whose shape is `shape`."""
    return e.send(
        "convolution2DDataGradientWithIncomingGradientTensor:weightsTensor:outputShape:"
        "forwardConvolutionDescriptor:name:",
        incoming,
        weights,
        numbers(shape),
        windows.convolution(e, attributes, shape, weights.shape, groups),
        shape=shape,
        dtype=incoming.dtype,
    )


def weights_gradient(
    e: Emitter,
    attributes: Mapping[str, Any],
    incoming: Value,
    source: Value,
    shape: Sizes,
    groups: int,
) -> Value:
    """The gradient of the weights, whose shape is `shape`."""
    return e.send(
        "convolution2DWeightsGradientWithIncomingGradientTensor:sourceTensor:outputShape:"
        "forwardConvolutionDescriptor:name:",
        incoming,
        source,
        # The header calls it the shape of the source; what works is that of the weights.
        numbers(shape),
        windows.convolution(e, attributes, source.shape, shape, groups),
        shape=shape,
        dtype=incoming.dtype,
    )


def _convolution(e: Emitter, operation: Operation, source: Value, weights: Value) -> Value:
    attributes, shape = operation.attributes, known(operation.output.shape)
    return forward(e, attributes, source, weights, shape, attributes["groups"])


def _data(
    e: Emitter,
    operation: Operation,
    incoming: Value | None,
    weights: Value | None,
    like: Value | None = None,
) -> Value:
    attributes, shape = operation.attributes, known(operation.output.shape)
    if incoming is None or weights is None:
        return e.filled(shape, 0, operation.output.dtype)
    return data_gradient(e, attributes, incoming, weights, shape, attributes["groups"])


def _weights(
    e: Emitter,
    operation: Operation,
    incoming: Value | None,
    source: Value | None,
    like: Value,
) -> Value:
    attributes, shape = operation.attributes, known(operation.output.shape)
    if incoming is None or source is None:
        return e.filled(shape, 0, operation.output.dtype)
    return weights_gradient(e, attributes, incoming, source, shape, attributes["groups"])


LOWERINGS: dict[str, Lowering] = {
    "convolution_2d": lowering(_convolution, LIMITS),
    "convolution_2d_data_gradient": lowering(_data, LIMITS, takes_empty=True),
    "convolution_2d_weights_gradient": lowering(_weights, LIMITS, takes_empty=True),
}

DECOMPOSED: dict[str, str] = {
    "convolution_transpose_2d": "convolutionTranspose2D is wrong for uneven strides: "
    "the data gradient of a convolution",
}
