"""MPSGraphNormalizationOps: statistics keep their axes; the variance is the population's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.mps.double import dtypes
from tests.mps.double.graph import Builder
from tests.mps.double.objects import Object
from tests.mps.double.rules.numbers import total
from tests.mps.double.rules.reduction import kept


def _count(x: np.ndarray, axes: Sequence[int]) -> int:
    return int(np.prod([x.shape[a] for a in axes], dtype=np.int64))


def _mean(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return np.mean(x, axis=axes, keepdims=True, dtype=np.float64).astype(x.dtype)


def mean(b: Builder, x: Object, axes: Sequence[int]) -> Object:
    kind = b.dtype(x, dtypes.FLOATS)
    b.need(x.shape, "statistics need a rank of 1 at least")
    where = b.axes(axes, len(x.shape))
    return b.one([x], kept(x.shape, where), kind, lambda v: _mean(v, where))


def variance(b: Builder, x: Object, axes: Sequence[int]) -> Object:
    kind = b.dtype(x, dtypes.FLOATS)
    b.need(x.shape, "statistics need a rank of 1 at least")
    where = b.axes(axes, len(x.shape))

    def compute(v: np.ndarray) -> np.ndarray:
        return np.var(v, axis=where, keepdims=True, dtype=np.float64).astype(v.dtype)

    return b.one([x], kept(x.shape, where), kind, compute)


def variance_about(b: Builder, x: Object, middle: Object, axes: Sequence[int]) -> Object:
    b.dtype(x, dtypes.FLOATS)
    kind = b.same_dtype(x, middle)
    where = b.axes(axes, len(x.shape))
    b.need(b.broadcast(x.shape, middle.shape) == x.shape, f"a mean of {middle.shape}")

    def compute(v: np.ndarray, m: np.ndarray) -> np.ndarray:
        return _mean(np.square(v.astype(np.float64) - m), where).astype(v.dtype)

    return b.one([x, middle], kept(x.shape, where), kind, compute)


def _fits(b: Builder, x: Object, **others: Object | None) -> list[Object]:
    """Operands that broadcast into x without widening it; nil ones left out."""
    present = [t for t in others.values() if t is not None]
    for name, t in others.items():
        if t is not None:
            fits = b.broadcast(x.shape, t.shape) == x.shape
            b.need(fits, f"{name} of {t.shape} widens {x.shape}")
    b.dtype(x, dtypes.FLOATS)
    b.same_dtype(x, *present)
    return present


def normalization(
    b: Builder,
    x: Object,
    mean: Object,
    variance: Object,
    gamma: Object | None,
    beta: Object | None,
    epsilon: float,
) -> Object:
    inputs = [x, *_fits(b, x, mean=mean, variance=variance, gamma=gamma, beta=beta)]

    def compute(v: np.ndarray, m: np.ndarray, s: np.ndarray, *rest: np.ndarray) -> np.ndarray:
        left = list(rest)
        out = (v - m) / np.sqrt(s + v.dtype.type(epsilon))
        if gamma is not None:
            out = out * left.pop(0)
        return out + left.pop(0) if beta is not None else out

    return b.one(inputs, x.shape, x.dtype, compute)


def gamma_gradient(
    b: Builder,
    incoming: Object,
    x: Object,
    mean: Object,
    variance: Object,
    axes: Sequence[int],
    epsilon: float,
) -> Object:
    b.need(incoming.shape == x.shape, f"a gradient of {incoming.shape} for {x.shape}")
    _fits(b, x, incoming=incoming, mean=mean, variance=variance)
    where = b.axes(axes, len(x.shape))

    def compute(g: np.ndarray, v: np.ndarray, m: np.ndarray, s: np.ndarray) -> np.ndarray:
        return total(g * (v - m) / np.sqrt(s + v.dtype.type(epsilon)), where)

    return b.one([incoming, x, mean, variance], kept(x.shape, where), x.dtype, compute)


def beta_gradient(b: Builder, incoming: Object, x: Object, axes: Sequence[int]) -> Object:
    b.need(incoming.shape == x.shape, f"a gradient of {incoming.shape} for {x.shape}")
    _fits(b, x, incoming=incoming)
    where = b.axes(axes, len(x.shape))
    return b.one([incoming, x], kept(x.shape, where), x.dtype, lambda g, v: total(g, where))


def gradient(
    b: Builder,
    incoming: Object,
    x: Object,
    mean: Object,
    variance: Object,
    gamma: Object | None,
    gamma_gradient: Object | None,
    beta_gradient: Object | None,
    axes: Sequence[int],
    epsilon: float,
) -> Object:
    """Of the source, whose statistics move with it; by the two gradients that are given."""
    b.need(
        gamma is not None and gamma_gradient is not None and beta_gradient is not None,
        "nil for gamma or a gradient: what that means is unstated",
    )
    b.need(incoming.shape == x.shape, f"a gradient of {incoming.shape} for {x.shape}")
    inputs = [
        incoming,
        x,
        *_fits(
            b,
            x,
            mean=mean,
            variance=variance,
            gamma=gamma,
            gamma_gradient=gamma_gradient,
            beta_gradient=beta_gradient,
        ),
    ]
    _fits(b, x, incoming=incoming)
    where = b.axes(axes, len(x.shape))
    small = kept(x.shape, where)
    for name, t in (("mean", mean), ("variance", variance)):
        b.need(t.shape == small, f"{name} of {t.shape}, the axes leave {small}")
    for name, t in (("gamma", gamma), ("gamma", gamma_gradient), ("beta", beta_gradient)):
        b.need(
            b.broadcast(small, t.shape) == small,
            f"{name} of {t.shape} changes along the reduced axes {where}",
        )

    def compute(g: Any, v: Any, m: Any, s: Any, scale: Any, dg: Any, db: Any) -> np.ndarray:
        n = v.dtype.type(_count(v, where))
        inverse = 1 / np.sqrt(s + v.dtype.type(epsilon))
        normalized = (v - m) * inverse
        return scale * inverse * (g - db / n - normalized * dg / n)

    return b.one(inputs, x.shape, x.dtype, compute)


_TAIL = "reductionAxes:epsilon:name:"
_STATISTICS = "sourceTensor:meanTensor:varianceTensor:"
_INCOMING = "GradientWithIncomingGradientTensor:"
RULES: dict[str, Any] = {
    "meanOfTensor:axes:name:": mean,
    "varianceOfTensor:axes:name:": variance,
    "varianceOfTensor:meanTensor:axes:name:": variance_about,
    "normalizationWithTensor:meanTensor:varianceTensor:gammaTensor:betaTensor:epsilon:name:": (
        normalization
    ),
    f"normalizationGamma{_INCOMING}{_STATISTICS}{_TAIL}": gamma_gradient,
    f"normalizationBeta{_INCOMING}sourceTensor:reductionAxes:name:": beta_gradient,
    f"normalization{_INCOMING}{_STATISTICS}gammaTensor:gammaGradientTensor:betaGradientTensor:"
    + _TAIL: gradient,
}
