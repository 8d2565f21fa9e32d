"""The training loop: steps, looks at the test set, records, checkpoints."""

from __future__ import annotations

import math
import shlex
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from stepgraph.checkpoints import Array, Checkpoint, RunDirectory
from stepgraph.datasets import Batches, Splits
from stepgraph.errors import NumericsError, describe
from stepgraph.runs.config import RunConfig
from stepgraph.runs.defaults import AUGMENTS, KEEP_CHECKPOINTS, SAVE_EVERY_SECONDS
from stepgraph.runs.events import Ended, Reporter, Seen, Stepped, Validated
from stepgraph.runs.learner import Learner
from stepgraph.runs.scoring import score

# Of a step's time, how much of the newest one goes into the running mean that the speed is told by.
_NEWEST = 0.1
_PREFETCH = 2  # batches prepared ahead


class Stop(Protocol):
    """Somebody who may want training to end."""

    @property
    def requested(self) -> bool:
        """Whether it should end after the present step, and save."""


class Training:
    """One process's part of a run.

    Args:
        config: of the run.
        run: where to, within its `training`.
        splits: training and test set.
        learner: with the state of `start`.
        start: the checkpoint to go on from; None at the beginning.
        reporter: who tells of it.
        stop: asked after each step.
    """

    def __init__(
        self,
        config: RunConfig,
        run: RunDirectory,
        splits: Splits,
        learner: Learner,
        start: Checkpoint | None,
        reporter: Reporter,
        stop: Stop,
    ) -> None:
        self.config = config
        self.run_directory = run
        self.learner = learner
        self.reporter = reporter
        self.stop = stop
        self.test = splits.test
        self.save_every_seconds = SAVE_EVERY_SECONDS  # where steps are not counted
        self.batches = make_batches(config, splits)
        self.total = config.total_steps(self.batches.steps_per_epoch)
        self.step = start.step if start else 0
        self.place = (start.epoch, start.epoch_step) if start else (0, 0)
        self.saved_step = start.step if start else None
        self.metrics, self.timing = run.records()
        self._began = self._epoch_began = self._saved_at = time.monotonic()
        self._sums = self._sums_so_far()
        self._mean_seconds: float | None = None
        self._test_seconds = 0.0
        self._last: Validated | None = None

    @property
    def epochs(self) -> int:
        """Epochs in all, the last one perhaps unfinished."""
        return max(math.ceil(self.total / self.batches.steps_per_epoch), 1)

    def train(self) -> Ended:
        """Trains to the end, or until asked to stop; saves in either case.

        Raises:
            NumericsError: the loss, or a weight, is not finite; nothing of that is saved.
            CheckpointError: something could not be saved; earlier checkpoints stay.
        """
        try:
            self._train()
        except KeyboardInterrupt:
            return self._ended("aborted")
        finally:
            self.metrics.close()
            self.timing.close()
        return self._ended("done" if self.step >= self.total else "stopped")

    def _train(self) -> None:
        every = self.config.checkpoint_every
        # Where a device writes pictures itself, a thread that does it would only be in its way.
        how: dict[str, Any] = {"deferred": True} if self.learner.defers else {"prefetch": _PREFETCH}
        with self.batches.stream(*self.place, **how) as stream:
            while self.step < self.total and not self.stop.requested:
                began = time.monotonic()
                epoch, epoch_step = stream.state
                x, y = next(stream)
                loss, accuracy = self._learn(x, y)
                self.step += 1
                self.place = stream.state
                self._sums += (loss, accuracy, 1)
                seconds = time.monotonic() - began
                self._tell_step(epoch, epoch_step, loss, accuracy, seconds)
                learner = self.learner
                self.reporter.seen(Seen(x, y, learner.predict, learner.planned_bytes))
                record = {"step": self.step, "epoch": epoch + 1, "loss": loss, "accuracy": accuracy}
                ended = stream.state.step == 0
                if ended or self.step == self.total:
                    record.update(self._validate(epoch))
                self.metrics.append(record)
                self.timing.append({"step": self.step, "seconds": round(seconds, 6)})
                if self._save_is_due(every):
                    self.save()
        if self.saved_step != self.step:
            self.save()

    def _learn(self, x: Any, y: Array) -> tuple[float, float]:
        step = self.step + 1
        try:
            loss, accuracy = self.learner.step(x, y)
        except NumericsError as error:
            raise self._not_finite("the loss became NaN or infinite", step) from error
        if not math.isfinite(loss):
            raise self._not_finite(f"the loss became {loss}", step)
        return loss, accuracy

    def save(self) -> None:
        """Writes a checkpoint of the present state.

        Raises:
            NumericsError: a weight is not finite.
            CheckpointError: it cannot be written.
        """
        arrays = self.learner.arrays()
        for name, value in arrays.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise self._not_finite(f"'{name}' is no longer finite", self.step)
        self.metrics.sync()
        epoch, epoch_step = self.place
        checkpoint = Checkpoint(self.step, epoch, epoch_step, self.config.seed, arrays)
        path = self.run_directory.save(checkpoint, KEEP_CHECKPOINTS)
        self.saved_step = self.step
        self._saved_at = time.monotonic()
        self.reporter.saved(self.step, path)

    def _save_is_due(self, every: int | None) -> bool:
        if every is not None:
            return self.step % every == 0
        return time.monotonic() - self._saved_at >= self.save_every_seconds

    def _validate(self, epoch: int) -> dict[str, float]:
        """Looks at the test set, tells of it, and begins a new epoch's account."""
        began = time.monotonic()
        total = len(self.test)
        found = score(
            self.learner.predict,
            self.test,
            self.config.batch_size,
            self.config.normalization,
            lambda done: self.reporter.validating(done, total),
        )
        now = time.monotonic()
        self._test_seconds = now - began
        values = {"val_loss": found.loss, "val_accuracy": found.accuracy}
        if not math.isfinite(found.loss):
            raise self._not_finite(f"the loss on the test set became {found.loss}", self.step)
        loss, accuracy, count = self._sums
        self._last = Validated(
            self.step,
            epoch + 1,
            self.epochs,
            loss / count,
            accuracy / count,
            **values,
            seconds=now - self._epoch_began,
        )
        self.reporter.validated(self._last)
        self._epoch_began = now
        self._sums = np.zeros(3)
        return values

    def _tell_step(
        self, epoch: int, epoch_step: int, loss: float, accuracy: float, seconds: float
    ) -> None:
        left = speed = None
        if self._mean_seconds is None:
            # The first step compiles; the second one begins the mean.
            self._mean_seconds = math.nan
        else:
            mean = self._mean_seconds
            mean = seconds if math.isnan(mean) else mean + _NEWEST * (seconds - mean)
            self._mean_seconds = mean
            looks = self.epochs - epoch
            left = mean * (self.total - self.step) + looks * self._test_seconds
            speed = self.config.batch_size / max(mean, 1e-9)
        self.reporter.stepped(
            Stepped(
                self.step,
                self.total,
                epoch + 1,
                self.epochs,
                epoch_step + 1,
                self.batches.steps_per_epoch,
                loss,
                accuracy,
                speed,
                left,
            )
        )

    def _sums_so_far(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Loss, accuracy and number of the steps that the present epoch has seen already."""
        sums = np.zeros(3)
        if self.place[1]:
            for record in self.run_directory.read_metrics()[-self.place[1] :]:
                if record.get("epoch") == self.place[0] + 1:
                    sums += (record["loss"], record["accuracy"], 1)
        return sums

    def _not_finite(self, fault: str, step: int) -> NumericsError:
        epoch = (step - 1) // self.batches.steps_per_epoch + 1
        kept = "none" if self.saved_step is None else f"step {self.saved_step}"
        return NumericsError(
            describe(
                "train",
                f"{fault} at step {step} of {self.total} (epoch {epoch})",
                got={"last good checkpoint": f"{kept} in {self.run_directory.path}"},
                fix="a smaller --learning-rate, or --clip-norm 1, in a new run directory",
            )
        )

    def _ended(self, status: str) -> Ended:
        last = self._last
        return Ended(
            status,
            self.step,
            self.total,
            self.saved_step,
            time.monotonic() - self._began,
            last.val_loss if last else None,
            last.val_accuracy if last else None,
            self.run_directory.path,
            resume_command(self.run_directory.path),
        )


def make_batches(config: RunConfig, splits: Splits) -> Batches:
    """The training set's batches: functions of the configuration and their place alone."""
    return Batches(
        splits.train,
        config.batch_size,
        seed=config.seed,
        augment=AUGMENTS[config.augment][1],
        normalize=config.normalization,
    )


def resume_command(run_dir: Path) -> str:
    """The command that goes on with a run."""
    return f"stepgraph train --resume --run-dir {shlex.quote(str(run_dir))}"
