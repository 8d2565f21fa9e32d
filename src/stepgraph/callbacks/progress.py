"""Callbacks that write down how training goes."""

from __future__ import annotations

import csv
import os
import sys
import time
from pathlib import Path
from typing import TextIO

from stepgraph.callbacks.base import Callback, Logs

# Seconds between two versions of the moving line.
_PAUSE = 0.1


class ProgressLogger(Callback):
    """A line of plain text per epoch; with ``verbose=1`` it moves while the epoch runs.

    Args:
        stream: where to write; standard output without it.
        evaluating: whether this is for an evaluation of its own.
    """

    def __init__(self, stream: TextIO | None = None, evaluating: bool = False) -> None:
        super().__init__()
        self.stream = stream
        self.evaluating = evaluating
        self._started = self._written = 0.0
        self._epoch = self._done = self._width = 0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Starts the line."""
        self._epoch, self._done = epoch, 0
        self._started = time.perf_counter()
        self._written = 0.0

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Moves the line."""
        self._done = batch + 1
        now = time.perf_counter()
        if self.params.get("verbose") == 1 and now - self._written > _PAUSE:
            self._written = now
            self._show(logs or {}, end=False)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Ends the line."""
        self._show(logs or {}, end=True)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Starts the line of an evaluation."""
        if self.evaluating:
            self._started, self._done = time.perf_counter(), 0

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Counts the batches of an evaluation."""
        if self.evaluating:
            self._done = batch + 1

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Writes the line of an evaluation."""
        if self.evaluating:
            self._show(logs or {}, end=True)

    def _show(self, logs: Logs, end: bool) -> None:
        steps = self.params.get("steps")
        seconds = time.perf_counter() - self._started
        parts = [f"{self._done}/{steps or '?'}" if not end else f"{self._done} steps"]
        if not self.evaluating:
            parts.insert(0, f"Epoch {self._epoch + 1}/{self.params.get('epochs')}")
        parts.append(f"{seconds:.1f}s {1000 * seconds / max(1, self._done):.1f}ms/step")
        parts += [f"{name}: {value:.4g}" for name, value in logs.items()]
        line = " - ".join(parts)
        stream = self.stream or sys.stdout
        moving = self.params.get("verbose") == 1
        start = "\r" if moving and (not self.evaluating or not end) else ""
        stream.write(start + line.ljust(self._width if moving else 0) + ("\n" if end else ""))
        stream.flush()
        self._width = 0 if end else len(line)


class CSVLogger(Callback):
    """Writes a row per epoch to a file.

    Args:
        filename: of the file.
        separator: between columns.
        append: go on with an existing file.

    Source: Keras ``CSVLogger``.
    """

    def __init__(
        self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False
    ) -> None:
        super().__init__()
        self.filename = filename
        self.separator = separator
        self.append = append
        self._columns: list[str] = []

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Empties the file, or reads the columns of one that goes on."""
        path = Path(self.filename)
        self._columns = []
        if not self.append:
            path.write_text("", encoding="utf-8")
        elif path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self._columns = next(csv.reader(file, delimiter=self.separator), [])

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Writes a row; the first decides the columns."""
        row = {"epoch": epoch, **(logs or {})}
        # Opened anew each time, so that no accident in training leaves it open.
        with Path(self.filename).open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(
                file,
                self._columns or ["epoch", *sorted(logs or {})],
                extrasaction="ignore",
                restval="NA",
                delimiter=self.separator,
                lineterminator="\n",
            )
            if not self._columns:
                writer.writeheader()
            self._columns = list(writer.fieldnames)
            writer.writerow(row)
