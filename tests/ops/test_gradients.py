"""Gradients against finite differences in float64, with random cotangents; then devices."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ops.harness import (
    GRADIENT_TOLERANCE,
    VALUE_TOLERANCE,
    arrays_of,
    assert_close,
    build,
    cases,
    differentiable,
    rng_of,
    to_float64,
)


def gradient_cases():
    """Cases whose op has gradients."""
    return [
        case
        for case in cases()
        if not case.values[0].not_differentiable and differentiable(case.values[1])
    ]


def gradients_of(definition, sample, arrays, cotangents, device):
    graph, placeholders, outputs = build(definition, sample, arrays)
    seeds = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if c is not None]
    total = None
    for output, cotangent in seeds:
        part = graph.reduction_sum(output * graph.constant(cotangent), keep_dims=False)
        total = part if total is None else total + part
    wanted = [placeholders[i] for i in differentiable(sample)]
    found = graph.gradients(of=total, with_=wanted, unconnected="zero")
    values = graph.run(
        dict(zip(placeholders, arrays, strict=True)), [total, *found.values()], device=device
    )
    return values[0], values[1:]


def draw(definition, sample, arrays):
    """Random cotangents for the float outputs and a random direction for the inputs."""
    rng = rng_of(definition.name + "-gradient")
    _, _, outputs = build(definition, sample, arrays)
    cotangents = [
        rng.standard_normal(o.shape).astype(o.dtype.numpy) if o.dtype.is_float else None
        for o in outputs
    ]
    directions = [rng.standard_normal(arrays[i].shape) for i in differentiable(sample)]
    return cotangents, directions


@pytest.mark.parametrize(("definition", "sample"), gradient_cases())
def test_gradient_agrees_with_finite_differences(definition, sample):
    arrays = to_float64(arrays_of(sample))
    cotangents, directions = draw(definition, sample, arrays)
    if all(c is None for c in cotangents):
        pytest.skip("no float output")
    _, grads = gradients_of(definition, sample, arrays, cotangents, "reference")
    analytic = sum(float(np.sum(g * d)) for g, d in zip(grads, directions, strict=True))
    step = 1e-6
    moved = []
    for sign in (1, -1):
        shifted = list(arrays)
        for i, d in zip(differentiable(sample), directions, strict=True):
            shifted[i] = np.asarray(arrays[i] + sign * step * d)
        moved.append(gradients_of(definition, sample, shifted, cotangents, "reference")[0])
    numeric = float(moved[0] - moved[1]) / (2 * step)
    size = sum(float(np.sum(np.abs(g * d))) for g, d in zip(grads, directions, strict=True))
    assert abs(analytic - numeric) <= GRADIENT_TOLERANCE * sample.tolerance * max(1.0, size)


@pytest.mark.parametrize(("definition", "sample"), gradient_cases())
def test_cpu_gradient_agrees_with_reference(definition, sample):
    arrays = arrays_of(sample)
    cotangents, _ = draw(definition, sample, arrays)
    if all(c is None for c in cotangents):
        pytest.skip("no float output")
    _, wanted = gradients_of(definition, sample, arrays, cotangents, "reference:float64")
    _, got = gradients_of(definition, sample, arrays, cotangents, "cpu")
    for g, w in zip(got, wanted, strict=True):
        assert_close(g, w, 5 * VALUE_TOLERANCE["float32"] * sample.tolerance, definition.name)
