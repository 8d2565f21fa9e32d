"""A run directory: the files that a training run leaves, and goes on from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stepgraph.checkpoints import checkpoint as checkpoints
from stepgraph.checkpoints.checkpoint import Check, Checkpoint
from stepgraph.checkpoints.files import remove_folder, remove_leftovers, saving, write_file
from stepgraph.checkpoints.lock import Lock
from stepgraph.checkpoints.records import Records, cut_records, read_records
from stepgraph.errors import CheckpointError, describe

CONFIG = "config.json"
METRICS = ("step", "epoch", "loss", "accuracy")
"""What each line of ``metrics.jsonl`` says; ``val_loss``, ``val_accuracy`` at an epoch's end."""
_MAX_CONFIG = 16 << 20


class RunDirectory:
    """``config.json``, ``metrics.jsonl``, ``timing.jsonl`` and ``checkpoints/`` of a training run.

    ``metrics.jsonl`` holds what depends on the configuration alone: an interrupted run that was
    resumed leaves the same bytes as one that never stopped. What the clock says is in
    ``timing.jsonl``.

    Args:
        path: the folder; `training` makes it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = RunDirectory(Path(folder) / "run")
        ...     with run.training():
        ...         run.write_config({"model": "mlp"})
        ...         run.save(Checkpoint(3, 0, 3, seed=0, arrays={})).name
        ...     RunDirectory(run.path).read_config()
        'step-000000003'
        {'model': 'mlp'}
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.metrics = self.path / "metrics.jsonl"
        self.timing = self.path / "timing.jsonl"
        self.checkpoints = self.path / "checkpoints"

    @property
    def exists(self) -> bool:
        """Whether a run was ever started in it."""
        return (self.path / CONFIG).is_file()

    @contextmanager
    def training(self) -> Iterator[None]:
        """Makes the folder if needed and keeps other training processes out.

        Raises:
            CheckpointError: another process trains into it, or it cannot be written.
        """
        with saving(self.path):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            lock = Lock(self.path / "lock")
            lock.acquire()
        try:
            remove_leftovers(self.path)
            remove_leftovers(self.checkpoints)
            yield
        finally:
            lock.release()

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes ``config.json``.

        Raises:
            CheckpointError: it cannot be written.
        """
        text = json.dumps(config, indent=2, allow_nan=False) + "\n"
        with saving(self.path / CONFIG):
            write_file(self.path / CONFIG, text.encode())

    def read_config(self) -> dict[str, Any]:
        """Reads ``config.json``.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        path = self.path / CONFIG
        what = f"run directory {self.path}"
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_CONFIG)
            config = json.loads(data)
        except FileNotFoundError:
            raise CheckpointError(
                describe(
                    what,
                    f"there is no {CONFIG} in it" if self.path.is_dir() else "does not exist",
                    fix="name a folder that `stepgraph train` made, or leave --resume out",
                )
            ) from None
        except OSError as error:
            raise CheckpointError(describe(what, error.strerror or str(error))) from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(describe(what, f"{CONFIG} is not readable: {error}")) from error
        if not isinstance(config, dict):
            raise CheckpointError(describe(what, f"{CONFIG} is no JSON object"))
        return config

    def save(self, checkpoint: Checkpoint, keep: int = 2) -> Path:
        """Writes a checkpoint; see `stepgraph.checkpoints.save`."""
        return checkpoints.save(self.checkpoints, checkpoint, keep)

    def newest(self, check: Check | None = None) -> tuple[Checkpoint | None, list[str]]:
        """Loads the newest good checkpoint; see `stepgraph.checkpoints.newest`."""
        return checkpoints.newest(self.checkpoints, check)

    def rewind(self, step: int) -> list[str]:
        """Makes the folder what it was after `step`; to be called within `training`.

        Records of later steps are cut; later checkpoints, which are damaged ones, are set aside
        under another name.

        Returns:
            Notes on what is not as it should be.

        Raises:
            CheckpointError: something cannot be written.
        """
        notes = []
        with saving(self.checkpoints):
            for path in checkpoints.list_checkpoints(self.checkpoints):
                if path.name > checkpoints.folder_name(step):
                    aside = path.with_name(f"damaged-{path.name}")
                    if aside.exists():
                        remove_folder(aside)
                    os.rename(path, aside)
        cut_records(self.timing, step)
        found = cut_records(self.metrics, step)
        if found != step:
            notes.append(f"{self.metrics.name} has {found:,} of {step:,} steps; it was changed")
        return notes

    def records(self) -> tuple[Records, Records]:
        """Opens ``metrics.jsonl`` and ``timing.jsonl`` for appending."""
        return Records(self.metrics), Records(self.timing)

    def read_metrics(self) -> list[dict[str, Any]]:
        """All records of ``metrics.jsonl``.

        Raises:
            CheckpointError: there are none, or a line is damaged.
        """
        records = read_records(self.metrics)
        for number, record in enumerate(records, 1):
            wrong = [key for key in METRICS if not isinstance(record.get(key), int | float)]
            if wrong:
                raise CheckpointError(
                    describe(
                        f"read {self.metrics}",
                        f"line {number} has no number for {', '.join(wrong)}",
                        fix="remove the line",
                    )
                )
        return records
