"""What a run does unless told otherwise, and what can be named: the tables behind the options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepgraph.datasets import Augment

# The default job: the talk's network on images that come with the package. Small batches give the
# moving statistics (momentum 0.99) the several hundred steps that they need to settle.
JOB: dict[str, Any] = {
    "model": "resnet50",
    "dataset": "digits",
    "image_size": 32,
    "channels": 3,
    "epochs": 20,
    "batch_size": 32,
    "optimizer": "adam",
    "schedule": "cosine",
    "normalize": False,
    "augment": "none",
    "seed": 0,
}

# Where a data set wants something else than `JOB`.
PER_DATASET: dict[str, dict[str, Any]] = {
    "cifar10": {"augment": "crop-flip", "normalize": True, "epochs": 30, "batch_size": 64},
    "cifar100": {"augment": "crop-flip", "normalize": True, "epochs": 30, "batch_size": 64},
    "cifar100-coarse": {"augment": "crop-flip", "normalize": True, "epochs": 30, "batch_size": 64},
}

RUNS = Path("runs")
"""Where runs go that are given no ``--run-dir``."""

SAVE_EVERY_SECONDS = 60.0
"""How often a checkpoint is written where ``--checkpoint-every`` does not count steps."""

KEEP_CHECKPOINTS = 2


@dataclass(frozen=True)
class OptimizerChoice:
    """An optimizer by name.

    Attributes:
        keras_name: its class in `stepgraph.optimizers`.
        learning_rate: the default.
        momentum: the default; None where it has none.
        weight_decay: the default.
    """

    keras_name: str
    learning_rate: float
    momentum: float | None = None
    weight_decay: float | None = None


OPTIMIZERS: dict[str, OptimizerChoice] = {
    "sgd": OptimizerChoice("SGD", 0.01, momentum=0.9),
    "adam": OptimizerChoice("Adam", 0.001),
    "adamw": OptimizerChoice("AdamW", 0.001, weight_decay=0.01),
    "rmsprop": OptimizerChoice("RMSprop", 0.001, momentum=0.0),
}


def _constant(rate: float, steps: int) -> Any:
    return rate


def _cosine(rate: float, steps: int) -> Any:
    from stepgraph.schedules import CosineDecay

    return CosineDecay(rate, decay_steps=steps)


def _linear(rate: float, steps: int) -> Any:
    from stepgraph.schedules import PolynomialDecay

    return PolynomialDecay(rate, decay_steps=steps, end_learning_rate=0.0)


def _exponential(rate: float, steps: int) -> Any:
    from stepgraph.schedules import ExponentialDecay

    return ExponentialDecay(rate, decay_steps=steps, decay_rate=0.01)


def _staircase(rate: float, steps: int) -> Any:
    from stepgraph.schedules import PiecewiseConstantDecay

    borders = [float(max(steps * part // 4, 1)) for part in (2, 3)]
    return PiecewiseConstantDecay(borders, [rate, rate / 10, rate / 100])


# Name to (what it does, how it is made of the rate and the planned number of steps).
SCHEDULES: dict[str, tuple[str, Callable[[float, int], Any]]] = {
    "constant": ("the same all the time", _constant),
    "cosine": ("half a cosine down to 0", _cosine),
    "linear": ("a straight line down to 0", _linear),
    "exponential": ("down to a hundredth, by the same factor each step", _exponential),
    "staircase": ("a tenth after half, a hundredth after three quarters", _staircase),
}

# Name to (what it does, the change).
AUGMENTS: dict[str, tuple[str, Augment | None]] = {
    "none": ("pictures as they are", None),
    "crop": ("moved by up to 4 pixels", Augment(crop=4, flip=False)),
    "flip": ("mirrored half of the time", Augment(crop=0, flip=True)),
    "crop-flip": ("both", Augment(crop=4, flip=True)),
}


def for_dataset(name: str) -> dict[str, Any]:
    """The defaults for a data set.

    Example:
        >>> for_dataset("digits")["augment"], for_dataset("cifar10")["augment"]
        ('none', 'crop-flip')
    """
    return {**JOB, **PER_DATASET.get(name, {})}
