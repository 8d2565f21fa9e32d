"""Pytest plugin: the engine on another machine than this one, for any test that trains or runs.

    STEPGRAPH_TEST_MACHINE=fenced python -m pytest -p tests.backends.cpu.machines tests/ops
    STEPGRAPH_TEST_MACHINE=arm64  python -m pytest -p tests.backends.cpu.machines tests/ops

Both give every buffer (intermediate values too, which otherwise share one arena) a block of its
own that ends where a page begins that nobody may touch, and fill what is not written yet with NaN:
a kernel that reads or writes past its operands ends the process, one that computes with what it
did not get gives NaN. ``STEPGRAPH_CPU_TARGET`` (``avx2``, ``sse``) may say which code is made.

``arm64`` runs that code, the executor and its threads included, under `qemu-aarch64`: a small
server there loads the engine's objects and maps the same memory at the same addresses, so that
programs run as they stand, Python steps between launches on this side. It needs Debian's
`qemu-user` and `gcc-aarch64-linux-gnu`.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import os
import struct
import subprocess
import tempfile
import threading
import weakref
from pathlib import Path

import numpy as np

from stepgraph.backends.cpu.native import target as native_target

PAGE = 4096
# Where the shared memory lies, in this process and in the emulated one.
BASE, SIZE = 1 << 44, 1 << 31
READ_WRITE, SHARED, FIXED_NOREPLACE = 3, 1, 0x100000


class Heap:
    """Blocks of memory, each right before a page that nobody may touch.

    Args:
        fence: makes the page at an address untouchable for whoever runs the kernels.
    """

    def __init__(self):
        self.file = tempfile.NamedTemporaryFile(prefix="stepgraph-heap-")
        self.file.truncate(SIZE)
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.mmap.restype = ctypes.c_void_p
        self.libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3]
        self.libc.mmap.argtypes += [ctypes.c_long]
        self.libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        flags = SHARED | FIXED_NOREPLACE
        got = self.libc.mmap(BASE, SIZE, READ_WRITE, flags, self.file.fileno(), 0)
        assert got == BASE, os.strerror(ctypes.get_errno())
        self.top = BASE
        self.free: dict[int, list[int]] = {}
        self.lock = threading.RLock()
        self.fence = lambda address: self.libc.mprotect(address, PAGE, 0)

    def zeros(self, count, dtype):
        """What `storage.zeros` gives, with a fence behind it."""
        kind = np.dtype(dtype)
        size = count * kind.itemsize
        room = -(-size // 64) * 64
        pages = -(-max(room, 1) // PAGE) * PAGE
        with self.lock:
            ready = self.free.setdefault(pages, [])
            if ready:
                start = ready.pop()
            else:
                start, self.top = self.top, self.top + pages + PAGE
                assert self.top <= BASE + SIZE, "the tests' shared memory is used up"
                self.fence(start + pages)
        block = (ctypes.c_char * size).from_address(start + pages - room)
        weakref.finalize(block, ready.append, start).atexit = False
        array = np.frombuffer(block, kind)
        array.view(np.uint8)[:] = 0
        return array


def _install_heap(heap):
    from stepgraph.backends.cpu import feeding, memory
    from stepgraph.backends.cpu.native import storage

    storage.zeros = heap.zeros
    # What is fed comes into these blocks too, instead of being read where it lies.
    feeding.LENT = SIZE
    plan = memory.Arena.__init__

    def planned(arena, steps, kept, share=True):
        plan(arena, steps, kept, share)
        for buffer in memory._liveness(steps, kept)[0]:
            size = buffer.dtype.size
            buffer.storage = heap.zeros(buffer.nbytes // size, buffer.dtype.numpy)
            buffer.storage.view(np.uint8)[:] = 0 if buffer.dtype.name == "bool" else 255

    memory.Arena.__init__ = planned


# Commands are eight-byte words on standard input, answers on standard output.
_SERVER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
typedef int64_t word;
typedef word function(word, word, word);
static struct task { function *f; word a, b, c; pthread_t thread; } tasks[4096];
static int count;
static word get(void) { word n; if (fread(&n, 8, 1, stdin) != 1) exit(0); return n; }
static void put(word n) { fwrite(&n, 8, 1, stdout); fflush(stdout); }
static char *text(void) {
  word n = get();
  char *s = calloc(n + 1, 1);
  if (fread(s, n, 1, stdin) != 1) exit(2);
  return s;
}
static void *work(void *p) { struct task *t = p; t->f(t->a, t->b, t->c); return 0; }
int main(int argc, char **argv) {
  word base = atoll(argv[2]), size = atoll(argv[3]);
  void *got = mmap((void *)base, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE,
                   open(argv[1], O_RDWR), 0);
  put((word)got);
  for (;;) {
    word command = get();
    if (command == 'l') {
      void *library = dlopen(text(), RTLD_NOW | RTLD_LOCAL);
      if (!library) fprintf(stderr, "%s\n", dlerror());
      put((word)library);
    } else if (command == 's') {
      void *library = (void *)get();
      put((word)dlsym(library, text()));
    } else if (command == 'j') {
      word a = get();
      for (int i = 0; i < count; i++)
        if (tasks[i].f && tasks[i].a == a) pthread_join(tasks[i].thread, 0), tasks[i].f = 0;
      put(0);
    } else {
      struct task *t = command == 't' ? &tasks[count++] : &tasks[4095];
      t->f = (function *)get(), t->a = get(), t->b = get(), t->c = get();
      put(command == 't' ? pthread_create(&t->thread, 0, work, t) : t->f(t->a, t->b, t->c));
    }
  }
}
"""


class Emulator:
    """The server under emulation: loads objects, calls functions, starts threads."""

    def __init__(self, heap):
        self.folder = Path(tempfile.mkdtemp(prefix="stepgraph-arm64-"))
        program = self.folder / "server"
        (self.folder / "server.c").write_text(_SERVER)
        command = ["aarch64-linux-gnu-gcc", "-O1", "-o", program, self.folder / "server.c"]
        subprocess.run([*command, "-Wl,--no-as-needed", "-lm", "-lpthread"], check=True)
        command = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", program]
        command += [heap.file.name, str(BASE), str(SIZE)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe)
        assert self._answer() == BASE, "the emulated process could not map the shared memory"
        self.lock = threading.RLock()
        self.loaded = {}
        protect = self.ask("s", 0, b"mprotect")
        heap.fence = lambda address: self.ask("c", protect, address, PAGE, 0)
        atexit.register(self.close)

    def ask(self, command, *words):
        """One command and its answer; texts are sent with their length before them."""
        parts = [struct.pack("<q", ord(command))]
        for word in words:
            text = isinstance(word, bytes)
            parts.append(struct.pack("<q", len(word)) + word if text else struct.pack("<q", word))
        with self.lock:
            self.process.stdin.write(b"".join(parts))
            self.process.stdin.flush()
            return self._answer()

    def _answer(self):
        got = self.process.stdout.read(8)
        if len(got) != 8:
            raise RuntimeError(f"the emulated process ended with {self.process.wait()}")
        return struct.unpack("<q", got)[0]

    def load(self, image, exports):
        """What `compile.load` does, for an object of arm64 code."""
        from stepgraph.backends.cpu.native.compile import Library

        names = tuple(sorted(exports))
        name = hashlib.sha256(image).hexdigest()
        if (name, names) not in self.loaded:
            made, shared = self.folder / f"{name}.o", self.folder / f"{name}.so"
            made.write_bytes(image)
            subprocess.run(["aarch64-linux-gnu-ld", "-shared", "-o", shared, made], check=True)
            handle = self.ask("l", os.fsencode(shared))
            assert handle, f"cannot load {shared}"
            addresses = {n: self.ask("s", handle, n.encode()) for n in names}
            assert all(addresses.values()), addresses
            self.loaded[name, names] = Library(addresses)
        return self.loaded[name, names]

    def close(self):
        """Ends the server and removes what it loaded."""
        self.process.stdin.close()
        self.process.wait()
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()


def _install_emulator(heap):
    neon = native_target.named_target("neon")
    # Before anything else of the engine is imported: others take the function by name.
    native_target.host_target = lambda: neon
    emulator = Emulator(heap)

    from stepgraph.backends.cpu.native import compile as native_compile
    from stepgraph.backends.cpu.native import executor_ir, pool, recall

    assert recall.host_target() is neon
    native_compile.load = recall.load = emulator.load
    text = executor_ir.executor_ir(neon)
    library = native_compile.build(text, executor_ir.EXPORTS)
    participate, run, stop = (library[name] for name in executor_ir.EXPORTS)

    def stopped(state):
        emulator.ask("c", stop, state, 0, 0)
        emulator.ask("j", state)

    functions = (
        library,
        lambda state, number, leave: emulator.ask("t", participate, state, number, leave),
        lambda state, program, count: emulator.ask("c", run, state, program, count),
        stopped,
    )
    pool._library = lambda: functions


MACHINES = {"fenced": (_install_heap,), "arm64": (_install_emulator, _install_heap)}


def pytest_configure():
    """Where this file is a plugin; collected for its examples, it changes nothing."""
    heap = Heap()
    for install in MACHINES[os.environ["STEPGRAPH_TEST_MACHINE"]]:
        install(heap)
