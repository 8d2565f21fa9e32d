"""Files of one JSON object a line, such as ``metrics.jsonl``: append, read, cut."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stepgraph.checkpoints.files import saving, write_file
from stepgraph.errors import CheckpointError, describe


class Records:
    """Appends records to a file; each line reaches the operating system before `append` returns.

    Args:
        path: the file; made if missing.

    Example:
        >>> import pathlib, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name) / "metrics.jsonl"
        >>> records = Records(path)
        >>> records.append({"step": 1, "loss": 2.5})
        >>> records.close()
        >>> read_records(path)
        [{'step': 1, 'loss': 2.5}]
        >>> folder.cleanup()
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with saving(path):
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def append(self, record: Mapping[str, Any]) -> None:
        """Writes one record.

        Raises:
            CheckpointError: the disk is full or gone. A part of the line may have been written;
                `cut_records` removes it.
            ValueError: a number is not finite, which JSON cannot say.
        """
        data = (json.dumps(record, allow_nan=False) + "\n").encode()
        with saving(self.path):
            while data:
                data = data[os.write(self._handle, data) :]

    def sync(self) -> None:
        """Makes what was appended survive a power failure."""
        with saving(self.path):
            os.fsync(self._handle)

    def close(self) -> None:
        """Closes the file."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def read_records(path: Path) -> list[dict[str, Any]]:
    """Reads all records; a last line that was never finished is left out.

    Raises:
        CheckpointError: there is no such file, or a line is no record; the message names it.
    """
    records = []
    for number, (record, line) in enumerate(_lines(path), 1):
        if record is None:
            raise CheckpointError(
                describe(
                    f"read {path}",
                    f"line {number} is no JSON object",
                    got={"line": repr(line[:60])},
                    fix="remove the line",
                )
            )
        records.append(record)
    return records


def cut_records(path: Path, step: int) -> int:
    """Removes every record after `step`, and lines that are no records, atomically.

    The file is then what training would have written that had stopped right there. Lines broken by
    a power failure come after the last sync, so after every checkpoint.

    Args:
        path: the file; nothing happens if there is none.
        step: the last step to keep.

    Returns:
        How many records up to `step` are there.

    Raises:
        CheckpointError: the file cannot be read or written.
    """
    if not path.exists():
        return 0
    kept = [line for record, line in _lines(path) if record and _step_of(record) <= step]
    data = b"".join(kept)
    if len(data) != path.stat().st_size:
        with saving(path):
            write_file(path, data)
    return len(kept)


def _lines(path: Path) -> Iterator[tuple[dict[str, Any] | None, bytes]]:
    """Every finished line with what it says; None where it is no JSON object."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            describe(f"read {path}", error.strerror or str(error), fix="name a run directory")
        ) from error
    # What stands behind the last newline was never finished.
    for line in data.split(b"\n")[:-1]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        yield record if isinstance(record, dict) else None, line + b"\n"


def _step_of(record: Mapping[str, Any]) -> float:
    step = record.get("step")
    return step if isinstance(step, int) else float("inf")
