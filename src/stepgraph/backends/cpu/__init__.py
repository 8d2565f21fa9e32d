"""The CPU engine. Until its kernels are registered it evaluates op by op."""

from __future__ import annotations

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    if name == "DEVICE":
        # Temporary stand-in while the engine is being put together.
        return importlib.import_module("stepgraph.backends.reference").DEVICE
    raise AttributeError(name)
