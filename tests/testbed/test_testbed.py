"""The testbed's checks on devices that are here, and its recipe for Briefcase."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest

from stepgraph.backends.mps.device import use
from stepgraph_testbed import checks
from stepgraph_testbed.__main__ import main
from tests.mps.double import Double
from tests.verification.faults import last_element, plant

TESTBED = Path(__file__).parents[2] / "testbed"
SMALL = ("cnn", "softmax", "convolution_2d")


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_all_kinds_of_checks(device: str, tmp_path: Path) -> None:
    announced: list[str] = []
    with use(Double((18, 1))):
        found = list(checks.run(device, checks.KINDS, SMALL, tmp_path, announced.append))
        assert "device" in checks.machine(device)[2]
    assert {(o.kind, o.name) for o in found} == {
        ("ops", "softmax"),
        ("ops", "convolution_2d"),
        ("verify", "cnn"),
        ("curves", "cnn"),
    }
    assert len(found) == len(announced) == 4
    assert all(outcome.passed for outcome in found), [str(outcome) for outcome in found]
    assert not list(tmp_path.iterdir())


def test_a_fault_fails_every_kind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(monkeypatch, "matrix_multiplication", last_element(3.0))
    arguments = ["--device", "cpu", "--names", "matrix_multiplication", "cnn"]
    assert main([*arguments, "--folder", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert "FAIL ops matrix_multiplication" in text
    assert "FAIL verify cnn" in text
    assert "FAIL curves cnn" in text
    assert "0 of 3 checks agree" in text
    assert (tmp_path / "divergence-cnn.npz").exists()


def test_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--device", "reference", "--only", "ops", "--names", "relu"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.endswith("1 of 1 checks agree\n")
    assert main([*arguments[:-1], "rellu"]) == 1  # nothing checked is nothing shown


@pytest.mark.skipif(sys.platform in ("darwin", "ios"), reason="there may be a GPU here")
def test_a_device_that_is_missing_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "mps"]) == 1
    assert "MPSGraph" in capsys.readouterr().err


def test_the_recipe_names_what_is_there() -> None:
    app = tomllib.loads((TESTBED / "pyproject.toml").read_text("utf-8"))["tool"]["briefcase"]["app"]
    settings = app["stepgraph_testbed"]
    for source in settings["sources"]:
        assert (TESTBED / source / "__init__.py").is_file()
    assert any(item.startswith("toga-iOS") for item in settings["iOS"]["requires"])
    # On iOS only what Briefcase installs can be imported.
    installed = {"numpy", "toga", "stepgraph", "stepgraph_testbed"}
    for path in (TESTBED / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                top = name.partition(".")[0]
                assert top in installed or top in sys.stdlib_module_names, (path, name)
