"""Turns an op's registered samples into graphs, values and gradients."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import stepgraph as sg
from stepgraph.graph.definition import OpDefinition, Sample
from stepgraph.graph.ops import OPS

# Relative to the largest element; looser only where a sample says why.
VALUE_TOLERANCE = {"float16": 2e-3, "float32": 2e-5, "float64": 1e-10}
GRADIENT_TOLERANCE = 2e-6


def rng_of(name: str) -> np.random.Generator:
    """Seeded by the op's name, so that a new op does not reshuffle the others."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def cases() -> list[Any]:
    """Every sample of every op, as pytest parameters."""
    found: list[Any] = []
    for name, definition in OPS.items():
        if definition.samples is None:
            continue
        for i, sample in enumerate(definition.samples(rng_of(name))):
            label = f"{name}-{i}-{sample.label}".rstrip("-").replace(" ", "_")
            found.append(pytest.param(definition, sample, id=label))
    return found


def arrays_of(sample: Sample) -> list[np.ndarray]:
    """The arrays among a sample's inputs, lists flattened."""
    found: list[np.ndarray] = []
    for item in sample.inputs:
        if isinstance(item, np.ndarray):
            found.append(item)
        elif (
            isinstance(item, (list, tuple))
            and item
            and all(isinstance(a, np.ndarray) for a in item)
        ):
            found.extend(item)
    return found


def build(
    definition: OpDefinition, sample: Sample, arrays: Sequence[np.ndarray]
) -> tuple[sg.Graph, list[sg.Tensor], list[sg.Tensor]]:
    """A graph with placeholders for the arrays: (graph, placeholders, outputs)."""
    graph = sg.Graph(definition.name)
    placeholders = [graph.placeholder(a.shape, a.dtype, name=f"x{i}") for i, a in enumerate(arrays)]
    queue = list(placeholders)
    positional: list[Any] = []
    for item in sample.inputs:
        if isinstance(item, np.ndarray):
            positional.append(queue.pop(0))
        elif (
            isinstance(item, (list, tuple))
            and item
            and all(isinstance(a, np.ndarray) for a in item)
        ):
            positional.append([queue.pop(0) for _ in item])
        else:
            positional.append(item)
    made = getattr(graph, definition.name)(*positional, **sample.arguments)
    outputs = [made] if isinstance(made, sg.Tensor) else list(made)
    return graph, placeholders, outputs


def run(
    definition: OpDefinition,
    sample: Sample,
    device: str,
    arrays: Sequence[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """Values of a sample's outputs on a device."""
    arrays = arrays_of(sample) if arrays is None else arrays
    graph, placeholders, outputs = build(definition, sample, arrays)
    return graph.run(dict(zip(placeholders, arrays, strict=True)), outputs, device=device)


def to_float64(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [a.astype("float64") if a.dtype.kind == "f" else a for a in arrays]


def differentiable(sample: Sample) -> list[int]:
    """Positions whose gradients are to be checked."""
    if sample.differentiable is not None:
        return list(sample.differentiable)
    return [i for i, a in enumerate(arrays_of(sample)) if a.dtype.kind == "f"]


def assert_close(got: np.ndarray, wanted: np.ndarray, tolerance: float, what: str = "") -> None:
    """Equal shapes, places of NaN and Inf, and values relative to the largest one."""
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.shape == wanted.shape, f"{what}: shape {got.shape}, wanted {wanted.shape}"
    if wanted.dtype.kind in "bui":
        np.testing.assert_array_equal(got, wanted, err_msg=what)
        return
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted), err_msg=f"{what}: NaN")
    np.testing.assert_array_equal(got[np.isinf(wanted)], wanted[np.isinf(wanted)], err_msg=what)
    scale = max(1.0, float(np.max(np.abs(wanted[finite]), initial=0.0)))
    error = float(np.max(np.abs(got[finite].astype("float64") - wanted[finite]), initial=0.0))
    assert error <= tolerance * scale, f"{what}: off by {error:.3g} at scale {scale:.3g}"
