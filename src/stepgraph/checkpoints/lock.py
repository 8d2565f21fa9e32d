"""One process at a time trains into a run directory."""

from __future__ import annotations

import errno
import os
import platform
from pathlib import Path
from types import TracebackType
from typing import IO

from stepgraph.errors import CheckpointError, describe

_BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


class Lock:
    """A file that the operating system holds locked until the process ends, however it ends.

    Args:
        path: the lock file; made if missing, never removed (removing it would let two in).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Takes the lock.

        Raises:
            CheckpointError: another process has it; the message says which one.
            OSError: the file cannot be made.
        """
        file = self.path.open("a+", encoding="utf-8")
        try:
            _lock(file)
        except OSError as error:
            if error.errno in _BUSY:
                file.seek(0)
                holder = file.read(200).strip() or "unknown"
                file.close()
                raise CheckpointError(
                    describe(
                        f"run directory {self.path.parent}",
                        "another process is training into it",
                        got={"process": holder},
                        fix="wait for it or stop it, or choose another --run-dir",
                    )
                ) from None
            # A file system without locks (some network ones): nothing to be had there.
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {platform.node()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Gives it back; does nothing when it is not held."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _lock(file: IO[str]) -> None:
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        import msvcrt

        # A byte far behind the text, which others may then still read.
        os.lseek(file.fileno(), 1 << 20, os.SEEK_SET)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        return
    fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
