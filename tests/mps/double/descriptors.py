"""Descriptors: bags of properties with setters, getters and factories, and their defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import sdk
from .errors import Refused
from .objects import Object

_WINDOW = {
    "strideInX": 1,
    "strideInY": 1,
    "dilationRateInX": 1,
    "dilationRateInY": 1,
    "paddingLeft": 0,
    "paddingRight": 0,
    "paddingTop": 0,
    "paddingBottom": 0,
    "paddingStyle": 0,
}
_DEPTH = {"strideInZ": 1, "dilationRateInZ": 1, "paddingFront": 0, "paddingBack": 0}
_POOLING = {
    "ceilMode": False,
    "includeZeroPadToAverage": False,
    "returnIndicesMode": 0,
    "returnIndicesDataType": sdk.value("MPSDataTypeInt32"),
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "MPSGraphConvolution2DOpDescriptor": {**_WINDOW, "groups": 1},
    "MPSGraphConvolution3DOpDescriptor": {**_WINDOW, **_DEPTH, "groups": 1},
    "MPSGraphDepthwiseConvolution2DOpDescriptor": _WINDOW,
    "MPSGraphDepthwiseConvolution3DOpDescriptor": {
        "strides": [1, 1, 1],
        "dilationRates": [1, 1, 1],
        "paddingValues": [0] * 6,
        "paddingStyle": 0,
        "channelDimensionIndex": -4,
    },
    "MPSGraphPooling2DOpDescriptor": {**_WINDOW, **_POOLING},
    "MPSGraphPooling4DOpDescriptor": {
        "strides": [1] * 4,
        "dilationRates": [1] * 4,
        "paddingValues": [0] * 8,
        "paddingStyle": 0,
        **_POOLING,
    },
    "MPSGraphRandomOpDescriptor": {
        "min": 0.0,
        "max": 1.0,
        "minInteger": 0,
        "maxInteger": 2**31 - 1,
        "mean": 0.0,
        "standardDeviation": 1.0,
        "samplingMethod": 0,
    },
    "MPSGraphImToColOpDescriptor": _WINDOW,
    "MPSGraphCompilationDescriptor": {
        "optimizationLevel": 1,
        "waitForCompilationCompletion": False,
        "optimizationProfile": 0,
        "reducedPrecisionFastMath": 0,
    },
    "MPSGraphExecutableExecutionDescriptor": {"waitUntilCompleted": False},
    "MPSGraphExecutionDescriptor": {"waitUntilCompleted": False},
}


def _fresh(class_name: str) -> Object:
    return Object(class_name, properties=dict(DEFAULTS[class_name]))


def _lower(word: str) -> str:
    return word[:1].lower() + word[1:]


def _fill(o: Object, labels: list[str], values: tuple[Any, ...]) -> Object:
    o.properties.update(zip(labels, values, strict=True))
    return o


def method(class_name: str, selector: str) -> Callable[..., Any] | None:
    """What a descriptor class answers to a selector, by the way the selector is spelled."""
    if class_name not in DEFAULTS:
        return None
    labels = selector.split(":")[:-1] if ":" in selector else []
    if selector in ("init", "new"):
        return lambda o: _fresh(class_name)
    if selector.startswith("descriptorWith"):
        names = [_lower(labels[0].removeprefix("descriptorWith")), *labels[1:]]
        return lambda o, *values: _fill(_fresh(class_name), names, values)
    if selector.startswith("setExplicitPaddingWith"):
        names = [_lower(labels[0].removeprefix("setExplicitPaddingWith")), *labels[1:]]
        return lambda o, *values: (
            _fill(o, [*names, "paddingStyle"], (*values, sdk.value("MPSGraphPaddingStyleExplicit")))
            and None
        )
    if selector.startswith("set") and len(labels) == 1:
        return lambda o, value: _fill(o, [_lower(labels[0].removeprefix("set"))], (value,)) and None
    if not labels:
        return lambda o: setting(o, selector)
    return None


def setting(descriptor: Object, name: str) -> Any:
    """A descriptor's property; one that was never set and has no known default is refused."""
    if name not in descriptor.properties:
        raise Refused(f"{descriptor.class_name}: {name} was never set")
    value = descriptor.properties[name]
    return tuple(value) if isinstance(value, list) else value
