"""Kernel positions in the padding, cut off prepared weights: every result stays."""

from __future__ import annotations

import numpy as np
import pytest

import stepgraph as sg

RNG = np.random.default_rng(2)

# Map, kernel, strides, dilations, padding, and the kernel that is left (None: all of it).
CASES = [
    ((1, 1), (3, 3), (1, 1), (1, 1), "TF_SAME", (1, 1)),
    ((1, 2), (3, 3), (1, 1), (1, 1), "TF_SAME", (1, 3)),
    ((1, 4), (5, 3), (1, 1), (1, 1), "TF_SAME", (1, 3)),
    ((2, 2), (3, 3), (2, 2), (1, 1), "TF_SAME", (2, 2)),
    ((2, 2), (3, 3), (1, 1), (1, 1), "TF_SAME", None),
    ((2, 3), (3, 3), (1, 1), (3, 2), ((3, 3), (2, 2)), (1, 3)),
    ((3, 3), (3, 3), (4, 4), (1, 1), ((2, 0), (1, 1)), (1, 2)),
    ((4, 4), (3, 3), (1, 1), (1, 1), "TF_VALID", None),
    ((1, 1), (2, 2), (1, 1), (1, 1), ((2, 2), (2, 2)), None),
]


@pytest.mark.parametrize("channels", [5, 32])
@pytest.mark.parametrize("case", CASES)
def test_results_stay(case, channels):
    size, kernel, strides, dilations, padding, left = case
    graph = sg.Graph()
    x = graph.placeholder((3, *size, channels), name="x")
    w = graph.variable(RNG.standard_normal((*kernel, channels, 7)).astype("float32"), name="w")
    settings = {"padding": padding}
    if not isinstance(padding, str):
        settings = {"padding": "explicit", "explicit_padding": padding}
    source = graph.tanh(x)
    y = graph.convolution_2d(source, w, strides=strides, dilations=dilations, **settings)
    fed = RNG.standard_normal((3, *size, channels)).astype("float32")
    run = graph.compile([x], [y])
    for turn in range(2):
        wanted = graph.compile([x], [y], device="reference:float64")
        graph.set_value("w", graph.get_value("w"), "reference:float64")
        expected = wanted.run({x: fed})[0]
        np.testing.assert_allclose(run.run({x: fed})[0], expected, rtol=1e-4, atol=1e-4)
        graph.set_value("w", graph.get_value("w") * (2.0 + turn))
    (runner,) = run._runners.values()
    found = [op for op in runner.program.operations() if op.type == "convolution_2d"]
    assert found[0].inputs[1].shape[:2] == (kernel if left is None else left)


def test_weights_that_are_trained_stay_whole():
    graph = sg.Graph()
    x = graph.placeholder((2, 1, 1, 16), name="x")
    w = graph.variable(RNG.standard_normal((3, 3, 16, 16)).astype("float32"), name="w")
    y = graph.convolution_2d(graph.tanh(x), w, padding="TF_SAME")
    run = graph.compile([x], [y], [graph.assign(w, w * 0.5)])
    (runner,) = run._runners.values()
    found = [op for op in runner.program.operations() if op.type == "convolution_2d"]
    assert found[0].inputs[1].shape == (3, 3, 16, 16)
