"""Vector math against float64: greatest error in units in the last place, and the odd values."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from scipy import special

from stepgraph.backends.cpu.native import compile as native_compile
from stepgraph.backends.cpu.native import vector_math
from stepgraph.backends.cpu.native.emit import Module, f32, f64, i64, pointer
from stepgraph.backends.cpu.native.target import NAMED, named_target

TINY, LARGE = np.float32(1e-45), np.finfo(np.float32).max
FUNCTIONS = {
    "exp": (np.exp, (-104.0, 89.0), 1.0),
    "log": (np.log, (0.0, 50.0), 1.0),
    "tanh": (np.tanh, (-12.0, 12.0), 2.0),
    "sigmoid": (special.expit, (-90.0, 90.0), 3.0),
    "erf": (special.erf, (-6.0, 6.0), 2.0),
}


def _module(type_, width):
    module = Module(f"math{width}")
    for name in FUNCTIONS if type_ is f64 else (*FUNCTIONS, "exp_of_negative"):
        fields = {"x": pointer(type_), "y": pointer(type_), "n": i64}
        with module.kernel(f"all_{name}", fields) as (f, args):
            with f.loop(0, args.n, width) as i:
                (args.y + i).store(getattr(vector_math, name)(f, (args.x + i).load(width)))
    return module


def _apply(type_, width, name, x):
    module = _module(type_, width)
    library = native_compile.build(str(module), module.kernels)
    y = np.empty_like(x)
    packed = module.kernels[f"all_{name}"].pack(x=x.ctypes.data, y=y.ctypes.data, n=x.size)
    call = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64)
    call(library[f"all_{name}"])(packed, 0, 0)
    return y


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("width", [1, 4, 16])
def test_float32_is_within_a_few_units_of_the_last_place(name, width):
    oracle, (low, high), allowed = FUNCTIONS[name]
    rng = np.random.default_rng(len(name))
    wide = rng.uniform(low, high, 1 << 17)
    scales = np.exp(rng.uniform(-100, 4, 1 << 17)) * np.where(
        low < 0, rng.choice([-1, 1], 1 << 17), 1
    )
    near_one = 1 + rng.uniform(-1, 1, 1 << 16) * 10.0 ** rng.uniform(-6, 0, 1 << 16)
    x = np.concatenate([wide, np.clip(scales, low, high), near_one]).astype(np.float32)
    got = _apply(f32, width, name, x)
    expected = oracle(x.astype(np.float64))
    with np.errstate(over="ignore"):
        unit = np.spacing(np.abs(expected.astype(np.float32))).astype(np.float64)
    finite = np.abs(expected) <= LARGE
    error = np.abs(got - expected)[finite] / unit[finite]
    assert error.max() <= allowed + 0.5, f"{name}: {error.max()} at {x[finite][error.argmax()]}"
    assert np.isinf(got[~finite]).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64_is_the_c_librarys(name):
    oracle, (low, high), _ = FUNCTIONS[name]
    x = np.random.default_rng(0).uniform(low + 1e-9, high, 4096)
    np.testing.assert_allclose(_apply(f64, 4, name, x), oracle(x), rtol=1e-14, atol=1e-300)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_hard_values(name):
    oracle = FUNCTIONS[name][0]
    x = np.array(
        [
            0.0,
            -0.0,
            TINY,
            -TINY,
            1.0,
            -1.0,
            LARGE,
            -LARGE,
            np.inf,
            -np.inf,
            np.nan,
            88.7,
            -103,
            89,
            1e-38,
            2,
        ],
        np.float32,
    )
    with np.errstate(all="ignore"):
        expected = oracle(x.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(_apply(f32, 16, name, x), expected, rtol=4e-7, atol=2e-45)


@pytest.mark.parametrize("width", [1, 4, 16])
def test_exp_of_negative_numbers_leaves_out_subnormal_results_only(width):
    tiny = np.finfo(np.float32).tiny
    rng = np.random.default_rng(width)
    wide = [rng.uniform(-104, 0, 1 << 17), -np.exp(rng.uniform(-100, 4, 1 << 17))]
    edge = np.nextafter(np.float32(-87.33654), np.float32([0, -100]))
    odd = np.float32([0.0, -0.0, -TINY, -tiny, *edge, -103, -104, -1e4, -LARGE, -np.inf])
    x = np.concatenate([odd, *wide]).astype(np.float32)[: 1 << 18]  # whole vectors
    got, expected = _apply(f32, width, "exp_of_negative", x), np.exp(x.astype(np.float64))
    normal = expected >= tiny
    unit = np.spacing(expected[normal].astype(np.float32)).astype(np.float64)
    assert (np.abs(got - expected)[normal] / unit).max() <= 1.5
    np.testing.assert_array_equal(got[~normal], 0)
    assert (~normal).sum() > 1000
    assert (got <= 1).all()
    np.testing.assert_array_equal(got[x == 0], 1)
    assert np.isnan(_apply(f32, width, "exp_of_negative", np.full(16, np.nan, np.float32))).all()


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("width", [4, 16])
def test_compiles_for_every_named_target(name, width):
    assert len(native_compile.compile_object(str(_module(f32, width)), named_target(name))) > 1000
