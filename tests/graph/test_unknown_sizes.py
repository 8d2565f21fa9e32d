"""Graphs built with sizes unknown, compiled with sizes known."""

from __future__ import annotations

import numpy as np
import pytest

import stepgraph as sg


@pytest.mark.parametrize("op", ["addition", "multiplication", "maximum"])
def test_an_unknown_size_that_is_1_is_broadcast_and_summed_back(rng, op):
    a, b = rng.standard_normal((1, 3)), rng.standard_normal((4, 3))
    graph = sg.Graph()
    x, y = (graph.placeholder((None, 3), "float64") for _ in range(2))
    z = getattr(graph, op)(x, y)
    found = graph.gradients(of=z, with_=[x, y])
    got = graph.run({x: a, y: b}, list(found.values()), device="reference")
    assert [g.shape for g in got] == [(1, 3), (4, 3)]
    slopes = {
        "addition": np.ones((4, 3)),
        "multiplication": b,
        "maximum": (a > b).astype("float64"),
    }
    np.testing.assert_allclose(got[0], slopes[op].sum(0, keepdims=True), rtol=1e-12)


def test_batches_of_matrices_likewise(rng):
    a, b = rng.standard_normal((1, 2, 3)), rng.standard_normal((5, 3, 4))
    graph = sg.Graph()
    x, y = graph.placeholder((None, 2, 3), "float64"), graph.placeholder((None, 3, 4), "float64")
    grad = graph.gradients(of=x @ y, with_=[x])[x]
    got = graph.run({x: a, y: b}, [grad], device="reference")[0]
    wanted = (np.ones((5, 2, 4)) @ b.swapaxes(1, 2)).sum(0, keepdims=True)
    np.testing.assert_allclose(got, wanted, rtol=1e-12)


def build(graph, shape, layout):
    """A chain of every windowed op, and all its float leaves."""
    x = graph.placeholder(shape, "float64", name="x")
    fill = np.random.default_rng(3).standard_normal
    kernels = [graph.variable(fill(s)) for s in ((3, 3, 2, 6), (2, 2, 6, 1), (3, 3, 5, 6))]
    windows = {"data_layout": layout}
    y = graph.convolution_2d(x, kernels[0], 2, groups=2, padding="same", **windows)
    y = graph.max_pooling_2d(y, 2, 1, **windows)
    y = graph.depthwise_convolution_2d(y, kernels[1], padding="same", **windows)
    y = graph.avg_pooling_2d(y, 3, 2, padding="same", **windows)
    y = graph.convolution_transpose_2d(y, kernels[2], strides=2, **windows)
    axes = (1, 2) if layout == "NHWC" else (2, 3)
    y = graph.layer_normalization(y, axis=axes)
    loss = graph.mean(y * y * y, keep_dims=False)
    return x, loss, graph.gradients(of=loss, with_=[x, *kernels])


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_windowed_ops_do_not_need_sizes(rng, layout):
    full = (2, 11, 9, 4) if layout == "NHWC" else (2, 4, 11, 9)
    channel = 3 if layout == "NHWC" else 1
    unknown = tuple(d if i == channel else None for i, d in enumerate(full))
    value = rng.standard_normal(full)
    results = []
    for shape in (full, unknown):
        x, loss, grads = build(graph := sg.Graph(), shape, layout)
        assert grads[x].shape == shape
        results.append(graph.run({x: value}, [loss, *grads.values()], device="reference"))
    for known, found in zip(*results, strict=True):
        np.testing.assert_array_equal(found, known)


def test_sizes_that_do_not_fit_are_refused_when_they_become_known():
    graph = sg.Graph()
    x = graph.placeholder((None, None, None, 3))
    y = graph.convolution_2d(x, graph.constant(np.zeros((5, 5, 3, 2), "float32")))
    with pytest.raises(sg.errors.ShapeError, match="covers 5 pixels of height, the source has 4"):
        graph.run({x: np.zeros((1, 4, 6, 3), "float32")}, [y], device="reference")
