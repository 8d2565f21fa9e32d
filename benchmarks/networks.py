"""What the benchmarks train: networks with seeded weights, and seeded batches of real pictures."""

from __future__ import annotations

from stepgraph.datasets import Batch, Batches, load
from stepgraph.models import Model
from stepgraph.rivals.speed import build

__all__ = ["batches", "build"]


def batches(model: Model, size: int, count: int, seed: int) -> list[Batch]:
    """Pictures of digits in the network's shape."""
    height, _, channels = model.input_shape[1:]
    data = load("digits", size=height, channels=channels).train
    source = Batches(data, size, seed=seed)
    return [source.batch(0, step) for step in range(count)]
