"""Tolerances: wide enough for every device that is right, too narrow for errors that matter."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from stepgraph.errors import UnsupportedError
from stepgraph.graph.definition import OpDefinition, Sample
from stepgraph.graph.dtypes import float16, float32, int32
from stepgraph.graph.ops import OPS
from stepgraph.verification import QuantityCheck, Report, verify_ops
from stepgraph.verification.comparing import compare, compare_norms
from stepgraph.verification.conditions import ABSOLUTE, CONDITIONS, expect
from stepgraph.verification.operations import check_operation, check_operations, pure_step
from stepgraph.verification.samples import sample_graph
from tests.ops.harness import arrays_of, cases
from tests.verification.faults import plant


def test_the_table_names_ops_that_exist() -> None:
    assert set(CONDITIONS) <= set(OPS)
    assert set(ABSOLUTE) <= set(OPS)


def test_every_op_of_the_cpu_engine_agrees() -> None:
    report = verify_ops("cpu")
    assert report.agrees, str(report)
    ran = {check.op for check in report.operations}
    assert len(ran) > 100
    assert max(check.comparison.ratio for check in report.operations) < 0.6


def test_a_faulty_op_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, "reduction_sum", lambda op, inputs, right: right + 1)
    report = verify_ops("cpu", ["relu", "reduction_sum"])
    assert report.first is not None
    assert report.first.op == "reduction_sum"


@pytest.mark.parametrize(("definition", "sample"), cases())
def test_an_error_of_one_percent_is_outside(definition: OpDefinition, sample: Sample) -> None:
    graph, feeds, targets = sample_graph(definition, sample)
    given = {t.name: a for t, a in feeds.items()}
    try:
        step = pure_step(graph, feeds, targets, (), "reference")
    except UnsupportedError:
        pytest.skip("not for this device")
    variables = {n: graph.variables[n].initial for n in step.variables}
    checks, values = check_operations(step, step.given(given, variables), "reference")
    assert all(check.comparison.agrees for check in checks)
    (operation, *rest) = step.operations() or [None]
    # Where inputs are much larger than what they differ by, one percent is their rounding.
    if operation is None or rest or sample.label in ("large mean", "large logits"):
        return
    inputs = [
        values[t] if t in values else t.operation.attributes["value"] for t in operation.inputs
    ]
    for tensor, wanted in zip(operation.outputs, expect(operation, inputs)[0], strict=True):
        finite = np.isfinite(wanted) if wanted.dtype.kind == "f" else np.ones(wanted.shape, bool)
        if not wanted.size or not finite.any():
            continue
        magnitude = np.where(finite, np.abs(wanted.astype(float)), 0.0)
        if wanted.dtype.kind == "f" and not magnitude.max() > 1e-6:
            continue
        place = np.unravel_index(int(np.argmax(magnitude)), wanted.shape)
        spoiled = np.array(values[tensor])
        factor = 1.1 if tensor.dtype.name == "float16" else 1.01
        spoiled[place] = spoiled[place] * factor if tensor.dtype.is_float else spoiled[place] ^ 1
        found = check_operation(0, operation, {**values, tensor: spoiled})
        assert not found.comparison.agrees, found


def test_compare_minds_shapes_dtypes_and_what_is_not_finite() -> None:
    zero = np.zeros(())
    one = np.float32([1])
    assert compare(one, np.ones(1), zero, float32).agrees
    assert "shape" in compare(one, np.ones(2), zero, float32).fault
    assert "dtype" in compare(one, np.ones(1), zero, float16).fault
    wide = np.array([np.nan, np.inf, -np.inf, 1e300, 0.0])
    same = np.float32([np.nan, np.inf, -np.inf, np.inf, 0.0])
    assert compare(same, wide, zero, float32).agrees
    for place, value in enumerate((1.0, np.nan, np.inf, 1.0, np.nan)):
        other = same.copy()
        other[place] = value
        found = compare(other, wide, np.array(1e9), float32)
        assert found.outside == 1
        assert found.index == (place,)
        assert found.error > 1e299
    largest = np.finfo(np.float32).max
    assert compare(np.float32([np.inf]), np.array([float(largest)]), zero, float32).agrees
    assert compare(np.int32([1, 2]), np.int32([1, 3]), zero, int32).outside == 1
    assert compare(np.zeros((0, 2), np.float32), np.zeros((0, 2)), zero, float32).agrees


def test_norms() -> None:
    assert compare_norms(np.array([3.0, 4.0]), np.zeros(2), 5.0).agrees
    assert not compare_norms(np.array([3.0, 4.0]), np.zeros(2), 4.9).agrees
    assert compare_norms(np.array([np.nan, 1.0]), np.array([np.nan, 1.0]), 0.0).agrees
    assert not compare_norms(np.array([np.nan]), np.array([1.0]), 1e9).agrees
    assert not compare_norms(np.array([1.0]), np.array([np.nan]), 1e9).agrees
    assert "shape" in compare_norms(np.zeros(2), np.zeros(3), 1.0).fault


def test_figures_that_rounding_decides_say_so() -> None:
    near = QuantityCheck(0, "gradient", "w", compare_norms(np.ones(2), np.ones(2), 0.1), 1.4)
    vague = dataclasses.replace(near, magnitude=0.1)
    assert near.decisive
    assert not vague.decisive
    report = Report("a net", "cpu", quantities=[near, vague])
    assert "all 2 figures agree in 1 whole step; 1 of them say little" in report.verdict()
    assert "say little" not in Report("a net", "cpu", quantities=[near]).verdict()


def test_sums_may_be_added_in_any_order(rng: np.random.Generator) -> None:
    from stepgraph import Graph

    graph = Graph()
    x = graph.placeholder((1, 4096))
    y = graph.reduction_sum(x, axes=[1])
    array = rng.standard_normal((1, 4096)).astype(np.float32)
    (wanted,), (tolerance,) = expect(y.operation, [array])
    for order in (slice(None), slice(None, None, -1), rng.permutation(4096)):
        # A plain loop is the least exact way.
        total = np.add.accumulate(array[:, order], axis=1)[:, -1:]
        assert compare(total, wanted, tolerance, float32).agrees
    lost = array[:, 1:].sum(1, keepdims=True)
    assert not compare(lost, wanted, tolerance, float32).agrees
    assert dataclasses.asdict(compare(lost, wanted, tolerance, float32))["outside"] == 1


def test_cancellation_is_the_inputs_fault(rng: np.random.Generator) -> None:
    """A variance beside a huge mean: one pass over squares is refused, two passes are not."""
    from stepgraph import Graph

    graph = Graph()
    x = graph.placeholder((64,))
    y = graph.variance(x, graph.mean(x, axes=[0]), axes=[0]).operation
    array = (1000 + rng.standard_normal(64)).astype(np.float32)
    mean = array.mean(keepdims=True)
    (wanted,), (tolerance,) = expect(y, [array, mean])
    good = np.mean((array - mean) ** 2, keepdims=True)
    bad = np.mean(array**2, keepdims=True) - mean**2
    assert compare(good, wanted, tolerance, float32).agrees
    assert not compare(bad, wanted, tolerance, float32).agrees


def test_arrays_of_a_sample_are_its_feeds() -> None:
    sample = Sample((np.ones(2, np.float32), [np.zeros(2, np.float32)] * 2))
    assert len(arrays_of(sample)) == 3
