"""Convolutions over gathered taps: against float64, against the direct kernel, bits by threads."""

from __future__ import annotations

import numpy as np
import pytest

import stepgraph as sg
from stepgraph.backends.cpu.native.geometry import Convolution
from stepgraph.backends.cpu.native.taps import gathered, gathering, suits_gathering

# images, height, width, channels, outputs, kernel, strides, dilations, padding around
SHAPES = [
    (1, 4, 4, 256, 64, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1)),
    (1, 3, 3, 512, 200, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1)),
    (3, 7, 5, 128, 40, (3, 3), (2, 1), (1, 1), (0, 1, 1, 1)),
    (2, 9, 9, 48, 64, (3, 2), (1, 2), (2, 1), (2, 2, 0, 1)),
    (1, 5, 5, 256, 512, (1, 1), (2, 2), (1, 1), (0, 0, 0, 0)),
]


def _expected(x, w, strides, dilations, padding):
    top, bottom, left, right = padding
    wide = np.pad(x.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    kh, kw, _, out = w.shape
    rows = (wide.shape[1] - (kh - 1) * dilations[0] - 1) // strides[0] + 1
    columns = (wide.shape[2] - (kw - 1) * dilations[1] - 1) // strides[1] + 1
    y = np.zeros((len(x), rows, columns, out))
    for ky in range(kh):
        for kx in range(kw):
            down = slice(ky * dilations[0], None, strides[0])
            across = slice(kx * dilations[1], None, strides[1])
            y += wide[:, down, across][:, :rows, :columns] @ w[ky, kx].astype(np.float64)
    return y


@pytest.mark.parametrize("shape", SHAPES)
def test_gathered_taps_give_the_convolution(shape) -> None:
    n, height, width, channels, out, kernel, strides, dilations, padding = shape
    plan = Convolution(n, (height, width), (channels, out), kernel, strides, dilations, padding)
    assert suits_gathering(plan)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, height, width, channels)).astype("float32")
    w = rng.normal(size=(*kernel, channels, out)).astype("float32")
    expected = _expected(x, w, strides, dilations, padding)

    def run(disable, threads):
        graph = sg.Graph()
        source = graph.placeholder(x.shape, name="x")
        y = graph.convolution_2d(
            source,
            graph.variable(w, name="w"),
            strides=strides,
            dilations=dilations,
            padding="explicit",
            explicit_padding=(padding[:2], padding[2:]),
        )
        made = graph.compile([source], [y], disable=disable, threads=threads)
        return made.run({source: x})[0], made.describe()

    off = ["winograd", "gather_taps"]
    (on, text), (plain, plain_text) = run(["winograd"], 2), run(off, 2)
    assert "(taps)" in text
    assert "(taps)" not in plain_text
    size = np.sqrt(kernel[0] * kernel[1] * channels)
    assert np.abs(on - expected).max() < 3e-6 * size
    assert np.abs(plain - expected).max() < 3e-6 * size
    np.testing.assert_array_equal(on, run(["winograd"], 1)[0])
    np.testing.assert_array_equal(on, run(["winograd"], 3)[0])


def test_what_is_left_is_a_flat_product_of_all_taps() -> None:
    plan = Convolution(2, (4, 4), (64, 64), (3, 3), padding=(1, 1, 1, 1))
    assert gathered(plan).pointwise
    assert gathered(plan).x_shape == (4 * 9, 32, 16)
    assert gathered(plan).w_shape[1] == plan.in_panels * plan.taps
    assert gathering(plan)[1] == 4 * 3


@pytest.mark.parametrize(
    "plan",
    [
        Convolution(1, (1, 1), (512, 512), (3, 3), padding=(1, 1, 1, 1)),
        Convolution(4, (2, 2), (512, 512), (3, 3), padding=(1, 1, 1, 1)),
        Convolution(8, (4, 4), (512, 512), (3, 3), padding=(1, 1, 1, 1)),
        Convolution(1, (16, 16), (256, 256), (3, 3), padding=(1, 1, 1, 1)),
        Convolution(1, (4, 4), (512, 512), (1, 1)),
        Convolution(1, (4, 4), (500, 512), (3, 3), padding=(1, 1, 1, 1)),
        Convolution(1, (4, 4), (16, 16), (3, 3), padding=(1, 1, 1, 1)),
        Convolution(1, (4, 4), (512, 512), (3, 3), padding=(1, 1, 1, 1), rows=True),
    ],
    ids=["padding", "much padding", "images", "wide", "flat", "half panels", "little work", "rows"],
)
def test_others_go_their_direct_way(plan) -> None:
    assert not suits_gathering(plan)


def test_of_few_positions_more_may_lie_in_the_padding() -> None:
    assert suits_gathering(Convolution(1, (2, 2), (512, 512), (3, 3), padding=(1, 1, 1, 1)))
