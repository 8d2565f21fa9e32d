"""Statistics and normalisation (MPSGraphNormalizationOps), batch and layer normalisation.

One family in three files: the statistics, what is normalised by them, and its gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stepgraph.errors import DTypeError, GraphError, ShapeError, describe
from stepgraph.graph.definition import (
    Array,
    Gradients,
    Grads,
    Misuse,
    OpDefinition,
    Sample,
    arrived,
)
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops import normalization_gradients, normalization_statistics
from stepgraph.graph.ops.normalization_gradients import NormalizationGradientOps
from stepgraph.graph.ops.normalization_statistics import (
    MEAN,
    VARIANCE,
    StatisticsOps,
    draw_normalized,
    inverse_deviation,
    require_broadcast,
)
from stepgraph.graph.shapes import Axes, Spec, bad_shape, format_shape, same_shape
from stepgraph.graph.tensor import Tensor, Variable

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph


# -- normalize -----------------------------------------------------------------------------------


def _names(*specs: Spec) -> dict[str, Spec]:
    return dict(zip(("mean", "variance", "gamma", "beta"), specs, strict=False))


def _normalize_infer(x: Spec, *others: Spec, epsilon: float) -> Spec:
    require_broadcast(x, **_names(*others))
    if epsilon < 0:
        raise bad_shape(f"epsilon={epsilon}", expected="0 or more")
    return x


def _normalize_reference(
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    *,
    epsilon: float,
) -> Array:
    y = (x - mean) / np.sqrt(variance + np.asarray(epsilon, variance.dtype))
    y = y if gamma is None else y * gamma
    y = y if beta is None else y + beta
    return np.asarray(y.astype(x.dtype, copy=False))


def _normalize_decompose(
    graph: Graph,
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    *,
    epsilon: float,
) -> Tensor:
    # Scale and shift of the size of the statistics first: two passes over x instead of four.
    scale = inverse_deviation(variance, epsilon)
    scale = scale if gamma is None else scale * gamma
    y = (x - mean) * scale
    return y if beta is None else y + beta


def _shared_axes(source: Tensor, parameter: Tensor) -> tuple[int, ...] | None:
    """Axes along which a parameter is repeated; None where a size does not tell yet."""
    lead = source.rank - parameter.rank
    if None in parameter.shape:
        return None
    return tuple(i for i in range(source.rank) if i < lead or parameter.shape[i - lead] == 1)


def _statistics_axes(op: Operation) -> tuple[int, ...] | None:
    """The axes, where the statistics are those of the very tensor that is normalised.

    Not where one of them is asked a gradient of: the total derivative would hide it.
    """
    x, mean, variance = op.inputs[:3]
    of_mean, of_variance = mean.operation, variance.operation
    axes: tuple[int, ...] = of_mean.attributes.get("axes", ())
    settings = {"axes": axes, "keep_dims": True}
    if (
        of_mean.definition is not MEAN
        or of_variance.definition is not VARIANCE
        or of_mean.inputs[0] is not x
        or of_variance.inputs[0] is not x
        or of_mean.attributes != settings
        or of_variance.attributes != settings
        or (len(of_variance.inputs) == 2 and of_variance.inputs[1] is not mean)
        or op.graph.wanted & {mean, variance}
    ):
        return None
    return axes


def _normalize_gradient(op: Operation, grads: Grads) -> Gradients:
    grad = arrived(grads)
    g, (x, mean, variance, *parameters) = op.graph, op.inputs
    epsilon = op.attributes["epsilon"]
    gamma = parameters[0] if parameters else None
    found: list[Tensor] = []
    if parameters:
        shared = _shared_axes(x, parameters[0])
        if shared is None:
            found.append(grad * ((x - mean) * inverse_deviation(variance, epsilon)))
        else:
            found.append(g.normalization_gamma_gradient(grad, x, mean, variance, shared, epsilon))
    if len(parameters) == 2:
        shared = _shared_axes(x, parameters[1])
        found.append(grad if shared is None else g.normalization_beta_gradient(grad, x, shared))

    axes = _statistics_axes(op)
    if axes is None:
        return [*_partial(op, grad, gamma), *found]
    if gamma is not None and not set(axes) <= set(_shared_axes(x, gamma) or ()):
        # gamma differs along the axes averaged over, as in layer normalisation.
        grad, gamma = grad * gamma, None
    to_gamma = g.normalization_gamma_gradient(grad, x, mean, variance, axes, epsilon)
    to_beta = g.normalization_beta_gradient(grad, x, axes)
    total = g.normalization_gradient(
        grad, x, mean, variance, gamma, to_gamma, to_beta, axes, epsilon
    )
    return [total, None, None, *found]


def _partial(op: Operation, grad: Tensor, gamma: Tensor | None) -> list[Tensor]:
    """Gradients of source, mean and variance as three independent inputs."""
    x, mean, variance = op.inputs[:3]
    inverse = inverse_deviation(variance, op.attributes["epsilon"])
    slope = grad * (inverse if gamma is None else inverse * gamma)
    return [slope, -slope, slope * (x - mean) * (-0.5 * inverse * inverse)]


def _normalize_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for label, x, mean, variance, gamma, beta, _ in draw_normalized(rng):
        yield Sample((x, mean, variance, gamma, beta), label=label)
        if label == "batch":
            yield Sample((x, mean, variance), {"epsilon": 0.1}, label="no parameters")
            yield Sample((x, mean, variance, gamma), label="gamma only")
            yield Sample((x[:0], mean, variance, gamma, beta), label="empty batch")


def _normalize_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.normalize(g.placeholder((2, 3)), g.placeholder((2,)), g.placeholder((2,))),
        "do not broadcast",
    )
    yield Misuse(
        lambda g: g.normalize(g.placeholder((1, 3)), g.placeholder((1, 3)), g.placeholder((5, 3))),
        r"variance has shape \(5, 3\), the source \(1, 3\)",
    )
    yield Misuse(
        lambda g: g.normalize(g.placeholder((3,)), g.placeholder(()), g.placeholder((), "float16")),
        "different dtypes",
        DTypeError,
    )


NORMALIZE = OpDefinition(
    "normalize",
    inputs=("x", "mean", "variance", "gamma", "beta"),
    infer=_normalize_infer,
    reference=_normalize_reference,
    gradient=_normalize_gradient,
    decompose=_normalize_decompose,
    mpsgraph=(
        "normalizationWithTensor:meanTensor:varianceTensor:gammaTensor:betaTensor:epsilon:name:"
    ),
    samples=_normalize_samples,
    misuses=_normalize_misuses,
)

DEFINITIONS: tuple[OpDefinition, ...] = (
    *normalization_statistics.DEFINITIONS,
    NORMALIZE,
    *normalization_gradients.DEFINITIONS,
)


class NormalizationOps(StatisticsOps, NormalizationGradientOps):
    """Statistics and normalisation."""

    def normalize(
        self,
        x: Tensor,
        mean: Tensor,
        variance: Tensor,
        gamma: Tensor | None = None,
        beta: Tensor | None = None,
        epsilon: float = 1e-3,
        name: str | None = None,
    ) -> Tensor:
        """``gamma * (x - mean) / sqrt(variance + epsilon) + beta``.

        Args:
            x: float tensor of any shape.
            mean: of a shape that broadcasts to that of `x`.
            variance: likewise.
            gamma: scale, likewise; None for 1.
            beta: shift, likewise; None for 0.
            epsilon: keeps the root away from 0; 0 or more.
            name: label in printed graphs and errors.

        Returns:
            Tensor of the shape and dtype of `x`.

        Raises:
            ShapeError: an operand does not broadcast to `x`, or `epsilon` is negative.
            DTypeError: `x` is not floating point, or an operand of another dtype.

        Source: MPSGraph ``normalizationWithTensor:meanTensor:varianceTensor:gammaTensor:...``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([1.0, 3.0])
            >>> y = graph.normalize(x, graph.mean(x), graph.variance(x), epsilon=0.0)
            >>> graph.run(targets=[y])[0]
            array([-1.,  1.], dtype=float32)
        """
        if gamma is None and beta is not None:
            gamma = self.as_tensor(1.0, x.dtype)
        inputs = [t for t in (x, mean, variance, gamma, beta) if t is not None]
        return self._one(NORMALIZE, inputs, {"epsilon": float(epsilon)}, name=name)

    def batch_normalization(
        self,
        x: Tensor,
        gamma: Tensor | None,
        beta: Tensor | None,
        moving_mean: Variable,
        moving_variance: Variable,
        is_training: Tensor | bool,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        axis: int = -1,
        name: str | None = None,
    ) -> Tensor:
        """Normalises each channel: by the batch's statistics in training, by moving ones otherwise.

        In training it also moves the moving statistics, whenever its result is computed:
        ``moving * momentum + batch * (1 - momentum)``. The batch's variance is the population
        variance, in the moving statistics too.

        Args:
            x: float tensor of rank 2 or more.
            gamma: scale of shape (channels,); None for 1.
            beta: shift of shape (channels,); None for 0.
            moving_mean: variable of shape (channels,).
            moving_variance: variable of shape (channels,).
            is_training: which statistics: fixed now, or a bool tensor of one element that
                decides in each run (free where its value is fixed when compiling).
            momentum: how much of the moving statistics is kept.
            epsilon: added to the variance.
            axis: the channels' axis: -1 in NHWC, 1 in NCHW.
            name: label in printed graphs and errors.

        Returns:
            Tensor of the shape and dtype of `x`.

        Raises:
            GraphError: a moving statistic is no variable.
            ShapeError: `axis` is outside the rank, or a shape is not (channels,).

        Source: Ioffe and Szegedy, 2015 (arXiv:1502.03167); Keras ``BatchNormalization``.

        Example:
            >>> import numpy as np
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.placeholder((None, 2))
            >>> mean, variance = graph.variable([0.0, 0.0]), graph.variable([1.0, 1.0])
            >>> y = graph.batch_normalization(x, None, None, mean, variance, True, momentum=0.5)
            >>> _ = graph.run({x: np.array([[1, 2], [3, 6]], "float32")}, [y])
            >>> graph.get_value(mean)
            array([1., 2.], dtype=float32)
        """
        for what, variable in (("moving_mean", moving_mean), ("moving_variance", moving_variance)):
            if not isinstance(variable, Variable):
                raise GraphError(
                    describe(
                        "batch_normalization",
                        f"{what} is no variable, so it could not be moved",
                        got={what: repr(variable)},
                        fix="make it with graph.variable",
                    )
                )
        axis = self._axis(NORMALIZE, x, axis)
        parts = (gamma, beta, moving_mean, moving_variance)
        self._require_channels("batch_normalization", x, (axis,), parts)
        g = self._graph

        def training() -> Tensor:
            axes = tuple(i for i in range(x.rank) if i != axis)
            mean = g.mean(x, axes)
            variance = g.variance(x, mean, axes)
            scale, shift = self._aligned(x, axis, gamma, beta)
            y = g.normalize(x, mean, variance, scale, shift, epsilon)
            moves = []
            for moving, batch in ((moving_mean, mean), (moving_variance, variance)):
                now = g.reshape_like(batch, moving)
                # A weighted sum would drift: in float32 0.999 and 0.001 are not 1 together.
                moves.append(g.assign(moving, moving - (moving - now) * (1.0 - momentum)))
            made: Tensor = g.control_dependency(moves, lambda: g.identity(y))
            return made

        def inference() -> Tensor:
            mean, variance, scale, shift = self._aligned(
                x, axis, moving_mean, moving_variance, gamma, beta
            )
            assert mean is not None
            assert variance is not None
            return g.normalize(x, mean, variance, scale, shift, epsilon)

        with g.name_scope(name or "batch_normalization"):
            if isinstance(is_training, Tensor):
                result: Tensor = g.if_(is_training, training, inference)
                return result
            return training() if is_training else inference()

    def layer_normalization(
        self,
        x: Tensor,
        gamma: Tensor | None = None,
        beta: Tensor | None = None,
        axis: Axes = -1,
        epsilon: float = 1e-3,
        name: str | None = None,
    ) -> Tensor:
        """Normalises each example by its own mean and population variance over `axis`.

        Args:
            x: float tensor of rank 1 or more.
            gamma: scale, of the sizes of `x` along `axis`; None for 1.
            beta: shift, likewise; None for 0.
            axis: one or several axes.
            epsilon: added to the variance.
            name: label in printed graphs and errors.

        Returns:
            Tensor of the shape and dtype of `x`.

        Raises:
            ShapeError: an axis is outside the rank, or gamma or beta has another shape.

        Source: Ba, Kiros and Hinton, 2016 (arXiv:1607.06450); Keras ``LayerNormalization``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([[1.0, 3.0], [10.0, 30.0]])
            >>> graph.run(targets=[graph.layer_normalization(x, epsilon=0.0)])[0]
            array([[-1.,  1.],
                   [-1.,  1.]], dtype=float32)
        """
        g, axes = self._graph, self._axes(NORMALIZE, x, axis)
        self._require_channels("layer_normalization", x, axes, (gamma, beta))
        with g.name_scope(name or "layer_normalization"):
            mean = g.mean(x, axes)
            variance = g.variance(x, mean, axes)
            scale, shift = self._aligned(x, axes, gamma, beta)
            return g.normalize(x, mean, variance, scale, shift, epsilon)

    def _require_channels(
        self,
        what: str,
        x: Tensor,
        axes: tuple[int, ...],
        parameters: Sequence[Tensor | None],
    ) -> None:
        """Refuses parameters whose shape is not that of `x` along `axes`."""
        wanted = tuple(x.shape[a] for a in axes)
        for parameter in parameters:
            if parameter is not None and not same_shape(parameter.shape, wanted):
                raise ShapeError(
                    describe(
                        what,
                        f"'{parameter.name}' has shape {format_shape(parameter.shape)}",
                        got={"x": f"'{x.name}' {x.spec}", "axis": axes},
                        expected=f"{format_shape(wanted)}, the sizes of x along the axis",
                        fix="pass the axis of the channels: -1 in NHWC, 1 in NCHW",
                    )
                )

    def _aligned(
        self, x: Tensor, axes: int | tuple[int, ...], *parameters: Tensor | None
    ) -> list[Tensor | None]:
        """Parameters in a shape that broadcasts to `x`; as they are where that does already."""
        axes = (axes,) if isinstance(axes, int) else axes
        if axes == tuple(range(x.rank - len(axes), x.rank)):
            return list(parameters)
        first = axes[0]
        gaps = tuple(i - first for i in range(first, x.rank) if i not in axes)
        expand = self._graph.expand_dims
        return [None if p is None else expand(p, gaps) for p in parameters]
