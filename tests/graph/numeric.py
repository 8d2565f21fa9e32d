"""Gradients by central differences in float64, for whole graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

import stepgraph as sg

Build = Callable[..., sg.Tensor]


def value(build: Build, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """What ``build(graph, *tensors)`` gives, in float64 on the reference device."""
    graph, inputs = _inputs(arrays)
    target = build(graph, *inputs)
    return graph.run(dict(zip(inputs, arrays, strict=True)), [target], device="reference")[0]


def gradients(build: Build, arrays: Sequence[np.ndarray], order: int = 1) -> list[np.ndarray]:
    """Gradients of the sum of ``build(...)``; of order 2 those of a fixed mix of the first ones."""
    graph, inputs = _inputs(arrays)
    target = _differentiated(build, order)(graph, *inputs)
    found = graph.gradients(of=target, with_=inputs, unconnected="zero")
    feeds = dict(zip(inputs, arrays, strict=True))
    return graph.run(feeds, list(found.values()), device="reference")


def check(build: Build, *arrays: np.ndarray, order: int = 1, tolerance: float = 1e-6) -> None:
    """Compares gradients with central differences along random directions."""
    arrays = tuple(np.asarray(a, "float64") for a in arrays)
    found = gradients(build, arrays, order)
    target = _differentiated(build, order)
    rng = np.random.default_rng(7)
    for i, array in enumerate(arrays):
        direction = rng.standard_normal(array.shape)
        moved = []
        for step in (1e-5, -1e-5):
            shifted = list(arrays)
            shifted[i] = array + step * direction
            moved.append(float(np.sum(value(target, shifted))))
        numeric = (moved[0] - moved[1]) / 2e-5
        analytic = float(np.sum(found[i] * direction))
        scale = max(1.0, abs(numeric), float(np.sum(np.abs(found[i]))))
        assert abs(analytic - numeric) <= tolerance * scale, f"input {i}: {analytic}, {numeric}"


def _differentiated(build: Build, order: int) -> Build:
    if order == 1:
        return build

    def mixed(graph: sg.Graph, *inputs: sg.Tensor) -> sg.Tensor:
        inner = graph.gradients(
            of=_differentiated(build, order - 1)(graph, *inputs),
            with_=list(inputs),
            unconnected="zero",
        )
        total = graph.constant(np.float64(0.0))
        for i, grad in enumerate(inner.values()):
            weights = np.random.default_rng(i).standard_normal(grad.shape)
            total = total + graph.reduction_sum(grad * graph.constant(weights), keep_dims=False)
        return total

    return mixed


def _inputs(arrays: Sequence[np.ndarray]) -> tuple[sg.Graph, list[sg.Tensor]]:
    graph = sg.Graph()
    return graph, [graph.placeholder(a.shape, a.dtype, name=f"x{i}") for i, a in enumerate(arrays)]
