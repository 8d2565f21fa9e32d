"""MPSGraphConvolutionOps and their transposed and depthwise kin, and all gradients.

Computed tap by tap: a convolution is a sum, over the places of its kernel, of matrix products.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.mps.double import dtypes, sdk
from tests.mps.double.descriptors import setting
from tests.mps.double.graph import Builder, Shape
from tests.mps.double.objects import Object
from tests.mps.double.rules.shapes import constants

_L = "MPSGraphTensorNamedDataLayout"
# Layout: its order of axes as seen from NHWC (or HWIO).
DATA = {
    sdk.value(_L + "NHWC"): (0, 1, 2, 3),
    sdk.value(_L + "NCHW"): (0, 2, 3, 1),
    sdk.value(_L + "NDHWC"): (0, 1, 2, 3, 4),
    sdk.value(_L + "NCDHW"): (0, 2, 3, 4, 1),
}
WEIGHTS = {
    sdk.value(_L + "HWIO"): (0, 1, 2, 3),
    sdk.value(_L + "OIHW"): (2, 3, 1, 0),
    sdk.value(_L + "DHWIO"): (0, 1, 2, 3, 4),
    sdk.value(_L + "OIDHW"): (2, 3, 4, 1, 0),
}
EXPLICIT, VALID, SAME, OFFSET, SAME_LOWER = range(5)


def reordered(shape: Sequence[int], order: Sequence[int]) -> Shape:
    return tuple(shape[i] for i in order)


def back(order: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argsort(order))


def padded_extents(
    b: Builder,
    style: int,
    source: Sequence[int],
    extents: Sequence[int],
    strides: Sequence[int],
    explicit: Sequence[tuple[int, int]],
) -> list[tuple[int, int]]:
    """Padding before and after each axis, by the style."""
    b.need(style != OFFSET, "padding style ExplicitOffset is rejected")
    if style == EXPLICIT:
        return list(explicit)
    if style == VALID:
        return [(0, 0)] * len(source)
    found = []
    for size, extent, stride in zip(source, extents, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        small = total // 2
        found.append((total - small, small) if style == SAME_LOWER else (small, total - small))
    return found


@dataclass(frozen=True)
class Window:
    """A convolution's geometry over its spatial axes."""

    kernel: Shape
    strides: Shape
    dilations: Shape
    pads: tuple[tuple[int, int], ...]
    groups: int

    def output(self, b: Builder, source: Shape) -> Shape:
        found = []
        for i, size in enumerate(source):
            extent = (self.kernel[i] - 1) * self.dilations[i] + 1
            room = size + sum(self.pads[i]) - extent
            b.need(room >= 0, f"a kernel of {extent} on {size} with paddings {self.pads[i]}")
            found.append(room // self.strides[i] + 1)
        return tuple(found)

    def taps(self, output: Shape) -> Iterator[tuple[Shape, tuple[slice, ...]]]:
        """Each place of the kernel, and the part of the padded source under it."""
        for tap in itertools.product(*(range(k) for k in self.kernel)):
            parts = []
            for i, t in enumerate(tap):
                first = t * self.dilations[i]
                last = first + (output[i] - 1) * self.strides[i] + 1
                parts.append(slice(first, last, self.strides[i]))
            yield tap, (slice(None), *parts)

    def padded(self, x: np.ndarray) -> np.ndarray:
        return np.pad(x, [(0, 0), *self.pads, (0, 0)])


def _grouped(x: np.ndarray, groups: int) -> np.ndarray:
    """(..., channels) as (groups, everything else, channels of one group)."""
    return x.reshape(-1, groups, x.shape[-1] // groups).transpose(1, 0, 2)


def _ungrouped(x: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    return x.transpose(1, 0, 2).reshape(shape)


def _weights(w: np.ndarray, groups: int) -> np.ndarray:
    """(kernel..., in, out) as (kernel..., groups, in, out of one group)."""
    *kernel, inner, outer = w.shape
    return np.moveaxis(w.reshape(*kernel, inner, groups, outer // groups), -2, -3)


def forward(x: np.ndarray, w: np.ndarray, window: Window, spatial: Shape) -> np.ndarray:
    source, weights = window.padded(x), _weights(w, window.groups)
    total: Any = 0
    for tap, part in window.taps(spatial):
        total = total + _grouped(source[part], window.groups) @ weights[tap]
    return _ungrouped(total, (x.shape[0], *spatial, w.shape[-1]))


def data_gradient(g: np.ndarray, w: np.ndarray, window: Window, shape: Shape) -> np.ndarray:
    weights = _weights(w, window.groups)
    n, *spatial, channels = shape
    room = [d + sum(p) for d, p in zip(spatial, window.pads, strict=True)]
    out = np.zeros((n, *room, channels), g.dtype)
    grouped = _grouped(g, window.groups)
    for tap, part in window.taps(g.shape[1:-1]):
        piece = grouped @ weights[tap].swapaxes(-1, -2)
        out[part] += _ungrouped(piece, (*g.shape[:-1], channels))
    inner = tuple(slice(p[0], p[0] + d) for p, d in zip(window.pads, spatial, strict=True))
    return out[(slice(None), *inner)]


def weights_gradient(g: np.ndarray, x: np.ndarray, window: Window, shape: Shape) -> np.ndarray:
    source, grouped = window.padded(x), _grouped(g, window.groups)
    out = np.zeros((*shape[:-2], window.groups, shape[-2], shape[-1] // window.groups), g.dtype)
    for tap, part in window.taps(g.shape[1:-1]):
        out[tap] = _grouped(source[part], window.groups).swapaxes(-1, -2) @ grouped
    return np.moveaxis(out, -3, -2).reshape(shape)


class Geometry:
    """A descriptor, read for given shapes."""

    def __init__(self, b: Builder, descriptor: Object, rank: int, *, depthwise: bool = False):
        self.b, self.rank = b, rank
        axes = "ZYX"[-(rank - 2) :]
        sides = [("paddingFront", "paddingBack"), ("paddingTop", "paddingBottom")]
        sides = [*sides, ("paddingLeft", "paddingRight")][-(rank - 2) :]
        self.strides = tuple(setting(descriptor, f"strideIn{a}") for a in axes)
        self.dilations = tuple(setting(descriptor, f"dilationRateIn{a}") for a in axes)
        self.explicit = [tuple(setting(descriptor, s) for s in pair) for pair in sides]
        self.style = setting(descriptor, "paddingStyle")
        self.groups = 1 if depthwise else setting(descriptor, "groups")
        data, weights = setting(descriptor, "dataLayout"), setting(descriptor, "weightsLayout")
        b.need(min(*self.strides, *self.dilations) > 0, "a stride or dilation of 0")
        b.need(self.groups > 0, "0 groups")
        b.need(data in DATA and len(DATA[data]) == rank, f"data layout {data} for rank {rank}")
        b.need(
            weights in WEIGHTS and len(WEIGHTS[weights]) == rank,
            f"weights layout {weights} for rank {rank}",
        )
        self.data, self.weights = DATA[data], WEIGHTS[weights]

    def window(self, source: Shape, weights: Shape) -> Window:
        """The geometry for a source (N...C) and weights (...IO)."""
        b = self.b
        channels, inner, outer = source[-1], weights[-2], weights[-1]
        b.need(
            inner * self.groups == channels,
            f"weights for {inner} channels in {self.groups} groups, the source has {channels}",
        )
        b.need(outer % self.groups == 0, f"{outer} outputs in {self.groups} groups")
        if b.double.version < (18, 1):
            b.need(max(*source, *weights) <= 2**16, "extents above 2^16 are wrong before iOS 18.1")
        extents = [(k - 1) * d + 1 for k, d in zip(weights[:-2], self.dilations, strict=True)]
        pads = padded_extents(b, self.style, source[1:-1], extents, self.strides, self.explicit)
        return Window(weights[:-2], self.strides, self.dilations, tuple(pads), self.groups)

    def safe_gradient(self) -> None:
        self.b.need(
            self.style in (EXPLICIT, VALID),
            "gradients with a SAME style are unverified: give the paddings",
        )

    def rank_is(self, *tensors: Object) -> int:
        kind = self.b.same_dtype(*tensors)
        self.b.dtype(tensors[0], dtypes.FLOATS)
        for t in tensors:
            self.b.need(len(t.shape) == self.rank, f"rank {len(t.shape)} must be {self.rank}")
        return kind


def _convolution(rank: int) -> Any:
    def rule(b: Builder, x: Object, w: Object, descriptor: Object) -> Object:
        g = Geometry(b, descriptor, rank)
        kind = g.rank_is(x, w)
        source, weights = reordered(x.shape, g.data), reordered(w.shape, g.weights)
        window = g.window(source, weights)
        spatial = window.output(b, source[1:-1])
        shape = (source[0], *spatial, weights[-1])

        def compute(xv: np.ndarray, wv: np.ndarray) -> np.ndarray:
            out = forward(xv.transpose(g.data), wv.transpose(g.weights), window, spatial)
            return out.transpose(back(g.data))

        return b.one([x, w], reordered(shape, back(g.data)), kind, compute)

    return rule


def _data_gradient(rank: int, transposed: bool = False) -> Any:
    def rule(
        b: Builder, incoming: Object, w: Object, shape: Sequence[int], descriptor: Object
    ) -> Object:
        g = Geometry(b, descriptor, rank)
        kind = g.rank_is(incoming, w)
        g.safe_gradient()
        b.need(len(shape) == rank, f"an output shape of rank {len(shape)}")
        source, weights = reordered(shape, g.data), reordered(w.shape, g.weights)
        window = g.window(source, weights)
        if transposed and len(set(g.strides)) > 1:
            b.fault("transpose_convolution_strides", f"strides {g.strides} come out wrong")
            window = Window(window.kernel, g.strides[::-1], g.dilations, window.pads, g.groups)
        wanted = (source[0], *window.output(b, source[1:-1]), weights[-1])
        given = reordered(incoming.shape, g.data)
        b.need(given == wanted, f"a gradient of {given} where {wanted} comes from {source} (NHWC)")

        def compute(gv: np.ndarray, wv: np.ndarray) -> np.ndarray:
            out = data_gradient(gv.transpose(g.data), wv.transpose(g.weights), window, source)
            return out.transpose(back(g.data))

        return b.one([incoming, w], tuple(shape), kind, compute)

    return rule


def _weights_gradient(rank: int, swapped: bool = False) -> Any:
    def rule(
        b: Builder, incoming: Object, x: Object, shape: Sequence[int], descriptor: Object
    ) -> Object:
        if swapped:
            incoming, x = x, incoming
        g = Geometry(b, descriptor, rank)
        kind = g.rank_is(incoming, x)
        g.safe_gradient()
        b.need(len(shape) == rank, f"an output shape of rank {len(shape)}")
        source, weights = reordered(x.shape, g.data), reordered(shape, g.weights)
        window = g.window(source, weights)
        wanted = (source[0], *window.output(b, source[1:-1]), weights[-1])
        given = reordered(incoming.shape, g.data)
        b.need(given == wanted, f"a gradient of {given} where {wanted} comes from {source} (NHWC)")

        def compute(gv: np.ndarray, xv: np.ndarray) -> np.ndarray:
            out = weights_gradient(gv.transpose(g.data), xv.transpose(g.data), window, weights)
            return out.transpose(back(g.weights))

        return b.one([incoming, x], tuple(shape), kind, compute)

    return rule


# Depthwise: weights are (kernel..., channels, multiplier) in HWIO.


def _depthwise_window(b: Builder, g: Geometry, source: Shape, weights: Shape) -> Window:
    channels = source[-1]
    b.need(weights[-2] == channels, f"weights for {weights[-2]} channels, not {channels}")
    b.need(
        weights[-1] == 1,
        "the order of the outputs of a multiplier above 1 is unsettled: use groups",
    )
    g.groups = channels
    return g.window(source, (*weights[:-2], 1, channels))


def _as_groups(w: np.ndarray) -> np.ndarray:
    """(kernel..., channels, 1) as (kernel..., 1, channels)."""
    return w.swapaxes(-1, -2)


def depthwise(b: Builder, x: Object, w: Object, descriptor: Object) -> Object:
    g = Geometry(b, descriptor, 4, depthwise=True)
    kind = g.rank_is(x, w)
    source, weights = reordered(x.shape, g.data), reordered(w.shape, g.weights)
    window = _depthwise_window(b, g, source, weights)
    spatial = window.output(b, source[1:-1])

    def compute(xv: np.ndarray, wv: np.ndarray) -> np.ndarray:
        wv = _as_groups(wv.transpose(g.weights))
        return forward(xv.transpose(g.data), wv, window, spatial).transpose(back(g.data))

    shape = (source[0], *spatial, source[-1])
    return b.one([x, w], reordered(shape, back(g.data)), kind, compute)


def depthwise_data_gradient(
    b: Builder, incoming: Object, w: Object, shape: Sequence[int], descriptor: Object
) -> Object:
    g = Geometry(b, descriptor, 4, depthwise=True)
    kind = g.rank_is(incoming, w)
    g.safe_gradient()
    b.need(len(shape) == 4, f"an output shape of rank {len(shape)}")
    source, weights = reordered(shape, g.data), reordered(w.shape, g.weights)
    window = _depthwise_window(b, g, source, weights)
    wanted = (source[0], *window.output(b, source[1:-1]), source[-1])
    given = reordered(incoming.shape, g.data)
    b.need(given == wanted, f"a gradient of {given} where {wanted} comes from {source} (NHWC)")

    def compute(gv: np.ndarray, wv: np.ndarray) -> np.ndarray:
        wv = _as_groups(wv.transpose(g.weights))
        return data_gradient(gv.transpose(g.data), wv, window, source).transpose(back(g.data))

    return b.one([incoming, w], tuple(shape), kind, compute)


def depthwise_weights_gradient(
    b: Builder, incoming: Object, x: Object, shape: Sequence[int], descriptor: Object
) -> Object:
    g = Geometry(b, descriptor, 4, depthwise=True)
    kind = g.rank_is(incoming, x)
    b.need(len(shape) == 4, f"an output shape of rank {len(shape)}")
    source, weights = reordered(x.shape, g.data), reordered(shape, g.weights)
    window = _depthwise_window(b, g, source, weights)
    wanted = (source[0], *window.output(b, source[1:-1]), source[-1])
    given = reordered(incoming.shape, g.data)
    b.need(given == wanted, f"a gradient of {given} where {wanted} comes from {source} (NHWC)")
    lost = any(p != (0, 0) for p in window.pads)
    if lost:
        b.fault("depthwise_weights_gradient_padding", "the padding is ignored: pad before, VALID")

    def compute(gv: np.ndarray, xv: np.ndarray) -> np.ndarray:
        xv = xv.transpose(g.data)
        if lost:
            # The source is read from its corner on, and zeros beyond its end.
            ends = [(0, sum(p)) for p in window.pads]
            xv = np.pad(xv, [(0, 0), *ends, (0, 0)])
        bare = Window(
            window.kernel,
            window.strides,
            window.dilations,
            ((0, 0), (0, 0)) if lost else window.pads,
            window.groups,
        )
        out = weights_gradient(gv.transpose(g.data), xv, bare, (*weights[:-2], 1, source[-1]))
        return _as_groups(out).transpose(back(g.weights))

    return b.one([incoming, x], tuple(shape), kind, compute)


def transpose_data_gradient(
    b: Builder, incoming: Object, w: Object, shape: Sequence[int], descriptor: Object
) -> Object:
    """The gradient of a transposed convolution's source is the convolution itself."""
    out = _convolution(4)(b, incoming, w, descriptor)
    b.need(out.shape == tuple(shape), f"{out.shape} comes out, not {tuple(shape)}")
    return out


def _names() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for rank in (4, 5):
        name = f"convolution{rank - 2}D"
        found[f"{name}WithSourceTensor:weightsTensor:descriptor:name:"] = _convolution(rank)
    gradients = {
        "convolution2D": (_data_gradient(4), _weights_gradient(4)),
        "convolution3D": (_data_gradient(5), _weights_gradient(5)),
        "convolutionTranspose2D": (transpose_data_gradient, _weights_gradient(4, swapped=True)),
    }
    last = "forwardConvolutionDescriptor:name:"
    for name, (data, weights) in gradients.items():
        for form, wrap in (("outputShape:", lambda r: r), ("outputShapeTensor:", _third)):
            start = f"{name}DataGradientWithIncomingGradientTensor:weightsTensor:{form}"
            found[start + last] = wrap(data)
            start = f"{name}WeightsGradientWithIncomingGradientTensor:sourceTensor:{form}"
            found[start + last] = wrap(weights)
    start = "convolutionTranspose2DWithSourceTensor:weightsTensor:"
    transposed = _data_gradient(4, transposed=True)
    found[f"{start}outputShape:descriptor:name:"] = transposed
    found[f"{start}outputShapeTensor:descriptor:name:"] = _third(transposed)
    return found


def _third(rule: Any) -> Any:
    return constants(rule, 2)


_DEPTHWISE = "depthwiseConvolution2D"
_GRADIENT = "GradientWithIncomingGradientTensor:"
RULES: dict[str, Any] = {
    **_names(),
    f"{_DEPTHWISE}WithSourceTensor:weightsTensor:descriptor:name:": depthwise,
    f"{_DEPTHWISE}Data{_GRADIENT}weightsTensor:outputShape:descriptor:name:": (
        depthwise_data_gradient
    ),
    f"{_DEPTHWISE}Weights{_GRADIENT}sourceTensor:outputShape:descriptor:name:": (
        depthwise_weights_gradient
    ),
}
