"""Winograd's convolution and its gradients against float64 NumPy, on every target."""

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

from stepgraph.backends.cpu.native.geometry import Convolution
from stepgraph.backends.cpu.native.kernels import kernel_module
from stepgraph.backends.cpu.native.product import blocking_for
from stepgraph.backends.cpu.native.winograd_shapes import Winograd, suits_winograd

SAME = (1, 1, 1, 1)


def _module(target):
    return kernel_module(target)[0]


def _operands(conv, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((conv.images, *conv.size, conv.channels[0]))
    w = rng.standard_normal((conv.taps, *conv.channels))
    dy = rng.standard_normal((conv.images, *conv.out_size, conv.channels[1]))
    return tuple(a.astype(np.float32).astype(np.float64) for a in (x, w, dy))


def _started(like, beta):
    """What an output holds before: numbers if they count, else what must not be read."""
    fill = np.random.default_rng(9).standard_normal(like.shape).astype(np.float32)
    return fill if beta else np.full_like(like, np.nan)


def _convolve(kernels, blocking, conv, source, w, output, turned, alpha=1.0, beta=0.0, **changed):
    plan = Winograd(conv)
    u = np.full(plan.u_size, np.nan, np.float32)
    name = "winograd_weights_turned" if turned else "winograd_weights"
    counts = {"in_panels": conv.in_panels, "out_panels": conv.out_panels}
    kernels(name, plan.weight_tasks, w=w, u=u, **counts)
    sizes, tasks = plan.convolution(blocking, turned)
    tasks = tasks // sizes["parts"] * changed.get("parts", sizes["parts"])
    sizes |= changed
    scratch = np.full(sizes["scratch_size"], np.nan, np.float32)
    kernels(
        "winograd_convolution", tasks, x=source, u=u, y=output, scratch=scratch,
        alpha=alpha, beta=beta, **sizes,
    )  # fmt: skip


def _close(got, expected, what):
    error = np.abs(got - expected).max()
    assert error <= 2e-5 * max(np.abs(expected).max(), 1), f"{what}: {error}"


def _check(kernels, blocking, conv, alpha=1.0, beta=0.0):
    x, w, dy = _operands(conv)
    y, dx, dw = oracle(conv, x, w, dy)
    w_memory = to_weight_panels(conv, w)
    for what, source, expected, turned in (("forward", x, y, False), ("data", dy, dx, True)):
        start = _started(to_panels(expected), beta)
        got = start.copy()
        _convolve(kernels, blocking, conv, to_panels(source), w_memory, got, turned, alpha, beta)
        result = (got - beta * start if beta else got) / alpha
        _close(from_panels(result, expected.shape), expected, f"{what} {conv}")
        assert not np.any(result[-1, :, expected.shape[-1] % 16 or 16 :])
    start = _started(w_memory, beta)
    got = start.copy()
    sizes = Winograd(conv).weight_gradient()
    weight_gradient(
        kernels, "winograd_weight_gradient", sizes, got, parts=sizes[0]["parts"],
        alpha=alpha, beta=beta, x=to_panels(x), y=to_panels(dy),
    )  # fmt: skip
    result = (got - beta * start if beta else got) / alpha
    _close(result, to_weight_panels(conv, dw), f"weight gradient {conv}")


SHAPES = [
    Convolution(1, (1, 1), (16, 16), (3, 3), padding=SAME),
    Convolution(3, (7, 5), (33, 40), (3, 3), padding=SAME),
    Convolution(2, (8, 6), (16, 17), (3, 3)),
    Convolution(1, (5, 6), (3, 96), (3, 3), padding=(0, 2, 1, 2)),
    Convolution(9, (6, 6), (80, 32), (3, 3), padding=SAME),
    Convolution(3, (33, 21), (16, 16), (3, 3), padding=SAME),
    Convolution(1, (20, 21), (16, 16), (3, 3), padding=SAME),
    Convolution(40, (4, 4), (600, 16), (3, 3), padding=SAME),
    Convolution(2, (3, 4), (1, 1), (3, 3), padding=(2, 2, 2, 2)),
]


@pytest.mark.parametrize("conv", SHAPES, ids=str)
def test_shapes(target, kernels_of, conv):
    for alpha, beta in ((1.0, 0.0), (-0.25, 1.0)):
        _check(kernels_of(_module), blocking_for(target), conv, alpha, beta)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_random_geometries(target, kernels_of, data):
    draw = data.draw
    channels = st.sampled_from([1, 16, 17, 40, 130])
    conv = Convolution(
        draw(st.sampled_from([1, 2, 9])),
        (draw(st.integers(3, 9)), draw(st.integers(3, 14))),
        (draw(channels), draw(channels)),
        (3, 3),
        padding=tuple(draw(st.integers(0, 2)) for _ in range(4)),
    )
    alpha, beta = draw(st.sampled_from([(1.0, 0.0), (1.0, 1.0), (-0.5, 1.0), (2.0, 0.5)]))
    _check(kernels_of(_module), blocking_for(target), conv, alpha, beta)


@pytest.mark.parametrize("turned", [False, True])
def test_partition_does_not_change_a_bit(target, kernels_of, turned):
    conv = Convolution(3, (10, 11), (48, 80), (3, 3), padding=SAME)
    x, w, dy = _operands(conv)
    source, output = (dy, x) if turned else (x, dy)
    results = []
    for parts in (1, 2):
        got = np.zeros_like(to_panels(output))
        arguments = (to_panels(source), to_weight_panels(conv, w), got, turned)
        _convolve(kernels_of(_module), blocking_for(target), conv, *arguments, parts=parts)
        results.append(got)
    assert np.array_equal(*results)


@pytest.mark.parametrize("distribution", ["normal", "positive"])
def test_errors_are_less_than_twice_those_of_the_direct_kernels(target, kernels_of, distribution):
    if target.architecture == "aarch64":
        pytest.skip("the same arithmetic, slow under emulation")
    conv = Convolution(2, (8, 8), (512, 64), (3, 3), padding=SAME)
    x, w, dy = _operands(conv)
    if distribution == "positive":
        x, dy = np.abs(x), np.abs(dy)
    y, dx, _ = oracle(conv, x, w, dy)
    kernels, blocking = kernels_of(_module), blocking_for(target)
    w_memory = to_weight_panels(conv, w)
    for source, expected, turned in ((x, y, False), (dy, dx, True)):
        got, direct = np.zeros_like(to_panels(expected)), np.zeros_like(to_panels(expected))
        _convolve(kernels, blocking, conv, to_panels(source), w_memory, got, turned)
        sizes, tasks = (conv.data_gradient if turned else conv.forward)(blocking)
        scratch = np.zeros(max(sizes["scratch_size"], 1), np.float32)
        a, b = (direct, to_panels(source)) if turned else (to_panels(source), direct)
        name = "convolution_data_gradient" if turned else "convolution_forward"
        kernels(name, tasks, x=a, y=b, w=w_memory, scratch=scratch, alpha=1, beta=0, **sizes)
        errors = [
            np.linalg.norm(from_panels(made, expected.shape) - expected) for made in (got, direct)
        ]
        assert errors[0] < 2 * errors[1]


@pytest.mark.parametrize("kind", ["forward", "data", "weights"])
def test_which_shapes_are_computed_this_way(kind):
    def suits(images, side, channels, **settings):
        settings = {"kernel": (3, 3), "padding": SAME, **settings}
        shape = Convolution(images, (side, side), (channels, channels), **settings)
        return suits_winograd(shape, kind)

    assert suits(8, 32, 64)
    assert suits(64, 8, 256)
    assert suits(64, 6, 64)
    assert not suits(1, 6, 64)
    assert not suits(64, 3, 128)
    assert not suits(1, 4, 512)
    assert not suits(8, 32, 64, stride=(2, 2))
    assert not suits(8, 32, 64, dilation=(2, 2))
    assert not suits(8, 32, 64, kernel=(5, 5))
    assert not suits(8, 32, 64, kernel=(1, 1), padding=(0, 0, 0, 0))
    assert not suits(8, 32, 64, padding=(3, 3, 3, 3))


def test_weights_transformed_before_suit_smaller_maps():
    def suits(side, channels, prepared):
        shape = Convolution(1, (side, side), (channels, channels), (3, 3), padding=SAME)
        return suits_winograd(shape, "forward", prepared)

    assert suits(8, 256, True)
    assert not suits(8, 256, False)
    assert not suits(4, 512, True)
