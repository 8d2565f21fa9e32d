"""``stepgraph verify``: what it prints, and its exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepgraph.cli import main
from tests.cli.harness import CommandLine
from tests.verification.faults import last_element, plant

SMALL = ["verify", "--model", "cnn", "--image-size", "16", "--batch-size", "2", "--steps", "1"]


def test_a_device_that_is_right(stepgraph: CommandLine) -> None:
    done = stepgraph(*SMALL, "--device", "cpu")
    assert "operations agree" in done.stdout
    assert "convolution_2d" in done.stdout
    assert "moving" not in done.stdout
    assert "\x1b" not in done.stdout
    assert not list(stepgraph.folder.iterdir())


def test_json(stepgraph: CommandLine, events: Any) -> None:
    (found,) = events(stepgraph(*SMALL, "--device", "reference", "--json").stdout)
    assert found["event"] == "verify"
    assert found["agrees"] is True
    assert found["first"] is None
    assert {"op", "created_at", "comparison"} <= set(found["operations"][0])
    assert {check["kind"] for check in found["quantities"]} >= {"gradient", "weight"}


def test_weights_of_a_run(trained: CommandLine) -> None:
    done = trained("verify", "--run-dir", "run", "--steps", 1)
    assert "moving statistic" in done.stdout


def test_a_fault_is_named_and_the_exit_code_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(monkeypatch, "matrix_multiplication", last_element(2.0))
    path = tmp_path / "found.npz"
    arguments = [*SMALL, "--device", "cpu", "--reproduction", str(path)]
    assert main(arguments) == 1
    text = capsys.readouterr().out
    assert "The first operation that diverges:\n  operation" in text
    assert "matrix_multiplication" in text.split("The first operation that diverges:")[1]
    assert f"python {path}" in text
    assert path.exists()
    assert main([*arguments, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["first"]["op"] == "matrix_multiplication"
    assert main(["verify", "--op", "matrix_multiplication", "--device", "cpu"]) == 1
    assert "matrix_multiplication" in capsys.readouterr().out


def test_ops_by_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--op", "relu", "--op", "mean", "--isolated", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("relu")
    assert main(["verify", "--op", "rellu"]) == 1
    assert "did you mean relu" in capsys.readouterr().err


def test_isolated_operations_are_named_before_they_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*SMALL, "--device", "reference", "--isolated", "--steps", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("1/")
