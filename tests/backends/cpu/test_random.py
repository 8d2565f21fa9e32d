"""Random kernels: the reference's very bits, in rows and in panels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.backends.cpu.agreement import agree, compiled

SHAPES = st.lists(st.integers(1, 23), max_size=3).map(tuple)
STEPS = st.integers(-(2**62), 2**62)
SEEDS = st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1))


def values(make, arrays, device):
    executable, feeds = compiled(make, arrays, device)
    return executable.run(dict(zip(feeds, arrays, strict=True)))[0]


@given(SHAPES, SEEDS, STEPS)
def test_bits_and_uniform_numbers_are_the_references(shape, seed, step):
    at = np.array(step, "int64")
    for make in (
        lambda g, s: g.random_bits(shape, seed=seed, step=s),
        lambda g, s: g.random_uniform(shape, -2.0, 3.7, seed=seed, step=s),
    ):
        mine, wanted = (values(make, [at], device) for device in ("cpu", "reference"))
        np.testing.assert_array_equal(mine, wanted)
        agree(make, [at])


@given(SHAPES, SEEDS)
def test_normal_numbers(shape, seed):
    agree(
        lambda g, s: g.random_normal(shape, 1.0, 2.0, seed=seed, step=s),
        [np.array(7, "int32")],
        tolerance=2e-6,
    )


def test_many_tasks_agree():
    agree(lambda g, s: g.random_uniform((3, 7001), step=s), [np.array(2**40, "int64")])


@pytest.mark.parametrize("channels", [1, 3, 16, 17, 40, 48])
def test_dropout_in_panels(channels):
    """Between convolutions the tensor lies in panels; the mask is that of row-major order."""
    rng = np.random.default_rng(channels)
    x = rng.standard_normal((3, 5, 7, channels)).astype("float32")
    x[0, 0, 0, 0] = np.nan

    def make(g, x, s):
        pooled = g.max_pooling_2d(x, 1)
        return g.max_pooling_2d(g.dropout(pooled, 0.4, seed=5, step=s), 1)

    agree(make, [x, np.array(11, "int64")])


@given(SHAPES, st.sampled_from([0.0, 0.25, 0.999]))
def test_dropout(shape, rate):
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    agree(lambda g, x, s: g.dropout(x, rate, step=s), [x, np.array(3, "int32")], tolerance=0)
