"""Gradient rules are ordinary operations: differentiated again they match finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ops.harness import arrays_of, build, cases, differentiable, rng_of, to_float64

# Ops of which a second derivative is known to be missing, with the reason.
EXCEPTIONS = {
    "reduction_product": {"one zero", "two zeros"},  # its rule counts zeros, which has no slope
}


def second_order_cases():
    """Samples of ops that can be differentiated; empty and extreme ones add nothing here."""
    found = []
    for case in cases():
        definition, sample = case.values
        skipped = sample.label in EXCEPTIONS.get(definition.name, ())
        arrays = [a for a in arrays_of(sample) if a.dtype.kind == "f"]
        moderate = all(a.size and np.all(np.abs(a) < 50) for a in arrays)
        if definition.gradient and differentiable(sample) and moderate and not skipped:
            found.append(case)
    return found


def weighted(graph, tensors, weights):
    """The sum of all elements of all tensors, weighted."""
    total = None
    for tensor, weight in zip(tensors, weights, strict=True):
        part = graph.reduction_sum(tensor * graph.constant(weight), keep_dims=False)
        total = part if total is None else total + part
    return total


@pytest.mark.parametrize(("definition", "sample"), second_order_cases())
def test_second_derivative_agrees_with_finite_differences(definition, sample):
    arrays, rng = to_float64(arrays_of(sample)), rng_of(definition.name + "-second")
    graph, placeholders, outputs = build(definition, sample, arrays)
    floats = [o for o in outputs if o.dtype.is_float]
    if not floats:
        pytest.skip("no float output")
    # Through tanh, so that an op that is linear has a second derivative to get wrong too.
    bent = [graph.tanh(0.3 * o) for o in floats]
    total = weighted(graph, bent, [rng.standard_normal(o.shape) for o in floats])
    wanted = [placeholders[i] for i in differentiable(sample)]
    first = graph.gradients(of=total, with_=wanted, unconnected="zero")
    slope = weighted(graph, first.values(), [rng.standard_normal(t.shape) for t in wanted])
    second = graph.gradients(of=slope, with_=wanted, unconnected="zero")
    run = graph.compile(placeholders, [slope, *second.values()], device="reference").run
    directions = [rng.standard_normal(t.shape) for t in wanted]

    def at(step: float):
        moved = list(arrays)
        for i, direction in zip(differentiable(sample), directions, strict=True):
            moved[i] = np.asarray(arrays[i] + step * direction)
        for (
            variable
        ) in graph.variables.values():  # such as the count of the runs that dropout keeps
            graph.set_value(variable, variable.initial, device="reference")
        return run(dict(zip(placeholders, moved, strict=True)))

    products = [g * d for g, d in zip(at(0.0)[1:], directions, strict=True)]
    numeric = float(at(1e-6)[0] - at(-1e-6)[0]) / 2e-6
    size = max(1.0, sum(float(np.sum(np.abs(p))) for p in products))
    assert abs(sum(float(np.sum(p)) for p in products) - numeric) <= 1e-5 * sample.tolerance * size
