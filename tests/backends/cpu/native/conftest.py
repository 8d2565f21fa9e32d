"""Runs kernels of a module one task after the other, on any target this processor understands."""

from __future__ import annotations

import ctypes

import llvmlite.binding as llvm
import numpy as np
import pytest

from stepgraph.backends.cpu.native import compile as native_compile
from stepgraph.backends.cpu.native.target import host_target, named_target

_CALL = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64)


def runnable_targets():
    """Targets whose code this machine can run: its own, and its architecture's older ones."""
    features = llvm.get_host_cpu_features() if host_target().architecture == "x86_64" else {}
    found = {"host": host_target()}
    for name, needed in (("avx512", "avx512vl"), ("avx2", "avx2"), ("sse", "sse4.2")):
        if features.get(needed):
            found[name] = named_target(name, triple=host_target().triple)
    return found


TARGETS = runnable_targets()


@pytest.fixture(scope="session", params=TARGETS)
def target(request):
    """Every target in turn."""
    return TARGETS[request.param]


class Kernels:
    """A loaded module whose kernels are called as Python functions on NumPy arrays."""

    def __init__(self, module, target):
        self.layouts = module.kernels
        self.library = native_compile.build(str(module), module.kernels, target=target)

    def __call__(self, name, tasks=1, /, **values):
        addresses = {
            key: value.ctypes.data if isinstance(value, np.ndarray) else value
            for key, value in values.items()
        }
        packed = self.layouts[name].pack(**addresses)
        call = _CALL(self.library[name])
        for task in range(tasks):
            call(packed, task, 0)


@pytest.fixture(scope="session")
def kernels_of(target):
    """Loads what a function makes for the target, once: ``kernels_of(make_module)``."""
    made = {}

    def get(make_module):
        if make_module not in made:
            made[make_module] = Kernels(make_module(target), target)
        return made[make_module]

    return get
