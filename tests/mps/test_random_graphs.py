"""Graphs put together at random, with their gradients, on the double beside the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import stepgraph as sg
from stepgraph.backends.mps.device import use
from stepgraph.errors import GraphError, ShapeError, UnsupportedError
from tests.mps.double import Double

VERSIONS = ((16, 3), (17, 4), (18, 1), (26, 2))
OPERATIONS = 14


class Maker:
    """Adds operations to a graph, of tensors that it has already."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.graph = sg.Graph()
        self.feeds: dict[sg.Tensor, np.ndarray] = {}
        self.made: list[sg.Tensor] = []
        for i in range(3):
            rank = 4 if i == 0 else int(self.random.integers(0, 5))
            shape = tuple(int(d) for d in self.random.integers(1, 5, rank))
            x = self.graph.placeholder(shape, name=f"x{i}")
            self.feeds[x] = self.random.standard_normal(shape).astype(np.float32)
            self.made.append(x)
        while len(self.made) < 3 + OPERATIONS:
            x = self.any()
            kinds = IMAGES if len(x.shape) == 4 and self.number(0, 2) == 0 else KINDS
            kinds = kinds if x.shape else ELEMENTWISE
            try:
                new = kinds[self.number(0, len(kinds) - 1)](self, x)
            except (ShapeError, GraphError, UnsupportedError, ValueError):
                continue
            if 0 < np.prod(new.shape, dtype=int) < 400:
                self.made.append(new)

    def any(self) -> sg.Tensor:
        return self.made[int(self.random.integers(len(self.made)))]

    def number(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return int(self.random.integers(low, high + 1))

    def flag(self) -> bool:
        return bool(self.random.integers(2))

    def axis(self, x: sg.Tensor) -> int:
        return self.number(-len(x.shape), len(x.shape) - 1)

    def axes(self, x: sg.Tensor) -> Any:
        chosen = [i for i in range(len(x.shape)) if self.flag()]
        return None if not chosen and self.flag() else tuple(chosen)

    def indices(self, *shape: int, below: int) -> sg.Tensor:
        values = self.random.integers(0, below, shape).astype(np.int32)
        return self.graph.constant(values)


Make = Callable[[Maker, sg.Tensor], sg.Tensor]


def _bounds(m: Maker, size: int) -> tuple[int, int, int]:
    """Start, end and stride of a slice that is not empty."""
    stride = m.number(1, 2)
    start = m.number(0, size - 1)
    end = m.number(start + 1, size)
    return (start, end, stride) if m.flag() else (end - 1, start - size - 1, -stride)


def _strided(m: Maker, x: sg.Tensor) -> sg.Tensor:
    starts, ends, strides = zip(*(_bounds(m, d) for d in x.shape), strict=True)
    squeezed = m.number(0, (1 << len(x.shape)) - 1) & m.number(0, (1 << len(x.shape)) - 1)
    return m.graph.strided_slice(x, starts, ends, strides, squeeze_mask=squeezed)


def _pad(m: Maker, x: sg.Tensor) -> sg.Tensor:
    mode = ("constant", "reflect", "symmetric", "clamp_to_edge", "zero")[m.number(0, 4)]
    return m.graph.pad(x, [(m.number(0, 2), m.number(0, 2)) for _ in x.shape], mode)


def _convolution(m: Maker, x: sg.Tensor) -> sg.Tensor:
    groups = 2 if x.shape[-1] % 2 == 0 and m.flag() else 1
    kernel = (m.number(1, 3), m.number(1, 3), x.shape[-1] // groups, groups * m.number(1, 2))
    weights = m.graph.constant(m.random.standard_normal(kernel).astype(np.float32))
    return m.graph.convolution_2d(
        x,
        weights,
        strides=(m.number(1, 2), m.number(1, 2)),
        dilations=(m.number(1, 2), 1),
        groups=groups,
        padding="explicit",
        explicit_padding=((m.number(0, 2), m.number(0, 2)), (m.number(0, 2), m.number(0, 2))),
    )


def _depthwise(m: Maker, x: sg.Tensor) -> sg.Tensor:
    kernel = (m.number(1, 3), m.number(1, 2), x.shape[-1], m.number(1, 2))
    weights = m.graph.constant(m.random.standard_normal(kernel).astype(np.float32))
    padding = ("TF_SAME", "TF_VALID")[m.number(0, 1)]
    return m.graph.depthwise_convolution_2d(x, weights, (m.number(1, 2), 1), padding=padding)


def _pooling(m: Maker, x: sg.Tensor) -> sg.Tensor:
    window, strides = (m.number(1, 3), m.number(1, 2)), (m.number(1, 2), m.number(1, 2))
    padding = ("TF_SAME", "TF_VALID")[m.number(0, 1)]
    if m.flag():
        return m.graph.max_pooling_2d(x, window, strides, padding)
    counted = m.flag()
    return m.graph.avg_pooling_2d(x, window, strides, padding, include_zero_pad_to_average=counted)


def _normalize(m: Maker, x: sg.Tensor) -> sg.Tensor:
    axes = m.axes(x) or (0,)
    mean = m.graph.mean(x, axes)
    variance = m.graph.variance(x, mean, axes)
    return m.graph.normalize(x, mean, variance, epsilon=0.1)


def _reshape(m: Maker, x: sg.Tensor) -> sg.Tensor:
    size = int(np.prod(x.shape, dtype=int))
    divisors = [d for d in range(1, size + 1) if size % d == 0]
    first = divisors[m.number(0, len(divisors) - 1)]
    return m.graph.reshape(x, (first, -1) if m.flag() else (size,))


ELEMENTWISE: tuple[Make, ...] = (
    lambda m, x: x + m.any(),
    lambda m, x: x - m.any(),
    lambda m, x: x * m.any(),
    lambda m, x: x / (m.graph.absolute(m.any()) + 1.0),
    lambda m, x: m.graph.maximum(x, m.any()),
    lambda m, x: m.graph.select(x > 0.0, m.any(), x),
    lambda m, x: m.graph.tanh(x),
    lambda m, x: m.graph.sigmoid(x),
    lambda m, x: m.graph.relu(x),
)
KINDS: tuple[Make, ...] = (
    *ELEMENTWISE,
    lambda m, x: m.graph.softmax(x, m.axis(x)),
    lambda m, x: m.graph.matrix_multiplication(x, m.any(), m.flag(), m.flag()),
    lambda m, x: m.graph.reduction_sum(x, m.axes(x), m.flag()),
    lambda m, x: m.graph.reduction_maximum(x, m.axes(x), m.flag()),
    lambda m, x: m.graph.mean(x, m.axes(x), m.flag()),
    lambda m, x: m.graph.cumulative_sum(x, m.axis(x), m.flag(), m.flag()),
    lambda m, x: m.graph.permute(x, [int(i) for i in m.random.permutation(len(x.shape))]),
    lambda m, x: m.graph.concat([x, x], m.axis(x)),
    lambda m, x: m.graph.expand_dims(x, m.number(0, len(x.shape))),
    lambda m, x: m.graph.gather(
        x, m.indices(2, m.number(1, 2), below=min(x.shape)), m.number(0, len(x.shape) - 1)
    ),
    lambda m, x: m.graph.top_k(x, 1, m.axis(x))[0],
    lambda m, x: m.graph.tile(x, [m.number(1, 2) for _ in x.shape]),
    _strided,
    _pad,
    _normalize,
    _reshape,
)
IMAGES: tuple[Make, ...] = (_convolution, _depthwise, _pooling)


def _values(device: str, seed: int) -> list[np.ndarray]:
    maker = Maker(seed)
    graph = maker.graph
    inputs = list(maker.feeds)
    total: Any = 0.0
    for t in maker.made[-6:]:
        total = total + graph.reduction_sum(graph.tanh(t), keep_dims=False)
    gradients = graph.gradients(total, inputs, unconnected="zero")
    targets = [*maker.made[3:], *(gradients[x] for x in inputs)]
    return graph.compile(inputs, targets, device=device).run(maker.feeds)


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs(seed):
    with np.errstate(all="ignore"):
        wanted = _values("reference", seed)
    with use(Double(VERSIONS[seed % len(VERSIONS)])):
        got = _values("mps", seed)
    for i, (g, w) in enumerate(zip(got, wanted, strict=True)):
        assert g.shape == w.shape
        scale = max(1.0, float(np.abs(w).max(initial=0)))
        np.testing.assert_allclose(g, w, rtol=2e-4, atol=2e-4 * scale, err_msg=f"value {i}")
