"""Weights between rows and the kernels' layouts, by kernels."""

import numpy as np
import pytest
from tests.backends.cpu.agreement import agree, compiled

from stepgraph.backends.cpu.plan import PythonStep


@pytest.mark.parametrize("inputs", [1, 3, 16, 17, 40])
@pytest.mark.parametrize("outputs", [1, 16, 17, 40])
@pytest.mark.parametrize("kernel", [1, 3])
def test_weights_as_feeds_and_gradients(inputs, outputs, kernel):
    rng = np.random.default_rng(inputs * outputs)
    x = rng.standard_normal((2, 5, 6, inputs)).astype("float32")
    w = rng.standard_normal((kernel, kernel, inputs, outputs)).astype("float32")

    def make(g, x, w):
        y = g.convolution_2d(x, w, padding="same")
        found = g.gradients(g.reduction_sum(y * y, keep_dims=False), [x, w])
        return [y, found[x], found[w]]

    agree(make, [x, w], tolerance=1e-4)
    executable, _ = compiled(make, [x, w])
    steps = executable._chosen(None).steps
    assert not [s.name for s in steps if isinstance(s, PythonStep)]


@pytest.mark.parametrize("groups", [2, 8])
def test_nchw_in_groups(groups):
    rng = np.random.default_rng(groups)
    x = rng.standard_normal((2, 16, 5, 6)).astype("float32")
    w = rng.standard_normal((24, 16 // groups, 3, 3)).astype("float32")
    settings = {"groups": groups, "data_layout": "NCHW", "weights_layout": "OIHW"}

    def make(g, x, w):
        y = g.convolution_2d(x, w, padding="same", **settings)
        found = g.gradients(g.reduction_sum(y * y, keep_dims=False), [x, w])
        return [y, found[x], found[w]]

    agree(make, [x, w], tolerance=1e-4)


def test_batches_of_products():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((2, 1, 3, 4)).astype("float32")
    b = rng.standard_normal((5, 4, 2)).astype("float32")
    agree(lambda g, a, b: g.matrix_multiplication(a, b), [a, b])


@pytest.mark.parametrize("channels", [1, 10, 16, 17, 32, 48])
@pytest.mark.parametrize("lead", [(1,), (3,), (1, 1, 1), (2, 3, 2)])
def test_rows_and_panels_in_the_same_places(channels, lead):
    rng = np.random.default_rng(channels)
    x = rng.standard_normal((*lead, channels)).astype("float32")
    w = rng.standard_normal((channels, channels)).astype("float32")
    b = rng.standard_normal(channels).astype("float32")
    size = x.size

    def make(g, x, b):
        # Panels are read as rows by the reshape, and those as panels by the product behind it.
        weights = g.constant(w)
        y = g.relu(g.matrix_multiplication(x * 2.0, weights) + b)
        wide = g.reshape(y, (1, size))
        again = g.reshape(wide * y.graph.constant(np.float32(0.5)), (size // channels, channels))
        return [g.softmax(g.matrix_multiplication(again, weights) - b), wide, x + b]

    agree(make, [x, b])
    executable, _ = compiled(make, [x, b])
    names = [s.name for s in executable._chosen(None).steps]
    if lead == (1,) and channels % 16 == 0:
        assert not [n for n in names if n in ("rows to panels", "panels to rows")]
        assert any(n.startswith("matrix_multiplication > ") for n in names)
