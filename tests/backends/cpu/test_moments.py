"""Means and variances from one pass over a map, against float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stepgraph as sg


def _moments(shape, values, weights, **options):
    """Mean and variance of what a 1 x 1 convolution makes, and the program."""
    graph = sg.Graph()
    x = graph.placeholder(shape)
    y = graph.convolution_2d(x, graph.constant(weights))
    axes = (0, 1, 2)
    mean = graph.mean(y, axes=axes)
    variance = graph.variance(y, axes=axes)
    step = graph.compile([x], [mean, variance], **options)
    return step.run({x: values}), step.describe()


@settings(max_examples=30)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 40), st.integers(1, 17)),
    st.sampled_from([1, 3, 16, 17, 40]),
    st.sampled_from([0.0, 1.0, 300.0]),
    st.integers(0, 2**31),
)
def test_mean_and_variance(lead, channels, offset, seed):
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal((*lead, channels)) + offset).astype("float32")
    weights = np.eye(channels, dtype="float32").reshape(1, 1, channels, channels)
    (mean, variance), program = _moments(values.shape, values, weights)
    # Of a single position or channel the program makes something simpler.
    assert "moments" in program or 1 in (np.prod(lead), channels)
    exact = values.astype("float64")
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2), keepdims=True), rtol=1e-5, atol=1e-6)
    wanted = exact.var((0, 1, 2), keepdims=True)
    np.testing.assert_allclose(variance, wanted, rtol=1e-5, atol=1e-7 + (offset * 1e-6) ** 2)


@pytest.mark.parametrize("offset", [10.0, 1000.0])
def test_one_pass_is_as_accurate_as_two(offset):
    rng = np.random.default_rng(2)
    values = (rng.standard_normal((16, 30, 32, 24)) + offset).astype("float32")
    weights = np.eye(24, dtype="float32").reshape(1, 1, 24, 24)
    wanted = values.astype("float64").var((0, 1, 2), keepdims=True)
    errors = [
        np.abs(_moments(values.shape, values, weights, **options)[0][1] / wanted - 1).max()
        for options in ({}, {"disable": ["moments"]})
    ]
    assert errors[0] <= 1.5 * errors[1] + 1e-6


def test_what_is_not_finite_shows():
    values = np.ones((40, 8, 8, 16), "float32")
    values[3, 2, 1, 4] = np.inf
    values[30, 2, 1, 5] = np.nan
    weights = np.eye(16, dtype="float32").reshape(1, 1, 16, 16)
    # 0 * inf is no number, so every channel sees these two.
    (mean, variance), _ = _moments(values.shape, values, weights)
    assert not np.isfinite(mean).any()
    assert not np.isfinite(variance).any()


def test_squares_beyond_float32_are_infinite_as_in_two_passes():
    values = np.random.default_rng(0).normal(0, 1e25, (4, 9, 9, 3)).astype("float32")
    (mean, variance), _ = _moments(values.shape, values, np.eye(3, dtype="float32")[None, None])
    assert np.isfinite(mean).all()
    assert np.isposinf(variance).all()


def test_without_the_pass_there_are_two():
    values = np.ones((2, 4, 4, 16), "float32")
    weights = np.ones((1, 1, 16, 16), "float32")
    assert "moments" not in _moments(values.shape, values, weights, disable=["moments"])[1]


def test_other_sums_are_left_alone():
    graph = sg.Graph()
    x = graph.placeholder((4, 5, 5, 16))
    y = graph.convolution_2d(x, graph.constant(np.ones((1, 1, 16, 16), "float32")))
    total = graph.reduction_sum(y, axes=(0, 1, 2))
    apart = graph.reduction_sum(graph.square(y - total * 0.5), axes=(0, 1, 2))
    step = graph.compile([x], [total, apart])
    values = np.random.default_rng(1).standard_normal(x.shape).astype("float32")
    found = step.run({x: values})
    assert "moments" not in step.describe()
    made = np.broadcast_to(values.astype("float64").sum(-1, keepdims=True), values.shape)
    sums = made.sum((0, 1, 2), keepdims=True)
    np.testing.assert_allclose(found[0], sums, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        found[1], ((made - sums / 2) ** 2).sum((0, 1, 2), keepdims=True), rtol=1e-4
    )
