"""Pooling kernels against the references, over random windows."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.backends.cpu.agreement import CHANNELS, agree

from stepgraph.errors import ShapeError

OPS = (
    "max_pooling_2d",
    "avg_pooling_2d",
    "max_pooling_2d_at_maximum",
    "max_pooling_2d_gradient",
    "avg_pooling_2d_gradient",
)


@st.composite
def poolings(draw):
    kernel = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    padding = draw(st.sampled_from(["TF_VALID", "TF_SAME", "explicit"]))
    pads = ((0, 0), (0, 0))
    if padding == "explicit":
        pads = tuple(tuple(draw(st.integers(0, k - 1)) for _ in range(2)) for k in kernel)
    window = {
        "kernel_size": kernel,
        # Windows side by side have a walk of their own.
        "strides": draw(st.just(kernel) | st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "padding": padding,
        "explicit_padding": pads,
    }
    shape = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 40)),
        draw(st.integers(1, 13)),
        draw(st.sampled_from(CHANNELS)),
    )
    return shape, window


@pytest.mark.parametrize("op", OPS)
@settings(max_examples=15, deadline=None)
@given(poolings(), st.integers(0, 2**31), st.booleans())
def test_pooling(op, case, seed, counted):
    shape, window = case
    rng = np.random.default_rng(seed)
    # Few different values, so that there are ties; some NaN and infinities.
    x = rng.integers(-2, 3, shape).astype("float32")
    if op.startswith("max"):
        x[rng.random(shape) < 0.03] = np.nan
        x[rng.random(shape) < 0.1] = -np.inf
    else:
        window = {**window, "include_zero_pad_to_average": counted}
    import stepgraph as sg

    graph = sg.Graph()
    try:
        plain = {k: v for k, v in window.items() if k != "include_zero_pad_to_average"}
        pooled = graph.max_pooling_2d(graph.placeholder(shape), **plain)
    except ShapeError:
        assume(False)
    if op.endswith("gradient"):
        arrays = [rng.standard_normal(pooled.shape).astype("float32"), x]
    elif op.endswith("at_maximum"):
        arrays = [rng.standard_normal(shape).astype("float32"), x]
    else:
        arrays = [x]
    agree(lambda g, *xs: getattr(g, op)(*xs, **window), arrays)


def test_tasks_do_not_depend_on_threads():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 70, 20, 17)).astype("float32")
    incoming = rng.standard_normal((2, 70, 20, 17)).astype("float32")
    import stepgraph as sg

    results = []
    for threads in (1, 3):
        graph = sg.Graph()
        a, b = graph.placeholder(incoming.shape), graph.placeholder(x.shape)
        y = graph.max_pooling_2d_gradient(a, b, 3, 1, "TF_SAME")
        executable = graph.compile(feeds=[a, b], targets=[y], device="cpu", threads=threads)
        results.append(executable.run({a: incoming, b: x})[0])
    np.testing.assert_array_equal(*results)
