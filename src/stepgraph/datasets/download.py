"""Downloads a published file: resumed, checked, and put in its place only when it is whole.

Called only where a user asked for it. The file grows as ``NAME.part``; an interrupted download is
taken up there next time. A file whose checksum is wrong is removed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from stepgraph.errors import DataError, describe
from stepgraph.version import __version__

Progress = Callable[[str, int, int], None]
"""Called as ``progress(file name, bytes there, bytes in all)``, at least at start and end."""

_BLOCK = 1 << 18
_HEAD_ROOM = 64 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file as its publisher offers it.

    Attributes:
        name: file name, also the one it gets here.
        url: where it is.
        size: bytes.
        sha256: checksum that decides; hexadecimal.
        md5: as publishers and other libraries quote it, for looking it up.
    """

    name: str
    url: str
    size: int
    sha256: str
    md5: str

    def line(self) -> str:
        """Says in one line what to fetch.

        Example:
            >>> RemoteFile("a.gz", "http://127.0.0.1/a.gz", 2048, "5e", "9c").line()
            'http://127.0.0.1/a.gz (2,048 bytes, sha256 5e, md5 9c)'
        """
        return f"{self.url} ({self.size:,} bytes, sha256 {self.sha256}, md5 {self.md5})"


def verify(path: Path, remote: RemoteFile) -> bool:
    """Tells whether `path` is there and is the published file, byte for byte."""
    if not path.is_file() or path.stat().st_size != remote.size:
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == remote.sha256


def fetch(
    remote: RemoteFile,
    folder: Path,
    progress: Progress | None = None,
    *,
    timeout: float = 30.0,
    attempts: int = 4,
    pause: float = 1.0,
) -> Path:
    """Downloads `remote` into `folder` unless it is there already, whole and right.

    Args:
        remote: what to fetch.
        folder: where to; made if it is not there.
        progress: called as bytes come in.
        timeout: seconds without a byte after which an attempt counts as interrupted.
        attempts: how often to try; each takes up where the one before ended.
        pause: seconds before the second attempt; doubled each time.

    Returns:
        The path of the file.

    Raises:
        DataError: no network, the connection keeps breaking (what came is kept for next time),
            the server offers another file, the checksum is wrong (what came is removed), the disk
            is full, or another process is downloading the same file.
    """
    target, part = folder / remote.name, folder / f"{remote.name}.part"
    if verify(target, remote):
        return target
    report = progress or (lambda name, done, total: None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as stream, _alone(stream, remote):
            if shutil.disk_usage(folder).free < remote.size - stream.tell() + _HEAD_ROOM:
                raise DataError(
                    describe(
                        f"download {remote.name}",
                        f"{folder} has no room for {remote.size:,} bytes",
                        fix="free some space, or name another folder",
                    )
                )
            _fill(remote, stream, folder, report, timeout, attempts, pause)
            stream.flush()
            os.fsync(stream.fileno())
        if not verify(part, remote):
            part.unlink()
            raise DataError(
                describe(
                    f"download {remote.name}",
                    "the checksum is wrong; the file was removed",
                    got={"url": remote.url},
                    expected=f"sha256 {remote.sha256}",
                    fix="try again; if it stays wrong, fetch the file elsewhere",
                )
            )
        part.replace(target)
    except OSError as error:
        raise DataError(
            describe(
                f"download {remote.name}",
                f"{folder}: {error.strerror or error}",
                fix="name a folder that can be written",
            )
        ) from error
    finally:
        if part.is_file() and part.stat().st_size == 0:
            part.unlink()
    return target


def _fill(
    remote: RemoteFile,
    stream: IO[bytes],
    folder: Path,
    report: Progress,
    timeout: float,
    attempts: int,
    pause: float,
) -> None:
    """Appends to `stream` until it has all bytes, over as many connections as allowed."""
    last: Exception | None = None
    for attempt in range(attempts):
        if stream.seek(0, os.SEEK_END) > remote.size:
            stream.truncate(0)
        if stream.tell() == remote.size:
            report(remote.name, remote.size, remote.size)
            return
        if attempt:
            time.sleep(pause * 2 ** (attempt - 1))
        try:
            _one_connection(remote, stream, report, timeout)
        except _Interrupted as error:
            last = error
    if stream.tell() == remote.size:
        return
    kept = stream.tell()
    raise DataError(
        describe(
            f"download {remote.name}",
            f"{last or 'the connection ended early'} ({kept:,} of {remote.size:,} bytes came)",
            got={"tried": f"{attempts} times"},
            fix=f"run it again later (it goes on from there), or fetch {remote.line()} "
            f"and put it into {folder}",
        )
    )


class _Interrupted(Exception):
    """The network failed; another attempt may go better."""


def _one_connection(
    remote: RemoteFile, stream: IO[bytes], report: Progress, timeout: float
) -> None:
    import http.client
    import urllib.error
    import urllib.request

    start = stream.tell()
    headers = {"User-Agent": f"stepgraph/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(remote.url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            if start and (response.status != 206 or not _continues(response, start)):
                # The server does not resume: what comes is the file from its start.
                stream.truncate(0)
                start = stream.seek(0)
            _check_length(response, remote, start)
            done = start
            report(remote.name, done, remote.size)
            while block := response.read(min(_BLOCK, remote.size - done + 1)):
                done += len(block)
                if done > remote.size:
                    stream.truncate(0)
                    raise DataError(_other_file(remote, f"more than {remote.size:,} bytes"))
                stream.write(block)
                report(remote.name, done, remote.size)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:  # what is here does not fit the server's file
                stream.truncate(0)
                stream.seek(0)
            elif error.code < 500 and error.code not in (408, 429):
                raise DataError(_other_file(remote, f"HTTP {error.code} {error.reason}")) from None
            raise _Interrupted(f"HTTP {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise _Interrupted(f"no connection to {remote.url}: {error.reason}") from error
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise _Interrupted(f"the connection broke: {str(error) or type(error).__name__}") from error


def _continues(response: Any, start: int) -> bool:
    return str(response.headers.get("Content-Range", "")).startswith(f"bytes {start}-")


def _check_length(response: Any, remote: RemoteFile, start: int) -> None:
    length = response.headers.get("Content-Length")
    if length is not None and start + int(length) != remote.size:
        raise DataError(_other_file(remote, f"{start + int(length):,} bytes"))


def _other_file(remote: RemoteFile, offered: str) -> str:
    return describe(
        f"download {remote.name}",
        f"{remote.url} offers something else: {offered}",
        expected=f"{remote.size:,} bytes, sha256 {remote.sha256}",
        fix="fetch the file elsewhere; checksums tell whether it is the right one",
    )


@contextmanager
def _alone(stream: IO[bytes], remote: RemoteFile) -> Iterator[None]:
    """Keeps a second process from appending to the same file (where the system has locks)."""
    try:
        import fcntl
    except ImportError:  # Windows refuses the rename of a file that is open elsewhere
        yield
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise DataError(
            describe(
                f"download {remote.name}",
                "another process is downloading it",
                fix="wait for it to end",
            )
        ) from None
    yield
