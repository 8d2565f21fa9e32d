"""Every op's samples: inference, reference against oracles, devices against reference."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ops import oracles
from tests.ops.harness import (
    VALUE_TOLERANCE,
    arrays_of,
    assert_close,
    build,
    cases,
    run,
    to_float64,
)


@pytest.mark.parametrize(("definition", "sample"), cases())
def test_inference_agrees_with_reference(definition, sample):
    arrays = arrays_of(sample)
    graph, placeholders, outputs = build(definition, sample, arrays)
    values = graph.run(dict(zip(placeholders, arrays, strict=True)), outputs, device="reference")
    for tensor, value in zip(outputs, values, strict=True):
        assert value.shape == tensor.shape
        assert value.dtype == tensor.dtype.numpy


@pytest.mark.parametrize(("definition", "sample"), cases())
def test_reference_agrees_with_oracle(definition, sample):
    oracle = oracles.find(definition.name)
    if oracle is None:
        pytest.skip("no independent oracle for this op")
    arrays = to_float64(arrays_of(sample))
    wanted = oracle(*arrays, *sample_settings(sample), **sample.arguments)
    wanted = wanted if isinstance(wanted, (tuple, list)) else [wanted]
    got = run(definition, sample, "reference:float64", arrays)
    for g, w in zip(got, wanted, strict=True):
        assert_close(g, np.asarray(w), 1e-9 * sample.tolerance, definition.name)


@pytest.mark.parametrize(("definition", "sample"), cases())
def test_cpu_agrees_with_reference(definition, sample):
    wanted = run(definition, sample, "reference:float64")
    got = run(definition, sample, "cpu")
    for g, w in zip(got, wanted, strict=True):
        if np.asarray(w).dtype.kind == "f":
            w = np.asarray(w)
            assert_close(g, w, VALUE_TOLERANCE["float32"] * sample.tolerance, definition.name)
        else:
            np.testing.assert_array_equal(g, w)


def sample_settings(sample):
    """Positional arguments that are no arrays."""
    return [
        item
        for item in sample.inputs
        if not isinstance(item, np.ndarray)
        and not (
            isinstance(item, (list, tuple))
            and item
            and all(isinstance(a, np.ndarray) for a in item)
        )
    ]
