"""MPSGraphPoolingOps: over four axes; the 2D forms are those with extent 1 for the other two."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.mps.double import dtypes, sdk
from tests.mps.double.descriptors import setting
from tests.mps.double.errors import NotModelled
from tests.mps.double.graph import Builder, Shape
from tests.mps.double.objects import Object
from tests.mps.double.rules.convolution import DATA, padded_extents
from tests.mps.double.rules.shapes import constants

_INDICES = "MPSGraphPoolingReturnIndices"
# How many of the last axes an index counts through.
_GLOBAL = {sdk.value(f"{_INDICES}GlobalFlatten{n}D"): n for n in (1, 2, 3, 4)}


class Pooling:
    """A descriptor, read for a source of rank 4 in its own layout."""

    def __init__(self, b: Builder, descriptor: Object, source: Shape) -> None:
        b.need(len(source) == 4, f"rank {len(source)} must be 4")
        self.source = source
        if descriptor.class_name == "MPSGraphPooling2DOpDescriptor":
            self._two(b, descriptor)
        else:
            self._four(b, descriptor)
        b.need(min(*self.kernel, *self.strides, *self.dilations) > 0, "a 0 in the window")
        style = setting(descriptor, "paddingStyle")
        extents = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        self.pads = padded_extents(b, style, source, extents, self.strides, self.explicit)
        self.ceil = setting(descriptor, "ceilMode")
        self.counts_pads = setting(descriptor, "includeZeroPadToAverage")
        if self.ceil and self.counts_pads:
            b.fault("average_ceil_with_padding", "ceil mode with pads counted is not as expected")
        self.mode = setting(descriptor, "returnIndicesMode")
        self.index_type = setting(descriptor, "returnIndicesDataType")
        self.output = tuple(self._outputs(b, extents))
        self.room = [
            max(d + p[0] + p[1], (o - 1) * s + e)
            for d, p, o, s, e in zip(
                source, self.pads, self.output, self.strides, extents, strict=True
            )
        ]

    def _two(self, b: Builder, d: Object) -> None:
        layout = setting(d, "dataLayout")
        b.need(layout in DATA and len(DATA[layout]) == 4, f"data layout {layout}")
        height, width = DATA[layout][1:3]

        def spread(of_height: Any, of_width: Any, rest: Any) -> list[Any]:
            found = [rest] * 4
            found[height], found[width] = of_height, of_width
            return found

        self.kernel = spread(setting(d, "kernelHeight"), setting(d, "kernelWidth"), 1)
        self.strides = spread(setting(d, "strideInY"), setting(d, "strideInX"), 1)
        self.dilations = spread(setting(d, "dilationRateInY"), setting(d, "dilationRateInX"), 1)
        self.explicit = spread(
            (setting(d, "paddingTop"), setting(d, "paddingBottom")),
            (setting(d, "paddingLeft"), setting(d, "paddingRight")),
            (0, 0),
        )

    def _four(self, b: Builder, d: Object) -> None:
        names = ("kernelSizes", "strides", "dilationRates")
        self.kernel, self.strides, self.dilations = (list(setting(d, n)) for n in names)
        for name, numbers in zip(names, (self.kernel, self.strides, self.dilations), strict=True):
            b.need(len(numbers) == 4, f"{len(numbers)} {name}, not 4")
        pads = setting(d, "paddingValues")
        b.need(len(pads) == 8, f"{len(pads)} padding values, not 8")
        self.explicit = [(pads[2 * i], pads[2 * i + 1]) for i in range(4)]

    def _outputs(self, b: Builder, extents: Sequence[int]) -> Any:
        for i, size in enumerate(self.source):
            before, after = self.pads[i]
            room = size + before + after - extents[i]
            b.need(room >= 0, f"a window of {extents[i]} on {size} with {before}, {after}")
            b.need(
                max(before, after) < extents[i] or not max(before, after), "only pads in a window"
            )
            count = room // self.strides[i] + 1
            if self.ceil:
                count = -(-room // self.strides[i]) + 1
                b.need(
                    (count - 1) * self.strides[i] < size + before,
                    "ceil mode: the last window starts behind the source, which is unsettled",
                )
            yield count

    def taps(self) -> Any:
        for tap in itertools.product(*(range(k) for k in self.kernel)):
            yield tuple(
                slice(t * d, t * d + (o - 1) * s + 1, s)
                for t, d, o, s in zip(tap, self.dilations, self.output, self.strides, strict=True)
            )

    def padded(self, x: np.ndarray, fill: Any) -> np.ndarray:
        widths = [
            (p[0], r - d - p[0]) for p, r, d in zip(self.pads, self.room, x.shape, strict=True)
        ]
        return np.pad(x, widths, constant_values=fill)

    def cropped(self, x: np.ndarray) -> np.ndarray:
        return x[tuple(slice(p[0], p[0] + d) for p, d in zip(self.pads, self.source, strict=True))]

    def maximum(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The largest of each window, and which tap it is; the first of equal ones.

        Padding never wins, and NaN is skipped as in `reductionMaximum`.
        """
        source = self.padded(x, x.dtype.type(-np.inf))
        counts = self.padded(~np.isnan(x), False)
        best = np.full(self.output, -np.inf, x.dtype)
        place = np.full(self.output, -1, np.int64)
        for i, part in enumerate(self.taps()):
            better = counts[part] & ((place < 0) | (source[part] > best))
            best[better] = source[part][better]
            place[better] = i
        return best, place

    def counts(self, kind: np.dtype) -> np.ndarray:
        """How many elements each window averages."""
        ones = np.ones(self.source, kind)
        source = self.padded(ones, 1 if self.counts_pads else 0)
        return sum(source[part] for part in self.taps())


def _source(b: Builder, x: Object, descriptor: Object) -> tuple[int, Pooling]:
    return b.dtype(x, dtypes.FLOATS), Pooling(b, descriptor, x.shape)


def maximum(b: Builder, x: Object, descriptor: Object) -> Object:
    kind, p = _source(b, x, descriptor)
    return b.one([x], p.output, kind, lambda v: p.maximum(v)[0])


def average(b: Builder, x: Object, descriptor: Object) -> Object:
    kind, p = _source(b, x, descriptor)

    def compute(v: np.ndarray) -> np.ndarray:
        source = p.padded(v.astype(np.float64), 0)
        return (sum(source[part] for part in p.taps()) / p.counts(np.float64)).astype(v.dtype)

    return b.one([x], p.output, kind, compute)


def _gradient(b: Builder, incoming: Object, x: Object, descriptor: Object) -> tuple[int, Pooling]:
    kind, p = _source(b, x, descriptor)
    b.same_dtype(incoming, x)
    b.need(incoming.shape == p.output, f"a gradient of {incoming.shape} for {p.output}")
    return kind, p


def maximum_gradient(b: Builder, incoming: Object, x: Object, descriptor: Object) -> Object:
    kind, p = _gradient(b, incoming, x, descriptor)

    def compute(g: np.ndarray, v: np.ndarray) -> np.ndarray:
        place = p.maximum(v)[1]
        out = np.zeros(p.room, g.dtype)
        for i, part in enumerate(p.taps()):
            out[part] += np.where(place == i, g, 0)
        return p.cropped(out)

    return b.one([incoming, x], x.shape, kind, compute)


def average_gradient(b: Builder, incoming: Object, x: Object, descriptor: Object) -> Object:
    kind, p = _gradient(b, incoming, x, descriptor)

    def compute(g: np.ndarray, v: np.ndarray) -> np.ndarray:
        share = g / p.counts(g.dtype)
        out = np.zeros(p.room, g.dtype)
        for part in p.taps():
            out[part] += share
        return p.cropped(out)

    return b.one([incoming, x], x.shape, kind, compute)


def _index_axes(b: Builder, p: Pooling) -> int:
    b.need(p.mode != 0, "returnIndicesMode None: the second result is an assertion")
    if p.mode not in _GLOBAL:
        raise NotModelled(f"{b.selector}: indices local to a window")
    b.need(p.index_type == dtypes.INT32, "indices are int32 only")
    return _GLOBAL[p.mode]


def _flat_places(p: Pooling, place: np.ndarray, axes: int) -> np.ndarray:
    """For the tap of each window: its index over the last axes of the source."""
    numbers = np.arange(int(np.prod(p.source[4 - axes :]))).reshape(p.source[4 - axes :])
    source = p.padded(np.broadcast_to(numbers, p.source), -1)
    found = np.zeros(p.output, np.int64)
    for i, part in enumerate(p.taps()):
        found = np.where(place == i, source[part], found)
    return found.astype(np.int32)


def maximum_indices(b: Builder, x: Object, descriptor: Object) -> list[Object]:
    kind, p = _source(b, x, descriptor)
    axes = _index_axes(b, p)

    def compute(v: np.ndarray) -> list[np.ndarray]:
        best, place = p.maximum(v)
        return [best, _flat_places(p, place, axes)]

    return b.many([x], [(p.output, kind), (p.output, dtypes.INT32)], compute)


def gradient_of_indices(
    b: Builder, incoming: Object, indices: Object, shape: Sequence[int], descriptor: Object
) -> Object:
    kind = b.dtype(incoming, dtypes.FLOATS)
    b.dtype(indices, (dtypes.INT32,), "indices")
    p = Pooling(b, descriptor, tuple(shape))
    axes = _index_axes(b, p)
    b.need(incoming.shape == indices.shape == p.output, f"{incoming.shape} for {p.output}")

    def compute(g: np.ndarray, i: np.ndarray) -> np.ndarray:
        lead = int(np.prod(p.source[: 4 - axes], dtype=np.int64))
        out = np.zeros((lead, int(np.prod(p.source[4 - axes :]))), g.dtype)
        if axes == 4:
            rows = np.zeros(g.shape, np.int64)
        else:
            # The leading axes are not pooled in these modes: each index stays in its row.
            grid = np.indices(g.shape)[: 4 - axes]
            rows = np.ravel_multi_index(tuple(grid), p.source[: 4 - axes])
        np.add.at(out, (rows.ravel(), i.ravel()), g.ravel())
        return out.reshape(p.source)

    return b.one([incoming, indices], tuple(shape), kind, compute)


def _names() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for n in (2, 4):
        name, plain = f"Pooling{n}D", "WithSourceTensor:descriptor:name:"
        gradient = "GradientWithGradientTensor:"
        found[f"max{name}{plain}"] = maximum
        found[f"avg{name}{plain}"] = average
        found[f"max{name}ReturnIndices{plain}"] = maximum_indices
        found[f"max{name}{gradient}sourceTensor:descriptor:name:"] = maximum_gradient
        found[f"avg{name}{gradient}sourceTensor:descriptor:name:"] = average_gradient
        indices = f"max{name}{gradient}indicesTensor:outputShape"
        found[f"{indices}:descriptor:name:"] = gradient_of_indices
        found[f"{indices}Tensor:descriptor:name:"] = constants(gradient_of_indices, 2)
    return found


RULES: dict[str, Any] = _names()
