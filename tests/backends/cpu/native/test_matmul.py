"""Matrix products with any strides against float64, on every target."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepgraph.backends.cpu.native.kernels import kernel_module, load_kernels
from stepgraph.backends.cpu.native.matmul import MatrixProduct
from stepgraph.backends.cpu.native.pool import Pool, Program
from stepgraph.backends.cpu.native.product import blocking_for


def _module(target):
    return kernel_module(target)[0]


def _strides(array):
    return tuple(stride // array.itemsize for stride in array.strides)


def _stored(rng, shape, transposed):
    """A float32 array whose last two axes may lie the other way round in memory."""
    if transposed:
        return rng.standard_normal((shape[0], shape[2], shape[1])).astype("f4").swapaxes(1, 2)
    return rng.standard_normal(shape).astype("f4")


def _check(kernels, blocking, batch, rows, depth, columns, transposed, alpha, beta):
    rng = np.random.default_rng(rows)
    a = _stored(rng, (batch, rows, depth), transposed[0])
    b = _stored(rng, (batch, depth, columns), transposed[1])
    wide = np.full((batch, rows, columns + 3), np.nan, np.float32)
    c = wide[:, :, :columns]
    if beta:
        c[:] = rng.standard_normal(c.shape)
    expected = alpha * (a.astype(float) @ b.astype(float)) + (beta * c if beta else 0.0)
    problem = MatrixProduct(
        batch, rows, depth, columns, a=_strides(a), b=_strides(b), c=_strides(wide)[:2]
    )
    sizes, tasks = problem.arguments(blocking)
    scratch = np.full(sizes["scratch_size"], np.nan, np.float32)
    kernels(
        "matrix_product", tasks, a=a, b=b, c=wide, scratch=scratch, alpha=alpha, beta=beta, **sizes
    )
    np.testing.assert_allclose(c, expected, rtol=1e-4, atol=1e-5 * depth**0.5 * abs(alpha) * 4)
    assert np.isnan(wide[:, :, columns:]).all()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 70),
    st.sampled_from([1, 3, 17, 64, 300, 520]),
    st.integers(1, 70),
    st.tuples(st.booleans(), st.booleans()),
    st.sampled_from([(1.0, 0.0), (1.0, 1.0), (-0.5, 2.0)]),
)
def test_random_shapes(target, kernels_of, batch, rows, depth, columns, transposed, scales):
    kernels = kernels_of(_module)
    _check(kernels, blocking_for(target), batch, rows, depth, columns, transposed, *scales)


@pytest.mark.parametrize("shape", [(2, 200, 700, 33), (1, 500, 64, 64), (4, 96, 96, 32)])
def test_several_parts_and_visits(target, kernels_of, shape):
    _check(kernels_of(_module), blocking_for(target), *shape, (False, True), 1.0, 0.0)


def test_one_matrix_serves_the_whole_batch(target, kernels_of):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((3, 5, 20)).astype("f4")
    b = rng.standard_normal((20, 32)).astype("f4")
    c = np.empty((3, 5, 32), np.float32)
    problem = MatrixProduct(3, 5, 20, 32, a=_strides(a), b=(0, 32, 1), c=(160, 32))
    sizes, tasks = problem.arguments(blocking_for(target))
    scratch = np.zeros(sizes["scratch_size"], np.float32)
    operands = {"a": a, "b": b, "c": c, "scratch": scratch, "alpha": 1, "beta": 0}
    kernels_of(_module)("matrix_product", tasks, **operands, **sizes)
    np.testing.assert_allclose(c, a @ b, rtol=1e-4, atol=1e-5)


def test_any_number_of_threads_gives_the_same_bits():
    kernels = load_kernels()
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((300, 310)).astype("f4"), rng.standard_normal((310, 77)).astype("f4")
    problem = MatrixProduct(1, 300, 310, 77, a=(0, 310, 1), b=(0, 77, 1), c=(0, 77))
    sizes, tasks = problem.arguments(kernels.blocking)
    results = []
    for threads in (1, 2, 5):
        c = np.zeros((300, 77), np.float32)
        scratch = np.zeros(sizes["scratch_size"] * threads, np.float32)
        arrays = {"a": a, "b": b, "c": c, "scratch": scratch}
        addresses = {name: array.ctypes.data for name, array in arrays.items()}
        packed = kernels.layouts["matrix_product"].pack(**addresses, alpha=1, beta=0, **sizes)
        program = Program()
        program.launch(kernels.library["matrix_product"], packed, tasks)
        pool = Pool(threads)
        pool.run(program)
        pool.close()
        results.append(c)
    np.testing.assert_allclose(results[0], a @ b, rtol=1e-3, atol=1e-4)
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])
