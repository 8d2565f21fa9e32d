"""Runs kernels of a module one task after the other, on every target that can be had here.

That is this processor and its architecture's older ones; and arm64, where Debian's `qemu-user` and
`gcc-aarch64-linux-gnu` are installed (`STEPGRAPH_REQUIRE=qemu` makes their absence a failure).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess

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
COMPILER, EMULATOR = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64")
if COMPILER and EMULATOR:
    TARGETS["qemu"] = named_target("neon")
elif "qemu" in os.environ.get("STEPGRAPH_REQUIRE", ""):
    raise RuntimeError("qemu-aarch64 and aarch64-linux-gnu-gcc are required but not installed")


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


# Calls one kernel: arguments from standard input, every buffer to standard output afterwards.
_DRIVER = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef void kernel(int64_t *, int64_t, int64_t);
DECLARATIONS
static struct { const char *name; kernel *function; } table[] = { ENTRIES };
static int64_t number(void) { int64_t n; if (fread(&n, 8, 1, stdin) != 1) exit(2); return n; }
int main(int argc, char **argv) {
  int64_t count = number(), *size = malloc(8 * count), slots[256];
  char **buffer = malloc(8 * count);
  for (int64_t i = 0; i < count; i++) {
    size[i] = number();
    buffer[i] = aligned_alloc(64, (size[i] + 127) / 64 * 64);
    if (size[i] && fread(buffer[i], size[i], 1, stdin) != 1) exit(3);
  }
  int64_t used = number();
  for (int64_t i = 0; i < used; i++) {
    int64_t which = number(), value = number();
    slots[i] = which < 0 ? value : (int64_t)buffer[which];
  }
  for (unsigned i = 0; i < sizeof table / sizeof *table; i++)
    if (!strcmp(table[i].name, argv[1]))
      for (int64_t task = 0; task < atoll(argv[2]); task++) table[i].function(slots, task, 0);
  for (int64_t i = 0; i < count; i++) fwrite(buffer[i], size[i], 1, stdout);
  return 0;
}
"""


class EmulatedKernels:
    """As `Kernels`, for a module compiled for arm64 and run under emulation."""

    def __init__(self, module, target, folder):
        self.layouts = module.kernels
        image = folder / "kernels.o"
        image.write_bytes(native_compile.compile_object(str(module), target))
        declarations = "\n".join(f"extern kernel {name};" for name in module.kernels)
        entries = ", ".join(f'{{"{name}", {name}}}' for name in module.kernels)
        source = folder / "driver.c"
        driver = _DRIVER.replace("DECLARATIONS", declarations).replace("ENTRIES", entries)
        source.write_text(driver)
        self.program = folder / "driver"
        command = [COMPILER, "-O1", "-static", "-o", self.program, source, image, "-lm"]
        subprocess.run(command, check=True)

    def __call__(self, name, tasks=1, /, **values):
        layout = self.layouts[name]
        given = [v for v in values.values() if isinstance(v, np.ndarray)]
        # A transposed view is sent as the memory that it looks at.
        arrays = {v.ctypes.data: v if v.flags.c_contiguous else v.base for v in given}
        order = list(arrays)
        parts = [struct.pack("<q", len(order))]
        for array in arrays.values():
            assert array.flags.c_contiguous
            parts += [struct.pack("<q", array.nbytes), array.tobytes()]
        packed = layout.pack(
            **{key: 0 if isinstance(v, np.ndarray) else v for key, v in values.items()}
        )
        parts.append(struct.pack("<q", len(layout.fields)))
        for number, field in enumerate(layout.fields):
            value = values[field]
            which = order.index(value.ctypes.data) if isinstance(value, np.ndarray) else -1
            parts += [struct.pack("<q", which), packed[8 * number : 8 * number + 8]]
        command = [EMULATOR, self.program, name, str(tasks)]
        done = subprocess.run(command, input=b"".join(parts), capture_output=True, check=True)
        start = 0
        for array in arrays.values():
            end = start + array.nbytes
            array[...] = np.frombuffer(done.stdout[start:end], array.dtype).reshape(array.shape)
            start = end


@pytest.fixture(scope="session")
def kernels_of(target, tmp_path_factory):
    """Loads what a function makes for the target, once: ``kernels_of(make_module)``."""
    made = {}

    def get(make_module):
        if make_module not in made:
            module = make_module(target)
            if target.architecture == host_target().architecture:
                made[make_module] = Kernels(module, target)
            else:
                folder = tmp_path_factory.mktemp("emulated")
                made[make_module] = EmulatedKernels(module, target, folder)
        return made[make_module]

    return get
