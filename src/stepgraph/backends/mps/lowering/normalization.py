"""Statistics and normalisation (MPSGraphNormalizationOps).

Statistics and parameters are sent with as many axes as the source has: shapes that are right-
aligned broadcast in some versions only.
"""

from __future__ import annotations

from stepgraph.backends.mps.lowering.emitter import Emitter, Value, known, lowering
from stepgraph.backends.mps.lowering.table import Lowering
from stepgraph.backends.mps.messages import numbers
from stepgraph.graph.operation import Operation


def _mean(e: Emitter, operation: Operation, x: Value) -> Value:
    return e.reshape(_mean_of(e, x, operation.attributes["axes"]), known(operation.output.shape))


def _mean_of(e: Emitter, x: Value, axes: tuple[int, ...]) -> Value:
    if not axes:
        return e.identity(x)
    shape = tuple(1 if i in axes else size for i, size in enumerate(x.shape))
    return e.send("meanOfTensor:axes:name:", x, numbers(axes), shape=shape, dtype=x.dtype)


def _variance(e: Emitter, operation: Operation, x: Value, mean: Value | None = None) -> Value:
    axes, shape = operation.attributes["axes"], known(operation.output.shape)
    kept = tuple(1 if i in axes else size for i, size in enumerate(x.shape))
    mean = _mean_of(e, x, axes) if mean is None else e.with_rank(mean, x.rank)
    if not axes or mean.shape != kept:
        centred = e.subtract(x, mean)
        return e.reshape(_mean_of(e, e.multiply(centred, centred), axes), shape)
    selector = "varianceOfTensor:meanTensor:axes:name:"
    made = e.send(selector, x, mean, numbers(axes), shape=kept, dtype=x.dtype)
    return e.reshape(made, shape)


def _normalize(e: Emitter, operation: Operation, x: Value, *others: Value) -> Value:
    mean, variance, *parameters = (e.with_rank(v, x.rank) for v in others)
    gamma = parameters[0] if parameters else None
    beta = parameters[1] if len(parameters) == 2 else None
    return e.send(
        "normalizationWithTensor:meanTensor:varianceTensor:gammaTensor:betaTensor:epsilon:name:",
        x,
        mean,
        variance,
        gamma,
        beta,
        operation.attributes["epsilon"],
        shape=x.shape,
        dtype=x.dtype,
    )


def _gamma_gradient(
    e: Emitter,
    operation: Operation,
    incoming: Value | None,
    source: Value | None,
    mean: Value | None,
    variance: Value | None,
) -> Value:
    shape = known(operation.output.shape)
    if incoming is None or source is None or mean is None or variance is None:
        return e.filled(shape, 0, operation.output.dtype)
    axes, epsilon = operation.attributes["axes"], operation.attributes["epsilon"]
    mean, variance = e.with_rank(mean, source.rank), e.with_rank(variance, source.rank)
    if not axes:
        inverse = e.add(variance, e.constant(epsilon, source.dtype))
        standard = e.binary("division", e.subtract(source, mean), e.unary("squareRoot", inverse))
        return e.multiply(incoming, standard)
    return e.send(
        "normalizationGammaGradientWithIncomingGradientTensor:sourceTensor:meanTensor:"
        "varianceTensor:reductionAxes:epsilon:name:",
        incoming,
        source,
        mean,
        variance,
        numbers(axes),
        epsilon,
        shape=shape,
        dtype=source.dtype,
    )


def _beta_gradient(
    e: Emitter, operation: Operation, incoming: Value | None, source: Value | None
) -> Value:
    shape = known(operation.output.shape)
    if incoming is None or source is None:
        return e.filled(shape, 0, operation.output.dtype)
    axes = operation.attributes["axes"]
    if not axes:
        return e.identity(incoming)
    return e.send(
        "normalizationBetaGradientWithIncomingGradientTensor:sourceTensor:reductionAxes:name:",
        incoming,
        source,
        numbers(axes),
        shape=shape,
        dtype=source.dtype,
    )


def _gradient(
    e: Emitter, operation: Operation, incoming: Value, source: Value, *others: Value
) -> Value:
    mean, variance, gamma, to_gamma, to_beta = (e.with_rank(v, source.rank) for v in others)
    axes, epsilon = operation.attributes["axes"], operation.attributes["epsilon"]
    # A gamma that changes along the axes of the statistics is beyond the selector: it comes last.
    scale = None
    if any(gamma.shape[axis] != 1 for axis in axes):
        scale, gamma = gamma, e.filled((1,) * source.rank, 1, source.dtype)
    made = e.send(
        "normalizationGradientWithIncomingGradientTensor:sourceTensor:meanTensor:varianceTensor:"
        "gammaTensor:gammaGradientTensor:betaGradientTensor:reductionAxes:epsilon:name:",
        incoming,
        source,
        mean,
        variance,
        gamma,
        to_gamma,
        to_beta,
        numbers(axes),
        epsilon,
        shape=source.shape,
        dtype=source.dtype,
    )
    return made if scale is None else e.multiply(made, scale)


LOWERINGS: dict[str, Lowering] = {
    "mean": lowering(_mean),
    "variance": lowering(_variance, note="of deviations from a mean computed first"),
    "normalize": lowering(_normalize),
    "normalization_gamma_gradient": lowering(_gamma_gradient, takes_empty=True),
    "normalization_beta_gradient": lowering(_beta_gradient, takes_empty=True),
    "normalization_gradient": lowering(_gradient, note="all three gradients are given, never nil"),
}

DECOMPOSED: dict[str, str] = {}
