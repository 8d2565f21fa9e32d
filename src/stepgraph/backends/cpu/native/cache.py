"""Compiled objects on disk, so that a machine compiles each kernel once.

The directory is the user's own: ``STEPGRAPH_CACHE_DIR``, or ``stepgraph/kernels`` in
``XDG_CACHE_HOME`` (Linux), ``~/Library/Caches`` (macOS) or ``LOCALAPPDATA`` (Windows). A file is a
SHA-256 digest followed by what it is the digest of; a file that does not match its digest counts
as absent. Writing goes to a temporary name that is then renamed, so a reader in another process
sees a whole file or none. Whatever the file system refuses (read-only, full, no home) only costs
the time to compile again: nothing here raises.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from pathlib import Path

MAXIMUM_BYTES = 256 << 20
# Bytes that a process stores before it looks again how large the directory has become: many small
# objects take longer to count than to compile.
TRIM_EVERY = MAXIMUM_BYTES >> 4
_SUFFIX = ".kernel"
_DIGEST = hashlib.sha256().digest_size
_untrimmed: dict[Path, int] = {}


def directory() -> Path | None:
    """Where objects are kept, or None if this user has no such place."""
    override = os.environ.get("STEPGRAPH_CACHE_DIR")
    if override:
        return Path(override)
    try:
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # no home directory
        return None
    return base / "stepgraph" / "kernels"


def key(*parts: str) -> str:
    """A file name for everything an object depends on; the order and borders of parts count."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


def _trusted(folder: Path) -> bool:
    """Whether only this user can have written the code in there."""
    return not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()


def load(name: str) -> bytes | None:
    """The object stored under a key, or None if there is none or it is damaged.

    A damaged file is removed, so that it is written anew.
    """
    folder = directory()
    if folder is None:
        return None
    path = folder / f"{name}{_SUFFIX}"
    try:
        if not _trusted(folder):
            return None
        content = path.read_bytes()
        digest, image = content[:_DIGEST], content[_DIGEST:]
        if len(image) > 0 and hashlib.sha256(image).digest() == digest:
            with contextlib.suppress(OSError):
                os.utime(path)  # what is used stays when the cache is trimmed
            return image
        path.unlink()
    except OSError:
        pass
    return None


def store(name: str, image: bytes) -> bool:
    """Keeps an object under a key; returns whether that worked."""
    folder = directory()
    if folder is None:
        return False
    temporary = None
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _trusted(folder):
            return False
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(image).digest() + image)
        os.replace(temporary, folder / f"{name}{_SUFFIX}")
    except OSError:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        return False
    _untrimmed[folder] = _untrimmed.get(folder, TRIM_EVERY) + len(image)
    if _untrimmed[folder] >= TRIM_EVERY:
        trim(folder)
        _untrimmed[folder] = 0
    return True


def trim(folder: Path, maximum_bytes: int = MAXIMUM_BYTES) -> None:
    """Removes the least recently used objects until the directory is small enough."""
    with contextlib.suppress(OSError):
        entries = [(path.stat(), path) for path in folder.glob(f"*{_SUFFIX}")]
        total = sum(status.st_size for status, _ in entries)
        for status, path in sorted(entries, key=lambda entry: entry[0].st_mtime):
            if total <= maximum_bytes:
                return
            path.unlink(missing_ok=True)
            total -= status.st_size
