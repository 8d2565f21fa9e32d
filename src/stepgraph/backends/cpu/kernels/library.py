"""Kernel modules, compiled once in a process and cached on disk."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from stepgraph.backends.cpu.native.emit import Arguments, Module, f32, pointer
from stepgraph.backends.cpu.native.kernels import load_kernels
from stepgraph.backends.cpu.native.recall import fetch
from stepgraph.backends.cpu.plan import NATIVE, KernelSource

Kernels = dict[str, tuple[Arguments, int]]

_loaded: dict[KernelSource, Kernels] = {}
_lock = threading.Lock()


def addresses(sources: Sequence[KernelSource]) -> dict[KernelSource, Kernels]:
    """The kernels of each module: name to argument layout and address."""
    with _lock:
        for source in sources:
            if source not in _loaded:
                _loaded[source] = _load(source)
        return {source: _loaded[source] for source in sources}


def _load(source: KernelSource) -> Kernels:
    if source.key == NATIVE:
        native = load_kernels()
        return {name: (layout, native.library[name]) for name, layout in native.layouts.items()}
    layouts, library = fetch(source.key, source.build)
    return {name: (layout, library[name]) for name, layout in layouts.items()}


def fetch_module() -> Module:
    """``fetch``: target = factor * source, one float; fills in another launch's argument."""
    module = Module("fetch")
    fields = {"source": pointer(f32), "target": pointer(f32), "factor": f32}
    with module.kernel("fetch", fields) as (_, args):
        args.target.store(args.source.load() * args.factor)
    return module
