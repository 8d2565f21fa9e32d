"""Reductions over any axes, positions and running sums against the references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.backends.cpu.agreement import CHANNELS, agree

import stepgraph as sg

NUMBERS = ("reduction_sum", "reduction_maximum", "reduction_minimum", "reduction_product")


@st.composite
def tensors(draw, dtypes=("float32", "int32", "float64", "int64")):
    shape = draw(st.lists(st.sampled_from([1, 2, 3, 5, 17]), min_size=1, max_size=4))
    shape = (*shape[:-1], draw(st.sampled_from(CHANNELS)))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    x = rng.integers(-2, 3, shape).astype(draw(st.sampled_from(dtypes)))
    if x.dtype.kind == "f" and draw(st.booleans()):
        x[rng.random(shape) < 0.05] = np.nan
    return x


@pytest.mark.parametrize("op", NUMBERS)
@settings(max_examples=20)
@given(tensors(), st.data())
def test_over_any_axes(op, x, data):
    axes = tuple(data.draw(st.sets(st.integers(0, x.ndim - 1), min_size=1)))
    keep = data.draw(st.booleans())
    with np.errstate(over="ignore"):
        # Elementwise float64 (a sum over axes of size 1 becomes one) is NumPy's.
        agree(lambda g, x: getattr(g, op)(x, axes, keep), [x], native=x.dtype != "float64")


@pytest.mark.parametrize("channels", [(1, 5), (3, 8), (3, 17), (17, 16), (20, 40)], ids=str)
@pytest.mark.parametrize("kernel", [1, 3])
def test_norms_of_weights_gradients(channels, kernel):
    """Summed as the gradients lie: panels are filled up with zeros, which count for nothing."""
    graph = sg.Graph()
    x = graph.placeholder((2, 6, 5, channels[0]), name="x")
    weights = graph.variable(np.zeros((kernel, kernel, *channels), np.float32), name="weights")
    matrix = graph.variable(np.zeros((channels[1], channels[1]), np.float32), name="matrix")
    y = graph.convolution_2d(x, weights, padding="TF_SAME")
    y = graph.matrix_multiplication(graph.reshape(y + 1.0, (60, channels[1])), matrix + 0.5)
    found = graph.gradients(of=graph.reduction_sum(y * y, keep_dims=False), with_=[weights, matrix])
    gradients = [found[weights], found[matrix]]
    targets = [graph.reduction_sum(g * g, keep_dims=False) for g in gradients]
    targets += [graph.reduction_sum(g * g + 2.0, tuple(range(g.rank - 1))) for g in gradients]
    updates = [
        graph.assign(v, v - 0.1 * g / (1.0 + graph.square_root(t)))
        for v, g, t in zip((weights, matrix), gradients, targets, strict=False)
    ]
    feeds = {x: np.random.default_rng(0).standard_normal(x.shape).astype("float32")}
    results = []
    for device in ("cpu", "reference"):
        run = graph.compile([x], targets, operations=updates, device=device).run
        found = run(feeds)
        results.append([*found, *(graph.get_value(v, device) for v in (weights, matrix))])
    for mine, exact in zip(*results, strict=True):
        np.testing.assert_allclose(mine, exact, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("op", ["reduction_and", "reduction_or"])
@settings(max_examples=10)
@given(tensors(("bool",)), st.data())
def test_truth(op, x, data):
    axes = tuple(data.draw(st.sets(st.integers(0, x.ndim - 1), min_size=1)))
    agree(lambda g, x: getattr(g, op)(x, axes), [x])


@pytest.mark.parametrize("op", ["reduction_arg_maximum", "reduction_arg_minimum"])
@settings(max_examples=20)
@given(tensors(), st.data())
def test_positions(op, x, data):
    axis = data.draw(st.integers(0, x.ndim - 1))
    agree(lambda g, x: getattr(g, op)(x, axis, False), [x])


@settings(max_examples=20)
@given(tensors(), st.data(), st.booleans(), st.booleans())
def test_running_sums(x, data, exclusive, reverse):
    axis = data.draw(st.integers(0, x.ndim - 1))
    agree(lambda g, x: g.cumulative_sum(x, axis, exclusive, reverse), [x])


@pytest.mark.parametrize("channels", CHANNELS)
def test_layer_normalization_in_panels(channels):
    """Statistics over the last axis of what lies in panels, and sums over everything."""
    rng = np.random.default_rng(channels)
    x = rng.standard_normal((2, 5, 7, channels)).astype("float32")
    scale = rng.standard_normal(channels).astype("float32")

    def make(g, x):
        pooled = g.max_pooling_2d(x, 1)
        y = g.layer_normalization(pooled, g.constant(scale), g.constant(scale))
        total = g.reduction_sum(g.max_pooling_2d(y, 1) * pooled, keep_dims=False)
        return [y, total, g.gradients(total, [x])[x]]

    agree(make, [x], tolerance=1e-4)


def test_many_tasks():
    x = np.random.default_rng(0).integers(-9, 9, (3, 200, 700)).astype("int32")
    agree(lambda g, x: [g.reduction_sum(x, axis) for axis in (0, 1, 2)], [x])


def test_sums_over_positions_are_as_close_to_float64_as_pytorch():
    """A bias's gradient: one accumulator over all positions would be three times as far."""
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(5).standard_normal((16, 64, 128)).astype(np.float32)
    graph = sg.Graph()
    place = graph.placeholder(x.shape)
    step = graph.compile([place], [graph.reduction_sum(place, (0, 1), keep_dims=False)])
    exact = x.astype(np.float64).sum((0, 1))
    theirs = np.linalg.norm(torch.tensor(x).sum((0, 1)).numpy() - exact)
    assert np.linalg.norm(step.run({place: x})[0] - exact) <= 1.5 * theirs
