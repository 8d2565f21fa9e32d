"""ReLU gradients and bias sums on the small side of a max-pooling."""

import re

import numpy as np
import pytest

import stepgraph as sg

# Shape and window: side by side, with rows and columns left over, overlapping, padded; channels
# that fill no panel, several tiles of images, one image.
CASES = [
    ((3, 9, 11, 17), {"kernel_size": 2}),
    ((40, 26, 26, 33), {"kernel_size": 2}),
    ((1, 70, 40, 16), {"kernel_size": (3, 2)}),
    ((2, 13, 8, 5), {"kernel_size": 3, "strides": 2, "padding": "TF_SAME"}),
    ((2, 7, 9, 16), {"kernel_size": 3, "strides": 2}),
    ((5, 6, 6, 1), {"kernel_size": 2, "strides": 3}),
]


def _gradients(shape, window, x, disable=()):
    """Gradients of a pooled activation with respect to what it is made of, and the launches."""
    graph = sg.Graph()
    source = graph.placeholder(shape, name="x")
    bias = graph.placeholder(shape[-1:], name="bias")
    pooled = graph.max_pooling_2d(graph.relu(source + bias), **window)
    factors = np.random.default_rng(1).standard_normal(pooled.shape).astype("float32")
    loss = graph.reduction_sum(pooled * graph.constant(factors), keep_dims=False)
    found = graph.gradients(of=loss, with_=[source, bias])
    targets = [found[source], found[bias]]
    executable = graph.compile([source, bias], targets, device="cpu", disable=list(disable))
    feeds = {source: x, bias: np.linspace(-1, 1, shape[-1], dtype="float32")}
    results = executable.run(feeds)
    exact = graph.compile([source, bias], targets, device="reference").run(feeds)
    launches = " > ".join(re.findall(r"<- ([^(]*)", executable.describe()))
    return results, exact, launches


@pytest.mark.parametrize(("shape", "window"), CASES, ids=str)
def test_gradients_are_those_of_the_plain_order(shape, window):
    rng = np.random.default_rng(0)
    # Few different values, so that there are ties and windows without a positive number; some NaN.
    x = rng.integers(-3, 3, shape).astype("float32")
    x[rng.random(shape) < 0.02] = np.nan
    (dx, db), (exact_dx, exact_db), launches = _gradients(shape, window, x)
    (plain_dx, plain_db), _, plain = _gradients(shape, window, x, ["pooled_activations"])
    assert np.array_equal(dx, plain_dx)
    np.testing.assert_allclose(dx, exact_dx, rtol=1e-5, atol=1e-5)
    for other in (plain_db, exact_db):
        np.testing.assert_allclose(db, other, rtol=1e-4, atol=1e-4)
    assert np.any(dx)
    # The mask and the sum come before the pooling's gradient, not behind it.
    assert launches.index("relu_gradient") < launches.index("max_pooling_2d_gradient")
    assert plain.index("max_pooling_2d_gradient") < plain.index("relu_gradient")


def test_a_mask_of_something_else_stays():
    graph = sg.Graph()
    x, other = (graph.placeholder((2, 4, 4, 3), name=n) for n in ("x", "other"))
    incoming = graph.placeholder((2, 2, 2, 3), name="incoming")
    spread = graph.max_pooling_2d_gradient(incoming, graph.relu(x), 2)
    masked = graph.relu_gradient(spread, other)
    rng = np.random.default_rng(2)
    feeds = {t: rng.standard_normal(t.shape).astype("float32") for t in (x, other, incoming)}
    results = [
        graph.compile(list(feeds), [masked], device=d).run(feeds)[0] for d in ("cpu", "reference")
    ]
    assert np.array_equal(*results)


def test_a_gradient_that_is_asked_for_is_computed_once():
    graph = sg.Graph()
    x = graph.placeholder((2, 4, 4, 3), name="x")
    incoming = graph.placeholder((2, 2, 2, 3), name="incoming")
    rectified = graph.relu(x)
    spread = graph.max_pooling_2d_gradient(incoming, rectified, 2)
    masked = graph.relu_gradient(spread, x)
    executable = graph.compile([x, incoming], [spread, masked], device="cpu")
    assert executable.describe().count("<- max_pooling_2d_gradient") == 1
