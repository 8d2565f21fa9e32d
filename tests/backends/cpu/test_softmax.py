"""Softmax kernels against the references."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.backends.cpu.agreement import agree

SHAPES = st.lists(st.sampled_from([1, 2, 3, 10, 16, 17, 40]), min_size=1, max_size=3)


@st.composite
def problems(draw):
    shape = tuple(draw(SHAPES))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    x = (rng.standard_normal(shape) * draw(st.sampled_from([1, 100]))).astype("float32")
    x[rng.random(shape) < draw(st.sampled_from([0, 0.1]))] = -np.inf
    labels = rng.random(shape).astype("float32")
    labels[rng.random(shape) < 0.3] = 0
    labels[np.isinf(x)] = 0
    return x, labels, axis, rng


@settings(max_examples=40)
@given(problems())
def test_softmax(problem):
    x, _, axis, _ = problem
    agree(lambda g, x: g.softmax(x, axis), [x])


@settings(max_examples=40)
@given(problems(), st.sampled_from(["none", "sum", "mean"]))
def test_cross_entropy(problem, reduction):
    x, labels, axis, rng = problem
    arrays = [x, labels]
    agree(lambda g, x, t: g.softmax_cross_entropy(x, t, axis, reduction), arrays)
    shape = np.delete(x.shape, axis) if reduction == "none" else ()
    incoming = np.asarray(rng.standard_normal(tuple(shape)), "float32")
    agree(
        lambda g, d, x, t: g.softmax_cross_entropy_gradient(d, x, t, axis, reduction),
        [incoming, *arrays],
    )


def test_logits_between_products():
    """Logits and their gradient lie in panels next to dense layers; there are several tasks."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((300, 24)).astype("float32")
    labels = np.eye(17, dtype="float32")[rng.integers(0, 17, 300)]
    start = rng.standard_normal((24, 17)).astype("float32")

    def make(g, x, labels):
        w = g.variable(start)
        loss = g.softmax_cross_entropy(g.matrix_multiplication(x, w), labels, reduction="mean")
        return [loss, g.gradients(loss, [w])[w]]

    agree(make, [x, labels])


def test_one_tensor_as_logits_and_labels():
    x = np.random.default_rng(4).random((5, 17)).astype("float32")

    def make(g, x):
        y = g.identity(x * 2.0)
        z = g.matrix_multiplication(y, g.constant(np.eye(17, dtype="float32")))
        return g.softmax_cross_entropy_gradient(g.constant(np.float32(1)), z, z, reduction="mean")

    agree(make, [x])
