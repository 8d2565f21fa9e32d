"""Optimizers over several steps, in float64: against Keras's formulas in NumPy, and torch.optim."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import stepgraph as sg
from stepgraph import layers, models, optimizers, schedules
from stepgraph.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop

DEVICE = "reference:float64"
STEPS = 5
Array = np.ndarray[Any, Any]


def gradients(rng: np.random.Generator) -> list[list[Array]]:
    """Gradients of two weights for every step; float32 holds them exactly."""
    shapes = [(3, 2), (4,)]
    return [
        [rng.standard_normal(s).astype("float32").astype("float64") for s in shapes]
        for _ in range(STEPS)
    ]


def start(rng: np.random.Generator) -> list[Array]:
    return [rng.standard_normal(s).astype("float32").astype("float64") for s in [(3, 2), (4,)]]


def trained(optimizer: Optimizer, weights: list[Array], steps: list[list[Array]]) -> list[Array]:
    """The weights after steps with given gradients, computed in a graph."""
    graph = sg.Graph()
    variables = [graph.variable(w, dtype="float32", name=f"w{i}") for i, w in enumerate(weights)]
    fed = [graph.placeholder(w.shape) for w in weights]
    optimizer.build(graph, [(v.name, v) for v in variables], DEVICE)
    triples = [(v.name, v, g) for v, g in zip(variables, fed, strict=True)]
    operations = optimizer.apply(graph, triples)
    run = graph.compile(fed, [], operations, device=DEVICE)
    for step in steps:
        run.run(dict(zip(fed, step, strict=True)))
    return [graph.get_value(v, DEVICE) for v in variables]


Rule = Callable[[int, Array, Array, dict[str, Any]], Array]


def transcribed(rule: Rule, weights: list[Array], steps: list[list[Array]]) -> list[Array]:
    """The same by a NumPy rule of (step from 1, weight, gradient, state)."""
    found = []
    for i, weight in enumerate(weights):
        state: dict[str, Any] = {}
        for number, step in enumerate(steps, 1):
            weight = rule(number, weight, step[i], state)
        found.append(weight)
    return found


def momentum_rule(nesterov: bool) -> Rule:
    def rule(t: int, w: Array, g: Array, s: dict[str, Any]) -> Array:
        s["v"] = 0.75 * s.get("v", 0.0) - 0.125 * g
        return w + (0.75 * s["v"] - 0.125 * g if nesterov else s["v"])

    return rule


def adam_rule(amsgrad: bool = False, decay: float = 0.0) -> Rule:
    def rule(t: int, w: Array, g: Array, s: dict[str, Any]) -> Array:
        b1, b2, lr, eps = 0.875, 0.9375, 0.125, 2.0**-20
        w = w - w * decay * lr
        s["m"] = s.get("m", 0.0) + (g - s.get("m", 0.0)) * (1 - b1)
        s["v"] = s.get("v", 0.0) + (g * g - s.get("v", 0.0)) * (1 - b2)
        s["h"] = np.maximum(s.get("h", 0.0), s["v"])
        alpha = lr * math.sqrt(1 - b2**t) / (1 - b1**t)
        return w - alpha * s["m"] / (np.sqrt(s["h"] if amsgrad else s["v"]) + eps)

    return rule


def rmsprop_rule(centered: bool, momentum: float) -> Rule:
    def rule(t: int, w: Array, g: Array, s: dict[str, Any]) -> Array:
        s["v"] = 0.875 * s.get("v", 0.0) + 0.125 * g * g
        s["a"] = 0.875 * s.get("a", 0.0) + 0.125 * g
        spread = s["v"] - s["a"] ** 2 if centered else s["v"]
        move = 0.0625 * g / np.sqrt(spread + 2.0**-20)
        s["b"] = momentum * s.get("b", 0.0) + move
        return w - (s["b"] if momentum else move)

    return rule


ADAM = {"learning_rate": 0.125, "beta_1": 0.875, "beta_2": 0.9375, "epsilon": 2.0**-20}
RMS = {"learning_rate": 0.0625, "rho": 0.875, "epsilon": 2.0**-20}

CASES: dict[str, tuple[Callable[[], Optimizer], Rule]] = {
    "sgd": (lambda: SGD(0.125), lambda t, w, g, s: w - 0.125 * g),
    "momentum": (lambda: SGD(0.125, momentum=0.75), momentum_rule(False)),
    "nesterov": (lambda: SGD(0.125, momentum=0.75, nesterov=True), momentum_rule(True)),
    "decayed": (
        lambda: SGD(0.125, weight_decay=0.25),
        lambda t, w, g, s: w - w * 0.25 * 0.125 - 0.125 * g,
    ),
    "adam": (lambda: Adam(**ADAM), adam_rule()),
    "amsgrad": (lambda: Adam(**ADAM, amsgrad=True), adam_rule(amsgrad=True)),
    "adamw": (lambda: AdamW(**ADAM, weight_decay=0.25), adam_rule(decay=0.25)),
    "rmsprop": (lambda: RMSprop(**RMS), rmsprop_rule(False, 0.0)),
    "rmsprop centered momentum": (
        lambda: RMSprop(**RMS, centered=True, momentum=0.75),
        rmsprop_rule(True, 0.75),
    ),
    "legacy rmsprop": (
        lambda: optimizers.legacy.RMSprop(**RMS),
        lambda t, w, g, s: (
            s.__setitem__("v", 0.875 * s.get("v", 0.0) + 0.125 * g * g)
            or w - 0.0625 * g / (np.sqrt(s["v"]) + 2.0**-20)
        ),
    ),
    "legacy decay": (
        lambda: optimizers.legacy.SGD(0.125, decay=0.5),
        lambda t, w, g, s: w - 0.125 / (1 + 0.5 * (t - 1)) * g,
    ),
    "clipvalue": (
        lambda: SGD(0.125, clipvalue=0.5),
        lambda t, w, g, s: w - 0.125 * np.clip(g, -0.5, 0.5),
    ),
    "clipnorm": (
        lambda: SGD(0.125, clipnorm=0.5),
        lambda t, w, g, s: w - 0.125 * g * min(1.0, 0.5 / np.linalg.norm(g)),
    ),
    "schedule": (
        lambda: SGD(schedules.ExponentialDecay(0.5, 2, 0.25)),
        lambda t, w, g, s: w - 0.5 * 0.25 ** ((t - 1) / 2) * g,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_formula(name: str, rng: np.random.Generator) -> None:
    make, rule = CASES[name]
    weights, steps = start(rng), gradients(rng)
    found = trained(make(), weights, steps)
    for got, want in zip(found, transcribed(rule, weights, steps), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


def test_global_norm(rng: np.random.Generator) -> None:
    weights, steps = start(rng), gradients(rng)
    found = trained(SGD(0.125, global_clipnorm=0.5), weights, steps)
    want = [w.copy() for w in weights]
    for step in steps:
        norm = math.sqrt(sum((g * g).sum() for g in step))
        assert norm > 0.5
        want = [w - 0.125 * g * 0.5 / norm for w, g in zip(want, step, strict=True)]
    for got, expected in zip(found, want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)
    calm = trained(SGD(0.125, global_clipnorm=100.0), weights, steps)
    free = trained(SGD(0.125), weights, steps)
    np.testing.assert_allclose(calm[0], free[0], rtol=1e-12)


TORCH: dict[str, tuple[Callable[[], Optimizer], str, dict[str, Any]]] = {
    "sgd": (lambda: SGD(0.125), "SGD", {"lr": 0.125}),
    "nesterov": (
        lambda: SGD(0.125, momentum=0.75, nesterov=True),
        "SGD",
        {"lr": 0.125, "momentum": 0.75, "nesterov": True},
    ),
    # With a vanishing epsilon it does not matter that Keras puts it elsewhere.
    "adam": (
        lambda: Adam(0.125, 0.875, 0.9375, epsilon=2.0**-60),
        "Adam",
        {"lr": 0.125, "betas": (0.875, 0.9375), "eps": 2.0**-60},
    ),
    "adamw": (
        lambda: AdamW(0.125, 0.25, 0.875, 0.9375, epsilon=2.0**-60),
        "AdamW",
        {"lr": 0.125, "betas": (0.875, 0.9375), "eps": 2.0**-60, "weight_decay": 0.25},
    ),
    "rmsprop": (
        lambda: RMSprop(0.125, rho=0.875, epsilon=2.0**-60, momentum=0.5),
        "RMSprop",
        {"lr": 0.125, "alpha": 0.875, "eps": 2.0**-60, "momentum": 0.5},
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_against_torch(name: str, torch: ModuleType, rng: np.random.Generator) -> None:
    make, kind, settings = TORCH[name]
    weights, steps = start(rng), gradients(rng)
    found = trained(make(), weights, steps)
    parameters = [torch.tensor(w, requires_grad=True) for w in weights]
    oracle = getattr(torch.optim, kind)(parameters, **settings)
    for step in steps:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = torch.tensor(gradient)
        oracle.step()
    for got, want in zip(found, parameters, strict=True):
        np.testing.assert_allclose(got, want.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_plain_sgd_is_the_one_operation_engines_fuse() -> None:
    graph = sg.Graph()
    w, g = graph.variable([1.0, 2.0], name="w"), graph.placeholder((2,))
    optimizer = SGD(0.5)
    optimizer.build(graph, [("w", w)], "reference")
    assign = next(op for op in optimizer.apply(graph, [("w", w, g)]) if op.inputs[0] is w)
    assert assign.inputs[1].operation.type == "stochastic_gradient_descent"
    assert [t.name for t in assign.inputs[1].operation.inputs[1:]] == ["w", g.name]


# -- schedules ------------------------------------------------------------------------------------

SCHEDULES: dict[str, tuple[schedules.LearningRateSchedule, Callable[[float], float]]] = {
    "exponential": (
        schedules.ExponentialDecay(0.5, 10, 0.25, staircase=True),
        lambda s: 0.5 * 0.25 ** (s // 10),
    ),
    "inverse": (schedules.InverseTimeDecay(0.5, 10, 0.25), lambda s: 0.5 / (1 + 0.25 * s / 10)),
    "piecewise": (
        schedules.PiecewiseConstantDecay([3, 7], [0.5, 0.25, 0.125]),
        lambda s: 0.5 if s <= 3 else 0.25 if s <= 7 else 0.125,
    ),
    "polynomial": (
        schedules.PolynomialDecay(0.5, 10, 0.125, power=2.0),
        lambda s: 0.375 * (1 - min(s, 10) / 10) ** 2 + 0.125,
    ),
    "cycle": (
        schedules.PolynomialDecay(0.5, 10, 0.125, cycle=True),
        lambda s: 0.375 * (1 - s / (10 * max(1, math.ceil(s / 10)))) + 0.125,
    ),
    "cosine": (
        schedules.CosineDecay(0.5, 10, alpha=0.25),
        lambda s: 0.5 * (0.75 * 0.5 * (1 + math.cos(math.pi * min(s, 10) / 10)) + 0.25),
    ),
    "warm-up": (
        schedules.CosineDecay(0.0, 10, warmup_target=0.5, warmup_steps=4),
        lambda s: 0.125 * s if s < 4 else 0.25 * (1 + math.cos(math.pi * min(s - 4, 10) / 10)),
    ),
    "restarts": (
        schedules.CosineDecayRestarts(0.5, 4, t_mul=2.0, m_mul=0.5),
        lambda s: (
            0.25 * (1 + math.cos(math.pi * s / 4))
            if s < 4
            else 0.125 * (1 + math.cos(math.pi * (s - 4) / 8))
            if s < 12
            else 0.0625 * (1 + math.cos(math.pi * (s - 12) / 16))
        ),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule(name: str) -> None:
    schedule, oracle = SCHEDULES[name]
    steps = [0, 1, 3, 4, 5, 7, 8, 10, 11, 12, 20, 25]
    graph = sg.Graph()
    step = graph.placeholder(())
    run = graph.compile([step], [schedule(step)], device=DEVICE)
    for number in steps:
        want = oracle(number)
        assert schedule(number) == pytest.approx(want, abs=1e-12)
        (found,) = run.run({step: np.float64(number)})
        assert float(found) == pytest.approx(want, abs=1e-6)
    again = schedules.get(schedules.serialize(schedule))
    assert again(5) == schedule(5)


# -- state and settings ---------------------------------------------------------------------------


def line(optimizer: Any) -> models.Model:
    model = models.Sequential([layers.Input((1,)), layers.Dense(1, kernel_initializer="ones")])
    model.compile(optimizer=optimizer, loss="mse", device="reference")
    return model


def test_rate_changes_without_compiling_anew() -> None:
    model = line(SGD(0.5))
    x, y = np.ones((1, 1), "float32"), np.zeros((1, 1), "float32")
    model.train_on_batch(x, y)
    step = model.runtime.step("train", (False,))
    before = model.get_weights()
    model.optimizer.learning_rate = 0.0
    assert model.optimizer.learning_rate == 0.0
    model.train_on_batch(x, y)
    assert model.runtime.step("train", (False,)) is step
    assert model.get_weights()[0] == before[0]
    assert model.optimizer.iterations == 2


def test_names_and_configs() -> None:
    for name, cls in optimizers.TABLE.items():
        made = optimizers.get(name)
        assert type(made) is cls
        again = optimizers.get(optimizers.serialize(made))
        assert again.get_config() == made.get_config()
    scheduled = optimizers.get(optimizers.serialize(Adam(schedules.CosineDecay(0.1, 5))))
    assert scheduled.current_rate() == 0.1
    with pytest.raises(ValueError, match=r"(?s)no optimizer 'admm'.*did you mean adam"):
        optimizers.get("admm")
    with pytest.raises(ValueError, match="one of them at most"):
        SGD(clipnorm=1.0, clipvalue=1.0)
    with pytest.raises(ValueError, match="momentum=2"):
        SGD(momentum=2)


def test_a_new_graph_takes_the_state_over() -> None:
    optimizer = Adam(0.1)
    model = line(optimizer)
    x, y = np.ones((1, 1), "float32"), np.zeros((1, 1), "float32")
    model.train_on_batch(x, y)
    state = optimizer.state()
    model.compile(optimizer=optimizer, loss="mse", device="reference")
    assert optimizer.iterations == 1
    for name, value in optimizer.state().items():
        np.testing.assert_array_equal(value, state[name])
    assert any(value.any() for name, value in state.items() if "velocity" in name)


def test_another_model_gets_a_fresh_state() -> None:
    optimizer = Adam(0.1)
    x, y = np.ones((1, 1), "float32"), np.zeros((1, 1), "float32")
    line(optimizer).train_on_batch(x, y)
    wide = models.Sequential([layers.Input((1,)), layers.Dense(3)])
    wide.compile(optimizer=optimizer, loss="mse", device="reference")
    assert optimizer.iterations == 0
    wide.train_on_batch(x, np.zeros((1, 3), "float32"))


def test_spared_from_decay() -> None:
    optimizer = SGD(0.5, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model = models.Sequential([layers.Input((1,)), layers.Dense(1, bias_initializer="ones")])
    model.compile(optimizer=optimizer, loss=lambda y, p: 0.0 * p, device="reference")
    kernel, bias = model.get_weights()
    model.train_on_batch(np.ones((1, 1), "float32"), np.ones((1, 1), "float32"))
    after = model.get_weights()
    np.testing.assert_allclose(after[0], kernel * 0.75)
    np.testing.assert_array_equal(after[1], bias)
