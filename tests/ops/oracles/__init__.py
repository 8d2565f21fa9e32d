"""Independent meanings of ops, by family file: PyTorch where it is installed, else NumPy.

Each file has ``ORACLES``: op name to a function of float64 arrays and the sample's arguments.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any


def find(name: str) -> Callable[..., Any] | None:
    """The oracle of an op; None where there is none or PyTorch is missing."""
    for module in pkgutil.iter_modules(__path__):
        table = importlib.import_module(f"{__name__}.{module.name}").ORACLES
        if name in table:
            return table[name]
    return None
