"""The engine as a whole: networks against the float64 reference, passes on and off, threads."""

from __future__ import annotations

import numpy as np
import pytest

import stepgraph as sg
from stepgraph.backends.cpu.device import ALL_PASSES, OWN_PASSES


def residual_network(graph, rng, channels=24, classes=5, batch=6):
    """Convolutions with batch normalisation and a shortcut, pooling, a dense layer."""
    images = graph.placeholder((batch, 9, 7, 3), name="images")
    labels = graph.placeholder((batch, classes), name="labels")
    trained = []

    def weight(*shape, scale=0.2, name="w"):
        value = (rng.standard_normal(shape) * scale).astype("float32")
        trained.append(graph.variable(value, name=name))
        return trained[-1]

    def normalised(x):
        size = x.shape[-1]
        gamma = graph.variable(1 + 0.1 * rng.standard_normal(size).astype("float32"), name="gamma")
        beta = graph.variable(0.1 * rng.standard_normal(size).astype("float32"), name="beta")
        trained.extend([gamma, beta])
        mean = graph.variable(0.0, shape=(size,), name="moving_mean")
        variance = graph.variable(1.0, shape=(size,), name="moving_variance")
        return graph.batch_normalization(x, gamma, beta, mean, variance, True)

    def conv(x, kernel, filters, **settings):
        return normalised(graph.convolution_2d(x, weight(*kernel, x.shape[3], filters), **settings))

    x = graph.relu(conv(images, (3, 3), channels, padding="TF_SAME"))
    y = graph.relu(conv(x, (1, 1), 16))
    y = conv(y, (3, 3), channels, padding="TF_SAME")
    x = graph.relu(x + y)
    x = graph.max_pooling_2d(x, (2, 2), strides=(2, 2))
    x = graph.relu(conv(x, (3, 3), 40, strides=(2, 2), padding="TF_SAME"))
    x = graph.mean(x, axes=(1, 2), keep_dims=False)
    logits = x @ weight(40, classes) + weight(classes, name="bias")
    loss = graph.softmax_cross_entropy(logits, labels, reduction="mean")
    return images, labels, loss, trained


def perceptron(graph, rng, batch=5):
    """Three dense layers with a gelu and layer normalisation."""
    images = graph.placeholder((batch, 20), name="images")
    labels = graph.placeholder((batch, 7), name="labels")
    trained = []

    def weight(*shape, scale=0.3):
        trained.append(graph.variable((rng.standard_normal(shape) * scale).astype("float32")))
        return trained[-1]

    x = graph.gelu(images @ weight(20, 33) + weight(33))
    x = graph.layer_normalization(x, weight(33), weight(33))
    x = graph.tanh(x @ weight(33, 16) + weight(16))
    loss = graph.softmax_cross_entropy(x @ weight(16, 7), labels, reduction="mean")
    return images, labels, loss, trained


def descent(graph, gradients):
    return [
        graph.assign(v, graph.stochastic_gradient_descent(0.05, v, g)) for v, g in gradients.items()
    ]


def momentum(graph, gradients):
    """Momentum, weight decay, clipping by the global norm: gradients are used more than once."""
    norm = graph.square_root(
        sum((graph.reduction_sum(g * g, keep_dims=False) for g in gradients.values()), start=0.0)
    )
    scale = 0.5 / graph.maximum(norm, 0.5)
    updates = []
    for variable, gradient in gradients.items():
        slot = graph.variable(0.0, shape=variable.shape, name="slot")
        speed = 0.9 * slot - 0.05 * (gradient * scale + 1e-3 * variable)
        updates += [graph.assign(slot, speed), graph.assign(variable, variable + speed)]
    return updates


NETWORKS = {"residual": residual_network, "perceptron": perceptron}
OPTIMIZERS = {"descent": descent, "momentum": momentum}


def train(network, optimizer, device, steps=3, **options):
    """Losses of a few steps and the variables after them."""
    graph = sg.Graph(network)
    rng = np.random.default_rng(7)
    images, labels, loss, trained = NETWORKS[network](graph, rng)
    gradients = graph.gradients(of=loss, with_=trained)
    updates = OPTIMIZERS[optimizer](graph, gradients)
    # What batch normalisation moves is reached through the loss, so it needs no naming here.
    step = graph.compile([images, labels], [loss], updates, device=device, **options)
    losses = []
    for _ in range(steps):
        x = rng.standard_normal(images.shape).astype("float32")
        batch, classes = labels.shape
        y = np.eye(classes, dtype="float32")[rng.integers(0, classes, batch)]
        losses.append(float(step.run({images: x, labels: y})[0]))
    return losses, {n: graph.get_value(n, device) for n in graph.variables}


every_network = pytest.mark.parametrize("network", NETWORKS)
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)


def assert_same_training(got, wanted, tolerance):
    np.testing.assert_allclose(got[0], wanted[0], rtol=tolerance)
    for name, value in wanted[1].items():
        scale = max(1e-3, float(np.abs(value).max()))
        error = float(np.abs(got[1][name] - value).max())
        assert error <= 20 * tolerance * scale, f"{name}: off by {error:.3g} at scale {scale:.3g}"


@every_network
@every_optimizer
def test_training_agrees_with_the_float64_reference(network, optimizer):
    got = train(network, optimizer, "cpu")
    assert_same_training(got, train(network, optimizer, "reference:float64"), 1e-4)


@every_network
@every_optimizer
@pytest.mark.parametrize("name", [*ALL_PASSES, *OWN_PASSES])
def test_each_pass_changes_nothing_but_speed(network, optimizer, name):
    with_pass = train(network, optimizer, "cpu")
    without = train(network, optimizer, "cpu", disable=[name])
    assert_same_training(without, with_pass, 1e-4)


@every_network
def test_thread_count_does_not_change_a_bit(network):
    losses, variables = train(network, "momentum", "cpu", threads=1)
    for threads in (2, 3):
        other_losses, others = train(network, "momentum", "cpu", threads=threads)
        assert other_losses == losses
        for name, value in variables.items():
            np.testing.assert_array_equal(others[name], value, err_msg=name)


def test_an_unknown_pass_is_refused_with_the_known_ones():
    with pytest.raises(sg.errors.GraphError, match="fuse"):
        train("perceptron", "descent", "cpu", disable=["fusion"])


def test_training_and_evaluation_share_variables():
    graph = sg.Graph()
    x = graph.placeholder((4, 32), name="x")
    w = graph.variable(np.ones((32, 16), "float32"), name="w")
    y = x @ w
    loss = graph.reduction_sum(y * y, keep_dims=False)
    gradient = graph.gradients(of=loss, with_=[w])[w]
    update = graph.assign(w, graph.stochastic_gradient_descent(1e-3, w, gradient))
    evaluate, step = graph.compile([x], [y]), graph.compile([x], [loss], [update])
    value = np.random.default_rng(0).standard_normal((4, 32)).astype("float32")
    before = evaluate.run({x: value})[0]
    step.run({x: value})
    after = evaluate.run({x: value})[0]
    assert np.abs(after).sum() < np.abs(before).sum()
    np.testing.assert_allclose(after, value @ graph.get_value(w), rtol=2e-5, atol=2e-5)


def test_planned_memory_is_shared_and_reported():
    graph = sg.Graph()
    rng = np.random.default_rng(0)
    images, labels, loss, trained = residual_network(graph, rng)
    updates = descent(graph, graph.gradients(of=loss, with_=trained))
    feeds = [images, labels]
    shared = graph.compile(feeds, [loss], updates)
    apart = graph.compile(feeds, [loss], updates, disable=["share_memory"])
    assert 0 < shared.planned_bytes() < apart.planned_bytes()
    assert "arena" in shared.describe()


def test_swapped_variables_get_each_others_old_value():
    graph = sg.Graph()
    a, b = graph.variable([1.0, 2.0], name="a"), graph.variable([3.0, 4.0], name="b")
    swap = [graph.assign(a, b), graph.assign(b, a)]
    graph.compile([], [], swap).run()
    np.testing.assert_array_equal(graph.get_value(a), [3.0, 4.0])
    np.testing.assert_array_equal(graph.get_value(b), [1.0, 2.0])


def test_a_target_shows_the_value_from_the_start_of_the_run():
    graph = sg.Graph()
    v = graph.variable([1.0, 2.0], name="v")
    step = graph.compile([], [v, v * 10.0], [graph.assign(v, v + 1.0)])
    first, times_ten = step.run()
    np.testing.assert_array_equal(first, [1.0, 2.0])
    np.testing.assert_array_equal(times_ten, [10.0, 20.0])
    np.testing.assert_array_equal(graph.get_value(v), [2.0, 3.0])


def test_reading_weights_first_does_not_slow_training_down():
    graph = sg.Graph()
    x = graph.placeholder((4, 32), name="x")
    w = graph.variable(np.ones((32, 16), "float32"), name="w")
    look = graph.compile([], [w])
    look.run()
    loss = graph.mean(graph.square(x @ w), keep_dims=False)
    gradient = graph.gradients(of=loss, with_=[w])[w]
    update = graph.assign(w, graph.stochastic_gradient_descent(0.1, w, gradient))
    step = graph.compile([x], [loss], [update])
    assert "w:weights" in step.describe()
    step.run({x: np.ones((4, 32), "float32")})
    np.testing.assert_array_equal(look.run()[0], graph.get_value(w))
    assert not np.array_equal(graph.get_value(w), w.initial)


def test_a_weight_is_updated_before_the_next_gradient_is_there():
    graph = sg.Graph()
    x = graph.placeholder((4, 32), name="x")
    weights = [graph.variable(np.ones((32, 32), "float32"), name=n) for n in ("first", "second")]
    loss = graph.mean(graph.tanh(x @ weights[0]) @ weights[1], keep_dims=False)
    updates = [
        update
        for variable, gradient in graph.gradients(of=loss, with_=weights).items()
        for slot in [graph.variable(0.0, shape=variable.shape, name=f"{variable.name} slot")]
        for speed in [0.9 * slot - 0.1 * gradient]
        for update in (graph.assign(slot, speed), graph.assign(variable, variable + speed))
    ]
    lines = graph.compile([x], [loss], updates).describe().splitlines()
    writes = [line.partition(" <- ")[0] for line in lines]
    updated = next(i for i, w in enumerate(writes) if "second:weights" in w)
    gradients = [i for i, w in enumerate(lines) if "<- matrix_multiplication" in w]
    assert updated < gradients[-1]


def test_held_bytes_are_variables_and_constants() -> None:
    graph = sg.Graph()
    x = graph.placeholder((8, 32), name="x")
    w = graph.variable(np.ones((32, 16), "float32"), name="w")
    unused = graph.variable(np.ones((1000, 1000), "float32"), name="unused")
    assert unused.shape == (1000, 1000)
    step = graph.compile([x], [graph.matrix_multiplication(x, w)])
    held = step.held_bytes()
    assert 32 * 16 * 4 <= held < 2 * 32 * 16 * 4
    assert f"variables and constants {held / 1e6:.1f} MB" in step.describe()


@pytest.mark.parametrize("order", [(0.0, -0.0), (-0.0, 0.0)])
def test_constants_equal_by_value_have_kernels_of_their_own(order):
    """A kernel is found again by what it is made of, and -0.0 == 0.0 in Python."""
    for number in order:
        graph = sg.Graph()
        x = graph.placeholder((8,), name="x")
        step = graph.compile([x], [x * number])
        got = step.run({x: np.ones(8, "float32")})[0]
        assert np.array_equal(np.signbit(got), np.full(8, np.signbit(number)))
