"""Every op's samples, lowered and run on the strict double, against the reference."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from stepgraph.backends.mps.device import lowered_program, use
from stepgraph.backends.mps.enums import DATA_TYPES
from stepgraph.backends.mps.lowering import LOWERINGS
from stepgraph.backends.mps.session import MINIMUM
from stepgraph.backends.mps.system import Version
from stepgraph.errors import DTypeError, UnsupportedError
from tests.mps.double import Double
from tests.ops.harness import (
    VALUE_TOLERANCE,
    arrays_of,
    assert_close,
    build,
    cases,
    run,
)
from tests.ops.test_gradients import draw, gradient_cases, gradients_of

NEWEST = (26, 0)
# The oldest system in whose selectors every op can be said, and the ops said otherwise there.
OLDEST = tuple(MINIMUM)
OTHERWISE = ("reciprocal_square_root", "slice_update", "strided_slice_gradient", "top_k", "sort")


def stated_limit(graph, feeds, targets, version):
    """What a graph's lowering is refused for, as the tables say; None where it is not."""
    program = lowered_program(graph, {t: t.shape for t in feeds}, targets, ())
    for operation in program.operations():
        lowering = LOWERINGS.get(operation.type)
        if any(t.dtype.name not in DATA_TYPES for t in operation.outputs):
            return "dtype"
        if lowering is not None and (limit := lowering.limit(operation, Version(*version))):
            return limit.what
    return None


def compare(got, wanted, tolerance, name):
    for g, w in zip(got, wanted, strict=True):
        w = np.asarray(w)
        if w.dtype.kind == "f":
            assert_close(g, w, tolerance, name)
        else:
            assert g.dtype == w.dtype
            np.testing.assert_array_equal(g, w)


@pytest.mark.parametrize(("definition", "sample"), cases())
def test_mps_agrees_with_reference(definition, sample):
    check(definition, sample, NEWEST)


@pytest.mark.parametrize(
    ("definition", "sample"), [c for c in cases() if c.values[0].name in OTHERWISE]
)
def test_mps_agrees_with_reference_on_an_old_system(definition, sample):
    check(definition, sample, OLDEST)


def test_older_systems_are_refused():
    major, minor = OLDEST
    with pytest.raises(UnsupportedError, match="too old"), use(Double((major, minor - 1))):
        pass


def check(definition, sample, version):
    """Runs a sample, or finds the limit that the tables state."""
    arrays = arrays_of(sample)
    graph, placeholders, outputs = build(definition, sample, arrays)
    limit = stated_limit(graph, placeholders, outputs, version)
    with use(Double(version)):
        if limit is not None:
            with pytest.raises(UnsupportedError, match=r"not on mps|Apple GPUs have no"):
                run(definition, sample, "mps")
            return
        got = run(definition, sample, "mps")
    wanted = run(definition, sample, "reference:float64")
    compare(got, wanted, VALUE_TOLERANCE["float32"] * sample.tolerance, definition.name)


@pytest.mark.parametrize(("definition", "sample"), gradient_cases())
def test_mps_gradient_agrees_with_reference(definition, sample):
    arrays = arrays_of(sample)
    if any(a.dtype == np.float64 for a in arrays):
        pytest.skip("Apple GPUs have no float64")
    cotangents, _ = draw(definition, sample, arrays)
    if all(c is None or c.dtype == np.float64 for c in cotangents):
        pytest.skip("no float output, or one of float64")
    _, wanted = gradients_of(definition, sample, arrays, cotangents, "reference:float64")
    with use(Double(NEWEST)):
        _, got = gradients_of(definition, sample, arrays, cotangents, "mps")
    compare(got, wanted, 5 * VALUE_TOLERANCE["float32"] * sample.tolerance, definition.name)


def half(item):
    """An operand in half precision."""
    if isinstance(item, np.ndarray):
        return item.astype("float16") if item.dtype == np.float32 else item
    return [half(part) for part in item] if isinstance(item, list) else item


def half_cases():
    """Samples in half precision, which on the GPU knows no NaN: finite ones, that stay so."""
    for case in cases():
        definition, sample = case.values
        with np.errstate(over="ignore"):
            inputs = tuple(map(half, sample.inputs))
        made = dataclasses.replace(sample, inputs=inputs)
        arrays = arrays_of(made)
        floats = [a for a in arrays if a.dtype.kind == "f"]
        if any(a.dtype == np.float16 for a in arrays) and all(np.isfinite(a).all() for a in floats):
            yield pytest.param(definition, made, id=case.id)


@pytest.mark.parametrize(("definition", "sample"), list(half_cases()))
def test_half_precision(definition, sample):
    try:
        wanted = run(definition, sample, "reference")
    except DTypeError:
        return  # an operand or attribute asks for float32
    graph, placeholders, outputs = build(definition, sample, arrays_of(sample))
    if stated_limit(graph, placeholders, outputs, NEWEST) is not None:
        return
    with use(Double(NEWEST)):
        got = run(definition, sample, "mps")
    compare([wide(g) for g in got], [wide(w) for w in wanted], 2e-2, definition.name)


def wide(array):
    """Half precision as double, for differences."""
    return array.astype("float64") if array.dtype == np.float16 else array
