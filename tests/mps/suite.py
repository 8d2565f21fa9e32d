"""A compact suite for the MPSGraph engine: small runs that between them use most of it.

`run_suite` raises if anything is not as on the reference device. It is what tests break the engine
under, to see that it is noticed.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

import stepgraph as sg
from stepgraph.backends.mps.device import use
from tests.mps.double import Double, Refused

Values = list[np.ndarray]


def _random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _normal(seed: int, *shape: int) -> np.ndarray:
    return _random(seed).standard_normal(shape).astype(np.float32)


def _gradient_step(graph: sg.Graph, loss: sg.Tensor, weights: list[sg.Variable]) -> list[Any]:
    """Adam for all weights, written out by its op; returns the assigns."""
    gradients = graph.gradients(loss, weights)
    assigns = []
    for w in weights:
        m = graph.variable(np.zeros(w.shape, "f"), name=w.name + "_m")
        v = graph.variable(np.zeros(w.shape, "f"), name=w.name + "_v")
        value, momentum, velocity = graph.adam(
            0.05, 0.8, 0.95, 1e-4, 0.8, 0.95, w, m, v, gradients[w]
        )
        assigns += [graph.assign(w, value), graph.assign(m, momentum), graph.assign(v, velocity)]
    return assigns


def training(device: str) -> Values:
    """Steps of a small convolutional network, moving statistics and Adam included."""
    graph = sg.Graph()
    x = graph.placeholder((3, 9, 8, 4), name="x")
    y = graph.placeholder((3, 5), name="y")
    weights = []

    def weight(name: str, *shape: int) -> sg.Variable:
        variable = graph.variable(0.3 * _normal(len(weights) + 1, *shape), name=name)
        weights.append(variable)
        return variable

    h = graph.convolution_2d(
        x,
        weight("w0", 3, 2, 2, 6),
        strides=(1, 2),
        dilations=(2, 1),
        groups=2,
        padding="explicit",
        explicit_padding=((2, 1), (1, 0)),
    )
    mean = graph.variable(np.zeros(6, "f"), name="mean")
    variance = graph.variable(np.ones(6, "f"), name="variance")
    h = graph.batch_normalization(
        h, weight("gamma", 6) + 1.0, weight("beta", 6), mean, variance, True, momentum=0.7
    )
    h = graph.leaky_relu(h, 0.1)
    h = graph.convolution_2d(h, weight("w3", 2, 3, 6, 6), padding="TF_SAME")
    h = graph.max_pooling_2d(h, (3, 2), (2, 1), padding="TF_SAME")
    h = graph.depthwise_convolution_2d(h, weight("w1", 3, 3, 6, 1), padding="TF_SAME")
    h = graph.relu(h)
    h = graph.avg_pooling_2d(h, (2, 3), (2, 1), padding="TF_SAME")
    h = graph.reshape(h, (3, -1))
    h = graph.matrix_multiplication(h, weight("w2", h.shape[1], 5)) + weight("b2", 5)
    loss = graph.mean(graph.softmax_cross_entropy(h, y), keep_dims=False)
    assigns = _gradient_step(graph, loss, weights)
    updates = list(graph.updates) if hasattr(graph, "updates") else []
    step = graph.compile([x, y], [loss, h], [*assigns, *updates], device=device)
    labels = np.eye(5, dtype="f")
    found: Values = []
    for i in range(3):
        picked = labels[_random(i).integers(0, 5, 3)]
        found += step.run({x: _normal(50 + i, 3, 9, 8, 4), y: picked})
    found += [graph.get_value(v, device=device) for v in (*weights, mean, variance)]
    return found


def elementwise(device: str) -> Values:
    """Operands of one shape, so that nothing but the numbers tells them apart."""
    graph = sg.Graph()
    names = ("a", "b", "c", "d")
    a, b, c, d = (graph.placeholder((4, 4), name=n) for n in names)
    i = graph.placeholder((4, 4), dtype="int32", name="i")
    targets = [
        a - b,
        a / (graph.absolute(b) + 1.0),
        graph.power(graph.absolute(a) + 0.5, b),
        graph.atan2(a, b),
        graph.floor_modulo(a, graph.absolute(b) + 1.0),
        graph.select(a > b, c, d),
        graph.select(a >= 0.0, c, -c),
        graph.clamp(a, -0.5, 0.75),
        graph.matrix_multiplication(a, b),
        graph.matrix_multiplication(c, d, transpose_secondary=True),
        graph.maximum(a, b) - graph.minimum(c, d),
        graph.cast(a * 10.0, "int32") + i,
        graph.floor_modulo(i, 3),
        graph.bitwise_right_shift(i, 1),
        graph.exponent(a) + graph.logarithm(graph.absolute(b)) + graph.rint(c * 3.0),
        graph.gradients(graph.reduction_sum(graph.tanh(a) * graph.relu(b) / c), [a, b, c])[c],
        graph.gradients(graph.reduction_sum(graph.relu(a) * graph.sigmoid(b)), [a])[a],
    ]
    run = graph.compile([a, b, c, d, i], targets, device=device)
    feeds: dict[Any, Any] = {t: _normal(n, 4, 4) for n, t in enumerate((a, b, c, d))}
    feeds[i] = _random(9).integers(-50, 50, (4, 4)).astype(np.int32)
    return run.run(feeds)


def shapes(device: str) -> Values:
    """Reductions, shapes, gather, scatter, sorting, resizing."""
    graph = sg.Graph()
    x = graph.placeholder((2, 3, 4), name="x")
    y = graph.placeholder((2, 3, 4), name="y")
    at = graph.placeholder((3,), dtype="int32", name="at")
    image = graph.placeholder((1, 4, 6, 2), name="image")
    top, places = graph.top_k(x, 2, axis=1)
    targets = [
        graph.reduction_sum(x, 1, keep_dims=False),
        graph.reduction_maximum(x, (0, 2)),
        graph.mean(x, 2, keep_dims=False) + graph.variance(y, axes=2, keep_dims=False),
        graph.reduction_arg_maximum(x, 2),
        graph.softmax(x, 1),
        graph.cumulative_sum(x, 2, exclusive=True, reverse=False),
        graph.permute(x, (2, 0, 1)),
        graph.concat([x, y], 1),
        graph.pad(x, ((0, 1), (2, 0), (1, 1)), value=7.0),
        graph.pad(x, ((0, 0), (2, 1), (0, 0)), mode="reflect"),
        graph.slice(x, 2, 1, 2),
        graph.strided_slice(x, (0, 2, 0), (2, 0, 4), (1, -1, 2)),
        graph.slice_update(x, graph.slice(y, 2, 0, 2), (0, 0, 1), ends=(2, 3, 3)),
        graph.gather(x, at, axis=2),
        graph.scatter(x, graph.gather(y, at, axis=2), at, axis=2),
        graph.one_hot(at, 4, axis=0, on_value=2.0, off_value=-1.0),
        top,
        places,
        graph.sort(x, 2, descending=True),
        graph.tile(x, (3, 2, 1)),
        graph.broadcast(graph.slice(x, 1, 0, 1), (2, 5, 4)),
        graph.resize_bilinear(image, (8, 9)),
        graph.gradients(
            graph.reduction_sum(graph.pad(x, ((1, 0), (0, 2), (0, 0))) ** 2.0 * 0.5), [x]
        )[x],
    ]
    run = graph.compile([x, y, at, image], targets, device=device)
    return run.run(
        {
            x: _normal(1, 2, 3, 4),
            y: _normal(2, 2, 3, 4),
            at: np.array([3, 0, 1], np.int32),
            image: _normal(3, 1, 4, 6, 2),
        }
    )


def control(device: str) -> Values:
    """Branches and loops whose course is known at run time only."""
    graph = sg.Graph()
    x = graph.placeholder((3,), name="x")
    limit = graph.placeholder((), name="limit")
    count = graph.variable(np.zeros((), "f"), name="count")
    chosen = graph.if_(graph.reduction_sum(x) > limit, lambda: x * 2.0, lambda: x - 5.0)
    grown = graph.while_loop(
        [x],
        lambda v: graph.reduction_sum(v, keep_dims=False) < limit,
        lambda v: [v + graph.absolute(v) + 1.0],
        maximum_iterations=20,
    )
    grown = grown[0] if isinstance(grown, (list, tuple)) else grown
    # The value assigned does not come of the old one, which is asked for too.
    before = graph.read(count) + 0.0
    step = graph.assign(count, graph.reduction_sum(x, keep_dims=False))
    run = graph.compile([x, limit], [chosen, grown, before], [step], device=device)
    found: Values = []
    for k in range(2):
        feeds = {x: _normal(k, 3), limit: np.float32(9.0 - 18.0 * k)}
        found += run.run(feeds)
        graph.set_value(count, graph.get_value(count, device=device) + 2.0, device=device)
    return [*found, *run.run(feeds), graph.get_value(count, device=device)]


PARTS: tuple[Callable[[str], Values], ...] = (elementwise, shapes, control, training)


@functools.cache
def wanted(part: Callable[[str], Values]) -> Values:
    """What the reference gives."""
    return part("reference")


def compare(got: Values, want: Values, what: str) -> None:
    assert len(got) == len(want), f"{what}: {len(got)} values, not {len(want)}"
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        assert g.shape == w.shape, f"{what}, value {i}: shape {g.shape}, not {w.shape}"
        assert g.dtype == w.dtype, f"{what}, value {i}: {g.dtype}, not {w.dtype}"
        scale = max(1.0, float(np.abs(w.astype(np.float64)).max(initial=0)))
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-4 * scale, err_msg=f"{what}, {i}")


def overlapping(double: Double) -> None:
    """Several steps under way at once, whose feeds and results must not mix; nothing leaks."""
    graph = sg.Graph()
    x = graph.placeholder((2, 2), name="x")
    y = graph.placeholder((2, 2), name="y")
    total = graph.variable(np.zeros((2, 2), "f"), name="total")
    after = total + x - y * 2.0
    executable = graph.compile([x, y], [after, x * y], [graph.assign(total, after)], device="mps")
    feeds = [{x: _normal(i, 2, 2), y: _normal(i + 20, 2, 2)} for i in range(6)]
    state = np.zeros((2, 2), np.float32)
    for round_ in range(2):
        before = double.alive()
        runs: list[Any] = []
        release = threading.Timer(0.02, double.metal.gate.set)
        double.metal.gate.clear()
        release.start()
        try:
            for f in feeds:
                given = {k: v.copy() for k, v in f.items()}
                runs.append(executable.run_async(given))
                for v in given.values():
                    v.fill(np.nan)
        finally:
            release.join()
            double.metal.gate.set()
        for f, run in zip(feeds, runs, strict=True):
            state = state + f[x] - f[y] * 2
            compare(list(run.result()), [state, f[x] * f[y]], "steps under way")
        double.raise_failures()
        if round_:
            assert double.alive() == before, "objects of a step are left over"


def run_suite(
    wrapped: Callable[[Double], Any] = lambda double: double,
    version: tuple[int, int] = (18, 1),
    faults: Collection[str] = (),
) -> None:
    """Runs everything on a fresh double, whose messages pass through `wrapped` first."""
    double = Double(version, faults)
    with use(wrapped(double)):
        for part in PARTS:
            compare(part("mps"), wanted(part), part.__name__)
        overlapping(double)
        passing = {"MPSGraphShapedType", "MPSGraphCompilationDescriptor"} & set(double.owned())
        assert not passing, f"{passing} are never let go"
    double.raise_failures()


__all__ = ["Refused", "overlapping", "run_suite"]
