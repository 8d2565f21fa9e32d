"""Convolutions of each channel by itself (MPSGraphDepthwiseConvolutionOps).

In what order several kernels of one channel give their results is not documented, so that case is a
convolution of as many groups as there are channels.
"""

from __future__ import annotations

from stepgraph.backends.mps.lowering import convolution, windows
from stepgraph.backends.mps.lowering.emitter import Emitter, Sizes, Value, known, lowering
from stepgraph.backends.mps.lowering.table import Lowering
from stepgraph.backends.mps.messages import numbers
from stepgraph.graph.operation import Operation
from stepgraph.graph.windows import Pads, Window, hwio_sizes


def _channels(weights: Sizes, operation: Operation) -> tuple[int, int]:
    """Channels, and kernels of each."""
    _, _, channels, multiplier = hwio_sizes(weights, operation.attributes["weights_layout"])
    assert channels is not None
    assert multiplier is not None
    return channels, multiplier


def _is_hwio(operation: Operation) -> bool:
    return bool(operation.attributes["weights_layout"] == "HWIO")


def _grouped_shape(shape: Sizes, operation: Operation) -> Sizes:
    """The shape of the same weights for a convolution in groups."""
    channels, multiplier = _channels(shape, operation)
    if _is_hwio(operation):
        return (*shape[:2], 1, channels * multiplier)
    return (channels * multiplier, 1, *shape[2:])


def _grouped(e: Emitter, weights: Value, operation: Operation) -> Value:
    shape = _grouped_shape(weights.shape, operation)
    return e.reshape(weights if _is_hwio(operation) else e.swap(weights, 0, 1), shape)


def _pads(source: Sizes, weights: Sizes, operation: Operation) -> Pads:
    attributes = operation.attributes
    window = Window.of(hwio_sizes(weights, attributes["weights_layout"])[:2], attributes)
    return windows.pads_of(window, source, attributes["data_layout"])


def _forward(e: Emitter, operation: Operation, source: Value, weights: Value) -> Value:
    attributes, shape = operation.attributes, known(operation.output.shape)
    channels, multiplier = _channels(weights.shape, operation)
    if multiplier > 1:
        w = _grouped(e, weights, operation)
        return convolution.forward(e, attributes, source, w, shape, channels)
    pads = _pads(source.shape, weights.shape, operation)
    return e.send(
        "depthwiseConvolution2DWithSourceTensor:weightsTensor:descriptor:name:",
        source,
        weights,
        windows.depthwise(e, attributes, weights.shape, pads),
        shape=shape,
        dtype=source.dtype,
    )


def _data(
    e: Emitter,
    operation: Operation,
    incoming: Value | None,
    weights: Value | None,
    like: Value,
) -> Value:
    attributes, shape = operation.attributes, known(operation.output.shape)
    if incoming is None or weights is None:
        return e.filled(shape, 0, operation.output.dtype)
    channels, multiplier = _channels(weights.shape, operation)
    if multiplier > 1:
        w = _grouped(e, weights, operation)
        return convolution.data_gradient(e, attributes, incoming, w, shape, channels)
    pads = _pads(shape, weights.shape, operation)
    return e.send(
        "depthwiseConvolution2DDataGradientWithIncomingGradientTensor:weightsTensor:"
        "outputShape:descriptor:name:",
        incoming,
        weights,
        numbers(shape),
        windows.depthwise(e, attributes, weights.shape, pads),
        shape=shape,
        dtype=incoming.dtype,
    )


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
    channels, multiplier = _channels(shape, operation)
    if multiplier > 1:
        wanted = _grouped_shape(shape, operation)
        made = convolution.weights_gradient(e, attributes, incoming, source, wanted, channels)
        if _is_hwio(operation):
            return e.reshape(made, shape)
        return e.swap(e.reshape(made, (channels, multiplier, *shape[2:])), 0, 1)
    # The selector ignores the descriptor's padding: the source gets it, the descriptor has none.
    (top, bottom), (left, right) = _pads(source.shape, shape, operation)
    nhwc = attributes["data_layout"] == "NHWC"
    before = (0, top, left, 0) if nhwc else (0, 0, top, left)
    after = (0, bottom, right, 0) if nhwc else (0, 0, bottom, right)
    return e.send(
        "depthwiseConvolution2DWeightsGradientWithIncomingGradientTensor:sourceTensor:"
        "outputShape:descriptor:name:",
        incoming,
        e.pad(source, before, after, 0),
        numbers(shape),
        windows.depthwise(e, attributes, shape),
        shape=shape,
        dtype=incoming.dtype,
    )


_NOTE = "several kernels a channel: a convolution in groups"

LOWERINGS: dict[str, Lowering] = {
    "depthwise_convolution_2d": lowering(_forward, convolution.LIMITS, note=_NOTE),
    "depthwise_convolution_2d_data_gradient": lowering(
        _data, convolution.LIMITS, takes_empty=True, note=_NOTE
    ),
    "depthwise_convolution_2d_weights_gradient": lowering(
        _weights,
        convolution.LIMITS,
        takes_empty=True,
        note=f"padding is added first, the selector ignores it; {_NOTE}",
    ),
}

DECOMPOSED: dict[str, str] = {}
