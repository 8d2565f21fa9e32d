"""What happens while a network is trained, as those who report it see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Started:
    """Training begins or goes on.

    Attributes:
        model: its name.
        parameters: number of weights' elements.
        dataset: the training set in words.
        train_images: pictures in the training set.
        test_images: pictures in the test set.
        optimizer: in words.
        device: its name and what it is.
        run_dir: where everything goes.
        epochs: how many passes the steps make, the last perhaps unfinished.
        total: steps in all.
        step: steps made already.
        seed: of the run.
    """

    model: str
    parameters: int
    dataset: str
    train_images: int
    test_images: int
    optimizer: str
    device: str
    run_dir: Path
    epochs: int
    total: int
    step: int
    seed: int


@dataclass(frozen=True)
class Stepped:
    """A step was made.

    Attributes:
        step: its number from 1.
        total: steps in all.
        epoch: its epoch from 1.
        epochs: epochs in all.
        epoch_step: its place in the epoch, from 1.
        epoch_steps: steps of an epoch.
        loss: on its batch.
        accuracy: on its batch.
        images_per_second: of late; None after the first step, which compiles.
        seconds_left: to the end of training; None likewise.
    """

    step: int
    total: int
    epoch: int
    epochs: int
    epoch_step: int
    epoch_steps: int
    loss: float
    accuracy: float
    images_per_second: float | None
    seconds_left: float | None


@dataclass(frozen=True)
class Seen:
    """The batch that a step was made with.

    Attributes:
        x: pictures as the network takes them, float32 ``(B, H, W, C)``, or what stands for them
            until `numpy.asarray` asks (`Batches.deferred`).
        y: one-hot labels, float32 ``(B, classes)``.
        predict: probabilities ``(N, classes)`` of pictures ``(N, H, W, C)``, by the network as it
            is now. To be called before the reporter's method returns; the step waits for it.
        planned: bytes of intermediate values that the device planned for the step.
    """

    x: Any
    y: NDArray[np.float32]
    predict: Callable[[Any], NDArray[np.float32]]
    planned: Callable[[], int] = lambda: 0


@dataclass(frozen=True)
class Validated:
    """An epoch, or all training, has ended, and the test set was looked at.

    Attributes:
        step: steps made.
        epoch: from 1.
        epochs: in all.
        loss: mean over the epoch's steps.
        accuracy: likewise.
        val_loss: on the test set.
        val_accuracy: on the test set.
        seconds: that the epoch took in this process, looking at the test set included.
    """

    step: int
    epoch: int
    epochs: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float


@dataclass(frozen=True)
class Ended:
    """Training has ended.

    Attributes:
        status: "done", "stopped" (saved first), or "aborted" (not saved).
        step: steps made.
        total: steps planned.
        saved_step: step of the newest checkpoint; None if there is none.
        seconds: in this process.
        val_loss: of the last look at the test set; None if there was none in this process.
        val_accuracy: likewise.
        run_dir: the run directory.
        command: what goes on with the training.
    """

    status: str
    step: int
    total: int
    saved_step: int | None
    seconds: float
    val_loss: float | None
    val_accuracy: float | None
    run_dir: Path
    command: str


class Reporter(Protocol):
    """Somebody who tells of it."""

    def preparing(self, what: str) -> None:
        """Something is done before training that may take seconds."""

    def started(self, event: Started) -> None:
        """Training begins or goes on."""

    def stepped(self, event: Stepped) -> None:
        """A step was made."""

    def seen(self, batch: Seen) -> None:
        """A step was made with this batch; told after `stepped`."""

    def validating(self, done: int, total: int) -> None:
        """So many pictures of the test set were looked at."""

    def validated(self, event: Validated) -> None:
        """An epoch has ended."""

    def saved(self, step: int, path: Path) -> None:
        """A checkpoint was written."""

    def note(self, message: str) -> None:
        """Something is not as might be expected."""

    def ended(self, event: Ended) -> None:
        """Training has ended."""

    def close(self) -> None:
        """Gives the terminal back; may be called twice."""


class Several:
    """Passes all on to several reporters, in their order."""

    def __init__(self, *reporters: Reporter) -> None:
        self._reporters = reporters

    def __getattr__(self, name: str) -> Callable[..., None]:
        def tell(*values: Any) -> None:
            for reporter in self._reporters:
                getattr(reporter, name)(*values)

        return tell
