"""Optimizer steps (MPSGraphOptimizerOps): what a training step does to its weights, as ops."""

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
    require_same_dtype,
    require_shape,
)
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import Spec, bad_shape, element_count, format_shape
from stepgraph.graph.tensor import Tensor, TensorLike

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph


def _require_scalar(what: str, spec: Spec, values: Spec) -> None:
    if element_count(spec.shape) != 1 or spec.rank > values.rank:
        raise bad_shape(
            f"{what} has shape {format_shape(spec.shape)}",
            expected="a scalar",
            fix="reshape it to ()",
        )


def _require_like_values(what: str, spec: Spec, values: Spec) -> None:
    require_shape(spec.shape, values.shape, what, "the values")


# -- stochastic_gradient_descent -----------------------------------------------------------------


def _descent_infer(learning_rate: Spec, values: Spec, gradient: Spec) -> Spec:
    require_float(learning_rate, values, gradient)
    require_same_dtype(learning_rate, values, gradient)
    _require_scalar("the learning rate", learning_rate, values)
    _require_like_values("the gradient", gradient, values)
    return values


def _descent_reference(learning_rate: Array, values: Array, gradient: Array) -> Array:
    return np.asarray(values - learning_rate * gradient)


def _descent_gradient(op: Operation, grads: Grads) -> Gradients:
    grad = arrived(grads)
    learning_rate, _, gradient = op.inputs
    return [-(grad * gradient), grad, -(grad * learning_rate)]


def _descent_decompose(
    graph: Graph, learning_rate: Tensor, values: Tensor, gradient: Tensor
) -> Tensor:
    return values - learning_rate * gradient


def _descent_samples(rng: np.random.Generator) -> Iterator[Sample]:
    rate = np.array(0.1, "float32")
    for shape, label in (((3, 4), ""), ((), "rank 0"), ((0, 2), "empty")):
        values, gradient = (np.asarray(rng.standard_normal(shape), "float32") for _ in range(2))
        yield Sample((rate, values, gradient), label=label)
    yield Sample(
        (rate.reshape(1), *(np.ones((5,), "float32") for _ in range(2))), label="rate (1,)"
    )
    hard = np.array([np.nan, np.inf, -np.inf], "float32")
    yield Sample((rate, hard, hard[::-1].copy()), differentiable=(), label="special values")


def _descent_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.stochastic_gradient_descent(0.1, g.placeholder((3,)), g.placeholder((2,))),
        r"gradient is \(2,\), that of the values \(3,\)",
    )
    yield Misuse(
        lambda g: g.stochastic_gradient_descent(
            [0.1, 0.1], g.placeholder((2,)), g.placeholder((2,))
        ),
        r"the learning rate has shape \(2,\)",
    )
    yield Misuse(
        lambda g: g.stochastic_gradient_descent(
            1, g.placeholder((2,), "int32"), g.placeholder((2,))
        ),
        "needs floating point",
        DTypeError,
    )


# -- adam ----------------------------------------------------------------------------------------

_SCALARS = ("learning_rate", "beta1", "beta2", "epsilon", "beta1_power", "beta2_power")
_TENSORS = ("values", "momentum", "velocity", "gradient", "maximum_velocity")


def _adam_infer(*specs: Spec) -> tuple[Spec, ...]:
    require_float(*specs)
    require_same_dtype(*specs)
    values = specs[len(_SCALARS)]
    for what, spec in zip(_SCALARS, specs, strict=False):
        _require_scalar(what, spec, values)
    for what, spec in zip(_TENSORS, specs[len(_SCALARS) :], strict=False):
        _require_like_values(what, spec, values)
    return (values,) * (len(specs) - len(_SCALARS) - 1)


def _adam_reference(
    learning_rate: Array,
    beta1: Array,
    beta2: Array,
    epsilon: Array,
    beta1_power: Array,
    beta2_power: Array,
    values: Array,
    momentum: Array,
    velocity: Array,
    gradient: Array,
    maximum_velocity: Array | None = None,
) -> tuple[Array, ...]:
    rate = learning_rate * np.sqrt(1 - beta2_power) / (1 - beta1_power)
    momentum = beta1 * momentum + (1 - beta1) * gradient
    velocity = beta2 * velocity + (1 - beta2) * np.square(gradient)
    states = [momentum, velocity]
    if maximum_velocity is not None:
        velocity = np.maximum(maximum_velocity, velocity)
        states.append(velocity)
    values = values - rate * momentum / (np.sqrt(velocity) + epsilon)
    return tuple(np.asarray(a) for a in (values, *states))


def _adam_decompose(
    graph: Graph,
    learning_rate: Tensor,
    beta1: Tensor,
    beta2: Tensor,
    epsilon: Tensor,
    beta1_power: Tensor,
    beta2_power: Tensor,
    values: Tensor,
    momentum: Tensor,
    velocity: Tensor,
    gradient: Tensor,
    maximum_velocity: Tensor | None = None,
) -> tuple[Tensor, ...]:
    rate = learning_rate * graph.square_root(1.0 - beta2_power) / (1.0 - beta1_power)
    momentum = beta1 * momentum + (1.0 - beta1) * gradient
    velocity = beta2 * velocity + (1.0 - beta2) * graph.square(gradient)
    states = [momentum, velocity]
    if maximum_velocity is not None:
        velocity = graph.maximum(maximum_velocity, velocity)
        states.append(velocity)
    values = values - rate * momentum / (graph.square_root(velocity) + epsilon)
    return (values, *states)


def _adam_samples(rng: np.random.Generator) -> Iterator[Sample]:
    # Decays whose third powers are exact, so that step 3 is step 3 to every digit.
    b1, b2 = 0.875, 0.96875
    settings = [np.array(v, "float32") for v in (0.01, b1, b2, 1e-7, b1**3, b2**3)]
    for shape, label in (((3, 4), ""), ((), "rank 0"), ((0, 2), "empty")):
        values, momentum, gradient = (
            np.asarray(rng.standard_normal(shape), "float32") for _ in range(3)
        )
        velocity, largest = (np.asarray(rng.uniform(0.1, 1, shape), "float32") for _ in range(2))
        states = (values, momentum, velocity, gradient)
        yield Sample((*settings, *states), label=label)
        yield Sample((*settings, *states, largest), label=f"amsgrad {label}")
    start = [np.zeros(3, "float32")] * 3
    settings[4:] = settings[1:3]
    gradient = np.array([0.0, 1e-3, -4.0], "float32")
    yield Sample((*settings, *start, gradient), label="first step")


def _adam_misuses() -> Iterator[Misuse]:
    def adam(graph: Any, **changes: Any) -> object:
        given: dict[str, Any] = dict.fromkeys(_SCALARS, 0.5)
        given |= {what: graph.placeholder((3,)) for what in _TENSORS}
        return graph.adam(**{**given, **changes})

    yield Misuse(
        lambda g: adam(g, velocity=g.placeholder((2,))),
        r"velocity is \(2,\), that of the values \(3,\)",
    )
    yield Misuse(lambda g: adam(g, beta1=[0.9] * 3), r"beta1 has shape \(3,\)")
    yield Misuse(
        lambda g: adam(g, gradient=g.placeholder((3,), "float64")), "different dtypes", DTypeError
    )


STOCHASTIC_GRADIENT_DESCENT = OpDefinition(
    "stochastic_gradient_descent",
    inputs=("learning_rate", "values", "gradient"),
    infer=_descent_infer,
    reference=_descent_reference,
    gradient=_descent_gradient,
    decompose=_descent_decompose,
    elementwise=True,
    mpsgraph="stochasticGradientDescentWithLearningRateTensor:valuesTensor:gradientTensor:name:",
    samples=_descent_samples,
    misuses=_descent_misuses,
)
ADAM = OpDefinition(
    "adam",
    inputs=(*_SCALARS, *_TENSORS),
    infer=_adam_infer,
    reference=_adam_reference,
    not_differentiable="an optimizer's step is not differentiated",
    decompose=_adam_decompose,
    mpsgraph="adamWithLearningRateTensor:beta1Tensor:beta2Tensor:epsilonTensor:beta1PowerTensor:beta2PowerTensor:valuesTensor:momentumTensor:velocityTensor:maximumVelocityTensor:gradientTensor:name:",
    samples=_adam_samples,
    misuses=_adam_misuses,
)

DEFINITIONS = (STOCHASTIC_GRADIENT_DESCENT, ADAM)


class OptimizerOps(GraphCore):
    """Optimizer steps."""

    def stochastic_gradient_descent(
        self,
        learning_rate: TensorLike,
        values: Tensor,
        gradient: Tensor,
        name: str | None = None,
    ) -> Tensor:
        """``values - learning_rate * gradient``.

        Args:
            learning_rate: scalar, of the dtype of `values`.
            values: what is trained; usually a variable, to which the result is then assigned.
            gradient: of the shape and dtype of `values`.
            name: label in printed graphs and errors; made unique when taken.

        Returns:
            The new values.

        Raises:
            ShapeError: the learning rate is no scalar, or the shapes differ.

        Source: MPSGraph
        ``stochasticGradientDescentWithLearningRateTensor:valuesTensor:gradientTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> w, slope = graph.constant([1.0, 2.0]), graph.constant([10.0, -10.0])
            >>> w = graph.stochastic_gradient_descent(0.1, w, slope)
            >>> graph.run(targets=[w], device="reference")[0]
            array([0., 3.], dtype=float32)
        """
        _, rate = self._pair(values, learning_rate)
        return self._one(STOCHASTIC_GRADIENT_DESCENT, (rate, values, gradient), name=name)

    def adam(
        self,
        learning_rate: TensorLike,
        beta1: TensorLike,
        beta2: TensorLike,
        epsilon: TensorLike,
        beta1_power: TensorLike,
        beta2_power: TensorLike,
        values: Tensor,
        momentum: Tensor,
        velocity: Tensor,
        gradient: Tensor,
        maximum_velocity: Tensor | None = None,
        name: str | None = None,
    ) -> tuple[Tensor, ...]:
        """One step of Adam, or of AMSGrad where `maximum_velocity` is given.

        In step t, with g the gradient::

            momentum = beta1 * momentum + (1 - beta1) * g
            velocity = beta2 * velocity + (1 - beta2) * g * g
            rate     = learning_rate * sqrt(1 - beta2 ** t) / (1 - beta1 ** t)
            values   = values - rate * momentum / (sqrt(velocity) + epsilon)

        and AMSGrad takes the largest velocity so far in the last line.

        Args:
            learning_rate: scalar, as all down to `beta2_power`.
            beta1: decay of the momentum.
            beta2: decay of the velocity.
            epsilon: keeps the division finite; added to the root before it is corrected for the
                start, as Keras does ("epsilon hat" in the paper).
            beta1_power: ``beta1 ** t``, t counted from 1.
            beta2_power: ``beta2 ** t``.
            values: what is trained.
            momentum: running mean of the gradient, of the shape of `values`.
            velocity: running mean of its square.
            gradient: of the shape of `values`.
            maximum_velocity: the largest velocity so far.
            name: label.

        Returns:
            New values, momentum, velocity and, where given, maximum velocity.

        Raises:
            ShapeError: a scalar is none, or the shapes differ.

        Source: MPSGraph ``adamWithLearningRateTensor:beta1Tensor:...:gradientTensor:name:``;
        Kingma and Ba, 2014 (arXiv:1412.6980); Keras ``Adam``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> w, zero = graph.constant([1.0, 2.0]), graph.constant([0.0, 0.0])
            >>> slope = graph.constant([10.0, -0.5])
            >>> step = graph.adam(0.1, 0.9, 0.999, 1e-7, 0.9, 0.999, w, zero, zero, slope)
            >>> graph.run(targets=[step[0]], device="reference")[0].round(3)
            array([0.9, 2.1], dtype=float32)
        """
        given = (learning_rate, beta1, beta2, epsilon, beta1_power, beta2_power)
        scalars = [self._pair(values, scalar)[1] for scalar in given]
        inputs = [*scalars, values, momentum, velocity, gradient]
        if maximum_velocity is not None:
            inputs.append(maximum_velocity)
        return self._add(ADAM, inputs, name=name).outputs
