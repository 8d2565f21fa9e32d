"""Convolutions of each channel by itself (MPSGraphDepthwiseConvolutionOps)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from stepgraph.errors import DTypeError
from stepgraph.graph.core import GraphCore
from stepgraph.graph.definition import (
    Array,
    Gradients,
    Grads,
    Misuse,
    OpDefinition,
    Sample,
    arrived,
    require_float,
    require_rank,
    require_same_dtype,
    require_shape,
)
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import Spec, bad_shape, known_shape
from stepgraph.graph.tensor import Tensor
from stepgraph.graph.windows import (
    NO_PADS,
    WEIGHTS_LAYOUTS,
    PadsLike,
    PairLike,
    Window,
    accumulator,
    as_choice,
    as_pair,
    checked,
    cropped,
    data_shape,
    from_hwio,
    from_nhwc,
    hwio_sizes,
    known_output,
    nhwc_sizes,
    padded,
    to_hwio,
    to_nhwc,
    window_attributes,
)

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph


def depthwise_attributes(
    strides: PairLike = (1, 1),
    dilations: PairLike = (1, 1),
    padding: str = "TF_VALID",
    explicit_padding: PadsLike = NO_PADS,
    data_layout: str = "NHWC",
    weights_layout: str = "HWIO",
) -> dict[str, Any]:
    """The attributes stored, from what a user may write; raises a misfit."""
    return {
        **window_attributes(strides, padding, explicit_padding, data_layout),
        "dilations": as_pair(dilations, "dilations"),
        "weights_layout": as_choice(weights_layout, "weights_layout", WEIGHTS_LAYOUTS),
    }


# -- inference -----------------------------------------------------------------------------------


def _infer(source: Spec, weights: Spec, **attributes: Any) -> Spec:
    require_float(source, weights)
    require_same_dtype(source, weights)
    require_rank(source, 4, "source")
    require_rank(weights, 4, "weights")
    layout = attributes["data_layout"]
    batch, height, width, channels = nhwc_sizes(source.shape, layout)
    *kernel, wanted, multiplier = hwio_sizes(weights.shape, attributes["weights_layout"])
    if channels is not None and wanted is not None and channels != wanted:
        raise bad_shape(
            f"the source has {channels} channels, the weights are for {wanted}",
            expected="weights (kernel height, kernel width, channels, multiplier)",
            fix="check data_layout and weights_layout",
        )
    channels = wanted if channels is None else channels
    out = None if channels is None or multiplier is None else channels * multiplier
    windows = Window.of(kernel, attributes).output((height, width))
    return Spec(data_shape(batch, windows, out, layout), source.dtype)


def _check_incoming(incoming: Spec, forward: Spec) -> None:
    require_same_dtype(incoming, forward)
    require_shape(
        incoming.shape, forward.shape, "the incoming gradient", "the convolution's output"
    )


def _data_infer(incoming: Spec, weights: Spec, like: Spec, **attributes: Any) -> Spec:
    _check_incoming(incoming, _infer(like, weights, **attributes))
    return like


def _weights_infer(incoming: Spec, source: Spec, like: Spec, **attributes: Any) -> Spec:
    _check_incoming(incoming, _infer(source, like, **attributes))
    return like


# -- NumPy meaning -------------------------------------------------------------------------------


def _prepared(attributes: dict[str, Any], data: Array, weights: Array) -> Any:
    """Data in NHWC, weights in HWIO, in the dtype to add up in, and the window."""
    dtype = accumulator(data.dtype)
    x = to_nhwc(data, attributes["data_layout"]).astype(dtype, copy=False)
    w = to_hwio(weights, attributes["weights_layout"]).astype(dtype, copy=False)
    return x, w, Window.of(w.shape[:2], attributes)


def _reference(source: Array, weights: Array, **attributes: Any) -> Array:
    x, w, window = _prepared(attributes, source, weights)
    sizes = (x.shape[1], x.shape[2])
    output = known_output(window, sizes)
    x = padded(x, window.pads(sizes))
    made = np.zeros((x.shape[0], *output, *w.shape[2:]), x.dtype)
    for i, j, index in window.slices(output):
        made += x[index][..., None] * w[i, j]
    flat = made.reshape(x.shape[0], *output, w.shape[2] * w.shape[3])
    return from_nhwc(flat.astype(source.dtype, copy=False), attributes["data_layout"])


def _data_reference(incoming: Array, weights: Array, like: Array, **attributes: Any) -> Array:
    grad, w, window = _prepared(attributes, incoming, weights)
    n, height, width, c = to_nhwc(like, attributes["data_layout"]).shape
    output, pads = (grad.shape[1], grad.shape[2]), window.pads((height, width))
    grad = grad.reshape(n, *output, *w.shape[2:])
    result = padded(np.zeros((n, height, width, c), grad.dtype), pads)
    for i, j, index in window.slices(output):
        result[index] += np.sum(grad * w[i, j], axis=-1)
    made = cropped(result, pads).astype(incoming.dtype, copy=False)
    return from_nhwc(made, attributes["data_layout"])


def _weights_reference(incoming: Array, source: Array, like: Array, **attributes: Any) -> Array:
    x, w, window = _prepared(attributes, source, like)
    grad, _, _ = _prepared(attributes, incoming, like)
    output = (grad.shape[1], grad.shape[2])
    grad = grad.reshape(x.shape[0], *output, *w.shape[2:])
    x = padded(x, window.pads((x.shape[1], x.shape[2])))
    made = np.zeros(w.shape, x.dtype)
    for i, j, index in window.slices(output):
        made[i, j] = np.sum(x[index][..., None] * grad, axis=(0, 1, 2))
    return from_hwio(made.astype(incoming.dtype, copy=False), attributes["weights_layout"])


# -- as convolutions with one group per channel ---------------------------------------------------


def _grouped(graph: Graph, weights: Tensor, layout: str) -> Tensor:
    """The weights of that convolution: one input channel per group, `multiplier` outputs."""
    if layout == "OIHW":
        weights = graph.permute(weights, (1, 0, 2, 3))
        c, m, kh, kw = known_shape(weights.shape)
        return graph.reshape(weights, (c * m, 1, kh, kw))
    kh, kw, c, m = known_shape(weights.shape)
    return graph.reshape(weights, (kh, kw, 1, c * m))


def _settings(weights: Tensor, attributes: dict[str, Any]) -> dict[str, Any]:
    channels = hwio_sizes(weights.shape, attributes["weights_layout"])[2]
    return {**attributes, "groups": channels}


def _decompose(graph: Graph, source: Tensor, weights: Tensor, **attributes: Any) -> Tensor:
    w = _grouped(graph, weights, attributes["weights_layout"])
    return graph.convolution_2d(source, w, **_settings(weights, attributes))


def _data_decompose(
    graph: Graph, incoming: Tensor, weights: Tensor, like: Tensor, **attributes: Any
) -> Tensor:
    w = _grouped(graph, weights, attributes["weights_layout"])
    settings = _settings(weights, attributes)
    return graph.convolution_2d_data_gradient(incoming, w, like, **settings)


def _weights_decompose(
    graph: Graph, incoming: Tensor, source: Tensor, like: Tensor, **attributes: Any
) -> Tensor:
    w = _grouped(graph, like, attributes["weights_layout"])
    settings = _settings(like, attributes)
    made = graph.convolution_2d_weights_gradient(incoming, source, w, **settings)
    if attributes["weights_layout"] == "HWIO":
        return graph.reshape(made, known_shape(like.shape))
    m, c, kh, kw = known_shape(like.shape)
    return graph.permute(graph.reshape(made, (c, m, kh, kw)), (1, 0, 2, 3))


# -- gradients: the three are one trilinear form, so each one's gradients are the other two -------


def _gradient(op: Operation, grads: Grads) -> Gradients:
    g, (source, weights), grad, settings = op.graph, op.inputs, arrived(grads), op.attributes
    return [
        g.depthwise_convolution_2d_data_gradient(grad, weights, source, **settings),
        g.depthwise_convolution_2d_weights_gradient(grad, source, weights, **settings),
    ]


def _data_gradient(op: Operation, grads: Grads) -> Gradients:
    g, (incoming, weights, _), grad, settings = op.graph, op.inputs, arrived(grads), op.attributes
    return [
        g.depthwise_convolution_2d(grad, weights, **settings),
        g.depthwise_convolution_2d_weights_gradient(incoming, grad, weights, **settings),
        None,
    ]


def _weights_gradient(op: Operation, grads: Grads) -> Gradients:
    g, (incoming, source, _), grad, settings = op.graph, op.inputs, arrived(grads), op.attributes
    return [
        g.depthwise_convolution_2d(source, grad, **settings),
        g.depthwise_convolution_2d_data_gradient(incoming, grad, source, **settings),
        None,
    ]


# -- samples -------------------------------------------------------------------------------------

# (label, source NHWC, weights HWIO, settings)
CASES: tuple[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ("3x3 same", (2, 5, 6, 3), (3, 3, 3, 1), {"padding": "TF_SAME"}),
    ("multiplier", (1, 5, 4, 3), (2, 3, 3, 2), {}),
    ("stride 2", (1, 7, 6, 17), (3, 3, 17, 1), {"strides": 2, "padding": "TF_SAME"}),
    ("stride 3 by 1", (2, 8, 5, 1), (3, 2, 1, 3), {"strides": (3, 1)}),
    ("dilation", (1, 8, 9, 2), (3, 2, 2, 2), {"dilations": (2, 3)}),
    (
        "explicit",
        (1, 5, 5, 2),
        (3, 3, 2, 1),
        {"padding": "explicit", "explicit_padding": ((1, 0), (2, 1)), "strides": 2},
    ),
    ("empty batch", (0, 5, 5, 2), (3, 3, 2, 1), {}),
)


def _cases(rng: np.random.Generator) -> Iterator[tuple[str, Array, Array, Array, dict[str, Any]]]:
    """(label, source, weights, incoming, settings), some of them in the other layouts."""
    for i, (label, source, weights, settings) in enumerate(CASES):
        x, w = (rng.standard_normal(shape).astype("float32") for shape in (source, weights))
        window = Window.of(weights[:2], depthwise_attributes(**settings))
        output = known_output(window, (source[1], source[2]))
        out = weights[2] * weights[3]
        incoming = rng.standard_normal((source[0], *output, out)).astype("float32")
        yield label, x, w, incoming, settings
        if i % 2:
            other = {**settings, "data_layout": "NCHW", "weights_layout": "OIHW"}
            x, incoming = from_nhwc(x, "NCHW"), from_nhwc(incoming, "NCHW")
            yield f"{label} NCHW", x, from_hwio(w, "OIHW"), incoming, other


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    for label, x, w, _, settings in _cases(rng):
        yield Sample((x, w), settings, label=label)


def _data_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for label, x, w, incoming, settings in _cases(rng):
        yield Sample((incoming, w, x), settings, differentiable=(0, 1), label=label)


def _weights_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for label, x, w, incoming, settings in _cases(rng):
        yield Sample((incoming, x, w), settings, differentiable=(0, 1), label=label)


def _misuses() -> Iterator[Misuse]:
    def conv(source: tuple[int, ...], weights: tuple[int, ...], **settings: Any) -> Any:
        return lambda g: g.depthwise_convolution_2d(
            g.placeholder(source), g.placeholder(weights), **settings
        )

    yield Misuse(conv((1, 5, 5, 3), (3, 3, 1, 3)), "has 3 channels, the weights are for 1")
    yield Misuse(conv((1, 2, 5, 3), (3, 3, 3, 1)), "covers 3 pixels of height, the source has 2")
    yield Misuse(conv((1, 5, 5, 3), (3, 3, 3)), "weights has rank 3")
    yield Misuse(conv((1, 5, 5, 3), (3, 3, 3, 1), dilations=0), "dilations=0")
    yield Misuse(
        lambda g: g.depthwise_convolution_2d(
            g.placeholder((1, 5, 5, 3), "int32"), g.placeholder((3, 3, 3, 1), "int32")
        ),
        "needs floating point",
        DTypeError,
    )


def _data_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.depthwise_convolution_2d_data_gradient(
            g.placeholder((1, 4, 3, 3)), g.placeholder((3, 3, 3, 1)), g.placeholder((1, 5, 5, 3))
        ),
        r"output \(1, 3, 3, 3\)",
    )


def _weights_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.depthwise_convolution_2d_weights_gradient(
            g.placeholder((1, 3, 3, 4)), g.placeholder((1, 5, 5, 3)), g.placeholder((3, 3, 3, 2))
        ),
        r"output \(1, 3, 3, 6\)",
    )


DEPTHWISE_CONVOLUTION_2D = OpDefinition(
    "depthwise_convolution_2d",
    inputs=("source", "weights"),
    infer=_infer,
    reference=_reference,
    gradient=_gradient,
    decompose=_decompose,
    mpsgraph="depthwiseConvolution2DWithSourceTensor:weightsTensor:descriptor:name:",
    samples=_samples,
    misuses=_misuses,
)
# Not `shape_only`: ops so marked that have a decomposition are always replaced by it.
DEPTHWISE_CONVOLUTION_2D_DATA_GRADIENT = OpDefinition(
    "depthwise_convolution_2d_data_gradient",
    inputs=("incoming", "weights", "like"),
    infer=_data_infer,
    reference=_data_reference,
    gradient=_data_gradient,
    decompose=_data_decompose,
    mpsgraph=(
        "depthwiseConvolution2DDataGradientWithIncomingGradientTensor:weightsTensor:outputShape:"
        "descriptor:name:"
    ),
    samples=_data_samples,
    misuses=_data_misuses,
)
DEPTHWISE_CONVOLUTION_2D_WEIGHTS_GRADIENT = OpDefinition(
    "depthwise_convolution_2d_weights_gradient",
    inputs=("incoming", "source", "like"),
    infer=_weights_infer,
    reference=_weights_reference,
    gradient=_weights_gradient,
    decompose=_weights_decompose,
    mpsgraph=(
        "depthwiseConvolution2DWeightsGradientWithIncomingGradientTensor:sourceTensor:outputShape:"
        "descriptor:name:"
    ),
    samples=_weights_samples,
    misuses=_weights_misuses,
)

DEFINITIONS = (
    DEPTHWISE_CONVOLUTION_2D,
    DEPTHWISE_CONVOLUTION_2D_DATA_GRADIENT,
    DEPTHWISE_CONVOLUTION_2D_WEIGHTS_GRADIENT,
)


class DepthwiseConvolutionOps(GraphCore):
    """Convolutions of each channel by itself."""

    def depthwise_convolution_2d(
        self,
        source: Tensor,
        weights: Tensor,
        strides: PairLike = (1, 1),
        dilations: PairLike = (1, 1),
        padding: str = "TF_VALID",
        explicit_padding: PadsLike = NO_PADS,
        data_layout: str = "NHWC",
        weights_layout: str = "HWIO",
        name: str | None = None,
    ) -> Tensor:
        """Convolves each channel by itself with `multiplier` kernels of its own.

        Output channel ``c * multiplier + m`` is channel `c` with its kernel `m`.

        Args:
            source: float tensor (batch, height, width, channels), or NCHW.
            weights: (kernel height, kernel width, channels, multiplier), or in OIHW
                (multiplier, channels, kernel height, kernel width).
            strides: steps between two windows: one number, or (height, width).
            dilations: steps between two taps.
            padding: ``"TF_VALID"``, ``"TF_SAME"`` or ``"explicit"``, as in `convolution_2d`.
            explicit_padding: ((top, bottom), (left, right)) zeros, for explicit padding.
            data_layout: ``"NHWC"`` or ``"NCHW"``, of source and result.
            weights_layout: ``"HWIO"`` or ``"OIHW"``.
            name: label in printed graphs and errors.

        Returns:
            Tensor (batch, output height, output width, channels * multiplier), or NCHW.

        Raises:
            ShapeError: a rank is not 4, the channels differ, the window is larger than the padded
                source, or a setting is none of those above.
            DTypeError: an operand is not floating point, or they differ in dtype.

        Source: MPSGraph ``depthwiseConvolution2DWithSourceTensor:weightsTensor:descriptor:name:``;
        Keras ``DepthwiseConv2D``.

        Example:
            >>> import numpy as np
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.placeholder((None, 8, 8, 16))
            >>> w = graph.variable(np.zeros((3, 3, 16, 2), "float32"))
            >>> graph.depthwise_convolution_2d(x, w, padding="TF_SAME")
            <Tensor 'depthwise_convolution_2d' float32 (?, 8, 8, 32)>
        """
        settings = {
            "strides": strides,
            "dilations": dilations,
            "padding": padding,
            "explicit_padding": explicit_padding,
            "data_layout": data_layout,
            "weights_layout": weights_layout,
        }
        return self._depthwise(DEPTHWISE_CONVOLUTION_2D, (source, weights), settings, name)

    def depthwise_convolution_2d_data_gradient(
        self,
        incoming: Tensor,
        weights: Tensor,
        like: Tensor,
        name: str | None = None,
        **settings: Any,
    ) -> Tensor:
        """The gradient of `depthwise_convolution_2d` with respect to its source.

        Args:
            incoming: gradient of the convolution's output.
            weights: those of the convolution.
            like: a tensor of the source's shape, which is all that is read of it.
            name: label.
            **settings: the convolution's: strides, dilations, padding, ...

        Source: MPSGraph ``depthwiseConvolution2DDataGradientWithIncomingGradientTensor:...``.
        """
        inputs = (incoming, weights, like)
        return self._depthwise(DEPTHWISE_CONVOLUTION_2D_DATA_GRADIENT, inputs, settings, name)

    def depthwise_convolution_2d_weights_gradient(
        self,
        incoming: Tensor,
        source: Tensor,
        like: Tensor,
        name: str | None = None,
        **settings: Any,
    ) -> Tensor:
        """The gradient of `depthwise_convolution_2d` with respect to its weights.

        Args:
            incoming: gradient of the convolution's output.
            source: that of the convolution.
            like: a tensor of the weights' shape, which is all that is read of it.
            name: label.
            **settings: the convolution's: strides, dilations, padding, ...

        Source: MPSGraph ``depthwiseConvolution2DWeightsGradientWithIncomingGradientTensor:...``.
        """
        inputs = (incoming, source, like)
        return self._depthwise(DEPTHWISE_CONVOLUTION_2D_WEIGHTS_GRADIENT, inputs, settings, name)

    def _depthwise(
        self,
        definition: OpDefinition,
        inputs: tuple[Tensor, ...],
        settings: dict[str, Any],
        name: str | None,
    ) -> Tensor:
        attributes = checked(
            self, definition, inputs, name, lambda: depthwise_attributes(**settings)
        )
        return self._one(definition, inputs, attributes, name=name)
