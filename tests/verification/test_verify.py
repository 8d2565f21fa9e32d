"""`stepgraph.verify`: what is right passes, planted faults are found, named and reproduced."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stepgraph as sg
from stepgraph import layers
from stepgraph.backends.cpu.registry import UPDATING, Updating
from stepgraph.errors import FeedError, GraphError
from stepgraph.verification import reproduce, verify, verify_graph
from tests.verification.faults import Spoil, half_precision, last_element, plant, reference_with


def network(optimizer: str = "adam", device: str = "cpu") -> sg.Sequential:
    sg.utils.clear_session()
    sg.utils.set_random_seed(3)
    model = sg.Sequential(
        [
            sg.Input((8, 8, 3)),
            layers.Conv2D(6, 3, padding="same", name="first"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.25),
            layers.Dense(5, name="last"),
        ]
    )
    model.compile(optimizer, "mse", metrics=["mae"], device=device)
    return model


def batch(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.random((4, 8, 8, 3), np.float32), rng.random((4, 5), np.float32)


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("isolated", [False, True])
def test_what_is_right_agrees(device: str, isolated: bool, rng: np.random.Generator) -> None:
    model = network()
    report = verify(model, *batch(rng), device=device, isolated=isolated)
    assert report.agrees, str(report)
    assert report.reproduction is None
    assert {"convolution_2d", "max_pooling_2d"} <= {check.op for check in report.operations}
    kinds = {check.kind for check in report.quantities}
    assert kinds == {"result", "gradient", "weight", "moving statistic", "optimizer state"}
    names = {(check.kind, check.name) for check in report.quantities}
    assert ("gradient", "first/kernel") in names
    assert ("moving statistic", "norm/moving_variance") in names
    assert {check.step for check in report.quantities} == {0, 1}


def test_the_model_stays_as_it_is(rng: np.random.Generator) -> None:
    x, y = batch(rng)
    model, twin = network(), network()
    verify(model, x, y, device="cpu")
    verify(model, x, y, device="reference", steps=1)
    for _ in range(2):
        assert model.train_on_batch(x, y) == twin.train_on_batch(x, y)
    for mine, other in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)
    assert set(model.runtime.graph.states) == {"cpu"}


# Op, and what is wrong with it.
FAULTS: dict[str, tuple[str, Spoil]] = {
    "padding": (
        "convolution_2d",
        reference_with(padding="explicit", explicit_padding=((0, 2), (0, 2))),
    ),
    "one element": ("matrix_multiplication", last_element(1.001)),
    "half": ("matrix_multiplication", half_precision),
    "zero gradient": ("convolution_2d_weights_gradient", lambda op, inputs, right: right * 0.0),
    "other maximum": ("max_pooling_2d_gradient", lambda op, inputs, right: right[:, ::-1]),
    "NaN": ("max_pooling_2d", lambda op, inputs, right: right * np.nan),
}


@pytest.mark.parametrize("label", FAULTS)
def test_a_planted_fault_is_found_and_named(
    label: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    op, spoil = FAULTS[label]
    path = tmp_path / "found.npz"
    model = network()
    with pytest.MonkeyPatch.context() as patch:
        plant(patch, op, spoil)
        report = verify(model, *batch(rng), device="cpu", reproduction=path)
        assert report.first is not None
        assert report.first.op == op
        assert {check.op for check in report.diverging} == {op}
        assert report.first.comparison.ratio > 3
        text = str(report)
        assert f"{op} '{report.first.name}'" in text
        assert "test_verify.py" in report.first.created_at
        assert "test_verify.py" in text
        assert report.reproduction == path
        assert not reproduce(path)
        assert reproduce(path, "reference")
    assert reproduce(path)


def test_the_reproduction_is_one_file_of_arrays_and_a_program(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    path = tmp_path / "found.npz"
    with pytest.MonkeyPatch.context() as patch:
        plant(patch, "matrix_multiplication", last_element(1.5))
        report = verify(network(), *batch(rng), steps=0, reproduction=path)
    assert report.first is not None
    with np.load(path) as data:
        got, expected = data["got_0"], data["expected_0"]
        np.testing.assert_allclose(got[-1, -1], 1.5 * expected[-1, -1], rtol=1e-5)
        np.testing.assert_allclose(data["input_0"] @ data["input_1"], expected, rtol=1e-4)
        assert data["tolerance_0"] < 1e-4
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines()[-1] == "agrees"


def test_a_fault_between_operations_shows_in_the_whole(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    op = "matrix_multiplication"
    model = network("sgd")

    def forget(lowering: object, group: object) -> bool:
        return True

    # The engine adds this gradient to its weights in one go.
    monkeypatch.setitem(UPDATING, op, Updating(UPDATING[op].fits, forget))
    report = verify(model, *batch(rng), device="cpu", steps=1)
    assert not report.diverging
    assert [check.name for check in report.diverging_quantities] == ["last/kernel"]
    assert "how the device joins them" in report.verdict()


def control_flow(graph: sg.Graph, x: Any, n: Any) -> list[sg.Tensor]:
    def trip(index: Any, a: Any) -> Any:
        return graph.if_(
            graph.reduction_sum(a, keep_dims=False) > 3.0,
            lambda: a * 0.5 + [1.0, 2.0, 3.0],
            lambda: a * graph.exponent(x),
        )

    looped = graph.for_loop(n, x, trip)
    done = graph.while_loop(
        looped,
        lambda a: graph.reduction_sum(a, keep_dims=False) < 40.0,
        lambda a: a * 2.0 + 1.0,
    )
    return [looped, done]


def test_control_flow_is_checked_and_reproduced(
    rng: np.random.Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from stepgraph.verification import operations, reproduction

    graph = sg.Graph()
    x, n = graph.placeholder((3,), name="x"), graph.placeholder((), "int32", name="n")
    feeds = {x: np.float32([0.5, 0.25, 1]), n: np.int32(4)}
    targets = control_flow(graph, x, n)
    report = verify_graph(graph, feeds, targets, device="cpu")
    assert report.agrees, str(report)
    assert {"for", "while"} <= {check.op for check in report.operations}
    step = operations.pure_step(graph, feeds, targets, (), "cpu")
    given = step.given({t.name: a for t, a in feeds.items()}, {})
    checks, values = operations.check_operations(step, given, "cpu")
    for check, operation in zip(checks, step.operations(), strict=True):
        path = tmp_path / f"{check.number}.npz"
        reproduction.write_reproduction(path, check, operation, values, "cpu")
        assert reproduce(path), operation
        (output,) = operation.outputs
        spoiled = {**values, output: values[output] + 1}
        assert not operations.check_operation(0, operation, spoiled).comparison.agrees


def test_a_graph_keeps_its_variables(rng: np.random.Generator) -> None:
    graph = sg.Graph()
    x = graph.placeholder((2,), name="x")
    v = graph.variable(np.float32([1, 2]), name="v")
    graph.set_value("v", [5.0, 6.0])
    assign = graph.assign(v, v + x)
    report = verify_graph(graph, {x: [1.0, 1.0]}, [v * x], [assign], steps=3)
    assert report.agrees, str(report)
    assert [c.name for c in report.quantities if c.kind == "variable"] == ["v"] * 3
    np.testing.assert_array_equal(graph.get_value("v"), [5.0, 6.0])


def test_misuse_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(GraphError, match="not compiled"):
        verify(sg.Sequential([sg.Input((2,)), layers.Dense(1)]), [[1.0, 2.0]], [[1.0]])
    graph = sg.Graph()
    other = sg.Graph().placeholder((2,))
    with pytest.raises(FeedError, match="no placeholder of the graph"):
        verify_graph(graph, {other: [1.0, 2.0]}, [graph.constant(1.0)])
