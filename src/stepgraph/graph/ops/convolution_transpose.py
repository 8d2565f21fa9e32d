"""Transposed convolutions (MPSGraphConvolutionTransposeOps): data gradients, used forward."""

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
)
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.convolution import (
    CONVOLUTION_2D,
    CONVOLUTION_2D_DATA_GRADIENT,
    convolution_attributes,
)
from stepgraph.graph.shapes import Spec, bad_shape, format_shape, known_shape, same_shape
from stepgraph.graph.tensor import Tensor
from stepgraph.graph.windows import (
    NO_PADS,
    PadsLike,
    Pair,
    PairLike,
    Window,
    as_pair,
    checked,
    data_shape,
    from_hwio,
    from_nhwc,
    hwio_sizes,
    nhwc_sizes,
)

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph


def _infer(source: Spec, weights: Spec, *, output_size: Pair | None, **attributes: Any) -> Spec:
    require_float(source, weights)
    require_same_dtype(source, weights)
    require_rank(source, 4, "source")
    require_rank(weights, 4, "weights")
    layout = attributes["data_layout"]
    batch, height, width, channels = nhwc_sizes(source.shape, layout)
    *kernel, per_group, wanted = hwio_sizes(weights.shape, attributes["weights_layout"])
    if channels is not None and wanted is not None and channels != wanted:
        raise bad_shape(
            f"the source has {channels} channels, the weights are for {wanted}",
            expected="weights of the convolution whose data gradient this is: "
            "(kernel height, kernel width, output channels / groups, source channels)",
            fix="check data_layout and weights_layout; Keras's Conv2DTranspose orders them alike",
        )
    sizes = output_size or Window.of(kernel, attributes).sizes_for((height, width))
    out = None if per_group is None else per_group * attributes["groups"]
    result = Spec(data_shape(batch, sizes, out, layout), source.dtype)
    forward = CONVOLUTION_2D.infer(result, weights, **attributes)
    assert isinstance(forward, Spec)
    if not same_shape(forward.shape, source.shape):
        raise bad_shape(
            f"an output of {' x '.join(str(s) for s in sizes)} pixels belongs to a source of "
            f"shape {format_shape(forward.shape)}, not {format_shape(source.shape)}",
            expected="an output_size that the forward convolution takes to the source's size",
            fix="leave output_size out for the usual one",
        )
    return result


def _sizes(result: Spec, layout: str) -> Pair:
    _, height, width, _ = known_shape(nhwc_sizes(result.shape, layout))
    return height, width


def _reference(source: Array, weights: Array, **attributes: Any) -> Array:
    from stepgraph.graph.dtypes import as_dtype

    dtype = as_dtype(source.dtype)
    result = _infer(Spec(source.shape, dtype), Spec(weights.shape, dtype), **attributes)
    settings = {**attributes, "output_size": _sizes(result, attributes["data_layout"])}
    assert CONVOLUTION_2D_DATA_GRADIENT.reference is not None
    return np.asarray(CONVOLUTION_2D_DATA_GRADIENT.reference(source, weights, **settings))


def _decompose(graph: Graph, source: Tensor, weights: Tensor, **attributes: Any) -> Tensor:
    result = _infer(source.spec, weights.spec, **attributes)
    settings = {**attributes, "output_size": _sizes(result, attributes["data_layout"])}
    return graph.convolution_2d_data_gradient(source, weights, **settings)


def _gradient(op: Operation, grads: Grads) -> Gradients:
    g, (source, weights), grad = op.graph, op.inputs, arrived(grads)
    settings = {k: v for k, v in op.attributes.items() if k != "output_size"}
    return [
        g.convolution_2d(grad, weights, **settings),
        g.convolution_2d_weights_gradient(source, grad, weights, **settings),
    ]


# (label, source NHWC, weights HWIO of the forward convolution, settings)
CASES: tuple[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ("same", (2, 4, 3, 3), (3, 3, 2, 3), {"padding": "TF_SAME"}),
    ("stride 2 same", (1, 3, 5, 2), (3, 3, 3, 2), {"strides": 2, "padding": "TF_SAME"}),
    ("stride 2 by 3", (2, 3, 2, 3), (3, 2, 1, 3), {"strides": (2, 3)}),
    ("stride above kernel", (1, 3, 2, 17), (2, 1, 3, 17), {"strides": 3}),
    ("dilation", (1, 4, 3, 2), (3, 2, 2, 2), {"dilations": 2, "strides": 2}),
    (
        "explicit",
        (1, 3, 3, 2),
        (4, 4, 3, 2),
        {"strides": 2, "padding": "explicit", "explicit_padding": ((1, 1), (0, 2))},
    ),
    ("size given", (1, 3, 3, 2), (3, 3, 3, 2), {"strides": 2, "output_shape": (8, 7)}),
    ("groups", (1, 3, 3, 4), (3, 3, 3, 4), {"groups": 2, "strides": 2}),
    ("empty batch", (0, 3, 3, 2), (3, 3, 1, 2), {"strides": 2}),
)


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    for i, (label, source, weights, settings) in enumerate(CASES):
        x, w = (rng.standard_normal(shape).astype("float32") for shape in (source, weights))
        yield Sample((x, w), settings, label=label)
        if i % 3 == 1:
            other = {**settings, "data_layout": "NCHW", "weights_layout": "OIHW"}
            yield Sample((from_nhwc(x, "NCHW"), from_hwio(w, "OIHW")), other, label=f"{label} NCHW")


def _misuses() -> Iterator[Misuse]:
    def build(dtype: str = "float32", **settings: Any) -> Any:
        return lambda g: g.convolution_transpose_2d(
            g.placeholder((1, 3, 3, 2), dtype), g.placeholder((3, 3, 4, 2), dtype), **settings
        )

    yield Misuse(build(strides=2, output_shape=(9, 8)), "an output of 9 x 8 pixels belongs to")
    yield Misuse(build(output_shape=5.0), "output_shape=5.0")
    yield Misuse(
        build(padding="explicit", explicit_padding=((6, 0), (0, 0))), "padding of height takes away"
    )
    yield Misuse(build("int32"), "needs floating point", DTypeError)
    yield Misuse(
        lambda g: g.convolution_transpose_2d(
            g.placeholder((1, 3, 3, 4)), g.placeholder((3, 3, 4, 2))
        ),
        "has 4 channels, the weights are for 2",
    )


CONVOLUTION_TRANSPOSE_2D = OpDefinition(
    "convolution_transpose_2d",
    inputs=("source", "weights"),
    infer=_infer,
    reference=_reference,
    gradient=_gradient,
    decompose=_decompose,
    mpsgraph="convolutionTranspose2DWithSourceTensor:weightsTensor:outputShape:descriptor:name:",
    samples=_samples,
    misuses=_misuses,
)

DEFINITIONS = (CONVOLUTION_TRANSPOSE_2D,)


class ConvolutionTransposeOps(GraphCore):
    """Transposed convolutions."""

    def convolution_transpose_2d(
        self,
        source: Tensor,
        weights: Tensor,
        output_shape: PairLike | None = None,
        strides: PairLike = (1, 1),
        dilations: PairLike = (1, 1),
        groups: int = 1,
        padding: str = "TF_VALID",
        explicit_padding: PadsLike = NO_PADS,
        data_layout: str = "NHWC",
        weights_layout: str = "HWIO",
        name: str | None = None,
    ) -> Tensor:
        """The transpose of a convolution: the data gradient of `convolution_2d`, used forward.

        All settings are those of that convolution, from the result back to the source. Without
        `output_shape` an axis of `n` pixels gives ``n * stride`` with TF_SAME,
        ``n * stride + max(extent - stride, 0)`` with TF_VALID (Keras's sizes), and
        ``(n - 1) * stride + extent - padding`` with explicit padding (PyTorch's).

        Args:
            source: float tensor (batch, height, width, channels), or NCHW.
            weights: (kernel height, kernel width, output channels / groups, channels), or OIHW
                (channels, output channels / groups, kernel height, kernel width).
            output_shape: (height, width) of the result, where several are possible.
            strides: how far apart the source's pixels land: one number, or (height, width).
            dilations: steps between two taps.
            groups: parts that the channels are split into, each with weights of its own.
            padding: ``"TF_VALID"``, ``"TF_SAME"`` or ``"explicit"``; what is cut off the result.
            explicit_padding: ((top, bottom), (left, right)) pixels cut off, for explicit padding.
            data_layout: ``"NHWC"`` or ``"NCHW"``, of source and result.
            weights_layout: ``"HWIO"`` or ``"OIHW"``.
            name: label in printed graphs and errors.

        Returns:
            Tensor (batch, output height, output width, output channels), or NCHW.

        Raises:
            ShapeError: a rank is not 4, the channels do not fit the weights, or no convolution with
                these settings takes `output_shape` to the size of the source.
            DTypeError: an operand is not floating point, or they differ in dtype.

        Source: Dumoulin and Visin, 2016 (arXiv:1603.07285), chapter 4; MPSGraph
        ``convolutionTranspose2DWithSourceTensor:weightsTensor:outputShape:descriptor:name:``; Keras
        ``Conv2DTranspose``.

        Example:
            >>> import numpy as np
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.placeholder((None, 8, 8, 16))
            >>> w = graph.variable(np.zeros((3, 3, 4, 16), "float32"))
            >>> graph.convolution_transpose_2d(x, w, strides=2, padding="TF_SAME")
            <Tensor 'convolution_transpose_2d' float32 (?, 16, 16, 4)>
        """
        definition, inputs = CONVOLUTION_TRANSPOSE_2D, (source, weights)

        def attributes() -> dict[str, Any]:
            size = None if output_shape is None else as_pair(output_shape, "output_shape", 0)
            return {
                "output_size": size,
                **convolution_attributes(
                    strides,
                    dilations,
                    groups,
                    padding,
                    explicit_padding,
                    data_layout,
                    weights_layout,
                ),
            }

        made = checked(self, definition, inputs, name, attributes)
        return self._one(definition, inputs, made, name=name)
