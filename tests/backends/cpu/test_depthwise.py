"""Depthwise kernels against the references, over random windows."""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.backends.cpu.agreement import CHANNELS, agree

import stepgraph as sg
from stepgraph.errors import ShapeError


@st.composite
def problems(draw):
    kernel = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    padding = draw(st.sampled_from(["TF_VALID", "TF_SAME", "explicit"]))
    pads = ((0, 0), (0, 0))
    if padding == "explicit":
        pads = tuple(tuple(draw(st.integers(0, 4)) for _ in range(2)) for _ in kernel)
    window = {
        "strides": draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 3)])),
        "dilations": draw(st.sampled_from([(1, 1), (1, 1), (2, 3)])),
        "padding": padding,
        "explicit_padding": pads,
    }
    shape = (
        draw(st.integers(1, 2)),
        draw(st.integers(1, 60)),
        draw(st.integers(1, 13)),
        draw(st.sampled_from(CHANNELS)),
    )
    return shape, (*kernel, shape[-1], 1), window


@settings(max_examples=40)
@given(problems(), st.integers(0, 2**31))
def test_depthwise(problem, seed):
    shape, weights, window = problem
    rng = np.random.default_rng(seed)
    graph = sg.Graph()
    try:
        made = graph.depthwise_convolution_2d(
            graph.placeholder(shape), graph.placeholder(weights), **window
        )
    except ShapeError:
        assume(False)
    x, w, g = (
        rng.standard_normal(s).astype("float32") for s in (shape, weights, tuple(made.shape))
    )

    def make(graph, x, w, g):
        return [
            graph.depthwise_convolution_2d(x, w, **window),
            graph.depthwise_convolution_2d_data_gradient(g, w, x, **window),
            graph.depthwise_convolution_2d_weights_gradient(g, x, w, **window),
        ]

    agree(make, [x, w, g])
