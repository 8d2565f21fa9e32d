"""Variables that are kept in the shape in which products read them."""

from __future__ import annotations

import numpy as np
import pytest

import stepgraph as sg


def projection(graph, rng, optimizer, batch=5):
    """Loss and updates of a product with a kernel of three axes, and a bias of two."""
    x = graph.placeholder((batch, 24), name="x")
    kernel = graph.variable(rng.standard_normal((24, 2, 16)).astype("float32"), name="kernel")
    bias = graph.variable(rng.standard_normal((2, 16)).astype("float32"), name="bias")
    y = x @ graph.reshape(kernel, (24, 32)) + graph.reshape(bias, (32,))
    loss = graph.mean(graph.square(graph.tanh(y)), keep_dims=False)
    weights = [kernel, bias]
    gradients = graph.gradients(of=loss, with_=weights)
    return x, loss, UPDATES[optimizer](graph, gradients)


def descent(graph, gradients):
    return [
        graph.assign(v, graph.stochastic_gradient_descent(0.1, v, g)) for v, g in gradients.items()
    ]


def momentum(graph, gradients):
    """With decay and clipping by the norm of all: slots, and sums over gradients."""
    square = sum(
        (graph.reduction_sum(graph.square(g), keep_dims=False) for g in gradients.values()),
        start=0.0,
    )
    factor = 0.01 / graph.maximum(graph.square_root(square), 0.01)
    updates = []
    for variable, gradient in gradients.items():
        slot = graph.variable(0.0, shape=variable.shape, name=f"{variable.name}/slot")
        speed = 0.9 * slot - 0.1 * (gradient * factor)
        updates += [graph.assign(slot, speed), graph.assign(variable, variable * 0.99 + speed)]
    return updates


def adam(graph, gradients):
    updates = []
    for variable, gradient in gradients.items():
        slots = [graph.variable(0.0, shape=variable.shape) for _ in range(2)]
        new = graph.adam(0.01, 0.9, 0.999, 1e-7, 0.9, 0.999, variable, *slots, gradient)
        updates += [graph.assign(v, n) for v, n in zip((variable, *slots), new, strict=True)]
    return updates


UPDATES = {"descent": descent, "momentum": momentum, "adam": adam}


def train(optimizer, steps=3, **options):
    graph, rng = sg.Graph(), np.random.default_rng(0)
    x, loss, updates = projection(graph, rng, optimizer)
    step = graph.compile([x], [loss], updates, **options)
    for _ in range(steps):
        step.run({x: rng.standard_normal(x.shape).astype("float32")})
    device = options.get("device", "cpu")
    return {name: graph.get_value(name, device) for name in graph.variables}, step


@pytest.mark.parametrize("optimizer", UPDATES)
def test_training_agrees_and_copies_nothing(optimizer):
    got, step = train(optimizer)
    apart, other = train(optimizer, disable=["variable_shapes"])
    wanted, _ = train(optimizer, device="reference:float64")
    for name, value in wanted.items():
        assert got[name].shape == value.shape
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(apart[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    assert "keep old value" not in step.describe()
    assert "keep old value" in other.describe()


def test_plain_descent_is_part_of_the_gradient():
    _, step = train("descent")
    assert "matrix_multiplication with update" in step.describe()


def test_values_are_given_and_taken_in_the_variables_own_shape():
    graph, rng = sg.Graph(), np.random.default_rng(0)
    x, loss, updates = projection(graph, rng, "descent")
    step = graph.compile([x], [loss], updates)
    fed = rng.standard_normal(x.shape).astype("float32")
    step.run({x: fed})
    value = rng.standard_normal((24, 2, 16)).astype("float32")
    graph.set_value("kernel", value)
    np.testing.assert_array_equal(graph.get_value("kernel"), value)
    evaluate = graph.compile([x], [loss])
    before = evaluate.run({x: fed})[0]
    step.run({x: fed})
    assert evaluate.run({x: fed})[0] < before


@pytest.mark.parametrize("first", ["plain", "step"])
def test_a_program_that_reads_it_in_its_own_shape_shares_it(first):
    graph, rng = sg.Graph(), np.random.default_rng(0)
    x, loss, updates = projection(graph, rng, "momentum")
    kernel = graph.variables["kernel"]
    sums = graph.reduction_sum(kernel, axes=(1,), keep_dims=False)
    scaled = graph.assign(kernel, kernel * 2.0)
    makers = {
        "plain": lambda: graph.compile([], [sums], [scaled]),
        "step": lambda: graph.compile([x], [loss], updates),
    }
    made = {name: makers[name]() for name in (first, *({*makers} - {first}))}
    fed = {x: rng.standard_normal(x.shape).astype("float32")}
    feeds = {"plain": {}, "step": fed}
    made[first].run(feeds[first])
    for name in ("plain", "step", "plain", "plain"):
        before = graph.get_value("kernel")
        found = made[name].run(feeds[name])[0]
        if name == "plain":
            np.testing.assert_allclose(found, before.sum(axis=1), rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(graph.get_value("kernel"), before * 2)
        else:
            assert np.any(graph.get_value("kernel") != before)


def test_a_target_keeps_its_shape():
    graph, rng = sg.Graph(), np.random.default_rng(0)
    x, loss, updates = projection(graph, rng, "momentum")
    kernel = graph.variables["kernel"]
    before = graph.get_value("kernel")
    step = graph.compile([x], [loss, kernel, kernel + 1.0], updates)
    found = step.run({x: np.ones(x.shape, "float32")})
    np.testing.assert_array_equal(found[1], before)
    np.testing.assert_array_equal(found[2], before + 1)


def test_loops_over_it_see_its_own_shape():
    graph, rng = sg.Graph(), np.random.default_rng(0)
    x, loss, updates = projection(graph, rng, "descent")
    kernel = graph.variables["kernel"]
    step = graph.compile([x], [loss], updates)
    step.run({x: np.ones(x.shape, "float32")})
    total = graph.for_loop(3, kernel * 0.0, lambda _, y: y + kernel)
    made = total[0] if isinstance(total, (list, tuple)) else total
    found = graph.compile([], [made]).run({})[0]
    np.testing.assert_allclose(found, 3 * graph.get_value("kernel"), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_an_update_that_only_reshapes_is_kept(dtype):
    """A view computes nothing, so it cannot have been computed in the variable's place."""

    def updated(device):
        rng = np.random.default_rng(0)
        graph = sg.Graph()
        v = graph.variable(rng.integers(1, 9, (1, 4, 2)).astype(dtype), name="v")
        factor = graph.placeholder((2,), dtype)
        product = graph.reshape(v, (4, 2)) * factor
        step = graph.compile(
            [factor],
            targets=[graph.reduction_sum(v)],
            operations=[graph.assign(v, graph.reshape(product, (1, 4, 2)))],
            device=device,
            disable=["variable_shapes"] if device == "cpu" else [],
        )
        found = [step.run({factor: np.array([2, 3], dtype)})[0] for _ in range(3)]
        return found, graph.get_value(v, device)

    (sums, value), (expected_sums, expected) = updated("cpu"), updated("reference")
    np.testing.assert_array_equal(np.ravel(sums), np.ravel(expected_sums))
    np.testing.assert_array_equal(value, expected)
