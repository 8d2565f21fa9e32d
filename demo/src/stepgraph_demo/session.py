"""Training as the app has it: on a thread of its own, to be paused, resumed, stopped, looked at.

Nothing here knows a widget. The app asks `Session.view` as often as it redraws, and gives its
commands from the UI's thread; each returns at once.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepgraph.checkpoints import RunDirectory
from stepgraph.checkpoints.checkpoint import list_checkpoints
from stepgraph.datasets import Splits
from stepgraph.errors import CheckpointError, StepgraphError
from stepgraph.runs.beginning import begin, new_folder, settle_new, settle_resumed
from stepgraph.runs.config import RunConfig
from stepgraph.runs.learner import Learner
from stepgraph.runs.live import Live, View
from stepgraph.runs.loading import read_config
from stepgraph.runs.scoring import Scores, score
from stepgraph.runs.training import Training

SAVE_EVERY_SECONDS = 10.0
"""How often the app saves: a phone ends apps without asking."""

LEFT = "left"
"""An empty file in a run directory says that nobody wants to go on with it."""


@dataclass(frozen=True)
class Unfinished:
    """A run that was interrupted.

    Attributes:
        path: its run directory.
        config: what it is.
        step: of the newest checkpoint.
    """

    path: Path
    config: RunConfig
    step: int

    @property
    def total(self) -> int:
        """Steps planned."""
        return self.config.schedule_steps


def newest_unfinished(runs: Path) -> Unfinished | None:
    """The run that was interrupted last, if there is one with anything to go on from."""
    found = []
    for path in runs.glob("*/config.json"):
        run = RunDirectory(path.parent)
        try:
            config = read_config(run)
        except CheckpointError:
            continue
        checkpoints = list_checkpoints(run.checkpoints)
        if not checkpoints or (run.path / LEFT).exists():
            continue
        newest = checkpoints[-1]
        step = int(newest.name.rpartition("-")[2])
        if step < config.schedule_steps:
            found.append((newest.stat().st_mtime, Unfinished(run.path, config, step)))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def leave(run: Path) -> None:
    """Keeps a run from being offered at the next start; all of it stays on disk.

    Raises:
        CheckpointError: that cannot be noted.
    """
    try:
        (run / LEFT).touch()
    except OSError as error:
        raise CheckpointError(f"{run}: {error.strerror or error}") from error


class Session:
    """A run on a thread of its own.

    Args:
        runs: folder of all run directories.
        chosen: settings of a new run, by the names of `RunConfig`; None to go on with `resume`.
        resume: the run directory to go on with.
        changed: settings that a run that goes on may change, such as the device.

    Attributes:
        splits: training and test set, once they were read.
        training: the loop, once it began.
        scores: on the test set, once all is done.
    """

    def __init__(
        self,
        runs: Path,
        chosen: Mapping[str, Any] | None = None,
        resume: Path | None = None,
        changed: Mapping[str, Any] | None = None,
    ) -> None:
        self.runs = runs
        self.live = Live()
        self.splits: Splits | None = None
        self.training: Training | None = None
        self.scores: Scores | None = None
        self._chosen = dict(chosen or {})
        self._resume = resume
        self._changed = dict(changed or {})
        self._stop = threading.Event()
        self._run = threading.Event()  # cleared while paused
        self._run.set()
        self._held = threading.Event()  # set while it waits, or has ended
        self._thread = threading.Thread(target=self._work, name="training", daemon=True)

    def start(self) -> Session:
        """Begins, on the session's thread; returns at once."""
        self.live.preparing("reading the data set")
        self._thread.start()
        return self

    def pause(self, wait: float = 0.0) -> bool:
        """Ends the present step, saves, and waits for `go_on`.

        Args:
            wait: seconds to wait here until all is saved.

        Returns:
            Whether all is saved already.
        """
        self._run.clear()
        return self._held.wait(wait)

    def go_on(self) -> None:
        """Ends a pause."""
        self._run.set()

    def stop(self) -> None:
        """Ends the present step, saves, and ends."""
        self._stop.set()
        self._run.set()

    def join(self, seconds: float | None = None) -> bool:
        """Waits for the end; tells whether it came."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def view(self) -> View:
        """The present moment."""
        return self.live.view()

    @property
    def pausing(self) -> bool:
        """Whether a pause was asked for."""
        return not self._run.is_set()

    @property
    def stopping(self) -> bool:
        """Whether an end was asked for."""
        return self._stop.is_set()

    @property
    def config(self) -> RunConfig | None:
        """What is trained, once it is settled."""
        return self.training.config if self.training else None

    @property
    def requested(self) -> bool:
        """Whether training should end; asked by its thread after each step, which may wait here."""
        if not self._run.is_set() and self.training is not None:
            if self.training.saved_step != self.training.step:
                self.training.save()
            self.live.change(phase="paused")
            self._held.set()
            self._run.wait()
            self._held.clear()
            self.live.change(phase="training")
        return self._stop.is_set()

    def predict(self, picture: NDArray[np.uint8]) -> list[tuple[str, float]]:
        """Classes and their probabilities, likeliest first.

        Args:
            picture: uint8 ``(H, W, C)`` as the network takes it.
        """
        learner, config = self._ready()
        chances = learner.classify(picture[None])[0]
        order = np.argsort(-chances)
        return [(config.class_names[i], float(chances[i])) for i in order]

    def mistakes(self, most: int = 12) -> list[tuple[NDArray[np.uint8], str, str, float]]:
        """Test pictures taken for something else with the greatest confidence.

        Returns:
            Picture, its class, the class it was taken for, the probability of that.
        """
        if self.scores is None or self.splits is None:
            return []
        test, scores = self.splits.test, self.scores
        names = test.class_names
        return [
            (
                test.images[i],
                names[scores.labels[i]],
                names[scores.predicted[i]],
                float(scores.probabilities[i, scores.predicted[i]]),
            )
            for i in scores.worst(most)
        ]

    def export(self, target: Path) -> Path:
        """Copies the run directory into a folder; nothing there is replaced.

        Raises:
            CheckpointError: it cannot be written.
        """
        _, _ = self._ready()
        assert self.training is not None
        source = self.training.run_directory.path
        path, number = target / source.name, 2
        while path.exists():
            path, number = target / f"{source.name}-{number}", number + 1
        try:
            shutil.copytree(source, path, ignore=shutil.ignore_patterns("lock", LEFT))
        except OSError as error:
            raise CheckpointError(f"export to {path}: {error.strerror or error}") from error
        return path

    def _ready(self) -> tuple[Learner, RunConfig]:
        if self.training is None:
            raise CheckpointError("nothing was trained yet")
        return self.training.learner, self.training.config

    def _work(self) -> None:
        try:
            self._train()
        except MemoryError:
            self.live.failed("Out of memory. A smaller batch size or network will do.")
        except StepgraphError as error:
            self.live.failed(str(error))
        except OSError as error:
            self.live.failed(f"{error.strerror or error}: {error.filename or 'the run directory'}")
        except Exception as error:  # whatever it is, the window is to say so
            self.live.failed(f"{type(error).__name__}: {error}")
        finally:
            self._held.set()

    def _train(self) -> None:
        if self._resume is not None:
            run = RunDirectory(self._resume)
            config, splits, remarks = settle_resumed(run, self._changed)
        else:
            config, splits, remarks = settle_new(self._chosen)
            run = RunDirectory(new_folder(config, self.runs))
        self.splits = splits
        live = self.live
        live.class_names, live.normalize = config.class_names, config.normalization
        for remark in remarks:
            live.note(remark)
        with run.training():
            training = begin(run, config, splits, self._resume is not None, live, self)
            if self._resume is not None and training.step:
                live.recall(run.read_metrics())
            training.save_every_seconds = SAVE_EVERY_SECONDS
            self.training = training
            ended = training.train()
            if ended.status == "done":
                live.change(phase="validating", message="looking at the test set", validated=0.0)
                self.scores = score(
                    training.learner.predict,
                    splits.test,
                    config.batch_size,
                    config.normalization,
                    lambda done: live.change(validated=done / len(splits.test)),
                )
            live.ended(ended)
