"""Files that are either whole or not there: temporary name, sync, rename."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stepgraph.errors import CheckpointError, describe

TEMPORARY = ".tmp-"
"""How names begin that a killed process may leave behind."""

_REASONS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", "free some space, then go on with --resume"),
    getattr(errno, "EDQUOT", errno.ENOSPC): (
        "the disk quota is used up",
        "free some space, then go on with --resume",
    ),
    errno.EFBIG: ("the file would exceed the largest size allowed here", "raise `ulimit -f`"),
    errno.EACCES: ("no permission to write there", "choose another folder with --run-dir"),
    errno.EPERM: ("no permission to write there", "choose another folder with --run-dir"),
    errno.EROFS: ("the file system is read-only", "choose another folder with --run-dir"),
    errno.ENOTDIR: ("a part of the path is no folder", "choose another folder with --run-dir"),
    errno.EEXIST: ("a file of that name is in the way", "choose another folder with --run-dir"),
}


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Words whatever the operating system refuses while writing to `path`.

    Raises:
        CheckpointError: in place of any OSError.
    """
    try:
        yield
    except OSError as error:
        text = error.strerror or str(error)
        reason, fix = _REASONS.get(error.errno or 0, (text, "see that the folder can be written"))
        raise CheckpointError(
            describe(
                f"save {path}", reason, got={"kept": "everything that was saved before"}, fix=fix
            )
        ) from error


def write_file(path: Path, data: bytes) -> None:
    """Writes a small file so that a kill at any moment leaves the old one or the new one.

    Raises:
        OSError: it cannot be written; the old one is untouched.
    """
    handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner reads; a run directory is no secret.
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        _forget(Path(name))
        raise
    sync_folder(path.parent)


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Makes a folder whose files `fill` writes and syncs; it appears complete or not at all.

    Raises:
        OSError: something cannot be written; nothing is left behind.
    """
    temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=path.parent))
    try:
        fill(temporary)
        os.chmod(temporary, 0o777 & ~_umask())
        sync_folder(temporary)
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Removes a folder in such a way that nobody ever finds half of it under its name."""
    doomed = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=path.parent))
    os.rename(path, doomed / path.name)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Removes what killed processes left under temporary names; the caller holds the lock."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name.startswith(TEMPORARY):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                _forget(path)


def sync_folder(path: Path) -> None:
    """Makes renames within a folder survive a power failure, where the system can."""
    if os.name == "nt":
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _forget(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # the error that brought us here says more


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    global _mask
    if _mask is None:
        _mask = os.umask(0o022)
        os.umask(_mask)
    return _mask


_mask: int | None = None
