"""Faults planted in the CPU engine's lowerings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stepgraph.backends.cpu import lowering as _lowerings
from stepgraph.backends.cpu.layouts import ROWS
from stepgraph.backends.cpu.plan import PythonStep
from stepgraph.backends.cpu.registry import LOWERINGS

# Importing them fills the table, which must be full before something in it is replaced.
assert _lowerings.FAMILIES

Spoil = Callable[[Any, list[np.ndarray], np.ndarray], np.ndarray]


def plant(monkeypatch: pytest.MonkeyPatch, op: str, spoil: Spoil) -> None:
    """From now on the CPU's result of `op` is ``spoil(operation, inputs, right result)``."""

    def lowering(engine: Any, operation: Any) -> bool:
        reads = [engine.value(t, ROWS) for t in operation.inputs]
        writes = [engine.output(t, ROWS) for t in operation.outputs]

        def function(arrays: Any) -> list[np.ndarray]:
            inputs = list(arrays)
            right = operation.definition.reference(*inputs, **operation.attributes)
            return [np.asarray(spoil(operation, inputs, right)).astype(right.dtype)]

        engine.add(PythonStep("faulty", reads, writes, function=function))
        return True

    monkeypatch.setitem(LOWERINGS, op, lowering)


def reference_with(**changed: Any) -> Spoil:
    """The op with other attributes than those asked for."""

    def spoil(operation: Any, inputs: list[np.ndarray], right: np.ndarray) -> np.ndarray:
        attributes = {**operation.attributes, **changed}
        found: np.ndarray = operation.definition.reference(*inputs, **attributes)
        return found

    return spoil


def last_element(factor: float) -> Spoil:
    """One element is off by a factor."""

    def spoil(operation: Any, inputs: list[np.ndarray], right: np.ndarray) -> np.ndarray:
        found = right.copy()
        found.reshape(-1)[-1] *= factor
        return found

    return spoil


def half_precision(operation: Any, inputs: list[np.ndarray], right: np.ndarray) -> np.ndarray:
    """Rounded to float16 on the way, as fast modes of hardware do."""
    return right.astype(np.float16)
