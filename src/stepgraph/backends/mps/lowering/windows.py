"""Descriptors of what slides over height and width; their padding is always said in pixels.

What TF_SAME means for gradients is not documented, so it is worked out here and sent as Explicit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stepgraph.backends.mps.enums import MPSGraphPaddingStyle, MPSGraphTensorNamedDataLayout
from stepgraph.backends.mps.lowering.emitter import Emitter, Sizes
from stepgraph.backends.mps.messages import Handle
from stepgraph.graph.windows import NO_PADS, Pads, Window, hwio_sizes, nhwc_sizes

_EXPLICIT = MPSGraphPaddingStyle.Explicit


def layout(name: str) -> int:
    """A layout's constant."""
    return MPSGraphTensorNamedDataLayout[name]


def picture(shape: Sizes, data_layout: str) -> tuple[int, int]:
    """Height and width of a tensor of rank 4."""
    _, height, width, _ = nhwc_sizes(shape, data_layout)
    assert height is not None
    assert width is not None
    return height, width


def pads_of(window: Window, source: Sizes, data_layout: str) -> Pads:
    """((top, bottom), (left, right)) for a source of that shape."""
    return window.pads(picture(source, data_layout))


def _sides(pads: Pads) -> tuple[int, int, int, int]:
    """Left, right, top, bottom: the order of the selectors."""
    (top, bottom), (left, right) = pads
    return left, right, top, bottom


def _steps(pair: tuple[int, int]) -> tuple[int, int]:
    """In X, in Y: the order of the selectors."""
    return pair[1], pair[0]


def convolution(
    e: Emitter, attributes: Mapping[str, Any], source: Sizes, weights: Sizes, groups: int
) -> Handle:
    """What convolution, data gradient and weights gradient are told alike."""
    window = Window.of(hwio_sizes(weights, attributes["weights_layout"])[:2], attributes)
    pads = pads_of(window, source, attributes["data_layout"])
    return e.b.descriptor(
        "MPSGraphConvolution2DOpDescriptor",
        "descriptorWithStrideInX:strideInY:dilationRateInX:dilationRateInY:groups:paddingLeft:"
        "paddingRight:paddingTop:paddingBottom:paddingStyle:dataLayout:weightsLayout:",
        *_steps(window.strides),
        *_steps(window.dilations),
        groups,
        *_sides(pads),
        _EXPLICIT,
        layout(attributes["data_layout"]),
        layout(attributes["weights_layout"]),
    )


def depthwise(
    e: Emitter, attributes: Mapping[str, Any], weights: Sizes, pads: Pads = NO_PADS
) -> Handle:
    """The same for a convolution of each channel by itself."""
    window = Window.of(hwio_sizes(weights, attributes["weights_layout"])[:2], attributes)
    return e.b.descriptor(
        "MPSGraphDepthwiseConvolution2DOpDescriptor",
        "descriptorWithStrideInX:strideInY:dilationRateInX:dilationRateInY:paddingLeft:"
        "paddingRight:paddingTop:paddingBottom:paddingStyle:dataLayout:weightsLayout:",
        *_steps(window.strides),
        *_steps(window.dilations),
        *_sides(pads),
        _EXPLICIT,
        layout(attributes["data_layout"]),
        layout(attributes["weights_layout"]),
    )


def pooling(e: Emitter, attributes: Mapping[str, Any], source: Sizes) -> Handle:
    """What a pooling and its gradient are told alike."""
    window = Window.of(attributes["kernel_size"], attributes)
    pads = pads_of(window, source, attributes["data_layout"])
    descriptor = e.b.descriptor(
        "MPSGraphPooling2DOpDescriptor",
        "descriptorWithKernelWidth:kernelHeight:strideInX:strideInY:dilationRateInX:"
        "dilationRateInY:paddingLeft:paddingRight:paddingTop:paddingBottom:paddingStyle:"
        "dataLayout:",
        *_steps(window.kernel),
        *_steps(window.strides),
        1,
        1,
        *_sides(pads),
        _EXPLICIT,
        layout(attributes["data_layout"]),
    )
    if attributes.get("include_zero_pad_to_average"):
        e.b.bridge.send(descriptor, "setIncludeZeroPadToAverage:", True)
    return descriptor
