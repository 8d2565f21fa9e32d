"""IR text to machine code, and machine code into this process.

Optimising a module takes tenths of a second to seconds, so objects are cached on disk by a hash of
everything they depend on (`cache`). Loading an object takes about a millisecond.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import hashlib
import itertools
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import llvmlite
import llvmlite.binding as llvm

from stepgraph.backends.cpu.native import cache
from stepgraph.backends.cpu.native.announce import announce
from stepgraph.backends.cpu.native.target import Target, host_target, target_machine
from stepgraph.errors import UnsupportedError, describe

# What generated code may call: name -> the C library's symbol of the same name.
LIBM = (
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "pow", "tanh", "erf", "fma"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh"),
    *("asinh", "acosh", "atanh", "fmod", "rint", "floor", "ceil", "trunc", "round", "cbrt"),
)
LIBC = ("memcpy", "memset", "memmove")
# What compiling a module takes, about, by the length of its IR.
SECONDS_EACH, SECONDS_PER_MEGABYTE = 0.02, 2.0
THREADS = (
    *("pthread_mutex_lock", "pthread_mutex_unlock", "pthread_cond_wait"),
    *("pthread_cond_broadcast", "sched_yield"),
)

# Told how many seconds a compilation about to begin will take.
Progress: TypeAlias = Callable[[float], None]


@dataclass(frozen=True)
class Library:
    """Machine code in this process; it stays mapped until the process ends.

    Attributes:
        addresses: exported function name to its address.
    """

    addresses: dict[str, int]

    def __getitem__(self, name: str) -> int:
        """Address of the function `name`."""
        return self.addresses[name]


def optimise(ir_text: str, target: Target) -> llvm.ModuleRef:
    """Parses IR and runs LLVM's O3 pipeline, with both vectorizers, for a target.

    Args:
        ir_text: a module; its triple and data layout are set here.
        target: the processor to tune for.

    Returns:
        The optimised module (its ``str`` is readable IR).
    """
    machine = target_machine(target)
    module = llvm.parse_assembly(ir_text)
    module.triple = target.triple
    module.data_layout = str(machine.target_data)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    options.slp_vectorization = True
    options.loop_unrolling = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module


def compile_object(ir_text: str, target: Target) -> bytes:
    """Machine code of a module as an object file, never cached."""
    machine = target_machine(target)
    return bytes(machine.emit_object(optimise(ir_text, target)))


def assembly(ir_text: str, target: Target) -> str:
    """Machine code of a module as assembly text, to be read by people."""
    return str(target_machine(target).emit_assembly(optimise(ir_text, target)))


def object_key(ir_text: str, target: Target) -> str:
    """The cache's name for a module's machine code."""
    from stepgraph.version import __version__

    version = f"stepgraph {__version__} llvmlite {llvmlite.__version__} {llvm.llvm_version_info}"
    return cache.key(version, target.triple, target.cpu, target.features, ir_text)


def compiled(ir_text: str, target: Target, *, progress: Progress = announce) -> bytes:
    """Machine code of a module, from the disk cache if it has been compiled before.

    Args:
        ir_text: the module.
        target: the processor.
        progress: called before a compilation with the seconds that it will take, about.

    Returns:
        An object file.
    """
    key = object_key(ir_text, target)
    found = cache.load(key)
    if found is not None:
        return found
    progress(SECONDS_EACH + SECONDS_PER_MEGABYTE * len(ir_text) / 1e6)
    made = compile_object(ir_text, target)
    cache.store(key, made)
    return made


@functools.cache
def _imports() -> dict[str, int]:
    """Addresses of the C library's functions that generated code may call."""
    if sys.platform == "win32":
        libraries = [ctypes.CDLL("ucrtbase"), ctypes.CDLL("msvcrt")]
    else:
        names = [None, ctypes.util.find_library("m"), ctypes.util.find_library("pthread")]
        libraries = [ctypes.CDLL(name) for name in names if name or name is None]
    wanted = [*LIBC, *THREADS, *LIBM, *(f"{name}f" for name in LIBM)]
    found: dict[str, int] = {}
    for name, library in itertools.product(wanted, libraries):
        symbol = getattr(library, name, None)
        if symbol is not None and name not in found:
            found[name] = ctypes.cast(symbol, ctypes.c_void_p).value or 0
    return found


_names = itertools.count()
_lock = threading.Lock()
# Image and exports -> (library, what keeps its code mapped). Nothing is ever unmapped: a launch
# holds a bare address, and a few hundred kilobytes are cheaper than a call into freed memory.
_loaded: dict[tuple[bytes, tuple[str, ...]], tuple[Library, object]] = {}


@functools.cache
def _jit() -> llvm.LLJIT:
    # JITLink puts a library's sections side by side, so that small-model addressing reaches them
    # on every architecture; RuntimeDyld serves where JITLink knows no object format.
    machine = target_machine(host_target())
    return llvm.create_lljit_compiler(machine, use_jit_link=sys.platform != "win32")


def load(image: bytes, exports: Iterable[str]) -> Library:
    """Maps an object file into this process, once.

    Args:
        image: what `compile_object` made for this machine.
        exports: names of the functions whose addresses are wanted.

    Returns:
        The library.

    Raises:
        UnsupportedError: the system refuses executable memory or a symbol is missing.
        ValueError: an export has the name of a C function.
    """
    names = sorted(exports)
    identity = (hashlib.sha256(image).digest(), tuple(names))
    if identity in _loaded:
        return _loaded[identity][0]
    taken = _imports().keys() & set(names)
    if taken:
        raise ValueError(f"kernels cannot be named like C functions: {', '.join(sorted(taken))}")
    builder = llvm.JITLibraryBuilder().add_object_img(image)
    for name, address in _imports().items():
        builder.import_symbol(name, address)
    for name in names:
        builder.export_symbol(name)
    try:
        with _lock:
            tracker = builder.link(_jit(), f"stepgraph{next(_names)}")
    except RuntimeError as error:
        raise UnsupportedError(
            describe("cpu", f"cannot load generated code: {error}", fix="use device='reference'")
        ) from error
    library = Library({name: tracker[name] for name in names})
    _loaded[identity] = (library, tracker)
    return library


def build(
    ir_text: str,
    exports: Iterable[str],
    *,
    target: Target | None = None,
    progress: Progress = announce,
) -> Library:
    """Compiles (or finds in the cache) and loads a module in one go.

    Args:
        ir_text: the module.
        exports: names of the functions whose addresses are wanted.
        target: the processor; this machine by default.
        progress: called before a compilation with the seconds that it will take, about.

    Returns:
        The loaded library.
    """
    return load(compiled(ir_text, target or host_target(), progress=progress), exports)
