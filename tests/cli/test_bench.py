"""``stepgraph bench`` as a process: what it prints, never how fast it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = ["--model", "lenet5", "--channels", "1", "--image-size", "28", "--batch-size", "4"]


def run(
    *arguments: str, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stepgraph", "bench", *arguments]
    if "PYTHONPATH" in environment:
        environment["PYTHONPATH"] += os.pathsep + os.environ.get("PYTHONPATH", "")
    return subprocess.run(
        command,
        check=check,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def bench(*arguments: str) -> str:
    return run(*SMALL, "--steps", "2", *arguments).stdout


def test_table_names_fused_operations() -> None:
    text = bench("--profile")
    assert "convolution_2d" in text
    assert "images" in text
    assert "\x1b" not in text
    *rows, total = [line.split() for line in text.splitlines() if "%" in line]
    assert total[:3] == ["all", "of", "them"]
    shares = [word for row in rows for word in row if word.endswith("%") and "." in word]
    assert sum(float(word[:-1]) for word in shares) == pytest.approx(100, abs=1)
    assert "100.0%" in total


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_json_holds_the_profile(device: str) -> None:
    found = json.loads(bench("--profile", "--json", "--device", device))
    assert found["model"] == "lenet5"
    assert found["least_milliseconds"] <= found["median_milliseconds"]
    assert sum(cost["share_of_time"] for cost in found["profile"]) == pytest.approx(1)
    counted = [cost for cost in found["profile"] if cost["flops"]]
    assert bool(counted) == (device == "cpu")


def test_table_against_pytorch() -> None:
    pytest.importorskip("torch")
    command = ["--model", "mlp", "--model", "lenet5", "--batch-size", "2", "--seconds", "0"]
    text = run("--against", "torch", "--no-compile", "--json", *command).stdout
    head, *rows = [json.loads(line) for line in text.splitlines()]
    assert head["machine"]
    assert head["against"].startswith("torch ")
    assert [row["model"] for row in rows] == ["mlp", "lenet5"]
    for row in rows:
        times = row["median_milliseconds"]
        assert list(times) == [
            *("train_on_batch", "compiled step", "PyTorch", "PyTorch channels_last")
        ]
        assert row["fastest"] in times
        ratio = times[row["fastest"]] / times["train_on_batch"]
        assert row["ratio"]["train_on_batch"] == pytest.approx(ratio)
    text = run("--against", "torch", "--no-compile", *command[2:]).stdout
    assert text.splitlines()[-1].startswith("lenet5")


def test_pytorch_is_held_to_the_same_instructions() -> None:
    torch = pytest.importorskip("torch")
    command = ["--against", "torch", "--no-compile", "--json", "--model", "mlp"]
    command += ["--batch-size", "2", "--seconds", "0"]
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("this processor has nothing to be held back from")
    assert json.loads(run(*command).stdout.splitlines()[0])["against"].endswith(" AVX512")
    held = json.loads(run(*command, STEPGRAPH_CPU_TARGET="avx2").stdout.splitlines()[0])
    assert held["against"].endswith(" AVX2")
    assert "haswell" in held["machine"]
    wrong = run(*command, check=False, STEPGRAPH_CPU_TARGET="neon")
    assert "cannot be held to the instructions of STEPGRAPH_CPU_TARGET=neon" in wrong.stderr
    assert wrong.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--against", "torhc"], "did you mean torch"),
        (["--against", "torch", "--profile"], "--profile says nothing with --against"),
        (["--against", "torch", "--model-option", "a=1"], "--model-option says nothing"),
        (["--against", "torch", "--device", "reference"], "device cpu"),
    ],
)
def test_wrong_use_with_against(arguments: list[str], words: str) -> None:
    assert words in run(*arguments, check=False).stderr


def test_pytorch_is_asked_for_where_it_is_missing(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    found = run("--against", "torch", check=False, PYTHONPATH=str(tmp_path))
    assert found.returncode == 1
    assert "no torch here" in found.stderr
    assert "pip install torch" in found.stderr
