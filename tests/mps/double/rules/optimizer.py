"""MPSGraphOptimizerOps."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.mps.double import dtypes
from tests.mps.double.graph import Builder
from tests.mps.double.objects import Object
from tests.mps.double.rules.memory import assign_operation


def _scalars(b: Builder, like: Object, **tensors: Object) -> list[Object]:
    for name, t in tensors.items():
        b.need(t.shape in ((), (1,)), f"{name} of {t.shape}: not one element")
    b.same_dtype(like, *tensors.values())
    b.dtype(like, dtypes.FLOATS)
    return list(tensors.values())


def _alike(b: Builder, values: Object, *others: Object | None) -> None:
    for t in others:
        if t is not None:
            b.need(t.shape == values.shape, f"{t.shape} where the values are {values.shape}")
            b.same_dtype(values, t)


def descent(b: Builder, rate: Object, values: Object, gradient: Object) -> Object:
    _scalars(b, values, rate=rate)
    _alike(b, values, gradient)
    return b.one(
        [rate, values, gradient],
        values.shape,
        values.dtype,
        lambda r, v, g: (v - r.reshape(()) * g).astype(v.dtype),
    )


def apply_descent(b: Builder, rate: Object, variable: Object, gradient: Object) -> Object:
    tensor = variable.outputs[0]
    b.take(tensor, "variable")
    _scalars(b, tensor, rate=rate)
    _alike(b, tensor, gradient)
    return assign_operation(
        b,
        variable,
        [tensor, rate, gradient],
        lambda v, r, g: (v - r.reshape(()) * g).astype(v.dtype),
    )


def _adam(
    b: Builder,
    scalars: dict[str, Object],
    state: tuple[Object, Object, Object, Object | None, Object],
) -> list[Object]:
    values, momentum, velocity, most, gradient = state
    inputs = _scalars(b, values, **scalars)
    _alike(b, values, momentum, velocity, most, gradient)
    inputs += [t for t in state if t is not None]
    corrected = "beta1_power" in scalars

    def compute(*arrays: np.ndarray) -> list[np.ndarray]:
        n = len(scalars)
        numbers = dict(zip(scalars, (a.reshape(()) for a in arrays[:n]), strict=True))
        v, m, s, *peak, g = arrays[n:]
        one = v.dtype.type(1)
        rate, b1, b2 = numbers["rate"], numbers["beta1"], numbers["beta2"]
        if corrected:
            rate = rate * np.sqrt(one - numbers["beta2_power"]) / (one - numbers["beta1_power"])
        m = b1 * m + (one - b1) * g
        s = b2 * s + (one - b2) * g * g
        peak = [np.maximum(p, s) for p in peak]
        v = v - rate * m / (np.sqrt(peak[0] if peak else s) + numbers["epsilon"])
        return [a.astype(v.dtype) for a in (v, m, s, *peak)]

    count = 4 if most is not None else 3
    return b.many(inputs, [(values.shape, values.dtype)] * count, compute)


def adam(b: Builder, rate: Any, b1: Any, b2: Any, eps: Any, p1: Any, p2: Any, *state: Any) -> Any:
    scalars = {"rate": rate, "beta1": b1, "beta2": b2, "epsilon": eps}
    return _adam(b, {**scalars, "beta1_power": p1, "beta2_power": p2}, state)


def adam_current(b: Builder, rate: Any, b1: Any, b2: Any, eps: Any, *state: Any) -> Any:
    return _adam(b, {"rate": rate, "beta1": b1, "beta2": b2, "epsilon": eps}, state)


_STATE = "valuesTensor:momentumTensor:velocityTensor:maximumVelocityTensor:gradientTensor:name:"
_BETAS = "beta1Tensor:beta2Tensor:epsilonTensor:"
_APPLY = "applyStochasticGradientDescentWithLearningRateTensor:variable:gradientTensor:name:"
RULES: dict[str, Any] = {
    "stochasticGradientDescentWithLearningRateTensor:valuesTensor:gradientTensor:name:": descent,
    _APPLY: apply_descent,
    f"adamWithLearningRateTensor:{_BETAS}beta1PowerTensor:beta2PowerTensor:{_STATE}": adam,
    f"adamWithCurrentLearningRateTensor:{_BETAS}{_STATE}": adam_current,
}
