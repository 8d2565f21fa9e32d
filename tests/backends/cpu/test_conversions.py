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
