"""What a run is: everything that its numbers follow from, as ``config.json`` holds it."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from stepgraph import __version__
from stepgraph.datasets import Normalize
from stepgraph.errors import CheckpointError, describe

FORMAT = 1

# What may differ when a run goes on: how long, how often saved, where.
CHANGEABLE = ("epochs", "steps", "checkpoint_every", "data", "device", "threads")


@dataclass(frozen=True)
class RunConfig:
    """Configuration of a training run.

    Attributes:
        model: a name in `stepgraph.applications.APPLICATIONS`.
        model_options: further arguments of its builder.
        dataset: name or path, as `stepgraph.datasets.load` takes it.
        data: folder or archive of a known data set; None to look where it is expected.
        image_size: height and width that pictures are brought to; None keeps theirs.
        channels: 1, 3, or None to keep them.
        image_shape: height, width, channels that the network takes.
        class_names: in the order of the network's outputs.
        pixels: dtype of the data set's pictures: uint8, scaled to 0..1, or float32, taken as it is.
        data_sha256: of both sets' pictures and labels, so that a run goes on with the same ones.
        epochs: passes over the training set; None if `steps` says it alone.
        steps: steps in all; None if `epochs` says it alone.
        batch_size: pictures a step.
        augment: a name in `stepgraph.runs.defaults.AUGMENTS`.
        mean: of each channel, taken off; None for none.
        std: of each channel, divided by.
        optimizer: a name in `stepgraph.runs.defaults.OPTIMIZERS`.
        learning_rate: at the start.
        schedule: a name in `stepgraph.runs.defaults.SCHEDULES`.
        schedule_steps: number of steps the schedule is laid out for.
        momentum: of the optimizer; None where it has none.
        weight_decay: part of each weight taken off a step, times the learning rate.
        clip_norm: largest norm of all gradients together.
        seed: of initial weights, order, augmentation, dropout.
        device: name of the device.
        threads: of the device; None for all processors.
        checkpoint_every: steps between checkpoints; None to go by the clock.
    """

    model: str
    model_options: dict[str, Any]
    dataset: str
    data: str | None
    image_size: int | None
    channels: int | None
    image_shape: list[int]
    class_names: list[str]
    pixels: str
    data_sha256: str
    epochs: int | None
    steps: int | None
    batch_size: int
    augment: str
    mean: list[float] | None
    std: list[float] | None
    optimizer: str
    learning_rate: float
    schedule: str
    schedule_steps: int
    momentum: float | None
    weight_decay: float | None
    clip_norm: float | None
    seed: int
    device: str
    threads: int | None
    checkpoint_every: int | None

    def total_steps(self, steps_per_epoch: int) -> int:
        """Steps in all, for a number of steps in an epoch.

        Example:
            >>> import dataclasses
            >>> blank = RunConfig(*[None] * len(dataclasses.fields(RunConfig)))
            >>> dataclasses.replace(blank, epochs=3).total_steps(20)
            60
            >>> dataclasses.replace(blank, epochs=3, steps=50).total_steps(20)
            50
        """
        return total_steps(self.epochs, self.steps, steps_per_epoch)

    @property
    def normalization(self) -> Normalize | None:
        """What is done to every picture's channels."""
        if self.mean is None or self.std is None:
            return None
        return Normalize(tuple(self.mean), tuple(self.std))

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain values, the same on every platform."""
        return {"format": FORMAT, "stepgraph": __version__, **asdict(self)}

    def changed(self, **values: Any) -> RunConfig:
        """Returns a copy with other values."""
        return replace(self, **values)


def total_steps(epochs: int | None, steps: int | None, steps_per_epoch: int) -> int:
    """Steps in all: those of the epochs, or the given ones if fewer."""
    limits = [] if epochs is None else [epochs * steps_per_epoch]
    return min(limits + ([] if steps is None else [steps]), default=0)


def from_json(what: str, values: Mapping[str, Any]) -> RunConfig:
    """The configuration that `RunConfig.to_json` described.

    Args:
        what: opens error messages, such as "runs/a/config.json".
        values: from the file.

    Raises:
        CheckpointError: something is missing, unknown or of another type; the message lists it.
    """
    if values.get("format") != FORMAT:
        raise CheckpointError(
            describe(
                what,
                f"format {values.get('format')!r} is not known here",
                expected=f"format {FORMAT}",
                fix="use the version of stepgraph that wrote it, or a newer one",
            )
        )
    given = {name: value for name, value in values.items() if name not in ("format", "stepgraph")}
    hints = typing.get_type_hints(RunConfig)
    names = [field.name for field in fields(RunConfig)]
    faults: dict[str, object] = {}
    for name in names:
        if name not in given:
            faults[name] = "missing"
        elif not _fits(given[name], hints[name]):
            faults[name] = f"{given[name]!r:.60} is no {_type_name(hints[name])}"
    for name in given:
        if name not in names:
            faults[name] = "unknown"
    if faults:
        raise CheckpointError(
            describe(what, "is no configuration of a run", got=dict(list(faults.items())[:10]))
        )
    return RunConfig(**given)


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_fits(value, part) for part in hint.__args__)
    origin = typing.get_origin(hint)
    if origin is list:
        return isinstance(value, list) and all(_fits(v, hint.__args__[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict)
    if hint is type(None):
        return value is None
    if isinstance(value, bool):
        return hint is bool
    if hint is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, hint)


def _type_name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)) if typing.get_origin(hint) is None else str(hint)
