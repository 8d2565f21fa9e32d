"""Control flow on the engine: regions as programs, against the reference."""

import numpy as np
import pytest
from tests.backends.cpu.agreement import agree, compiled

import stepgraph as sg


def both(make, arrays):
    agree(make, arrays, native=False)


X = np.random.default_rng(0).standard_normal((5, 17)).astype("float32")


@pytest.mark.parametrize("flag", [1.0, -1.0])
def test_if_takes_one_branch(flag):
    def make(g, x, y):
        return g.if_(
            g.reduction_sum(y, keep_dims=False) > 0.0,
            lambda: g.relu(x) + y,
            lambda: g.exponent(x),
        )

    both(make, [X, np.full((1, 17), flag, "float32")])


@pytest.mark.parametrize("count", [0, 1, 5])
def test_for_with_weights_carried_and_captured(count):
    rng = np.random.default_rng(1)
    weights = (rng.standard_normal((17, 17)) / 6).astype("float32")

    def make(g, x, w, n):
        def body(i, h, total):
            h = g.tanh(g.matrix_multiplication(h, w) + g.cast(i, "float32"))
            return [h, total + g.reduction_sum(h, keep_dims=False)]

        return g.for_loop(n, [x, g.constant(np.float32(0))], body, 2, 3, maximum_iterations=4)

    both(make, [X, weights, np.array(count, "int32")])


def test_for_that_swaps_and_keeps():
    def make(g, a, b):
        return g.for_loop(3, [a, b, a * 2.0], lambda i, a, b, c: [b, a, c])

    both(make, [X, X + 1])


def test_while():
    def make(g, x):
        return g.while_loop(
            [x, g.constant(np.int32(0))],
            lambda x, n: g.reduction_sum(g.absolute(x), keep_dims=False) < 1000.0,
            lambda x, n: [x * 1.5, n + 1],
        )

    both(make, [X])


def test_nested():
    def make(g, x, y):
        def body(i, h):
            def inner(j, h):
                odd = g.floor_modulo(i + j, 2)
                return g.if_(odd > 0, lambda: h * 0.5 + y, lambda: g.sin(h))

            return g.for_loop(i + 1, h, inner, maximum_iterations=3)

        return g.for_loop(4, x, body)

    both(make, [X, X * 0.1])


def test_gradient_through_a_loop():
    rng = np.random.default_rng(2)
    weights = (rng.standard_normal((17, 17)) / 6).astype("float32")

    def make(g, x, w):
        y = g.for_loop(3, x, lambda i, h: g.tanh(g.matrix_multiplication(h, w)))
        loss = g.reduction_sum(y * y, keep_dims=False)
        found = g.gradients(loss, [x, w])
        return [loss, found[x], found[w]]

    both(make, [X, weights])


def test_variables_assigned_in_a_loop():
    found = []
    for device in ("cpu", "reference"):
        g = sg.Graph()
        total = g.variable(np.zeros((1, 17), "float32"))
        x = g.placeholder(X.shape)

        def body(i, row, g=g, total=total, x=x):
            g.assign(total, total * 0.5 + g.reduction_sum(x, axes=(0,)))
            return row + 1.0

        done = g.for_loop(3, g.constant(np.float32(0)), body)
        executable = g.compile(
            feeds=[x], targets=[done], operations=[done.operation], device=device
        )
        for _ in range(2):
            executable.run({x: X})
        found.append(g.get_value(total, device))
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-5)
    assert np.any(found[0])


def test_regions_of_a_loop_run_kernels():
    executable, _ = compiled(lambda g, x: g.for_loop(2, x, lambda i, h: g.relu(h) * 2.0), [X])
    assert "1 Python steps" in executable.describe()
