"""Initial weights: distributions, fans, and that they are the same everywhere."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from stepgraph import initializers, utils
from stepgraph.initializers import draws


def test_the_inverse_is_exact() -> None:
    p = np.concatenate([np.linspace(1e-6, 1 - 1e-6, 997), [2.0**-54, 1e-300, 1 - 2.0**-53]])
    normal = statistics.NormalDist()
    want = [normal.inv_cdf(float(value)) for value in p]
    np.testing.assert_allclose(draws.inverse_normal(p), want, rtol=2e-15, atol=1e-16)


def test_values_are_pinned() -> None:
    """A change here would change every seeded training; the values are those of any machine."""
    np.testing.assert_array_equal(
        np.asarray(draws.uniform(1, 3)).view(np.uint64), draws.uniform(1, 5)[:3].view(np.uint64)
    )
    raw = np.random.Philox(key=1).random_raw(2)
    np.testing.assert_array_equal(draws.uniform(1, 2), ((raw >> np.uint64(11)) + 0.5) * 2.0**-53)
    made = initializers.GlorotUniform(seed=1)((2, 2))
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, initializers.GlorotUniform(seed=1)((2, 2)))


@pytest.mark.parametrize(
    ("name", "deviation", "largest"),
    [
        ("glorot_uniform", math.sqrt(2 / 432), math.sqrt(6 / 432)),
        ("glorot_normal", math.sqrt(2 / 432), 2 * math.sqrt(2 / 432) / 0.8796),
        ("he_normal", math.sqrt(2 / 144), 2 * math.sqrt(2 / 144) / 0.8796),
        ("he_uniform", math.sqrt(2 / 144), math.sqrt(6 / 144)),
        ("lecun_normal", math.sqrt(1 / 144), 2 * math.sqrt(1 / 144) / 0.8796),
        ("lecun_uniform", math.sqrt(1 / 144), math.sqrt(3 / 144)),
        ("random_normal", 0.05, math.inf),
        ("truncated_normal", 0.05 * 0.8796, 0.1),
        ("random_uniform", 0.05 / math.sqrt(3), 0.05),
    ],
)
def test_distribution(name: str, deviation: float, largest: float) -> None:
    """Fans of a convolution are its kernel's area times its channels: 9 * 16 and 9 * 32."""
    values = initializers.get(name)((3, 3, 16, 32), seed=7).astype(np.float64)
    assert abs(values.mean()) < 4 * deviation / math.sqrt(values.size)
    assert values.std() == pytest.approx(deviation, rel=0.03)
    assert np.abs(values).max() <= largest * 1.0001
    if math.isfinite(largest):
        assert np.abs(values).max() > largest * 0.97


def test_the_others() -> None:
    q = initializers.Orthogonal(gain=2.0, seed=1)((3, 4, 5)).reshape(12, 5)
    np.testing.assert_allclose(q.T @ q, 4 * np.eye(5), atol=1e-5)
    q = initializers.Orthogonal(seed=1)((3, 5))
    np.testing.assert_allclose(q @ q.T, np.eye(3), atol=1e-5)
    np.testing.assert_array_equal(initializers.Identity()((3, 3)), np.eye(3))
    np.testing.assert_array_equal(initializers.Constant(2.5)((2,)), [2.5, 2.5])
    for name, cls in initializers.TABLE.items():
        made = initializers.get(name)
        assert type(made) is cls
        again = initializers.get(initializers.serialize(made))
        assert again.get_config() == made.get_config()
    with pytest.raises(ValueError, match="mode='fan'"):
        initializers.VarianceScaling(mode="fan")


def test_seeds_of_a_stream() -> None:
    utils.set_random_seed(4)
    a = [utils.next_seed() for _ in range(100)]
    utils.set_random_seed(4)
    assert a == [utils.next_seed() for _ in range(100)]
    assert len(set(a)) == 100
    x = draws.uniform(a[0], 4000)
    y = draws.uniform(a[1], 4000)
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.06
    assert 0 < x.min() < x.max() < 1


def test_to_categorical() -> None:
    np.testing.assert_array_equal(utils.to_categorical([[1], [0]], 3), [[0, 1, 0], [1, 0, 0]])
    with pytest.raises(ValueError, match="run from 0 to 3"):
        utils.to_categorical([0, 3], 3)
