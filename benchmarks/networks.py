"""What the benchmarks train: networks with seeded weights, and seeded batches of real pictures."""

from __future__ import annotations

import inspect

from stepgraph import utils
from stepgraph.applications import APPLICATIONS
from stepgraph.datasets import Batch, Batches, load
from stepgraph.models import Model


def build(name: str, seed: int, **options) -> Model:
    """A network without dropout, whose masks no other framework draws."""
    builder = APPLICATIONS[name].builder
    if "dropout" in inspect.signature(builder).parameters:
        options = {"dropout": 0.0, **options}
    utils.set_random_seed(seed)
    return builder(**options)


def batches(model: Model, size: int, count: int, seed: int) -> list[Batch]:
    """Pictures of digits in the network's shape."""
    height, _, channels = model.input_shape[1:]
    data = load("digits", size=height, channels=channels).train
    source = Batches(data, size, seed=seed)
    return [source.batch(0, step) for step in range(count)]
