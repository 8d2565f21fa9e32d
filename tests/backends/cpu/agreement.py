"""Runs a small graph on the engine and on the reference, and compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tests.ops.harness import assert_close

import stepgraph as sg
from stepgraph.backends.cpu.plan import PythonStep

# What kernels meet: one channel, less than a panel, a panel, a lane more, several panels.
CHANNELS = (1, 3, 16, 17, 40)


def compiled(
    make: Callable[..., Any], arrays: Sequence[np.ndarray], device: str = "cpu"
) -> tuple[Any, list[sg.Tensor]]:
    """An executable of ``make(graph, *placeholders)`` and its feeds."""
    graph = sg.Graph()
    feeds = [graph.placeholder(a.shape, a.dtype.name) for a in arrays]
    made = make(graph, *feeds)
    targets = [made] if isinstance(made, sg.Tensor) else list(made)
    return graph.compile(feeds=feeds, targets=targets, device=device), feeds


def agree(
    make: Callable[..., Any],
    arrays: Sequence[np.ndarray],
    tolerance: float = 2e-5,
    native: bool = True,
) -> None:
    """The engine gives what the reference gives, if `native` without any op's reference."""
    executable, feeds = compiled(make, arrays)
    steps = [s.name for s in executable._chosen(None).steps if isinstance(s, PythonStep)]
    steps = [name for name in steps if name.endswith("(NumPy)")]
    assert not (native and steps), steps
    given = dict(zip(feeds, arrays, strict=True))
    got = executable.run(given)
    again = executable.run(given)
    reference, feeds = compiled(make, arrays, "reference")
    wanted = reference.run(dict(zip(feeds, arrays, strict=True)))
    for first, second, expected in zip(got, again, wanted, strict=True):
        np.testing.assert_array_equal(first, second)
        assert first.dtype == expected.dtype
        assert_close(first, expected, tolerance)
