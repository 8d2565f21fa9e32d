"""Gather and scatter kernels against the references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.backends.cpu.agreement import agree, compiled

from stepgraph.errors import FeedError

MODES = ("add", "sub", "mul", "div", "min", "max", "set")


@st.composite
def problems(draw):
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 5, 16, 17, 40]), min_size=1, max_size=4)))
    axis = draw(st.integers(0, len(shape) - 1))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    lead = tuple(draw(st.lists(st.integers(0, 4), max_size=2)))
    dtype = draw(st.sampled_from(["int32", "int64", "uint8"]))
    indices = rng.integers(0, shape[axis], lead).astype(dtype)
    return rng.standard_normal(shape).astype("float32"), indices, axis, rng


@settings(max_examples=40)
@given(problems())
def test_gather_and_its_gradient(problem):
    x, indices, axis, _ = problem

    def make(g, x, indices):
        y = g.gather(x, indices, axis)
        return [y, g.gather_gradient(y * 2.0, indices, x, axis)]

    agree(make, [x, indices])


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=10)
@given(problems())
def test_scatter(mode, problem):
    x, indices, axis, rng = problem
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    updates = rng.uniform(0.5, 2, shape).astype("float32")
    agree(lambda g, x, u, i: g.scatter(x, u, i, axis, mode), [x, updates, indices])


@settings(max_examples=10)
@given(st.integers(1, 3), st.integers(1, 2), st.integers(0, 2**31))
def test_batches(axis, batch, seed):
    batch = min(batch, axis)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 3, 4, 5)).astype("float32")
    indices = rng.integers(0, x.shape[axis], (*x.shape[:batch], 6)).astype("int32")
    agree(lambda g, x, i: g.gather(x, i, axis, batch), [x, indices])


@pytest.mark.parametrize("channels", [1, 3, 16, 17, 40])
@pytest.mark.parametrize("size", [(6, 10), (3, 3), (5, 7)])
def test_resize_in_panels(channels, size):
    x = np.random.default_rng(0).standard_normal((2, 3, 5, channels)).astype("float32")

    def make(g, x):
        found = []
        for op in (g.resize_nearest, g.resize_bilinear):
            y = op(g.max_pooling_2d(x, 1), size)
            found += [y, g.gradients(g.reduction_sum(y * y, keep_dims=False), [x])[x]]
        return found

    agree(make, [x])


def test_embedding_gradient_is_cut_into_tasks():
    rng = np.random.default_rng(0)
    table = rng.standard_normal((50, 300)).astype("float32")
    indices = rng.integers(0, 50, (7, 9)).astype("int32")

    def make(g, table, indices):
        y = g.gather(table, indices)
        return g.gradients(g.reduction_sum(y * y, keep_dims=False), [table])[table]

    agree(make, [table, indices])


def test_an_index_outside_is_refused():
    table, good, bad = np.zeros((3, 2), "float32"), np.zeros(2, "int32"), np.array([0, 3], "int32")
    executable, feeds = compiled(lambda g, x, i: g.gather(x, i), [table, good])
    with pytest.raises(FeedError, match="index 3 is outside axis 0 of size 3"):
        executable.run({feeds[0]: table, feeds[1]: bad})


@settings(max_examples=20)
@given(st.integers(0, 2), st.integers(1, 3), st.integers(0, 2**31), st.sampled_from(MODES))
def test_tuples(batch, depth, seed, mode):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.5, 2, (2, 3, 4, 5, 17)).astype("float32")
    sizes = x.shape[batch : batch + depth]
    lead = (*x.shape[:batch], 6)
    indices = np.stack([rng.integers(0, n, lead) for n in sizes], -1).astype("int32")

    def make(g, x, indices):
        y = g.gather_nd(x, indices, batch)
        more = g.scatter_nd(y * 1.5, indices, data=x, batch_dimensions=batch, mode=mode)
        return [y, more, g.gather_nd_gradient(y, indices, x, batch)]

    agree(make, [x, indices])
