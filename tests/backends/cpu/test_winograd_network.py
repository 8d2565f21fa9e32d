"""A network whose 3 x 3 convolutions go by Winograd's method, with it and without it."""

from __future__ import annotations

import numpy as np
import pytest

import stepgraph as sg


def _train(optimizer, device="cpu", steps=3, **options):
    """Losses and variables after some steps, and the description of the program."""
    graph = sg.Graph()
    rng = np.random.default_rng(3)
    images = graph.placeholder((6, 17, 16, 3), name="images")
    labels = graph.placeholder((6, 5), name="labels")
    trained = []

    def weight(*shape):
        fan_in = int(np.prod(shape[:-1]))
        value = rng.standard_normal(shape).astype("float32") * np.float32((2 / fan_in) ** 0.5)
        trained.append(graph.variable(value))
        return trained[-1]

    x = graph.relu(graph.convolution_2d(images, weight(3, 3, 3, 40), padding="TF_SAME"))
    y = graph.relu(graph.convolution_2d(x, weight(3, 3, 40, 40), padding="TF_SAME"))
    x = graph.relu(x + graph.convolution_2d(y, weight(3, 3, 40, 40), padding="TF_SAME"))
    x = graph.relu(graph.convolution_2d(x, weight(3, 3, 40, 64)))
    logits = graph.mean(x, axes=(1, 2), keep_dims=False) @ weight(64, 5)
    loss = graph.softmax_cross_entropy(logits, labels, reduction="mean")
    gradients = graph.gradients(of=loss, with_=trained)
    updates = []
    for variable, gradient in gradients.items():
        if optimizer == "descent":
            new = graph.stochastic_gradient_descent(0.05, variable, gradient)
        else:
            slot = graph.variable(0.0, shape=variable.shape)
            speed = 0.9 * slot - 0.05 * gradient
            updates.append(graph.assign(slot, speed))
            new = variable + speed
        updates.append(graph.assign(variable, new))
    step = graph.compile([images, labels], [loss], updates, device=device, **options)
    losses = []
    for _ in range(steps):
        x = rng.standard_normal(images.shape).astype("float32")
        y = np.eye(5, dtype="float32")[rng.integers(0, 5, 6)]
        losses.append(float(step.run({images: x, labels: y})[0]))
    return losses, [graph.get_value(v, device) for v in trained], step.describe()


def _assert_same(got, wanted):
    np.testing.assert_allclose(got[0], wanted[0], rtol=2e-5)
    for value, other in zip(got[1], wanted[1], strict=True):
        assert np.linalg.norm(value - other) <= 1e-5 * np.linalg.norm(other)


@pytest.mark.parametrize("optimizer", ["descent", "momentum"])
def test_with_and_without_winograd_and_the_float64_reference_agree(optimizer):
    fast = _train(optimizer)
    plain = _train(optimizer, disable=["winograd"])
    for kind in ("", "_data_gradient", "_weights_gradient"):
        lines = [line for line in fast[2].splitlines() if f"convolution_2d{kind}" in line]
        assert any("(winograd)" in line for line in lines), kind
    assert "winograd" not in plain[2]
    _assert_same(fast, plain)
    _assert_same(fast, _train(optimizer, "reference:float64"))


def test_thread_count_does_not_change_a_bit():
    losses, variables, _ = _train("descent", threads=1)
    other_losses, others, _ = _train("descent", threads=3)
    assert losses == other_losses
    assert all(np.array_equal(a, b) for a, b in zip(variables, others, strict=True))
