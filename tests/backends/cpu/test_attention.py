"""Attention over panels: every shape class against float64, threads, accuracy, the layer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stepgraph as sg
from stepgraph.backends.cpu.native.attention import QUERIES

# Fewer steps than a panel, odd ones, one more than a block of queries, several blocks.
STEPS = (1, 7, 16, 33, QUERIES, QUERIES + 1, 2 * QUERIES + 5)


def compiled(query, key, value, heads, scale=None, **options):
    """An executable of attention and its gradients."""
    graph = sg.Graph()
    shapes = (query, key, value)
    q, k, v = (graph.placeholder(s, name=n) for s, n in zip(shapes, "qkv", strict=True))
    y = graph.multi_head_attention(q, k, v, heads, scale)
    dy = graph.placeholder(y.shape, name="dy")
    loss = graph.reduction_sum(y * dy, keep_dims=False)
    slopes = graph.gradients(of=loss, with_=[q, k, v])
    targets = [y, *(slopes[x] for x in (q, k, v))]
    return graph.compile([q, k, v, dy], targets, **options)


def run(executable, arrays):
    return executable.run(dict(zip(executable._feeds, arrays, strict=True)))


def draw(rng, images, queries, keys, heads, size, value_size, spread=1.0):
    shapes = [
        (images, queries, heads * size),
        (images, keys, heads * size),
        (images, keys, heads * value_size),
        (images, queries, heads * value_size),
    ]
    arrays = [spread * rng.standard_normal(shape).astype("float32") for shape in shapes]
    return shapes, arrays


def names(executable):
    return [step.name for step in executable._chosen(None).steps]


def assert_agrees(shapes, arrays, heads, native=True):
    executable = compiled(*shapes[:3], heads)
    whole = {"multi_head_attention", "multi_head_attention_gradient"} <= set(names(executable))
    assert whole == native
    got = run(executable, arrays)
    wanted = run(compiled(*shapes[:3], heads, device="reference:float64"), arrays)
    for a, b in zip(got, wanted, strict=True):
        assert np.abs(a - b).max() <= 3e-6 * max(1.0, np.abs(b).max())


@settings(max_examples=25, deadline=None)
@given(
    images=st.integers(1, 3),
    queries=st.sampled_from(STEPS),
    keys=st.sampled_from(STEPS),
    heads=st.integers(1, 3),
    size=st.sampled_from((16, 32, 48)),
    value_size=st.sampled_from((16, 32, 64)),
    seed=st.integers(0, 99),
)
def test_agrees_with_float64(images, queries, keys, heads, size, value_size, seed):
    rng = np.random.default_rng(seed)
    assert_agrees(*draw(rng, images, queries, keys, heads, size, value_size), heads)


def test_heads_that_fill_no_panel_are_computed_in_parts():
    rng = np.random.default_rng(0)
    assert_agrees(*draw(rng, 2, 5, 6, 3, 8, 16), 3, native=False)


def test_thread_count_does_not_change_a_bit():
    rng = np.random.default_rng(1)
    shapes, arrays = draw(rng, 2, 70, 50, 3, 32, 16)
    one = run(compiled(*shapes[:3], 3, threads=1), arrays)
    for threads in (2, 3):
        for a, b in zip(run(compiled(*shapes[:3], 3, threads=threads), arrays), one, strict=True):
            np.testing.assert_array_equal(a, b)


def test_large_scores_neither_overflow_nor_vanish():
    rng = np.random.default_rng(2)
    shapes, arrays = draw(rng, 1, 20, 20, 1, 16, 16, spread=30.0)
    got = run(compiled(*shapes[:3], 1), arrays)
    wanted = run(compiled(*shapes[:3], 1, device="reference:float64"), arrays)
    for a, b in zip(got, wanted, strict=True):
        assert np.isfinite(a).all()
        assert np.linalg.norm(a - b) <= 1e-3 * np.linalg.norm(b)


@pytest.mark.parametrize("at", [0, 5, 19])
def test_a_nan_among_the_keys_reaches_every_query_of_its_head_alone(at):
    shapes, arrays = draw(np.random.default_rng(5), 1, 20, 20, 2, 16, 16)
    arrays[1][0, at, 3] = np.nan
    y = run(compiled(*shapes[:3], 2), arrays)[0]
    assert np.isnan(y[..., :16]).all()
    assert np.isfinite(y[..., 16:]).all()


def test_is_as_close_to_float64_as_pytorch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    shapes, arrays = draw(rng, 2, 64, 64, 4, 32, 32)
    wanted = run(compiled(*shapes[:3], 4, device="reference:float64"), arrays)
    leaves = [torch.tensor(x, requires_grad=True) for x in arrays[:3]]
    q, k, v = (x.unflatten(2, (4, -1)).transpose(1, 2) for x in leaves)
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    y.backward(torch.tensor(arrays[3]))
    theirs = [y.detach().numpy(), *(x.grad.numpy() for x in leaves)]
    for own, other, exact in zip(
        run(compiled(*shapes[:3], 4), arrays), theirs, wanted, strict=True
    ):
        # Both are off by a few roundings; which by how many is chance.
        limit = 1.5 * np.linalg.norm(other - exact) + 1e-7 * np.linalg.norm(exact)
        assert np.linalg.norm(own - exact) <= limit


@pytest.mark.parametrize("sizes", [(2, 32, 32), (3, 16, 16), (2, 16, 32)])
@pytest.mark.parametrize(("images", "steps"), [(24, 64), (20, 7), (11, 33), (40, 128)])
def test_sums_for_biases_run_with_the_gradient(images, steps, sizes):
    heads, size, value_size = sizes
    rng = np.random.default_rng(images + heads)

    def slopes(**options):
        graph = sg.Graph()
        x = [graph.placeholder((images, steps, heads * s)) for s in (size, size, value_size)]
        biases = [graph.variable(np.zeros(t.shape[2], "float32")) for t in x]
        qkv = (t + bias for t, bias in zip(x, biases, strict=True))
        y = graph.multi_head_attention(*qkv, heads, None)
        loss = graph.reduction_sum(y * y, keep_dims=False)
        found = graph.gradients(of=loss, with_=[*biases, *x])
        # Of the values' inputs no gradient is wanted: only the bias's sum reads it then.
        targets = [found[t] for t in (*biases, *x[:2])]
        return graph.compile(x, targets, **options)

    shapes = [(images, steps, heads * s) for s in (size, size, value_size)]
    arrays = [rng.standard_normal(shape).astype("float32") for shape in shapes]
    joined, apart = slopes(threads=1), slopes(disable=["chain"])
    chain = [n for n in names(joined) if n.startswith("multi_head_attention_gradient > reduction")]
    # A chain needs eight tiles, or one for each of a launch's tasks.
    assert len(chain) == (size == value_size and (heads == 3 or images == 40))
    wanted = run(slopes(device="reference:float64"), arrays)
    for a, b, exact in zip(run(joined, arrays), run(apart, arrays), wanted, strict=True):
        np.testing.assert_array_equal(a, b)
        # Scores do not change with a key's bias: its gradient is 0.
        assert np.abs(a - exact).max() <= 1e-5 * max(10.0, np.abs(exact).max())


def test_the_layer_trains_without_copying_heads():
    from stepgraph.applications import ViT
    from stepgraph.optimizers import SGD

    model = ViT(input_shape=(16, 16, 3), depth=2, dim=64, heads=2, mlp_dim=64)
    model.compile(SGD(0.01), "categorical_crossentropy")
    step = model.runtime.step("train", (False,))
    rng = np.random.default_rng(4)
    x, y = rng.random((2, 16, 16, 3), "float32"), np.eye(10, dtype="float32")[:2]
    step.executable.run(dict(zip(step.feeds, (x, y), strict=True)))
    found = names(step.executable)
    assert found.count("multi_head_attention") == found.count("multi_head_attention_gradient") == 2
    moved = [n for n in found if "permute" in n or "keep old" in n or "weights" in n.split(" to ")]
    assert not moved
