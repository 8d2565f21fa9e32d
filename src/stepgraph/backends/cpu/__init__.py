"""The CPU engine: programs lowered to native kernels that one thread pool runs.

Its parts, from the outside in: `device` (what the registry sees), `lower` and `lowering/` (from
operations to steps), `fusion` (which operations share a loop), `layouts` and `memory` (where
numbers lie), `kernels/` (what runs), `native/` (machine code, threads).
"""

from __future__ import annotations

import importlib.util
from typing import Any


class _Missing:
    """Stands for the engine where llvmlite cannot be had."""

    name = "cpu"

    def unavailable(self) -> str:
        return "llvmlite is not installed (pip install llvmlite)"

    def summary(self) -> str:
        return self.unavailable()


def __getattr__(name: str) -> Any:
    # The engine needs llvmlite, so it is loaded when the device is first used.
    if name != "DEVICE":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if importlib.util.find_spec("llvmlite") is None:
        return _Missing()
    from stepgraph.backends.cpu.device import DEVICE

    return DEVICE
