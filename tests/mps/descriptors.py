"""Descriptors for tests that send their own messages; pairs are (height, width)."""

from __future__ import annotations

from typing import Any

from tests.mps.double import sdk
from tests.mps.messages import Session

LAYOUT = "MPSGraphTensorNamedDataLayout"
DESCRIPTOR = (
    "descriptorWithStrideInX:strideInY:dilationRateInX:dilationRateInY:groups:paddingLeft:"
    "paddingRight:paddingTop:paddingBottom:paddingStyle:dataLayout:weightsLayout:"
)
DEPTHWISE_DESCRIPTOR = DESCRIPTOR.replace("groups:", "")
POOLING_DESCRIPTOR = (
    "descriptorWithKernelWidth:kernelHeight:strideInX:strideInY:dilationRateInX:dilationRateInY:"
    "paddingLeft:paddingRight:paddingTop:paddingBottom:paddingStyle:dataLayout:"
)


def convolution(
    s: Session,
    *,
    strides: Any = (1, 1),
    dilations: Any = (1, 1),
    groups: int = 1,
    pads: Any = ((0, 0), (0, 0)),
    **how: Any,
) -> Any:
    """A descriptor; strides, dilations and paddings of (height, width)."""
    return s.double.send(
        "MPSGraphConvolution2DOpDescriptor",
        DESCRIPTOR,
        strides[1],
        strides[0],
        dilations[1],
        dilations[0],
        groups,
        *pads[1],
        *pads[0],
        how.get("style", 0),
        sdk.value(LAYOUT + how.get("data", "NHWC")),
        sdk.value(LAYOUT + how.get("weights", "HWIO")),
    )


def depthwise(s: Session, pads: Any = ((0, 0), (0, 0)), strides: Any = (1, 1)) -> Any:
    return s.double.send(
        "MPSGraphDepthwiseConvolution2DOpDescriptor",
        DEPTHWISE_DESCRIPTOR,
        strides[1],
        strides[0],
        1,
        1,
        *pads[1],
        *pads[0],
        0,
        sdk.value(LAYOUT + "NHWC"),
        sdk.value(LAYOUT + "HWIO"),
    )


def pooling(
    s: Session,
    kernel: Any,
    strides: Any,
    pads: Any = ((0, 0), (0, 0)),
    layout: str = "NHWC",
    **more: Any,
) -> Any:
    d = s.double.send(
        "MPSGraphPooling2DOpDescriptor",
        POOLING_DESCRIPTOR,
        kernel[1],
        kernel[0],
        strides[1],
        strides[0],
        1,
        1,
        *pads[1],
        *pads[0],
        0,
        sdk.value(LAYOUT + layout),
    )
    for name, value in more.items():
        s.double.send(d, f"set{name[0].upper()}{name[1:]}:", value)
    return d
