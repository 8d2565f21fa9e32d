"""MPSGraphTensorShapeOps: slices, their gradients and updates; padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.mps.double import dtypes
from tests.mps.double.graph import Builder, Shape
from tests.mps.double.objects import Object
from tests.mps.double.rules.shapes import constants

_MODES = ("constant", "reflect", "symmetric", "edge", "constant", "periodic", "antiperiodic")


def slice_dimension(b: Builder, x: Object, dimension: int, start: int, length: int) -> Object:
    b.need(dimension < len(x.shape), f"dimension {dimension} is outside rank {len(x.shape)}")
    extent = x.shape[dimension]
    first = start + extent if start < 0 else start
    b.need(0 <= first < extent, f"start {start} is outside of {extent}")
    b.need(length > 0 and first + length <= extent, f"length {length} from {start} of {extent}")
    shape = (*x.shape[:dimension], length, *x.shape[dimension + 1 :])
    part = (*[slice(None)] * dimension, slice(first, first + length))
    return b.one([x], shape, x.dtype, lambda v: v[part])


class Window:
    """A strided slice as TensorFlow reads it: what it picks, and the shape that remains."""

    def __init__(
        self,
        b: Builder,
        shape: Shape,
        starts: Sequence[int],
        ends: Sequence[int],
        strides: Sequence[int],
        masks: tuple[int, int, int],
    ) -> None:
        rank = len(shape)
        for name, numbers in (("starts", starts), ("ends", ends), ("strides", strides)):
            b.need(len(numbers) == rank, f"{len(numbers)} {name} for rank {rank}")
        b.need(all(m < 1 << rank for m in masks), f"masks {masks} have bits beyond rank {rank}")
        b.need(all(strides), "a stride of 0")
        start_mask, end_mask, self.squeeze = masks
        self.strides = tuple(strides)
        self.parts: list[slice] = []
        for i, extent in enumerate(shape):
            if self.squeeze >> i & 1:
                first = starts[i] + extent if starts[i] < 0 else starts[i]
                if start_mask >> i & 1:
                    first = 0
                b.need(0 <= first < extent, f"index {starts[i]} is outside of {extent}")
                self.parts.append(slice(first, first + 1))
                continue
            begin = None if start_mask >> i & 1 else starts[i]
            end = None if end_mask >> i & 1 else ends[i]
            place = slice(begin, end, strides[i])
            count = len(range(*place.indices(extent)))
            b.need(count > 0, f"axis {i}: {starts[i]}:{ends[i]}:{strides[i]} of {extent} is empty")
            self.parts.append(place)
        self.whole = tuple(
            len(range(*p.indices(d))) for p, d in zip(self.parts, shape, strict=True)
        )
        self.shape = tuple(d for i, d in enumerate(self.whole) if not self.squeeze >> i & 1)


def strided(
    b: Builder,
    x: Object,
    starts: Sequence[int],
    ends: Sequence[int],
    strides: Sequence[int],
    start_mask: int = 0,
    end_mask: int = 0,
    squeeze_mask: int = 0,
) -> Object:
    w = Window(b, x.shape, starts, ends, strides, (start_mask, end_mask, squeeze_mask))
    return b.one([x], w.shape, x.dtype, lambda v: v[tuple(w.parts)].reshape(w.shape))


def slice_size(
    b: Builder, x: Object, starts: Sequence[int], sizes: Sequence[int], squeeze_mask: int
) -> Object:
    b.need(len(starts) == len(sizes) == len(x.shape), "a start and a size for each axis")
    b.need(all(s >= 0 and n > 0 for s, n in zip(starts, sizes, strict=True)), "starts, sizes")
    ends = [s + n for s, n in zip(starts, sizes, strict=True)]
    b.need(all(e <= d for e, d in zip(ends, x.shape, strict=True)), "a size past the end")
    return strided(b, x, starts, ends, [1] * len(ends), 0, 0, squeeze_mask)


def slice_gradient(
    b: Builder,
    incoming: Object,
    shape: Sequence[int],
    starts: Sequence[int],
    ends: Sequence[int],
    strides: Sequence[int],
    start_mask: int = 0,
    end_mask: int = 0,
    squeeze_mask: int = 0,
) -> Object:
    b.need(not squeeze_mask, "the compiler refuses a squeeze mask")
    b.need(all(s == 1 for s in strides), f"the compiler refuses strides {list(strides)}")
    w = Window(b, tuple(shape), starts, ends, strides, (start_mask, end_mask, 0))
    b.need(incoming.shape == w.shape, f"a gradient of {incoming.shape} for a slice of {w.shape}")

    def compute(g: np.ndarray) -> np.ndarray:
        out = np.zeros(tuple(shape), g.dtype)
        out[tuple(w.parts)] = g
        return out

    return b.one([incoming], tuple(shape), incoming.dtype, compute)


def slice_update(
    b: Builder,
    data: Object,
    update: Object,
    starts: Sequence[int],
    ends: Sequence[int],
    strides: Sequence[int],
    start_mask: int = 0,
    end_mask: int = 0,
    squeeze_mask: int = 0,
) -> Object:
    b.need(not end_mask, "an end mask is refused")
    b.need(not squeeze_mask, "a squeeze mask is refused")
    kind = b.same_dtype(data, update)
    w = Window(b, data.shape, starts, ends, strides, (start_mask, 0, 0))
    b.need(update.shape == w.shape, f"an update of {update.shape} for a slice of {w.shape}")

    def compute(v: np.ndarray, u: np.ndarray) -> np.ndarray:
        out = v.copy()
        out[tuple(w.parts)] = u
        return out

    return b.one([data, update], data.shape, kind, compute)


def _paddings(b: Builder, shape: Shape, left: Sequence[int], right: Sequence[int]) -> Shape:
    rank = len(shape)
    b.need(rank > 0, "rank 0 cannot be padded")
    b.need(len(left) == len(right) == rank, f"{len(left)} and {len(right)} paddings, rank {rank}")
    return tuple(d + lo + hi for d, lo, hi in zip(shape, left, right, strict=True))


def pad(
    b: Builder, x: Object, mode: int, left: Sequence[int], right: Sequence[int], value: float
) -> Object:
    shape = _paddings(b, x.shape, left, right)
    name = _MODES[mode]
    b.need("periodic" not in name, f"mode {name} is refused")
    b.dtype(x, (*dtypes.FLOATS, *dtypes.INTS))
    kind = dtypes.numpy(x.dtype)
    b.need(kind.kind == "f" or float(value).is_integer(), f"{value} for {kind}")
    for lo, hi, extent in zip(left, right, x.shape, strict=True):
        most = {"reflect": extent - 1, "symmetric": extent}.get(name, max(lo, hi))
        b.need(max(lo, hi) <= most, f"{name} by {lo}, {hi} of an extent of {extent}")
        b.need(-min(lo, 0) - min(hi, 0) < extent, "nothing is left")
    fill = 0.0 if mode == 4 else value

    def compute(v: np.ndarray) -> np.ndarray:
        crop = tuple(
            slice(-min(lo, 0), d + min(hi, 0))
            for lo, hi, d in zip(left, right, v.shape, strict=True)
        )
        widths = [(max(lo, 0), max(hi, 0)) for lo, hi in zip(left, right, strict=True)]
        settings = {"constant_values": v.dtype.type(fill)} if name == "constant" else {}
        return np.pad(v[crop], widths, name, **settings)

    return b.one([x], shape, x.dtype, compute)


def pad_gradient(
    b: Builder,
    incoming: Object,
    x: Object,
    mode: int,
    left: Sequence[int],
    right: Sequence[int],
) -> Object:
    kind = b.same_dtype(incoming, x)
    shape = _paddings(b, x.shape, left, right)
    b.need(incoming.shape == shape, f"a gradient of {incoming.shape} for {shape}")
    b.need(min(*left, *right) >= 0, "negative paddings")
    if _MODES[mode] != "constant":
        b.fault("pad_gradient_mode", "the mode is not read: the gradient is a crop")
    part = tuple(slice(lo, lo + d) for lo, d in zip(left, x.shape, strict=True))
    return b.one([incoming, x], x.shape, kind, lambda g, v: g[part])


_MASKS = "startMask:endMask:squeezeMask:"
_GRADIENT = "sliceGradientTensor:fwdInShapeTensor:"
_UPDATE = "sliceUpdateDataTensor:updateTensor:"
_PAD_GRADIENT = (
    "padGradientWithIncomingGradientTensor:sourceTensor:paddingMode:leftPadding:rightPadding:name:"
)
RULES: dict[str, Any] = {
    "sliceTensor:dimension:start:length:name:": slice_dimension,
    "sliceTensor:starts:ends:strides:name:": strided,
    f"sliceTensor:starts:ends:strides:{_MASKS}name:": strided,
    f"sliceTensor:startTensor:endTensor:strideTensor:{_MASKS}name:": constants(strided, 1, 2, 3),
    "sliceTensor:startTensor:sizeTensor:squeezeMask:name:": constants(slice_size, 1, 2),
    f"{_GRADIENT}starts:ends:strides:name:": constants(slice_gradient, 1),
    f"{_GRADIENT}starts:ends:strides:{_MASKS}name:": constants(slice_gradient, 1),
    f"{_GRADIENT}startTensor:endTensor:strideTensor:{_MASKS}name:": constants(
        slice_gradient, 1, 2, 3, 4
    ),
    f"{_UPDATE}starts:ends:strides:name:": slice_update,
    f"{_UPDATE}starts:ends:strides:{_MASKS}name:": slice_update,
    f"{_UPDATE}startsTensor:endsTensor:stridesTensor:name:": constants(slice_update, 2, 3, 4),
    f"{_UPDATE}startsTensor:endsTensor:stridesTensor:{_MASKS}name:": constants(
        slice_update, 2, 3, 4
    ),
    "padTensor:withPaddingMode:leftPadding:rightPadding:constantValue:name:": pad,
    _PAD_GRADIENT: pad_gradient,
}
