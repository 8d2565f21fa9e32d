"""``stepgraph bench`` as a process: what it prints, never how fast it is."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SMALL = ["--model", "lenet5", "--channels", "1", "--image-size", "28", "--batch-size", "4"]


def bench(*arguments: str) -> str:
    command = [sys.executable, "-m", "stepgraph", "bench", *SMALL, "--steps", "2", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def test_table_names_fused_operations() -> None:
    text = bench("--profile")
    assert "convolution_2d" in text
    assert "images" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_json_holds_the_profile(device: str) -> None:
    found = json.loads(bench("--profile", "--json", "--device", device))
    assert found["model"] == "lenet5"
    assert found["least_milliseconds"] <= found["median_milliseconds"]
    assert sum(cost["share_of_time"] for cost in found["profile"]) == pytest.approx(1)
    counted = [cost for cost in found["profile"] if cost["flops"]]
    assert bool(counted) == (device == "cpu")
