"""Convolutions over height and width, and their gradients (MPSGraphConvolutionOps)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
    bad_dtype,
    require_float,
    require_rank,
    require_same_dtype,
    require_shape,
)
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.convolution_numpy import (
    data_gradient_reference,
    reference,
    weights_gradient_reference,
)
from stepgraph.graph.shapes import Shape, Spec, bad_shape
from stepgraph.graph.tensor import Tensor
from stepgraph.graph.windows import (
    NO_PADS,
    WEIGHTS_LAYOUTS,
    PadsLike,
    Pair,
    PairLike,
    Window,
    as_choice,
    as_pair,
    checked,
    data_shape,
    from_hwio,
    from_nhwc,
    hwio_sizes,
    known_output,
    nhwc_sizes,
    resolve_padding,
    window_attributes,
)

__all__ = ["DEFINITIONS", "ConvolutionOps", "convolution_attributes", "resolve_padding"]


# -- inference -----------------------------------------------------------------------------------


def _window(weights: Spec, attributes: dict[str, Any]) -> Window:
    return Window.of(hwio_sizes(weights.shape, attributes["weights_layout"])[:2], attributes)


def _require(source: Spec, weights: Spec, what: str) -> None:
    require_float(source, weights)
    require_same_dtype(source, weights)
    require_rank(source, 4, what)
    require_rank(weights, 4, "weights")


def _channels(weights: Spec, attributes: dict[str, Any]) -> tuple[int | None, int | None]:
    """Channels of the source and of the output, by the weights."""
    *_, per_group, out = hwio_sizes(weights.shape, attributes["weights_layout"])
    groups = attributes["groups"]
    if out is not None and out % groups:
        raise bad_shape(
            f"{out} output channels cannot be split into {groups} groups",
            expected=f"a multiple of {groups}",
        )
    return None if per_group is None else per_group * groups, out


def _clash(a: int | None, b: int | None) -> bool:
    return a is not None and b is not None and a != b


def _infer(source: Spec, weights: Spec, **attributes: Any) -> Spec:
    _require(source, weights, "source")
    layout = attributes["data_layout"]
    batch, *sizes, channels = nhwc_sizes(source.shape, layout)
    wanted, out = _channels(weights, attributes)
    if _clash(channels, wanted):
        raise bad_shape(
            f"the source has {channels} channels, the weights are for {wanted}",
            expected=f"{layout} data; {attributes['weights_layout']} weights "
            "with in = channels / groups",
            fix="check data_layout, weights_layout and groups",
        )
    windows = _window(weights, attributes).output((sizes[0], sizes[1]))
    return Spec(data_shape(batch, windows, out, layout), source.dtype)


def _check_incoming(incoming: Spec, forward: Shape) -> None:
    require_shape(incoming.shape, forward, "the incoming gradient", "the convolution's output")


def _data_infer(
    incoming: Spec,
    weights: Spec,
    like: Spec | None = None,
    *,
    output_size: Pair | None,
    **attributes: Any,
) -> Spec:
    _require(incoming, weights, "incoming")
    layout = attributes["data_layout"]
    channels, _ = _channels(weights, attributes)
    batch = nhwc_sizes(incoming.shape, layout)[0]
    if like is not None:
        require_rank(like, 4, "like")
        shape = like.shape
    elif output_size is not None:
        shape = data_shape(batch, output_size, channels, layout)
    else:
        raise bad_shape(
            "the size of the result is not given: several source sizes have this output size",
            expected="like, a tensor of the source's shape, or output_size=(height, width)",
        )
    source = Spec(shape, incoming.dtype)
    _check_incoming(incoming, _infer(source, weights, **attributes).shape)
    return source


def _weights_infer(incoming: Spec, source: Spec, like: Spec, **attributes: Any) -> Spec:
    _require(source, like, "source")
    require_float(incoming)
    require_same_dtype(incoming, source)
    _check_incoming(incoming, _infer(source, like, **attributes).shape)
    return like


# -- gradients: the three are one trilinear form, so each one's gradients are the other two -------


def _gradient(op: Operation, grads: Grads) -> Gradients:
    g, (source, weights), grad, settings = op.graph, op.inputs, arrived(grads), op.attributes
    return [
        g.convolution_2d_data_gradient(grad, weights, source, **settings),
        g.convolution_2d_weights_gradient(grad, source, weights, **settings),
    ]


def _data_gradient(op: Operation, grads: Grads) -> Gradients:
    g, (incoming, weights), grad = op.graph, op.inputs[:2], arrived(grads)
    settings = {k: v for k, v in op.attributes.items() if k != "output_size"}
    found = [
        g.convolution_2d(grad, weights, **settings),
        g.convolution_2d_weights_gradient(incoming, grad, weights, **settings),
    ]
    return found if len(op.inputs) == 2 else [*found, None]


def _weights_gradient(op: Operation, grads: Grads) -> Gradients:
    g, (incoming, source, _), grad, settings = op.graph, op.inputs, arrived(grads), op.attributes
    return [
        g.convolution_2d(source, grad, **settings),
        g.convolution_2d_data_gradient(incoming, grad, source, **settings),
        None,
    ]


# -- samples -------------------------------------------------------------------------------------

# (label, source NHWC, weights HWIO, settings)
CASES: tuple[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ("3x3 same", (2, 5, 6, 3), (3, 3, 3, 4), {"padding": "TF_SAME"}),
    ("valid", (1, 5, 7, 3), (3, 2, 3, 2), {}),
    ("stride 2 same odd", (2, 7, 5, 3), (3, 3, 3, 4), {"padding": "TF_SAME", "strides": 2}),
    ("stride 2 same even", (1, 6, 8, 1), (3, 3, 1, 2), {"padding": "TF_SAME", "strides": 2}),
    ("stride 3 by 1", (2, 8, 5, 2), (2, 3, 2, 3), {"strides": (3, 1)}),
    ("stride above kernel", (1, 7, 8, 3), (1, 1, 3, 2), {"strides": (2, 3)}),
    ("stride above kernel same", (1, 7, 8, 3), (1, 2, 3, 2), {"strides": 3, "padding": "same"}),
    ("1x1", (2, 3, 4, 17), (1, 1, 17, 3), {}),
    ("17 channels", (1, 4, 4, 17), (3, 3, 17, 5), {"padding": "TF_SAME"}),
    ("dilation", (1, 9, 8, 2), (3, 2, 2, 3), {"dilations": (2, 3)}),
    ("dilation same", (1, 7, 8, 2), (3, 3, 2, 2), {"dilations": 2, "padding": "TF_SAME"}),
    (
        "explicit uneven",
        (2, 5, 6, 3),
        (3, 3, 3, 2),
        {"padding": "explicit", "explicit_padding": ((2, 0), (1, 3)), "strides": 2},
    ),
    (
        "7x7 stride 2",
        (1, 11, 12, 3),
        (7, 7, 3, 4),
        {"padding": "explicit", "explicit_padding": ((3, 3), (3, 3)), "strides": 2},
    ),
    ("groups", (2, 5, 5, 6), (3, 3, 2, 9), {"groups": 3, "padding": "TF_SAME"}),
    ("groups stride", (1, 6, 6, 4), (2, 2, 1, 8), {"groups": 4, "strides": 2}),
    ("kernel as large as source", (2, 3, 4, 2), (3, 4, 2, 5), {}),
    ("empty batch", (0, 5, 5, 2), (3, 3, 2, 3), {}),
    ("1 pixel same", (1, 1, 1, 2), (3, 3, 2, 3), {"padding": "TF_SAME", "strides": 2}),
)


def _cases(rng: np.random.Generator) -> Iterator[tuple[str, Array, Array, Array, dict[str, Any]]]:
    """(label, source, weights, incoming, settings), some of them in the other layouts."""
    for i, (label, source, weights, settings) in enumerate(CASES):
        x, w = (rng.standard_normal(shape).astype("float32") for shape in (source, weights))
        full = convolution_attributes(**settings)
        window = Window.of(weights[:2], full)
        output = known_output(window, (source[1], source[2]))
        incoming = rng.standard_normal((source[0], *output, weights[3])).astype("float32")
        yield label, x, w, incoming, settings
        if i % 3 == 0:
            x, incoming = from_nhwc(x, "NCHW"), from_nhwc(incoming, "NCHW")
            w = from_hwio(w, "OIHW")
            other = {**settings, "data_layout": "NCHW", "weights_layout": "OIHW"}
            yield f"{label} NCHW", x, w, incoming, other


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    for label, x, w, _, settings in _cases(rng):
        yield Sample((x, w), settings, label=label)


def _data_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for label, x, w, incoming, settings in _cases(rng):
        yield Sample((incoming, w, x), settings, differentiable=(0, 1), label=label)
    sized = {"output_size": (6, 5), "strides": 2}
    incoming, w = (rng.standard_normal(s).astype("float32") for s in ((2, 2, 2, 4), (3, 3, 3, 4)))
    yield Sample((incoming, w), sized, label="size given")


def _weights_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for label, x, w, incoming, settings in _cases(rng):
        yield Sample((incoming, x, w), settings, differentiable=(0, 1), label=label)


def _misuses() -> Iterator[Misuse]:
    def conv(source: Shape, weights: Shape, **settings: Any) -> Any:
        return lambda g: g.convolution_2d(g.placeholder(source), g.placeholder(weights), **settings)

    yield Misuse(conv((1, 5, 5, 3), (3, 3, 4, 2)), "has 3 channels, the weights are for 4")
    yield Misuse(conv((1, 3, 5, 5), (3, 3, 3, 2)), "check data_layout")
    yield Misuse(conv((1, 2, 5, 3), (3, 3, 3, 2)), "covers 3 pixels of height, the source has 2")
    yield Misuse(
        conv((1, 5, 5, 3), (3, 3, 3, 2), dilations=3), "covers 7 pixels of height, the source has 5"
    )
    yield Misuse(conv((1, 5, 5, 4), (3, 3, 2, 3), groups=2), "3 output channels cannot be split")
    yield Misuse(conv((1, 5, 5, 3), (3, 3, 3, 2), padding="TF_SMAE"), "TF_SAME")
    yield Misuse(conv((1, 5, 5, 3), (3, 3, 3, 2), strides=0), "strides=0")
    yield Misuse(conv((1, 5, 5, 3), (3, 3, 3, 2), groups=0), "groups=0")
    yield Misuse(
        conv((1, 5, 5, 3), (3, 3, 3, 2), explicit_padding=((1, 1), (1, 1))), "would ignore it"
    )
    yield Misuse(
        conv((1, 5, 5, 3), (3, 3, 3, 2), padding="explicit", explicit_padding=(1, 1)),
        r"expected: \(\(top, bottom\), \(left, right\)\)",
    )
    yield Misuse(conv((5, 5, 3), (3, 3, 3, 2)), "source has rank 3")
    yield Misuse(conv((1, 5, 5, 3), (None, 3, 3, 2)), r"the kernel is \? x 3")
    yield Misuse(
        lambda g: g.convolution_2d(
            g.placeholder((1, 5, 5, 3), "float64"), g.placeholder((3, 3, 3, 2))
        ),
        "different dtypes: float64 and float32",
        DTypeError,
    )


def _data_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.convolution_2d_data_gradient(
            g.placeholder((1, 4, 3, 2)), g.placeholder((3, 3, 3, 2)), g.placeholder((1, 5, 5, 3))
        ),
        r"output \(1, 3, 3, 2\)",
    )
    yield Misuse(
        lambda g: g.convolution_2d_data_gradient(
            g.placeholder((1, 3, 3, 2)), g.placeholder((3, 3, 3, 2))
        ),
        "size of the result is not given",
    )


def _weights_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.convolution_2d_weights_gradient(
            g.placeholder((1, 3, 3, 4)), g.placeholder((1, 5, 5, 3)), g.placeholder((3, 3, 3, 2))
        ),
        r"output \(1, 3, 3, 2\)",
    )


CONVOLUTION_2D = OpDefinition(
    "convolution_2d",
    inputs=("source", "weights"),
    infer=_infer,
    reference=reference,
    gradient=_gradient,
    mpsgraph="convolution2DWithSourceTensor:weightsTensor:descriptor:name:",
    samples=_samples,
    misuses=_misuses,
)
CONVOLUTION_2D_DATA_GRADIENT = OpDefinition(
    "convolution_2d_data_gradient",
    inputs=("incoming", "weights", "like"),
    infer=_data_infer,
    reference=data_gradient_reference,
    gradient=_data_gradient,
    shape_only=(2,),
    mpsgraph=(
        "convolution2DDataGradientWithIncomingGradientTensor:weightsTensor:outputShape:"
        "forwardConvolutionDescriptor:name:"
    ),
    samples=_data_samples,
    misuses=_data_misuses,
)
CONVOLUTION_2D_WEIGHTS_GRADIENT = OpDefinition(
    "convolution_2d_weights_gradient",
    inputs=("incoming", "source", "like"),
    infer=_weights_infer,
    reference=weights_gradient_reference,
    gradient=_weights_gradient,
    shape_only=(2,),
    mpsgraph=(
        "convolution2DWeightsGradientWithIncomingGradientTensor:sourceTensor:outputShape:"
        "forwardConvolutionDescriptor:name:"
    ),
    samples=_weights_samples,
    misuses=_weights_misuses,
)

DEFINITIONS = (CONVOLUTION_2D, CONVOLUTION_2D_DATA_GRADIENT, CONVOLUTION_2D_WEIGHTS_GRADIENT)


def convolution_attributes(
    strides: PairLike = (1, 1),
    dilations: PairLike = (1, 1),
    groups: int = 1,
    padding: str = "TF_VALID",
    explicit_padding: PadsLike = NO_PADS,
    data_layout: str = "NHWC",
    weights_layout: str = "HWIO",
) -> dict[str, Any]:
    """The attributes stored, from what a user may write; raises a misfit."""
    if isinstance(groups, bool) or not isinstance(groups, int | np.integer):
        raise bad_dtype(f"groups={groups!r}", expected="an integer of 1 or more")
    if groups < 1:
        raise bad_shape(f"groups={groups}", expected="an integer of 1 or more")
    return {
        **window_attributes(strides, padding, explicit_padding, data_layout),
        "dilations": as_pair(dilations, "dilations"),
        "groups": int(groups),
        "weights_layout": as_choice(weights_layout, "weights_layout", WEIGHTS_LAYOUTS),
    }


class ConvolutionOps(GraphCore):
    """Convolutions over height and width."""

    def convolution_2d(
        self,
        source: Tensor,
        weights: Tensor,
        strides: PairLike = (1, 1),
        dilations: PairLike = (1, 1),
        groups: int = 1,
        padding: str = "TF_VALID",
        explicit_padding: PadsLike = NO_PADS,
        data_layout: str = "NHWC",
        weights_layout: str = "HWIO",
        name: str | None = None,
    ) -> Tensor:
        """Slides weights over height and width (cross-correlation: they are not flipped).

        With TF_SAME an axis of `n` pixels gives ``ceil(n / stride)``; what has to be padded for
        that goes half before and half behind, the odd pixel behind. Otherwise it gives
        ``floor((n + padding - extent) / stride) + 1``, where the window's extent is
        ``(kernel - 1) * dilation + 1``.

        Args:
            source: float tensor (batch, height, width, channels), or NCHW.
            weights: (kernel height, kernel width, channels / groups, output channels), or OIHW.
            strides: steps between two windows: one number, or (height, width).
            dilations: steps between two taps.
            groups: parts that the channels are split into, each with weights of its own.
            padding: ``"TF_VALID"`` (none), ``"TF_SAME"`` or ``"explicit"``; ``"valid"`` and
                ``"same"`` will do.
            explicit_padding: ((top, bottom), (left, right)) zeros, for explicit padding.
            data_layout: ``"NHWC"`` or ``"NCHW"``, of source and result.
            weights_layout: ``"HWIO"`` or ``"OIHW"``.
            name: label in printed graphs and errors.

        Returns:
            Tensor (batch, output height, output width, output channels), or NCHW.

        Raises:
            ShapeError: a rank is not 4, the channels do not fit the weights and groups, the window
                is larger than the padded source, or a setting is none of those above.
            DTypeError: an operand is not floating point, or they differ in dtype.

        Source: MPSGraph ``convolution2DWithSourceTensor:weightsTensor:descriptor:name:``.

        Example:
            >>> import numpy as np
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.placeholder((None, 32, 32, 3))
            >>> w = graph.variable(np.zeros((3, 3, 3, 16), "float32"))
            >>> graph.convolution_2d(x, w, strides=2, padding="TF_SAME")
            <Tensor 'convolution_2d' float32 (?, 16, 16, 16)>
        """
        attributes = checked(
            self,
            CONVOLUTION_2D,
            (source, weights),
            name,
            lambda: convolution_attributes(
                strides, dilations, groups, padding, explicit_padding, data_layout, weights_layout
            ),
        )
        return self._one(CONVOLUTION_2D, (source, weights), attributes, name=name)

    def convolution_2d_data_gradient(
        self,
        incoming: Tensor,
        weights: Tensor,
        like: Tensor | None = None,
        output_size: Pair | None = None,
        name: str | None = None,
        **settings: Any,
    ) -> Tensor:
        """The gradient of `convolution_2d` with respect to its source.

        Args:
            incoming: gradient of the convolution's output.
            weights: those of the convolution.
            like: a tensor of the source's shape, which is all that is read of it.
            output_size: (height, width) of the source, where there is no `like`.
            name: label.
            **settings: the convolution's: strides, dilations, groups, padding, ...

        Returns:
            Tensor of the shape of the source.

        Raises:
            ShapeError: neither `like` nor `output_size` is given, or the shapes are not those of
                one convolution.

        Source: MPSGraph ``convolution2DDataGradientWithIncomingGradientTensor:...``.
        """
        inputs = (incoming, weights) if like is None else (incoming, weights, like)
        definition = CONVOLUTION_2D_DATA_GRADIENT

        def attributes() -> dict[str, Any]:
            size = None if output_size is None else as_pair(output_size, "output_size", 0)
            return {
                **convolution_attributes(**settings),
                "output_size": None if like is not None else size,
            }

        made = checked(self, definition, inputs, name, attributes)
        return self._one(definition, inputs, made, name=name)

    def convolution_2d_weights_gradient(
        self,
        incoming: Tensor,
        source: Tensor,
        like: Tensor,
        name: str | None = None,
        **settings: Any,
    ) -> Tensor:
        """The gradient of `convolution_2d` with respect to its weights.

        Args:
            incoming: gradient of the convolution's output.
            source: that of the convolution.
            like: a tensor of the weights' shape, which is all that is read of it.
            name: label.
            **settings: the convolution's: strides, dilations, groups, padding, ...

        Returns:
            Tensor of the shape of the weights.

        Raises:
            ShapeError: the shapes are not those of one convolution.

        Source: MPSGraph ``convolution2DWeightsGradientWithIncomingGradientTensor:...``.
        """
        inputs, definition = (incoming, source, like), CONVOLUTION_2D_WEIGHTS_GRADIENT
        attributes = checked(
            self, definition, inputs, name, lambda: convolution_attributes(**settings)
        )
        return self._one(definition, inputs, attributes, name=name)
