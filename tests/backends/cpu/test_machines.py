"""Every kernel on other processors than this one, and behind fences: see `machines`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

ROOT = Path(__file__).parents[3]
EVERY_KERNEL = "tests/backends/cpu/test_every_kernel.py"
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mmap as Linux knows it")


def run_elsewhere(machine, target, *arguments):
    """Runs tests with the plugin; returns the finished process."""
    environment = {**os.environ, "STEPGRAPH_TEST_MACHINE": machine}
    environment.pop("STEPGRAPH_CPU_TARGET", None)
    if target:
        environment["STEPGRAPH_CPU_TARGET"] = target
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.backends.cpu.machines"]
    command += ["-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)


def _needs(*programs):
    missing = [name for name in programs if not shutil.which(name)]
    if missing and "qemu" in os.environ.get("STEPGRAPH_REQUIRE", ""):
        pytest.fail(f"not installed: {missing}")
    if missing:
        pytest.skip(f"not installed: {missing}")


@linux
@pytest.mark.parametrize("target", ["", "avx2", "sse"])
def test_every_kernel_stays_within_its_buffers(target):
    features = llvm.get_host_cpu_features()
    if not features.get({"": "sse2", "avx2": "avx2", "sse": "sse4.2"}[target]):
        pytest.skip("this processor cannot run that code")
    done = run_elsewhere("fenced", target, EVERY_KERNEL, "-k", "sgd or transformer")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@linux
def test_every_kernel_on_arm64():
    _needs("qemu-aarch64", "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-ld")
    done = run_elsewhere("arm64", "", EVERY_KERNEL, "-k", "sgd or transformer")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


OUTSIDE = """
import numpy as np
from stepgraph.backends.cpu.native import compile as native_compile
from stepgraph.backends.cpu.native import storage
from stepgraph.backends.cpu.native.emit import Module, f32, i64, pointer
from stepgraph.backends.cpu.native.pool import Pool, Program

def test_reads(beyond=BEYOND):
    module = Module("peep")
    fields = {"x": pointer(f32), "y": pointer(f32), "n": i64}
    with module.kernel("peep", fields) as (f, args):
        args.y.store((args.x + args.n).load())
    library = native_compile.build(str(module), module.kernels)
    x, y = storage.zeros(32, "float32"), storage.zeros(16, "float32")
    x[31] = 5
    program = Program()
    values = {"x": x.ctypes.data, "y": y.ctypes.data, "n": 31 + beyond}
    program.launch(library["peep"], module.kernels["peep"].pack(**values), 1)
    Pool(1).run(program)
    assert y[0] == 5
"""


@linux
@pytest.mark.parametrize("machine", ["fenced", "arm64"])
def test_who_reads_past_a_buffer_is_caught(tmp_path, machine):
    if machine == "arm64":
        _needs("qemu-aarch64", "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-ld")
    for beyond in (0, 1):
        path = tmp_path / f"test_outside{beyond}.py"
        path.write_text(OUTSIDE.replace("BEYOND", str(beyond)))
        done = run_elsewhere(machine, "", str(path))
        assert (done.returncode == 0) == (not beyond), done.stdout[-4000:] + done.stderr[-2000:]
    assert machine == "fenced" or "the emulated process ended" in done.stdout
