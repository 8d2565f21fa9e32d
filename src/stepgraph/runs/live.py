"""A run as a picture of the present moment, for whoever draws it: an app, a page.

Training tells `Live` what happens, on its own thread; whoever draws asks for a `View`, on another
one, as often as there is a screen to be refreshed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stepgraph.datasets import Normalize
from stepgraph.runs.events import Ended, Seen, Started, Stepped, Validated
from stepgraph.runs.memory import memory_in_use

PICTURES = 8
"""How many of a batch's pictures are shown."""

PICTURE_SECONDS = 0.5
"""How often the shown pictures change; between that, training is not held up by predicting."""

CURVE_POINTS = 512
"""A curve keeps at most so many points; when it has more, neighbours become one."""


@dataclass(frozen=True)
class Shown:
    """A picture of the batch that was trained on last.

    Attributes:
        pixels: uint8 ``(H, W, C)``, C of 1 or 3.
        truth: its class.
        taken_for: the likeliest class, by the network after the step.
        probability: of that class.
    """

    pixels: NDArray[np.uint8]
    truth: str
    taken_for: str
    probability: float

    @property
    def right(self) -> bool:
        """Whether the likeliest class is the true one."""
        return self.truth == self.taken_for


@dataclass(frozen=True)
class Point:
    """Steps that are next to each other, as one point of a curve.

    Attributes:
        step: the last of them.
        steps: how many.
        loss: mean over them.
        accuracy: likewise.
    """

    step: int
    steps: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Look:
    """A look at the test set.

    Attributes:
        step: steps made before.
        epoch: from 1.
        loss: on the test set.
        accuracy: likewise.
    """

    step: int
    epoch: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class View:
    """What there is to see of a run.

    Attributes:
        phase: "idle", "preparing", "training", "validating", "paused", "done", "stopped" or
            "failed".
        message: what is being prepared, or what went wrong.
        started: what is trained; None before.
        stepped: the newest step.
        curve: loss and accuracy on training batches.
        looks: at the test set, one an epoch.
        pictures: of a batch trained on just now.
        validated: share of the test set that the present look has done.
        memory: bytes that the process holds.
        planned: bytes planned for a step's intermediate values; 0 if not known.
        notes: what is not as might be expected.
        ended: how it ended; None before.
    """

    phase: str = "idle"
    message: str = ""
    started: Started | None = None
    stepped: Stepped | None = None
    curve: tuple[Point, ...] = ()
    looks: tuple[Look, ...] = ()
    pictures: tuple[Shown, ...] = ()
    validated: float = 0.0
    memory: int = 0
    planned: int = 0
    notes: tuple[str, ...] = ()
    ended: Ended | None = None


class Curve:
    """Points of which there are never more than a screen can show.

    Example:
        >>> curve = Curve(2)
        >>> for step in range(1, 5):
        ...     curve.add(Point(step, 1, float(step), 0.0))
        >>> [(p.step, p.steps, p.loss) for p in curve.points]
        [(2, 2, 1.5), (4, 2, 3.5)]
    """

    def __init__(self, most: int = CURVE_POINTS) -> None:
        self._most = most
        self._width = 1
        self.points: list[Point] = []

    def add(self, point: Point) -> None:
        """Takes up the next step."""
        if self.points and self.points[-1].steps < self._width:
            self.points[-1] = _joined(self.points[-1], point)
            return
        self.points.append(point)
        if len(self.points) > self._most:
            self._width *= 2
            pairs = [self.points[i : i + 2] for i in range(0, len(self.points), 2)]
            self.points = [_joined(*p) if len(p) == 2 else p[0] for p in pairs]


def _joined(a: Point, b: Point) -> Point:
    steps = a.steps + b.steps
    loss = (a.loss * a.steps + b.loss * b.steps) / steps
    accuracy = (a.accuracy * a.steps + b.accuracy * b.steps) / steps
    return Point(b.step, steps, loss, accuracy)


def smooth(values: Sequence[float], share: float = 0.9) -> list[float]:
    """A running mean that forgets: each new value has a weight of ``1 - share``.

    The first values are not pulled towards 0 (the mean is divided by the weights so far).

    Example:
        >>> smooth([2.0, 2.0, 8.0], share=0.5)
        [2.0, 2.0, 5.428571428571429]
    """
    found, mean, weight = [], 0.0, 0.0
    for value in values:
        mean = share * mean + (1 - share) * value
        weight = share * weight + (1 - share)
        found.append(mean / weight)
    return found


@dataclass
class Live:
    """The reporter that keeps a `View` up to date; safe to ask from any thread.

    Args:
        class_names: of the network's outputs.
        normalize: what was done to the pictures' channels, to be undone.
        pictures: how many pictures of a batch are shown.
        clock: in seconds.
    """

    class_names: Sequence[str] = ()
    normalize: Normalize | None = None
    pictures: int = PICTURES
    clock: Callable[[], float] = time.monotonic
    _view: View = field(default_factory=View, init=False)
    _curve: Curve = field(default_factory=Curve, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _pictures_at: float | None = field(default=None, init=False)

    def view(self) -> View:
        """The present moment."""
        with self._lock:
            return replace(self._view, curve=tuple(self._curve.points), memory=memory_in_use())

    def change(self, **values: object) -> None:
        """Sets attributes of the view."""
        with self._lock:
            self._view = replace(self._view, **values)  # type: ignore[arg-type]

    def recall(self, records: Sequence[dict[str, float]]) -> None:
        """Takes up the records of a run that goes on, so that its curves begin at the beginning."""
        with self._lock:
            for record in records:
                step = int(record["step"])
                self._curve.add(Point(step, 1, float(record["loss"]), float(record["accuracy"])))
                if "val_loss" in record:
                    self._look(
                        Look(step, int(record["epoch"]), record["val_loss"], record["val_accuracy"])
                    )

    def preparing(self, what: str) -> None:
        """Something is done before training that may take seconds."""
        self.change(phase="preparing", message=what)

    def started(self, event: Started) -> None:
        """Training begins or goes on; its first step compiles."""
        self.change(
            started=event, phase="preparing", message=f"compiling {event.model}", ended=None
        )

    def stepped(self, event: Stepped) -> None:
        """A step was made."""
        point = Point(event.step, 1, event.loss, event.accuracy)
        with self._lock:
            self._curve.add(point)
            self._view = replace(self._view, stepped=event, phase="training", message="")

    def seen(self, batch: Seen) -> None:
        """Predicts some of the batch's pictures, if it is time to."""
        if self._pictures_at is None:
            self.change(planned=batch.planned())
        now = self.clock()
        if self._pictures_at is not None and now - self._pictures_at < PICTURE_SECONDS:
            return
        x, y = np.asarray(batch.x[: self.pictures]), batch.y[: self.pictures]
        found = batch.predict(x)
        pixels = self._pixels(x)
        shown = tuple(
            Shown(picture, self._name(truth), self._name(guess), float(chances[guess]))
            for picture, chances, truth, guess in zip(
                pixels, found, y.argmax(1), found.argmax(1), strict=True
            )
        )
        self._pictures_at = self.clock()
        self.change(pictures=shown)

    def validating(self, done: int, total: int) -> None:
        """So many pictures of the test set were looked at."""
        self.change(phase="validating", validated=done / max(total, 1))

    def validated(self, event: Validated) -> None:
        """An epoch has ended."""
        with self._lock:
            self._look(Look(event.step, event.epoch, event.val_loss, event.val_accuracy))
            self._view = replace(self._view, phase="training")

    def saved(self, step: int, path: Path) -> None:
        """Nothing to be seen."""

    def note(self, message: str) -> None:
        """Something is not as might be expected."""
        with self._lock:
            self._view = replace(self._view, notes=(*self._view.notes, message))

    def ended(self, event: Ended) -> None:
        """Training has ended."""
        self.change(phase="done" if event.status == "done" else "stopped", ended=event)

    def failed(self, message: str) -> None:
        """Training ended by an error."""
        self.change(phase="failed", message=message)

    def close(self) -> None:
        """Nothing to be given back."""

    def _look(self, look: Look) -> None:
        self._view = replace(self._view, looks=(*self._view.looks, look))

    def _name(self, place: int) -> str:
        return self.class_names[place] if place < len(self.class_names) else str(place)

    def _pixels(self, x: NDArray[np.float32]) -> NDArray[np.uint8]:
        if self.normalize is not None:
            mean, std = (
                np.asarray(v, np.float32) for v in (self.normalize.mean, self.normalize.std)
            )
            x = x * std + mean
        return np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)
