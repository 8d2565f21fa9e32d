"""Every op by itself: the samples that its definition comes with, on a device."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stepgraph.errors import UnsupportedError
from stepgraph.graph.definition import Array, OpDefinition, Sample
from stepgraph.graph.graph import Graph
from stepgraph.graph.ops import OPS
from stepgraph.graph.tensor import Tensor
from stepgraph.verification.operations import check_operations, pure_step
from stepgraph.verification.report import Report


def verify_ops(
    device: str = "cpu",
    names: Sequence[str] | None = None,
    progress: Callable[[str, str], None] | None = None,
) -> Report:
    """Runs the samples of every op on a device and holds them against float64.

    Args:
        device: to be checked.
        names: ops to run; all without it.
        progress: told before each sample: the op's name, what is special about the sample.

    Returns:
        A `Report` with a check for every operation run; samples that the device says it cannot run
        (dtypes it lacks) are left out.

    Example:
        >>> verify_ops("reference", ["relu", "softmax"]).agrees
        True
    """
    report = Report("ops" if names is None else ", ".join(names), device)
    for name, definition in OPS.items():
        if definition.samples is None or (names is not None and name not in names):
            continue
        # The generator is seeded by the op's name, so that a new op does not change the others.
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        for sample in definition.samples(rng):
            if progress is not None:
                progress(name, sample.label)
            graph, feeds, targets = sample_graph(definition, sample)
            try:
                step = pure_step(graph, feeds, targets, (), device)
                given = step.given(
                    {t.name: a for t, a in feeds.items()},
                    {n: graph.variables[n].initial for n in step.variables},
                )
                checks, _ = check_operations(step, given, device)
            except UnsupportedError:
                continue
            report.operations += checks
    return report


def sample_graph(
    definition: OpDefinition, sample: Sample
) -> tuple[Graph, dict[Tensor, Array], list[Tensor]]:
    """A sample as a graph: its placeholders with their values, its outputs."""
    graph = Graph(definition.name)
    feeds: dict[Tensor, Array] = {}

    def operand(item: Any) -> Any:
        if isinstance(item, np.ndarray):
            tensor = graph.placeholder(item.shape, item.dtype, name=f"x{len(feeds)}")
            feeds[tensor] = item
            return tensor
        several = isinstance(item, list | tuple) and item
        if several and all(isinstance(part, np.ndarray) for part in item):
            return [operand(part) for part in item]
        return item

    made = getattr(graph, definition.name)(*map(operand, sample.inputs), **sample.arguments)
    return graph, feeds, [made] if isinstance(made, Tensor) else list(made)
