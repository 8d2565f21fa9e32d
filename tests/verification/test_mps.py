"""`verify` on the strict double of Apple's GPUs: right as it is, wrong if a lowering is broken."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stepgraph as sg
from stepgraph.backends.mps.device import use
from stepgraph.backends.mps.lowering import LOWERINGS
from stepgraph.cli import main
from stepgraph.verification import reproduce, verify, verify_ops
from tests.mps.double import Double
from tests.verification.test_verify import batch, network


@pytest.fixture
def double() -> Iterator[Double]:
    double = Double((18, 1))
    with use(double):
        yield double
    double.raise_failures()


@pytest.mark.parametrize("isolated", [False, True])
def test_what_is_right_agrees(double: Double, isolated: bool, rng: np.random.Generator) -> None:
    report = verify(network(device="reference"), *batch(rng), device="mps", isolated=isolated)
    assert report.agrees, str(report)
    assert report.device == "mps"
    assert {"convolution_2d", "normalization_gradient"} & {c.op for c in report.operations}


def test_ops_agree(double: Double) -> None:
    names = ["convolution_2d", "softmax", "max_pooling_2d_gradient", "gather", "erf", "cast"]
    report = verify_ops("mps", names)
    assert report.agrees, str(report)
    assert set(names) <= {check.op for check in report.operations}


def spoil(monkeypatch: pytest.MonkeyPatch, op: str, **changed: Any) -> None:
    """From now on the lowering of an op says something else."""
    monkeypatch.setitem(LOWERINGS, op, dataclasses.replace(LOWERINGS[op], **changed))


def swapped(op: str) -> Any:
    """The lowering of an op with its operands exchanged."""
    right = LOWERINGS[op].lower

    def lower(builder: Any, operation: Any, inputs: Sequence[Any]) -> Any:
        return right(builder, operation, list(inputs)[::-1])

    return lower


def doubled(op: str) -> Any:
    """The lowering of an op, and its result added to itself."""
    right = LOWERINGS[op].lower

    def lower(builder: Any, operation: Any, inputs: Sequence[Any]) -> Any:
        made = right(builder, operation, inputs)
        return builder.send("additionWithPrimaryTensor:secondaryTensor:name:", made, made)

    return lower


@pytest.mark.parametrize(
    ("op", "wrong"),
    [("subtraction", swapped), ("convolution_2d", doubled), ("max_pooling_2d_gradient", doubled)],
)
def test_a_planted_fault_is_named_and_reproduced(
    op: str, wrong: Any, double: Double, rng: np.random.Generator, tmp_path: Path
) -> None:
    path = tmp_path / "found.npz"
    with pytest.MonkeyPatch.context() as patch:
        spoil(patch, op, lower=wrong(op))
        report = verify(
            network(device="reference"), *batch(rng), device="mps", reproduction=path, steps=1
        )
        assert report.first is not None
        assert report.first.op == op
        assert {check.op for check in report.diverging} == {op}
        assert report.diverging_quantities
        assert not reproduce(path)
        with zipfile.ZipFile(path) as archive:
            rows = [json.loads(line) for line in archive.read("messages.jsonl").splitlines()]
        assert any(row["receiver"] == "MPSGraph" for row in rows)
        assert np.load(path)["got_0"].size
    assert reproduce(path)


def test_the_command(
    double: Double, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["verify", "--op", "subtraction", "--op", "relu", "--device", "mps"]
    assert main(arguments) == 0
    spoil(monkeypatch, "subtraction", lower=swapped("subtraction"))
    assert main(arguments) == 1
    assert "subtraction" in capsys.readouterr().out


def test_a_graph_on_the_gpu_keeps_its_variables(double: Double) -> None:
    graph = sg.Graph()
    x = graph.placeholder((2,), name="x")
    v = graph.variable(np.float32([1, 2]), name="v")
    graph.set_value("v", [5.0, 6.0], "mps")
    from stepgraph.verification import verify_graph

    report = verify_graph(
        graph, {x: [1.0, 1.0]}, [v * x], [graph.assign(v, v + x)], device="mps", steps=3
    )
    assert report.agrees, str(report)
    np.testing.assert_array_equal(graph.get_value("v", "mps"), [5.0, 6.0])
