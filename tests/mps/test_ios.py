"""On iOS there is Python and NumPy, but no compiler and nothing that makes code at run time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# What an iPhone does not have.
HIDDEN = ["llvmlite", "scipy", "numba", "cffi", "Cython", "setuptools", "distutils", "rubicon"]
HIDDEN += ["tensorflow", "sklearn", "matplotlib"]

PROGRAM = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, fullname, path=None, target=None):
        if fullname.split(".")[0] in {hidden!r}:
            return None
        return self.finder.find_spec(fullname, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
sys.platform = "ios"

import numpy as np
import stepgraph as sg
from stepgraph.applications import ResNet50
from stepgraph.backends.mps.device import use
from tests.mps.double import Double

assert "not available" in sg.devices()["mps"]  # no rubicon here
double = Double((18, 1))
with use(double):
    model = ResNet50(input_shape=(32, 32, 3), classes=10)
    model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy", device="mps")
    step = model.runtime.step("train", (False,))
    x, y = np.zeros((64, 32, 32, 3), np.float32), np.zeros(64, np.int64)
    planned = step.executable.planned_bytes(dict(zip(step.feeds, (x, y))))
    print(sum(double.sent.values()), planned)
    rng = np.random.default_rng(0)
    batch = rng.random((2, 32, 32, 3), dtype=np.float32), rng.integers(0, 10, 2)
    assert np.isfinite(model.train_on_batch(*batch)).all()
double.raise_failures()
loaded = {{name.split(".")[0] for name in sys.modules}}
assert not loaded & set({hidden!r}), loaded & set({hidden!r})
"""


def test_resnet50_is_lowered_and_compiled_as_on_ios(tmp_path):
    """In a process of its own: hidden packages, no compilers on the path, another platform."""
    empty = tmp_path / "bin"
    empty.mkdir()
    environment = {
        "PATH": str(empty),
        "HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(hidden=HIDDEN)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    messages, planned = map(int, done.stdout.split())
    assert 2000 < messages < 10000
    assert 100e6 < planned < 1e9
