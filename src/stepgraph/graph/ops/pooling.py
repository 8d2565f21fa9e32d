"""Maximum and average over a sliding window, and their gradients (MPSGraphPoolingOps)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from stepgraph.errors import DTypeError
from stepgraph.graph.core import GraphCore
from stepgraph.graph.definition import (
    Gradients,
    Grads,
    Misuse,
    OpDefinition,
    arrived,
    require_float,
    require_rank,
    require_same_dtype,
    require_shape,
)
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.pooling_numpy import (
    at_maximum_reference,
    avg_gradient_reference,
    avg_reference,
    max_gradient_reference,
    max_reference,
    pooling_attributes,
    pooling_window,
)
from stepgraph.graph.ops.pooling_samples import (
    avg_gradient_samples,
    avg_samples,
    max_gradient_samples,
    max_samples,
    maximum_samples,
)
from stepgraph.graph.shapes import Spec, bad_shape, known_shape
from stepgraph.graph.tensor import Tensor
from stepgraph.graph.windows import (
    NO_PADS,
    PadsLike,
    PairLike,
    checked,
    data_shape,
    from_nhwc,
    known_output,
    nhwc_sizes,
    padded,
)

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph


# -- inference -----------------------------------------------------------------------------------


def _infer(source: Spec, **attributes: Any) -> Spec:
    require_float(source)
    require_rank(source, 4, "source")
    layout = attributes["data_layout"]
    batch, height, width, channels = nhwc_sizes(source.shape, layout)
    window = pooling_window(attributes)
    for axis, pads in zip(("height", "width"), window.explicit_padding, strict=True):
        size = window.kernel[0 if axis == "height" else 1]
        if max(pads) >= size:
            raise bad_shape(
                f"the padding {pads} of {axis} leaves windows that see nothing else",
                expected=f"less than the window's {size}",
            )
    return Spec(data_shape(batch, window.output((height, width)), channels, layout), source.dtype)


def _gradient_infer(incoming: Spec, source: Spec, **attributes: Any) -> Spec:
    require_same_dtype(incoming, source)
    forward = _infer(source, **attributes)
    require_shape(incoming.shape, forward.shape, "the incoming gradient", "the pooled tensor")
    return source


def _maximum_infer(values: Spec, source: Spec, **attributes: Any) -> Spec:
    require_same_dtype(values, source)
    require_shape(values.shape, source.shape, "the values", "the source")
    return _infer(source, **attributes)


# -- maximum -------------------------------------------------------------------------------------


def _maximum_decompose(graph: Graph, values: Tensor, source: Tensor, **attributes: Any) -> Tensor:
    layout, window = attributes["data_layout"], pooling_window(attributes)
    _, *sizes, _ = nhwc_sizes(known_shape(source.shape), layout)
    height, width = sizes
    assert height is not None
    assert width is not None
    output, pads = known_output(window, (height, width)), window.pads((height, width))
    best = graph.max_pooling_2d(source, **attributes)
    border = [(0, 0), *pads, (0, 0)]
    if layout == "NCHW":
        border = [(0, 0), (0, 0), *pads]
    real = padded(np.ones((1, height, width, 1), bool), pads, False)
    if pads != NO_PADS:
        values = graph.pad(values, border)
        source = graph.pad(source, border, value=-np.inf)
    made = graph.zeros_like(best)
    free = None
    for _, _, index in window.slices(output):
        seen, offered = (_part(graph, t, index, layout) for t in (source, values))
        hit = (seen == best) | (graph.is_nan(seen) & graph.is_nan(best))
        if not real[index].all():
            hit = hit & graph.constant(from_nhwc(real[index], layout))
        if free is not None:
            hit = hit & free
        made = graph.select(hit, offered, made)
        free = ~hit if free is None else free & ~hit
    return made


def _part(graph: Graph, x: Tensor, index: tuple[slice, ...], layout: str) -> Tensor:
    """A slice of height and width."""
    _, rows, columns = index
    starts, ends, strides = [0] * 4, list(known_shape(x.shape)), [1] * 4
    for axis, part in zip(((1, 2) if layout == "NHWC" else (2, 3)), (rows, columns), strict=True):
        starts[axis], ends[axis], strides[axis] = part.start, part.stop, part.step
    return graph.strided_slice(x, starts, ends, strides)


def _max_gradient(op: Operation, grads: Grads) -> Gradients:
    grad = arrived(grads)
    return [op.graph.max_pooling_2d_gradient(grad, op.inputs[0], **op.attributes)]


def _max_gradient_gradient(op: Operation, grads: Grads) -> Gradients:
    grad = arrived(grads)
    return [op.graph.max_pooling_2d_at_maximum(grad, op.inputs[1], **op.attributes), None]


def _maximum_gradient(op: Operation, grads: Grads) -> Gradients:
    grad = arrived(grads)
    return [op.graph.max_pooling_2d_gradient(grad, op.inputs[1], **op.attributes), None]


# -- average -------------------------------------------------------------------------------------


def _avg_gradient(op: Operation, grads: Grads) -> Gradients:
    grad = arrived(grads)
    return [op.graph.avg_pooling_2d_gradient(grad, op.inputs[0], **op.attributes)]


def _avg_gradient_gradient(op: Operation, grads: Grads) -> Gradients:
    grad = arrived(grads)
    return [op.graph.avg_pooling_2d(grad, **op.attributes), None]


def _misuses(op: str) -> Any:
    def misuses() -> Iterator[Misuse]:
        def pool(
            shape: tuple[int, ...], *settings: Any, dtype: str = "float32", **more: Any
        ) -> Any:
            return lambda g: getattr(g, op)(g.placeholder(shape, dtype), *settings, **more)

        yield Misuse(pool((1, 2, 5, 1), 3), "covers 3 pixels of height, the source has 2")
        yield Misuse(pool((4, 4, 1), 2), "source has rank 3")
        yield Misuse(pool((1, 4, 4, 1), 0), "kernel_size=0")
        yield Misuse(pool((1, 4, 4, 1), 2, (1, 2, 3)), "strides=")
        yield Misuse(pool((1, 4, 4, 1), 2, padding="full"), "TF_SAME")
        yield Misuse(
            pool((1, 4, 4, 1), 2, 2, "explicit", ((2, 0), (0, 0))), "windows that see nothing else"
        )
        yield Misuse(pool((1, 4, 4, 1), 2, dtype="int32"), "needs floating point", DTypeError)

    return misuses


def _gradient_misuses(op: str) -> Any:
    def misuses() -> Iterator[Misuse]:
        yield Misuse(
            lambda g: getattr(g, op)(g.placeholder((1, 4, 4, 1)), g.placeholder((1, 4, 4, 1)), 2),
            r"pooled tensor \(1, 2, 2, 1\)",
        )

    return misuses


def _maximum_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.max_pooling_2d_at_maximum(
            g.placeholder((1, 2, 2, 1)), g.placeholder((1, 4, 4, 1)), 2
        ),
        "expected: equal shapes",
    )


MAX_POOLING_2D = OpDefinition(
    "max_pooling_2d",
    inputs=("source",),
    infer=_infer,
    reference=max_reference,
    gradient=_max_gradient,
    mpsgraph="maxPooling2DWithSourceTensor:descriptor:name:",
    samples=max_samples,
    misuses=_misuses("max_pooling_2d"),
)
MAX_POOLING_2D_GRADIENT = OpDefinition(
    "max_pooling_2d_gradient",
    inputs=("incoming", "source"),
    infer=_gradient_infer,
    reference=max_gradient_reference,
    gradient=_max_gradient_gradient,
    mpsgraph="maxPooling2DGradientWithGradientTensor:sourceTensor:descriptor:name:",
    samples=max_gradient_samples,
    misuses=_gradient_misuses("max_pooling_2d_gradient"),
)
MAX_POOLING_2D_AT_MAXIMUM = OpDefinition(
    "max_pooling_2d_at_maximum",
    inputs=("values", "source"),
    infer=_maximum_infer,
    reference=at_maximum_reference,
    gradient=_maximum_gradient,
    decompose=_maximum_decompose,
    samples=maximum_samples,
    misuses=_maximum_misuses,
)
AVG_POOLING_2D = OpDefinition(
    "avg_pooling_2d",
    inputs=("source",),
    infer=lambda source, include_zero_pad_to_average, **rest: _infer(source, **rest),
    reference=avg_reference,
    gradient=_avg_gradient,
    mpsgraph="avgPooling2DWithSourceTensor:descriptor:name:",
    samples=avg_samples,
    misuses=_misuses("avg_pooling_2d"),
)
AVG_POOLING_2D_GRADIENT = OpDefinition(
    "avg_pooling_2d_gradient",
    inputs=("incoming", "like"),
    infer=lambda incoming, like, include_zero_pad_to_average, **rest: _gradient_infer(
        incoming, like, **rest
    ),
    reference=avg_gradient_reference,
    gradient=_avg_gradient_gradient,
    shape_only=(1,),
    mpsgraph="avgPooling2DGradientWithGradientTensor:sourceTensor:descriptor:name:",
    samples=avg_gradient_samples,
    misuses=_gradient_misuses("avg_pooling_2d_gradient"),
)

DEFINITIONS = (
    MAX_POOLING_2D,
    MAX_POOLING_2D_GRADIENT,
    MAX_POOLING_2D_AT_MAXIMUM,
    AVG_POOLING_2D,
    AVG_POOLING_2D_GRADIENT,
)


class PoolingOps(GraphCore):
    """Maximum and average over a sliding window."""

    def max_pooling_2d(
        self,
        source: Tensor,
        kernel_size: PairLike,
        strides: PairLike | None = None,
        padding: str = "TF_VALID",
        explicit_padding: PadsLike = NO_PADS,
        data_layout: str = "NHWC",
        name: str | None = None,
    ) -> Tensor:
        """The maximum over a window that slides over height and width.

        Padding never wins; NaN does. The gradient goes to the first maximum in row-major order.

        Args:
            source: float tensor (batch, height, width, channels), or NCHW.
            kernel_size: size of the window: one number, or (height, width).
            strides: steps between two windows; None for `kernel_size`.
            padding: ``"TF_VALID"``, ``"TF_SAME"`` or ``"explicit"``, as in `convolution_2d`.
            explicit_padding: ((top, bottom), (left, right)), each less than the window.
            data_layout: ``"NHWC"`` or ``"NCHW"``.
            name: label in printed graphs and errors.

        Returns:
            Tensor (batch, output height, output width, channels), or NCHW.

        Raises:
            ShapeError: the rank is not 4, the window is larger than the padded source, or a setting
                is none of those above.
            DTypeError: `source` is not floating point.

        Source: MPSGraph ``maxPooling2DWithSourceTensor:descriptor:name:``; Keras ``MaxPooling2D``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.placeholder((None, 32, 32, 3))
            >>> graph.max_pooling_2d(x, 3, strides=2, padding="TF_SAME")
            <Tensor 'max_pooling_2d' float32 (?, 16, 16, 3)>
        """
        return self._pool(
            MAX_POOLING_2D,
            (source,),
            name,
            {},
            (kernel_size, strides, padding, explicit_padding, data_layout),
        )

    def max_pooling_2d_gradient(
        self,
        incoming: Tensor,
        source: Tensor,
        kernel_size: PairLike,
        strides: PairLike | None = None,
        padding: str = "TF_VALID",
        explicit_padding: PadsLike = NO_PADS,
        data_layout: str = "NHWC",
        name: str | None = None,
    ) -> Tensor:
        """The gradient of `max_pooling_2d`: each of `incoming` added where its maximum stood.

        Args:
            incoming: gradient of the pooled tensor.
            source: what was pooled.
            kernel_size: that of the pooling, like all that follow.
            strides: steps between two windows.
            padding: padding style.
            explicit_padding: ((top, bottom), (left, right)).
            data_layout: ``"NHWC"`` or ``"NCHW"``.
            name: label.

        Source: MPSGraph ``maxPooling2DGradientWithGradientTensor:sourceTensor:descriptor:name:``.
        """
        return self._pool(
            MAX_POOLING_2D_GRADIENT,
            (incoming, source),
            name,
            {},
            (kernel_size, strides, padding, explicit_padding, data_layout),
        )

    def max_pooling_2d_at_maximum(
        self,
        values: Tensor,
        source: Tensor,
        kernel_size: PairLike,
        strides: PairLike | None = None,
        padding: str = "TF_VALID",
        explicit_padding: PadsLike = NO_PADS,
        data_layout: str = "NHWC",
        name: str | None = None,
    ) -> Tensor:
        """From each window, the one of `values` that stands where `source` has its first maximum.

        It is what `max_pooling_2d_gradient` needs to be differentiated itself.

        Args:
            values: tensor of the shape of `source`.
            source: what is pooled.
            kernel_size: that of the pooling, like all that follow.
            strides: steps between two windows.
            padding: padding style.
            explicit_padding: ((top, bottom), (left, right)).
            data_layout: ``"NHWC"`` or ``"NCHW"``.
            name: label.

        Returns:
            Tensor of the shape of the pooled one.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> source = graph.constant([[[[1.0], [4.0]], [[3.0], [2.0]]]])
            >>> values = graph.constant([[[[10.0], [20.0]], [[30.0], [40.0]]]])
            >>> y = graph.max_pooling_2d_at_maximum(values, source, 2)
            >>> graph.run(targets=[y], device="reference")[0]
            array([[[[20.]]]], dtype=float32)
        """
        return self._pool(
            MAX_POOLING_2D_AT_MAXIMUM,
            (values, source),
            name,
            {},
            (kernel_size, strides, padding, explicit_padding, data_layout),
        )

    def avg_pooling_2d(
        self,
        source: Tensor,
        kernel_size: PairLike,
        strides: PairLike | None = None,
        padding: str = "TF_VALID",
        explicit_padding: PadsLike = NO_PADS,
        data_layout: str = "NHWC",
        include_zero_pad_to_average: bool = False,
        name: str | None = None,
    ) -> Tensor:
        """The average over a window that slides over height and width.

        Args:
            source: float tensor (batch, height, width, channels), or NCHW.
            kernel_size: size of the window: one number, or (height, width).
            strides: steps between two windows; None for `kernel_size`.
            padding: ``"TF_VALID"``, ``"TF_SAME"`` or ``"explicit"``, as in `convolution_2d`.
            explicit_padding: ((top, bottom), (left, right)), each less than the window.
            data_layout: ``"NHWC"`` or ``"NCHW"``.
            include_zero_pad_to_average: divide by the whole window, not by the pixels it sees.
            name: label in printed graphs and errors.

        Returns:
            Tensor (batch, output height, output width, channels), or NCHW.

        Raises:
            ShapeError: the rank is not 4, the window is larger than the padded source, or a setting
                is none of those above.
            DTypeError: `source` is not floating point.

        Source: MPSGraph ``avgPooling2DWithSourceTensor:descriptor:name:``; Keras
        ``AveragePooling2D``.

        Example:
            >>> import numpy as np
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant(np.arange(9, dtype="float32").reshape(1, 3, 3, 1))
            >>> y = graph.avg_pooling_2d(x, 2, padding="TF_SAME")
            >>> graph.run(targets=[y])[0].reshape(2, 2)
            array([[2. , 3.5],
                   [6.5, 8. ]], dtype=float32)
        """
        return self._pool(
            AVG_POOLING_2D,
            (source,),
            name,
            {"include_zero_pad_to_average": bool(include_zero_pad_to_average)},
            (kernel_size, strides, padding, explicit_padding, data_layout),
        )

    def avg_pooling_2d_gradient(
        self,
        incoming: Tensor,
        like: Tensor,
        kernel_size: PairLike,
        strides: PairLike | None = None,
        padding: str = "TF_VALID",
        explicit_padding: PadsLike = NO_PADS,
        data_layout: str = "NHWC",
        include_zero_pad_to_average: bool = False,
        name: str | None = None,
    ) -> Tensor:
        """The gradient of `avg_pooling_2d`: each of `incoming` shared out among its window.

        Args:
            incoming: gradient of the pooled tensor.
            like: a tensor of the shape of what was pooled, which is all that is read of it.
            kernel_size: that of the pooling, like all that follow.
            strides: steps between two windows.
            padding: padding style.
            explicit_padding: ((top, bottom), (left, right)).
            data_layout: ``"NHWC"`` or ``"NCHW"``.
            include_zero_pad_to_average: what the average divided by.
            name: label.

        Source: MPSGraph ``avgPooling2DGradientWithGradientTensor:sourceTensor:descriptor:name:``.
        """
        return self._pool(
            AVG_POOLING_2D_GRADIENT,
            (incoming, like),
            name,
            {"include_zero_pad_to_average": bool(include_zero_pad_to_average)},
            (kernel_size, strides, padding, explicit_padding, data_layout),
        )

    def _pool(
        self,
        definition: OpDefinition,
        inputs: tuple[Tensor, ...],
        name: str | None,
        extra: dict[str, Any],
        settings: tuple[PairLike, PairLike | None, str, PadsLike, str],
    ) -> Tensor:
        attributes = checked(self, definition, inputs, name, lambda: pooling_attributes(*settings))
        return self._one(definition, inputs, {**attributes, **extra}, name=name)
