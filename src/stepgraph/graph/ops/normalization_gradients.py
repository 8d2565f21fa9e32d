"""The gradients of `normalize` as MPSGraph cuts them: for gamma, for beta, for the source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

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
    require_same_dtype,
    require_shape,
)
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.normalization_statistics import (
    count_of,
    draw_normalized,
    graph_count,
    inverse_deviation,
    reduced,
    require_broadcast,
)
from stepgraph.graph.shapes import (
    Axes,
    Spec,
    normalize_axes,
)
from stepgraph.graph.tensor import Tensor

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph


def _gamma_infer(
    incoming: Spec,
    source: Spec,
    mean: Spec,
    variance: Spec,
    *,
    axes: tuple[int, ...],
    epsilon: float,
) -> Spec:
    _require_incoming(incoming, source)
    require_broadcast(source, mean=mean, variance=variance)
    return reduced(source, axes, True)


def _require_incoming(incoming: Spec, source: Spec) -> None:
    require_float(incoming, source)
    require_same_dtype(incoming, source)
    require_shape(incoming.shape, source.shape, "the incoming gradient", "the source")


def _standard(x: Array, mean: Array, variance: Array, epsilon: float) -> Array:
    inverse = 1 / np.sqrt(variance.astype(np.float64) + epsilon)
    return np.asarray((x.astype(np.float64) - mean) * inverse)


def _gamma_reference(
    incoming: Array,
    source: Array,
    mean: Array,
    variance: Array,
    *,
    axes: tuple[int, ...],
    epsilon: float,
) -> Array:
    product = incoming * _standard(source, mean, variance, epsilon)
    return np.asarray(np.sum(product, axis=axes, keepdims=True)).astype(source.dtype)


def _gamma_gradient(op: Operation, grads: Grads) -> Gradients:
    incoming, x, mean, variance = op.inputs
    grad = arrived(grads)
    inverse = inverse_deviation(variance, op.attributes["epsilon"])
    centred, scaled = x - mean, incoming * (grad * inverse)
    to_variance = scaled * centred * (-0.5 * inverse * inverse)
    return [centred * (grad * inverse), scaled, -scaled, to_variance]


def _gamma_decompose(
    graph: Graph,
    incoming: Tensor,
    source: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    axes: tuple[int, ...],
    epsilon: float,
) -> Tensor:
    inverse = inverse_deviation(variance, epsilon)
    if all(mean.rank == source.rank and d == 1 for d in (mean.shape[a] for a in axes)):
        # The factor is the same for all that is summed: it can wait until the sum is small.
        return graph.reduction_sum(incoming * (source - mean), axes=axes) * inverse
    return graph.reduction_sum(incoming * ((source - mean) * inverse), axes=axes)


def _beta_infer(incoming: Spec, source: Spec, *, axes: tuple[int, ...]) -> Spec:
    _require_incoming(incoming, source)
    return reduced(source, axes, True)


def _beta_reference(incoming: Array, source: Array, *, axes: tuple[int, ...]) -> Array:
    total = np.sum(incoming, axis=axes, keepdims=True, dtype=np.float64)
    return np.asarray(total).astype(incoming.dtype)


def _beta_gradient(op: Operation, grads: Grads) -> Gradients:
    grad = arrived(grads)
    return [op.graph.broadcast_like(grad, op.inputs[0]), None]


def _beta_decompose(
    graph: Graph, incoming: Tensor, source: Tensor, *, axes: tuple[int, ...]
) -> Tensor:
    return graph.reduction_sum(incoming, axes=axes)


def _source_infer(
    incoming: Spec,
    source: Spec,
    mean: Spec,
    variance: Spec,
    gamma: Spec,
    gamma_gradient: Spec,
    beta_gradient: Spec,
    *,
    axes: tuple[int, ...],
    epsilon: float,
) -> Spec:
    _require_incoming(incoming, source)
    require_broadcast(
        source,
        mean=mean,
        variance=variance,
        gamma=gamma,
        gamma_gradient=gamma_gradient,
        beta_gradient=beta_gradient,
    )
    normalize_axes(axes, source.rank)
    return source


def _source_reference(
    incoming: Array,
    source: Array,
    mean: Array,
    variance: Array,
    gamma: Array,
    gamma_gradient: Array,
    beta_gradient: Array,
    *,
    axes: tuple[int, ...],
    epsilon: float,
) -> Array:
    count = np.float64(count_of(source, axes))
    standard = _standard(source, mean, variance, epsilon)
    inner = incoming - beta_gradient / count - standard * (gamma_gradient / count)
    scale = gamma / np.sqrt(variance.astype(np.float64) + epsilon)
    return np.asarray(scale * inner).astype(source.dtype)


def _source_gradient(op: Operation, grads: Grads) -> Gradients:
    g, (incoming, x, mean, variance, gamma, to_gamma, to_beta) = op.graph, op.inputs
    grad = arrived(grads)
    # What has gamma's shape gets 0, not 0 / 0, from an empty batch.
    count = g.maximum(g.element_count(x, op.attributes["axes"], dtype=x.dtype), 1.0)
    inverse = inverse_deviation(variance, op.attributes["epsilon"])
    standard = (x - mean) * inverse
    inner = incoming - to_beta / count - standard * (to_gamma / count)
    outer = grad * (gamma * inverse)
    along = outer * inverse * (to_gamma / count)
    to_variance = (grad * gamma * inner * inverse - along * (x - mean)) * (-0.5 * inverse * inverse)
    return [
        outer,
        -along,
        along,
        to_variance,
        grad * inverse * inner,
        -outer * standard / count,
        -outer / count,
    ]


def _source_decompose(
    graph: Graph,
    incoming: Tensor,
    source: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor,
    gamma_gradient: Tensor,
    beta_gradient: Tensor,
    *,
    axes: tuple[int, ...],
    epsilon: float,
) -> Tensor:
    count = graph_count(source, axes)
    inverse = inverse_deviation(variance, epsilon)
    slope = gamma_gradient * inverse / count
    inner = incoming - beta_gradient / count - (source - mean) * slope
    return inner * (gamma * inverse)


# -- samples -------------------------------------------------------------------------------------


def _gamma_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for label, x, mean, variance, _, _, axes in draw_normalized(rng):
        incoming = rng.standard_normal(x.shape).astype("float32")
        yield Sample((incoming, x, mean, variance), {"axes": axes}, label=label)
        if label == "layer":
            yield Sample((incoming, x, mean, variance), {"axes": 0}, label="across the statistics")


def _beta_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for label, x, *_, axes in draw_normalized(rng):
        incoming = rng.standard_normal(x.shape).astype("float32")
        yield Sample((incoming, x), {"axes": axes}, differentiable=(0,), label=label)


def _source_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for label, x, mean, variance, gamma, _, axes in draw_normalized(rng):
        incoming = rng.standard_normal(x.shape).astype("float32")
        sums = [rng.standard_normal(mean.shape).astype("float32") for _ in range(2)]
        yield Sample((incoming, x, mean, variance, gamma, *sums), {"axes": axes}, label=label)
        if label == "batch":
            arrays = (incoming[:0], x[:0], mean, variance, gamma, *sums)
            yield Sample(arrays, {"axes": axes}, label="empty batch")


def _gamma_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.normalization_gamma_gradient(
            g.placeholder((2, 3)), g.placeholder((2, 4)), g.placeholder(()), g.placeholder(()), 0
        ),
        "expected: equal shapes",
    )
    yield Misuse(
        lambda g: g.normalization_gamma_gradient(
            g.placeholder((2, 3)), g.placeholder((2, 3)), g.placeholder((2,)), g.placeholder(()), 0
        ),
        "do not broadcast",
    )


def _beta_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.normalization_beta_gradient(g.placeholder((2, 3)), g.placeholder((2, 3)), 2),
        "axis 2 is outside",
    )


def _source_misuses() -> Iterator[Misuse]:
    def build(incoming: tuple[int, ...], statistic: tuple[int, ...]) -> Any:
        return lambda g: g.normalization_gradient(
            g.placeholder(incoming),
            g.placeholder((2, 3)),
            *(g.placeholder(statistic) for _ in range(5)),
            axes=0,
        )

    yield Misuse(build((3, 2), (3,)), "expected: equal shapes")
    yield Misuse(build((2, 3), (1, 2)), "do not broadcast")


NORMALIZATION_GAMMA_GRADIENT = OpDefinition(
    "normalization_gamma_gradient",
    inputs=("incoming", "source", "mean", "variance"),
    infer=_gamma_infer,
    reference=_gamma_reference,
    gradient=_gamma_gradient,
    decompose=_gamma_decompose,
    mpsgraph=(
        "normalizationGammaGradientWithIncomingGradientTensor:sourceTensor:meanTensor:"
        "varianceTensor:reductionAxes:epsilon:name:"
    ),
    samples=_gamma_samples,
    misuses=_gamma_misuses,
)
NORMALIZATION_BETA_GRADIENT = OpDefinition(
    "normalization_beta_gradient",
    inputs=("incoming", "source"),
    infer=_beta_infer,
    reference=_beta_reference,
    gradient=_beta_gradient,
    decompose=_beta_decompose,
    mpsgraph=(
        "normalizationBetaGradientWithIncomingGradientTensor:sourceTensor:reductionAxes:name:"
    ),
    samples=_beta_samples,
    misuses=_beta_misuses,
)
NORMALIZATION_GRADIENT = OpDefinition(
    "normalization_gradient",
    inputs=(
        "incoming",
        "source",
        "mean",
        "variance",
        "gamma",
        "gamma_gradient",
        "beta_gradient",
    ),
    infer=_source_infer,
    reference=_source_reference,
    gradient=_source_gradient,
    decompose=_source_decompose,
    mpsgraph=(
        "normalizationGradientWithIncomingGradientTensor:sourceTensor:meanTensor:varianceTensor:"
        "gammaTensor:gammaGradientTensor:betaGradientTensor:reductionAxes:epsilon:name:"
    ),
    samples=_source_samples,
    misuses=_source_misuses,
)

DEFINITIONS = (
    NORMALIZATION_GAMMA_GRADIENT,
    NORMALIZATION_BETA_GRADIENT,
    NORMALIZATION_GRADIENT,
)


class NormalizationGradientOps(GraphCore):
    """The gradients of `normalize`."""

    def normalization_gamma_gradient(
        self,
        incoming: Tensor,
        source: Tensor,
        mean: Tensor,
        variance: Tensor,
        axes: Axes = None,
        epsilon: float = 1e-3,
        name: str | None = None,
    ) -> Tensor:
        """The gradient of `normalize` with respect to gamma.

        That is the sum of ``incoming * (source - mean) / sqrt(variance + epsilon)``.

        Args:
            incoming: gradient of the normalised tensor, of its shape.
            source: what was normalised.
            mean: of a shape that broadcasts to that of `source`.
            variance: likewise.
            axes: axes to sum over, those that gamma is repeated along; kept with size 1.
            epsilon: that of `normalize`.
            name: label.

        Source: MPSGraph ``normalizationGammaGradientWithIncomingGradientTensor:...``.
        """
        definition = NORMALIZATION_GAMMA_GRADIENT
        attributes = {"axes": self._axes(definition, source, axes), "epsilon": float(epsilon)}
        return self._one(definition, (incoming, source, mean, variance), attributes, name=name)

    def normalization_beta_gradient(
        self, incoming: Tensor, source: Tensor, axes: Axes = None, name: str | None = None
    ) -> Tensor:
        """The gradient of `normalize` with respect to beta: the sum of `incoming`.

        Args:
            incoming: gradient of the normalised tensor, of its shape.
            source: what was normalised; only its shape counts.
            axes: axes to sum over, those that beta is repeated along; kept with size 1.
            name: label.

        Source: MPSGraph ``normalizationBetaGradientWithIncomingGradientTensor:...``.
        """
        definition = NORMALIZATION_BETA_GRADIENT
        attributes = {"axes": self._axes(definition, source, axes)}
        return self._one(definition, (incoming, source), attributes, name=name)

    def normalization_gradient(
        self,
        incoming: Tensor,
        source: Tensor,
        mean: Tensor,
        variance: Tensor,
        gamma: Tensor | None,
        gamma_gradient: Tensor,
        beta_gradient: Tensor,
        axes: Axes = None,
        epsilon: float = 1e-3,
        name: str | None = None,
    ) -> Tensor:
        """The gradient of `normalize` with respect to its source, whose statistics it uses.

        It is the total derivative: the source acts through `mean` and `variance` too, which are
        its own over `axes`. With ``s = sqrt(variance + epsilon)`` and `n` elements averaged it is
        ``gamma / s * (incoming - beta_gradient / n - (source - mean) / s * gamma_gradient / n)``.

        Args:
            incoming: gradient of the normalised tensor, of its shape.
            source: what was normalised.
            mean: its mean over `axes`, axes kept.
            variance: its population variance over `axes`, axes kept.
            gamma: the scale, the same along `axes`; None for 1.
            gamma_gradient: `normalization_gamma_gradient` over the same axes.
            beta_gradient: `normalization_beta_gradient` over the same axes.
            axes: the axes of the statistics.
            epsilon: that of `normalize`.
            name: label.

        Source: Ioffe and Szegedy, 2015 (arXiv:1502.03167), section 3; MPSGraph
        ``normalizationGradientWithIncomingGradientTensor:...``.
        """
        definition = NORMALIZATION_GRADIENT
        gamma = self.as_tensor(1.0, source.dtype) if gamma is None else gamma
        inputs = (incoming, source, mean, variance, gamma, gamma_gradient, beta_gradient)
        attributes = {"axes": self._axes(definition, source, axes), "epsilon": float(epsilon)}
        return self._one(definition, inputs, attributes, name=name)
