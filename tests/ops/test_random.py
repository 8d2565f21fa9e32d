"""Random ops: published vectors, (seed, stream, step), moments, masks, the step that advances."""

from __future__ import annotations

import numpy as np
import pytest

import stepgraph as sg
from stepgraph.graph.philox import philox, random_words

# Known answers of Random123 for philox4x32-10: counter, key, result.
VECTORS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def words(text):
    return tuple(int(word, 16) for word in text.split())


@pytest.mark.parametrize(("counter", "key", "wanted"), VECTORS)
def test_philox_gives_the_published_vectors(counter, key, wanted):
    assert tuple(int(w) for w in philox(words(counter), words(key))) == words(wanted)


def test_words_of_a_block_stand_side_by_side():
    found = random_words(7, seed=2**33 + 5, stream=3, step=2**34 + 1)
    first, second = (philox((i, 3, 1, 4), (5, 2)) for i in (0, 1))
    assert found.tolist() == [int(w) for w in (*first, *second)][:7]


def draw(build, device="reference", runs=1):
    graph = sg.Graph()
    made = build(graph)
    executable = graph.compile([], [made], device=device)
    found = [executable.run()[0] for _ in range(runs)]
    return found[0] if runs == 1 else found


BUILDERS = {
    "bits": lambda g, **kw: g.random_bits((4, 5), **kw),
    "uniform": lambda g, **kw: g.random_uniform((4, 5), **kw),
    "normal": lambda g, **kw: g.random_normal((4, 5), **kw),
    "dropout": lambda g, **kw: g.dropout(g.constant(1.0, shape=(4, 50)), 0.5, **kw),
}
every_builder = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)


@every_builder
def test_same_seed_stream_and_step_same_bits(build):
    one = draw(lambda g: build(g, seed=3, step=5))
    assert np.array_equal(one, draw(lambda g: build(g, seed=3, step=5)))
    assert not np.array_equal(one, draw(lambda g: build(g, seed=4, step=5)))
    assert not np.array_equal(one, draw(lambda g: build(g, seed=3, step=6)))


@every_builder
def test_ops_of_one_seed_draw_from_streams_of_their_own(build):
    graph = sg.Graph()
    a, b = build(graph, seed=3), build(graph, seed=3)
    first, second = graph.run(targets=[a, b], device="reference")
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("device", ["reference", "cpu"])
@every_builder
def test_step_advances_with_every_run(build, device):
    first, second, third = draw(lambda g: build(g, seed=3), device, runs=3)
    for step, value in enumerate((first, second, third)):
        wanted = draw(lambda g, step=step: build(g, seed=3, step=step))
        if wanted.dtype == np.uint32:
            assert np.array_equal(value, wanted)
        np.testing.assert_allclose(value, wanted, atol=1e-5)
    assert not np.array_equal(first, second)


def test_streams_are_not_correlated():
    graph = sg.Graph()
    drawn = [graph.random_uniform((4000,), seed=1) for _ in range(4)]
    found = np.corrcoef(graph.run(targets=drawn, device="reference"))
    assert np.all(np.abs(found - np.eye(4)) < 0.08)  # five standard errors


def test_uniform_is_in_its_range_with_its_moments():
    x = draw(lambda g: g.random_uniform((200_000,), seed=11))
    assert x.dtype == np.float32
    assert x.min() >= 0
    assert x.max() < 1
    assert abs(x.mean() - 0.5) < 0.004
    assert abs(x.var() - 1 / 12) < 0.001
    y = draw(lambda g: g.random_uniform((200_000,), -3.0, 5.0, seed=11))
    np.testing.assert_allclose(y, x * 8 - 3, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_uniform_stays_below_one_even_of_the_largest_word(dtype):
    from stepgraph.graph.dtypes import as_dtype
    from stepgraph.graph.ops.random import _fractions

    largest = _fractions(np.array([2**32 - 1], "uint32"), as_dtype(dtype))
    assert largest.dtype == dtype
    assert 0.999 < largest[0] < 1


def test_normal_has_its_moments():
    x = draw(lambda g: g.random_normal((200_000,), seed=12)).astype("float64")
    assert abs(x.mean()) < 0.01
    assert abs(x.std() - 1) < 0.01
    assert abs((x**3).mean()) < 0.03
    assert abs((x**4).mean() - 3) < 0.08
    inside = np.mean(np.abs(x) < 1)
    assert abs(inside - 0.6827) < 0.005


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate):
    x = draw(lambda g: g.dropout(g.constant(2.0, shape=(100_000,)), rate, seed=5, step=0))
    assert abs(np.mean(x == 0) - rate) < 0.008
    np.testing.assert_allclose(x[x != 0], 2 / (1 - rate), rtol=1e-6)
    assert abs(x.mean() - 2) < 0.1


def test_dropout_of_not_a_number_is_not_hidden_where_kept():
    x = draw(lambda g: g.dropout(g.constant(np.full(100, np.nan, "float32")), 0.5, seed=5))
    assert 20 < np.isnan(x).sum() < 80
    assert np.all(x[~np.isnan(x)] == 0)


def test_forward_and_backward_share_the_mask():
    graph = sg.Graph()
    x = graph.placeholder((None, 100))
    y = graph.dropout(x, 0.4, seed=7)
    grad = graph.gradients(of=y, with_=[x])[x]
    executable = graph.compile([x], [y, grad], device="reference")
    for _ in range(2):
        out, slope = executable.run({x: np.ones((3, 100), "float32")})
        np.testing.assert_array_equal(out, slope)


def step_of(graph):
    return int(graph.get_value(graph.random_step, "reference"))


def test_runs_that_draw_nothing_leave_the_step_alone():
    graph = sg.Graph()
    noise = graph.random_uniform((2,), seed=1)
    x = graph.constant([1.0, 2.0])
    graph.run(targets=[x * 2.0, graph.random_step], device="reference")
    assert step_of(graph) == 0
    graph.run(targets=[x + noise], device="reference")
    assert step_of(graph) == 1
    graph.run(targets=[graph.random_uniform((2,), step=0)], device="reference")
    assert step_of(graph) == 1


def test_evaluation_without_dropout_leaves_the_step_alone():
    graph = sg.Graph()
    x = graph.placeholder((3,))
    is_training = graph.placeholder((), "bool")
    y = graph.if_(is_training, lambda: [graph.dropout(x, 0.5)], lambda: [x])[0]
    executable = graph.compile([x, is_training], [y], device="reference")
    ones = np.ones(3, "float32")
    executable.run({x: ones, is_training: True})
    assert step_of(graph) == 1
    np.testing.assert_array_equal(executable.run({x: ones, is_training: False})[0], ones)
    assert step_of(graph) == 1


def test_resuming_at_a_step_goes_on_as_before():
    graph = sg.Graph()
    noise = graph.random_normal((5,), seed=1)
    executable = graph.compile([], [noise], device="reference")
    drawn = [executable.run()[0] for _ in range(4)]
    graph.set_value(graph.random_step, 2, "reference")
    np.testing.assert_array_equal(executable.run()[0], drawn[2])
    np.testing.assert_array_equal(executable.run()[0], drawn[3])


def test_the_callers_own_assign_to_the_step_wins():
    graph = sg.Graph()
    noise = graph.random_uniform((2,))
    jump = graph.assign(graph.random_step, 41)
    graph.run(targets=[noise], operations=[jump], device="reference")
    assert step_of(graph) == 41


def test_step_is_made_outside_of_scopes_and_blocks():
    graph = sg.Graph()
    with graph.name_scope("encoder"):
        graph.random_uniform((2,))
    assert graph.random_step.name == "random_step"
