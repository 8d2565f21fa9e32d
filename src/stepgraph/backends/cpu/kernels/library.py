"""Kernel modules, compiled once in a process and cached on disk."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from stepgraph.backends.cpu.native.compile import build
from stepgraph.backends.cpu.native.emit import Arguments
from stepgraph.backends.cpu.plan import KernelSource

Kernels = dict[str, tuple[Arguments, int]]

_loaded: dict[KernelSource, Kernels] = {}
_lock = threading.Lock()


def addresses(sources: Sequence[KernelSource]) -> dict[KernelSource, Kernels]:
    """The kernels of each module: name to argument layout and address."""
    with _lock:
        for source in sources:
            if source not in _loaded:
                module = source.build()
                library = build(str(module), list(module.kernels))
                _loaded[source] = {
                    name: (layout, library[name]) for name, layout in module.kernels.items()
                }
        return {source: _loaded[source] for source in sources}
