"""Kernel modules, compiled once in a process and cached on disk."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from stepgraph.backends.cpu.native.compile import build
from stepgraph.backends.cpu.native.emit import Arguments, Module, f32, pointer
from stepgraph.backends.cpu.native.kernels import Kernels as NativeKernels
from stepgraph.backends.cpu.plan import KernelSource

Kernels = dict[str, tuple[Arguments, int]]

_loaded: dict[KernelSource, Kernels] = {}
_lock = threading.Lock()


def addresses(sources: Sequence[KernelSource]) -> dict[KernelSource, Kernels]:
    """The kernels of each module: name to argument layout and address."""
    with _lock:
        for source in sources:
            if source not in _loaded:
                _loaded[source] = _load(source.build())
        return {source: _loaded[source] for source in sources}


def _load(made: Module | NativeKernels) -> Kernels:
    if isinstance(made, NativeKernels):
        return {name: (layout, made.library[name]) for name, layout in made.layouts.items()}
    library = build(str(made), list(made.kernels))
    return {name: (layout, library[name]) for name, layout in made.kernels.items()}


def fetch_module() -> Module:
    """``fetch``: target = factor * source, one float; fills in another launch's argument."""
    module = Module("fetch")
    fields = {"source": pointer(f32), "target": pointer(f32), "factor": f32}
    with module.kernel("fetch", fields) as (_, args):
        args.target.store(args.source.load() * args.factor)
    return module
