"""Scales behind products, folded into their weights, beside the reference and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import stepgraph as sg

RNG = np.random.default_rng(1)


def random(*shape):
    return RNG.standard_normal(shape).astype("float32")


def batch_norm(graph, y, channels, axis=-1, epsilon=1e-3):
    """A normalisation by statistics that do not change."""
    shape = [1] * y.rank
    shape[axis] = channels

    def vector(name, value):
        return graph.reshape(graph.variable(value, name=name), shape)

    mean, variance = (
        vector("mean", random(channels)),
        vector("var", (RNG.random(channels) + 0.5).astype("f")),
    )
    gamma, beta = vector("gamma", random(channels)), vector("beta", random(channels))
    return graph.normalize(y, mean, variance, gamma, beta, epsilon)


def product(graph, kind, channels=5):
    """(placeholder, product, channels of it, their axis)."""
    if kind == "dense":
        x = graph.placeholder((7, 6), name="x")
        return x, x @ graph.variable(random(6, channels), name="w"), channels, -1
    if kind == "dense transposed":
        x = graph.placeholder((7, 6), name="x")
        w = graph.variable(random(channels, 6), name="w")
        y = graph.matrix_multiplication(x, w, transpose_secondary=True)
        return x, y, channels, -1
    if kind == "NCHW":
        x = graph.placeholder((2, 6, 9, 7), name="x")
        w = graph.variable(random(channels, 6, 3, 3), name="w")
        y = graph.convolution_2d(x, w, padding="TF_SAME", data_layout="NCHW", weights_layout="OIHW")
        return x, y, channels, 1
    x = graph.placeholder((2, 9, 7, 3 if kind == "stem" else 6), name="x")
    if kind == "depthwise":
        w = graph.variable(random(3, 3, 6, 2), name="w")
        return x, graph.depthwise_convolution_2d(x, w, padding="TF_SAME"), 12, -1
    if kind == "behind":
        x0, x = x, graph.tanh(x)
        w = graph.variable(random(3, 3, 6, channels), name="w")
        return x0, graph.convolution_2d(x, w, padding="TF_SAME"), channels, -1
    w = graph.variable(random(3, 3, 3 if kind == "stem" else 6, channels), name="w")
    return x, graph.convolution_2d(x, w, padding="TF_SAME"), channels, -1


KINDS = ("dense", "dense transposed", "NCHW", "stem", "plain", "behind", "depthwise")


def run(graph, x, target, device="cpu", **options):
    executable = graph.compile([x], [target], device=device, **options)
    return executable.run({x: np.linspace(-2, 2, np.prod(x.shape), dtype="f").reshape(x.shape)})[0]


def reference(graph, x, target):
    return run(graph, x, target, "reference:float64")


def scaled_products(graph, x, target, **options):
    """How many products are left with something multiplied behind them in every run."""
    (runner,) = graph.compile([x], [target], **options)._runners.values()
    names = [step.name.replace("matrix_multiplication", "") for step in runner.steps]
    return sum("multiplication" in name for name in names)


def check(graph, x, target):
    wanted = reference(graph, x, target)
    scale = max(1.0, np.abs(wanted).max())
    for options in ({}, {"disable": ["fold_scales"]}, {"disable": ["prepare"]}):
        found = run(graph, x, target, **options)
        assert np.abs(found - wanted).max() <= 4e-6 * scale, options


@pytest.mark.parametrize("channels", [5, 32])
@pytest.mark.parametrize("kind", KINDS)
def test_normalisations_are_folded(kind, channels):
    graph = sg.Graph()
    x, y, found, axis = product(graph, kind, channels)
    target = graph.relu(batch_norm(graph, y, found, axis))
    check(graph, x, target)
    assert scaled_products(graph, x, target) == 0
    assert scaled_products(graph, x, target, disable=["fold_scales"]) > 0


@pytest.mark.parametrize("seed", range(12))
def test_any_row_of_affine_steps(seed):
    rng = np.random.default_rng(seed)
    graph = sg.Graph()
    x, y, channels, _ = product(graph, "behind")
    for _ in range(rng.integers(1, 6)):
        shape = [(), (1,), (channels,), (1, 1, channels)][rng.integers(4)]
        value = graph.variable((rng.random(shape) + 0.5).astype("float32"))
        y = [
            lambda y, v: y + v,
            lambda y, v: v + y,
            lambda y, v: y - v,
            lambda y, v: v - y,
            lambda y, v: y * v,
            lambda y, v: v * y,
            lambda y, v: y / v,
        ][rng.integers(7)](y, value)
    check(graph, x, y)


def test_two_readers_keep_the_product():
    graph = sg.Graph()
    x, y, channels, _ = product(graph, "plain")
    check(graph, x, batch_norm(graph, y, channels) + graph.tanh(y))


def test_what_is_asked_for_is_kept():
    graph = sg.Graph()
    x, y, channels, _ = product(graph, "plain")
    z = batch_norm(graph, y, channels)
    fed = random(*x.shape)
    first = graph.compile([x], [y, z]).run({x: fed})
    second = graph.compile([x], [y, z], device="reference").run({x: fed})
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_a_number_over_the_product_is_no_scale():
    graph = sg.Graph()
    x, y, channels, _ = product(graph, "plain")
    check(graph, x, graph.variable(random(channels), name="top") / (y * 0.01 + 3.0))


def test_scales_of_places_are_no_scales_of_channels():
    graph = sg.Graph()
    x, y, _, _ = product(graph, "plain")
    check(graph, x, y * graph.variable(random(9, 7, 1), name="places"))


def test_what_a_step_changes_is_not_folded():
    graph = sg.Graph()
    x, y, channels, _ = product(graph, "plain")
    z = batch_norm(graph, y, channels)
    mean = graph.get_variable("mean")
    moved = graph.assign(mean, graph.mean(y, axes=(0, 1, 2), keep_dims=False))
    fed = random(*x.shape)
    results = []
    for device in ("cpu", "reference"):
        step = graph.compile([x], [z], [moved], device=device)
        results.append([step.run({x: fed})[0] for _ in range(3)])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-3, atol=1e-4)


def test_a_convolution_and_its_normalisation_beside_pytorch():
    torch = pytest.importorskip("torch")
    graph = sg.Graph()
    x, y, channels, axis = product(graph, "NCHW", 32)
    target = graph.relu(batch_norm(graph, y, channels, axis, 1e-5))
    fed = random(*x.shape)
    found = graph.compile([x], [target]).run({x: fed})[0]
    value = {n: torch.from_numpy(graph.get_value(n)) for n in graph.variables}
    wanted = torch.relu(
        torch.nn.functional.batch_norm(
            torch.nn.functional.conv2d(torch.from_numpy(fed), value["w"], padding=1),
            *(value[n] for n in ("mean", "var", "gamma", "beta")),
            eps=1e-5,
        )
    )
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-4)
