"""The examples run as a reader would run them, and train the same network."""

import math
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stepgraph import applications

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"loss:? ([0-9.]+|nan|inf)", text)]


@pytest.mark.slow
def test_graph() -> None:
    text = run("resnet50_graph.py", "--steps", "2", "--batch-size", "4", "--stem", "2")
    found = losses(text)
    assert len(found) == 2
    assert all(0 < loss < 50 for loss in found)
    assert "step 2: " in text


@pytest.mark.slow
def test_keras_style() -> None:
    arguments = ("--epochs", "2", "--steps", "2", "--batch-size", "4", "--stem", "2")
    text = run("resnet50_keras_style.py", *arguments)
    assert "Epoch 2/2" in text
    assert all(math.isfinite(loss) for loss in losses(text))


def test_keras_style_builds_the_application() -> None:
    build = runpy.run_path(str(EXAMPLES / "resnet50_keras_style.py"))["resnet50"]
    ours = build((32, 32, 3), 10, batch_size=2, stem=2)
    ready = applications.ResNet50(stem=2)
    shapes = [weight.shape for weight in ready.weights]
    assert [weight.shape for weight in ours.weights] == shapes
    rng = np.random.default_rng(0)
    ready.set_weights([rng.uniform(0.01, 0.1, shape) for shape in shapes])
    ours.set_weights(ready.get_weights())
    x = rng.random((2, 32, 32, 3), "float32")
    np.testing.assert_array_equal(ours.predict_on_batch(x), ready.predict_on_batch(x))
