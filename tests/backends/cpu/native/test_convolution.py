"""Convolution, its gradients and the layout kernels against float64 NumPy, on every target."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.backends.cpu.native.convolution_oracle import (
    from_panels,
    oracle,
    to_panels,
    to_weight_panels,
    weight_gradient,
)

from stepgraph.backends.cpu.native import compile as native_compile
from stepgraph.backends.cpu.native.geometry import TASK_RESULTS, Convolution, tile_rows
from stepgraph.backends.cpu.native.kernels import kernel_module
from stepgraph.backends.cpu.native.product import blocking_for
from stepgraph.backends.cpu.native.target import NAMED, named_target
from stepgraph.errors import ShapeError


def _module(target):
    return kernel_module(target)[0]


def _check(kernels, blocking, conv, alpha, beta, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((conv.images, *conv.size, conv.channels[0]))
    w = rng.standard_normal((conv.taps, *conv.channels))
    dy = rng.standard_normal((conv.images, *conv.out_size, conv.channels[1]))
    y, dx, dw = oracle(conv, x, w, dy)
    x_memory = x.astype(np.float32) if conv.rows else to_panels(x)
    w_memory, dy_memory = to_weight_panels(conv, w), to_panels(dy)
    assert x_memory.shape == conv.x_shape
    assert w_memory.shape == conv.w_shape
    assert dy_memory.shape == conv.y_shape
    nothing = np.zeros(1, np.float32)

    def run_weight_gradient():
        start = w_memory.copy() if beta else np.full_like(w_memory, np.nan)
        got = start.copy()
        sizes = conv.weight_gradient(blocking)
        weight_gradient(
            kernels, "convolution_weight_gradient", sizes, got, parts=sizes[0]["splits"],
            alpha=alpha, beta=beta, x=x_memory, y=dy_memory,
        )  # fmt: skip
        return (got - beta * start if beta else got) / alpha

    def run(name, sizes, output, **operands):
        arguments, tasks = sizes
        scratch = np.full(max(arguments["scratch_size"], 1), np.nan, np.float32)
        start = output.copy() if beta else np.full_like(output, np.nan)
        got = start.copy()
        operands = {"x": nothing, "w": nothing, "y": nothing, **operands}
        key = {"forward": "y", "data_gradient": "x"}[name]
        operands[key] = got
        kernels(
            f"convolution_{name}", tasks, **operands, scratch=scratch, alpha=alpha, beta=beta,
            **arguments,
        )  # fmt: skip
        return (got - beta * start if beta else got) / alpha

    def close(got, expected, what):
        error = np.abs(got - expected).max()
        assert error <= 2e-5 * max(np.abs(expected).max(), 1), f"{what} {error} {conv}"

    got = run("forward", conv.forward(blocking), dy_memory, x=x_memory, w=w_memory)
    close(from_panels(got, y.shape), y, "forward")
    assert not np.any(got[-1, :, conv.channels[1] % 16 or 16 :])
    close(run_weight_gradient(), to_weight_panels(conv, dw), "weight gradient")
    if not conv.rows:
        got = run("data_gradient", conv.data_gradient(blocking), x_memory, y=dy_memory, w=w_memory)
        close(from_panels(got, dx.shape), dx, "data gradient")


SHAPES = [
    Convolution(3, (1, 1), (16, 16), (1, 1)),
    Convolution(5, (7, 5), (40, 17), (1, 1)),
    Convolution(2, (7, 5), (33, 70), (1, 1), stride=(2, 2)),
    Convolution(9, (3, 3), (32, 40), (3, 3), padding=(1, 1, 1, 1)),
    Convolution(64, (2, 2), (16, 16), (3, 3), padding=(1, 1, 1, 1)),
    Convolution(1, (7, 5), (17, 16), (3, 3), padding=(1, 1, 1, 1)),
    Convolution(2, (12, 20), (16, 48), (3, 3), padding=(1, 1, 1, 1)),
    Convolution(2, (12, 19), (40, 16), (3, 3), stride=(2, 2), padding=(0, 1, 0, 1)),
    Convolution(
        2, (11, 13), (16, 16), (5, 2), stride=(3, 2), dilation=(2, 3), padding=(4, 2, 3, 1)
    ),
    Convolution(1, (9, 14), (16, 16), (2, 3), dilation=(1, 3), padding=(1, 1, 2, 2)),
    Convolution(
        1, (14, 19), (16, 16), (3, 5), stride=(1, 2), dilation=(2, 3), padding=(1, 1, 4, 2)
    ),
    Convolution(20, (4, 4), (600, 16), (1, 1)),
    Convolution(3, (2, 3), (16, 16), (2, 3), padding=(4, 4, 5, 5)),
    Convolution(2, (32, 32), (3, 64), (7, 7), stride=(2, 2), rows=True),
    Convolution(7, (20, 21), (16, 17), (3, 3), padding=(1, 1, 1, 1)),
    Convolution(40, (7, 7), (16, 16), (3, 2), padding=(1, 1, 1, 1)),
    Convolution(5000, (1, 1), (16, 40), (1, 1)),
    Convolution(437, (1, 1), (33, 40), (1, 1)),
    Convolution(33, (16, 16), (1, 20), (5, 5), rows=True),
    Convolution(2, (96, 90), (3, 16), (3, 3), padding=(1, 1, 1, 1), rows=True),
    Convolution(2, (28, 28), (1, 6), (5, 5), padding=(2, 2, 2, 2), rows=True),
    Convolution(3, (9, 9), (3, 33), (3, 3), padding=(1, 1, 1, 1), rows=True),
    Convolution(8, (14, 14), (6, 16), (5, 5)),
    Convolution(13, (5, 20), (8, 7), (3, 3), stride=(2, 1), padding=(1, 0, 2, 1)),
    Convolution(29, (1, 1), (9, 8), (1, 1)),
    Convolution(13, (2, 2), (33, 40), (3, 3), padding=(1, 1, 1, 1)),
    Convolution(10, (5, 4), (17, 35), (3, 3), stride=(2, 1), dilation=(1, 2), padding=(1, 1, 2, 2)),
    Convolution(8, (6, 6), (48, 20), (1, 1), stride=(2, 2)),
    Convolution(2, (9, 9), (5, 16), (3, 3), dilation=(2, 2), padding=(2, 2, 2, 2), rows=True),
    Convolution(64, (1, 1), (784, 40), (1, 1), rows=True),
    Convolution(600, (1, 1), (48, 10), (1, 1), rows=True),
    Convolution(3, (2, 3), (176, 33), (1, 1), rows=True),
]


@pytest.mark.parametrize("conv", SHAPES, ids=str)
def test_shapes(target, kernels_of, conv):
    for alpha, beta in ((1.0, 0.0), (-0.25, 1.0)):
        _check(kernels_of(_module), blocking_for(target), conv, alpha, beta)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_geometries(target, kernels_of, data):
    draw = data.draw
    pair = lambda low, high: (draw(st.integers(low, high)), draw(st.integers(low, high)))  # noqa: E731
    rows = draw(st.booleans())
    channels = st.sampled_from([1, 2, 3, 5] if rows else [1, 3, 8, 9, 16, 17, 40])
    padding = tuple(draw(st.integers(0, 3)) for _ in range(4))
    arguments = {
        "images": draw(st.sampled_from([1, 2, 9])),
        "size": draw(st.sampled_from([(1, 1), (2, 3), (7, 5), (5, 12)])),
        "channels": (draw(channels), draw(st.sampled_from([1, 3, 8, 9, 16, 17, 40]))),
        "kernel": pair(1, 3),
        "stride": pair(1, 3),
        "dilation": pair(1, 3),
        "padding": padding,
        "rows": rows,
    }
    try:
        conv = Convolution(**arguments)
    except ShapeError:
        return
    alpha, beta = draw(st.sampled_from([(1.0, 0.0), (1.0, 1.0), (-0.5, 1.0), (2.0, 0.5)]))
    _check(kernels_of(_module), blocking_for(target), conv, alpha, beta)


def test_impossible_geometries_are_refused():
    with pytest.raises(ShapeError, match="larger than the padded input"):
        Convolution(1, (2, 2), (16, 16), (3, 3))
    with pytest.raises(ShapeError, match="positive"):
        Convolution(0, (2, 2), (16, 16), (1, 1))
    with pytest.raises(ShapeError, match="panels"):
        Convolution(1, (9, 9), (3, 16), (3, 3), rows=True).data_gradient(
            blocking_for(named_target("avx2"))
        )


def test_partition_does_not_change_a_bit(target, kernels_of):
    conv = Convolution(3, (10, 11), (48, 48), (3, 3), padding=(1, 1, 1, 1))
    rng = np.random.default_rng(1)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in (conv.x_shape, conv.w_shape))
    arguments, tasks = conv.forward(blocking_for(target))
    results = []
    for parts in (1, 2, 7, arguments["units"]):
        y = np.zeros(conv.y_shape, np.float32)
        sizes = {**arguments, "parts": parts}
        groups = tasks // arguments["parts"]
        kernels_of(_module)(
            "convolution_forward",
            groups * parts,
            x=x,
            w=w,
            y=y,
            scratch=y,
            alpha=1,
            beta=0,
            **sizes,
        )
        results.append(y)
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("name", NAMED)
def test_every_kernel_compiles_for_every_named_target(name):
    target = named_target(name)
    assert len(native_compile.compile_object(str(_module(target)), target)) > 10_000


def test_splits_of_a_weight_gradient_follow_from_the_shape(target):
    """Few channels over many positions make partial results; each has positions enough."""
    blocking = blocking_for(target)
    wide = Convolution(64, (32, 32), (64, 64), (3, 3), padding=(1, 1, 1, 1))
    sizes, tasks = wide.weight_gradient(blocking)
    assert tasks >= 64
    assert sizes["splits"] > 1
    deep = Convolution(64, (4, 4), (512, 512), (3, 3), padding=(1, 1, 1, 1))
    assert deep.weight_gradient(blocking)[0]["splits"] == 1
    dense = Convolution(64, (1, 1), (784, 512), (1, 1))
    assert dense.weight_gradient(blocking)[0]["splits"] == 1
    square = Convolution(64, (1, 1), (512, 512), (1, 1))
    for shape in (deep, square):
        # A gradient that is stored is cut into tasks of one size.
        parts = shape.weight_gradient(blocking, stored=True)[0]["parts"]
        assert (shape.in_panels * shape.kernel[0]) % parts == 0
        results = blocking.panels * shape.in_panels * shape.taps * 256 // parts
        assert results <= 2 * TASK_RESULTS
    for positions, visits in ((512, 1), (513, 3)):
        flat = Convolution(positions, (1, 1), (128, 128), (1, 1))
        assert flat.weight_visits(flat.weight_gradient(blocking)[0]) == visits


@pytest.mark.parametrize(
    ("positions", "size", "expected"),
    [
        (676, (26, 26), 676),
        (64 * 676, (26, 26), 676),
        (64 * 169, (13, 13), 4 * 169),
        (7 * 169, (13, 13), 0),
        (4 * 4096, (64, 64), 16 * 64),
        (2 * 56 * 56, (56, 56), 14 * 56),
        (2304, (1, 1), 768),
    ],
)
def test_tiles_are_whole_images_or_even_rows(positions, size, expected):
    assert tile_rows(positions, size) == expected
