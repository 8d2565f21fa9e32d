"""From which system on a selector is there; versions as iOS counts them."""

from __future__ import annotations

import functools
import re

from .errors import Refused

# First match counts; (class or None, pattern of the selector, first version).
SINCE: tuple[tuple[str, str, tuple[int, int]], ...] = (
    ("MPSGraph", r"reciprocalSquareRoot", (18, 0)),
    ("MPSGraph", r"variableFromTensor", (18, 0)),
    ("MPSGraph", r"sliceUpdateDataTensor:.*Mask", (17, 4)),
    ("MPSGraph", r"sliceUpdateDataTensor:", (18, 0)),
    ("MPSGraph", r"scaledDotProductAttention", (18, 0)),
    ("MPSGraph", r"(topK|bottomK).*axis", (17, 0)),
    ("MPSGraph", r"bitwise", (16, 1)),
    ("MPSGraph", r"convolution3D", (16, 3)),
    ("MPSGraph", r"transposeTensor:permutation", (16, 0)),
    ("MPSGraph", r"cumulative", (16, 0)),
    ("MPSGraph", r"(sort|argSort)WithTensor", (16, 0)),
    ("MPSGraph", r"maxPooling[24]DGradientWithGradientTensor:indices", (16, 0)),
    ("MPSGraph", r"maxPooling[24]DReturnIndices", (15, 3)),
    ("MPSGraph", r"(squeeze|expandDims|split|stack|coordinateAlong|gatherAlong)", (15, 4)),
    ("MPSGraph", r"(ifWith|whileWith|forLoop|controlDependency|compileWith)", (15, 0)),
    ("MPSGraph", r"(broadcastTensor|leakyReLU|reductionArg|.*WithNaNPropagation)", (15, 0)),
    ("MPSGraphCompilationDescriptor", r"(setR|r)educedPrecisionFastMath", (26, 0)),
    ("MPSGraphExecutable", r"(serializeTo|initWithMPSGraphPackage)", (17, 0)),
    ("MPSGraphExecutable", r"", (15, 0)),
)


@functools.cache
def check(class_name: str, selector: str, version: tuple[int, ...]) -> None:
    for name, pattern, since in SINCE:
        if name == class_name and re.match(pattern, selector):
            if version < since:
                raise Refused(
                    f"[{class_name} {selector}]: needs iOS {since[0]}.{since[1]}, "
                    f"this is iOS {version[0]}.{version[1]}"
                )
            return
