"""Reads named members of a folder, ``.zip``, ``.tar`` or ``.tar.gz`` into memory, with limits.

Nothing is ever unpacked to disk, so a hostile archive can leave nothing there; and nothing is
decompressed further than the caller's limits, so it cannot fill the memory either. An archive that
tries (absolute paths, "..", links, devices, members far too large) is refused as a whole, even
where the member that was asked for looks harmless.
"""

from __future__ import annotations

import gzip
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from stepgraph.errors import DataError, describe

MAX_MEMBERS = 1000
_SLACK = 64 << 20  # for read-me files, padding and the like beside the wanted members
_LISTING_LIMIT = 1 << 30
_BLOCK = 1 << 20
# What the standard library raises on archives that are cut or altered. (RuntimeError: encrypted;
# struct.error, ValueError, OverflowError: headers that make no sense.)
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    ValueError,
    OverflowError,
)
_FETCH_AGAIN = "fetch the file again; its size or content is not what was published"


class _TooLarge(Exception):
    """More bytes than the limit came out of a stream."""


class _Bounded:
    """Counts what is read from a stream and stops at a limit."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self.stream = stream
        self.limit = limit
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        room = self.limit - self.count + 1
        data = self.stream.read(room if size < 0 else min(size, room))
        self.count += len(data)
        if self.count > self.limit:
            raise _TooLarge
        return data


def kind_of(path: Path) -> str:
    """Tells "folder", "zip", "gzip", "tar" or "file" by content, whatever the name says.

    Example:
        >>> kind_of(Path("."))
        'folder'
    """
    if path.is_dir():
        return "folder"
    with path.open("rb") as stream:
        head = stream.read(512)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    return "tar" if head[257:262] == b"ustar" else "file"


def read_members(path: Path, wanted: Mapping[str, int]) -> dict[str, bytes]:
    """Reads the members whose file name is wanted, whatever folder they lie in.

    Args:
        path: a folder (searched itself, then its direct sub-folders), or an archive.
        wanted: file name to the largest size in bytes it may have.

    Returns:
        Name to content, for those found; the caller says what must be there.

    Raises:
        DataError: no such file; not an archive; damaged, truncated or hostile; a member larger
            than allowed, or there twice.
    """
    if not path.exists():
        raise DataError(describe(f"read {path}", "no such file or folder"))
    kind = kind_of(path)
    with readable(path):
        if kind == "folder":
            return _from_folder(path, wanted)
        if kind == "zip":
            return _from_zip(path, wanted)
        if kind in ("gzip", "tar"):
            return _from_tar(path, wanted, compressed=kind == "gzip")
    raise DataError(
        describe(
            f"read {path}",
            "neither a folder nor an archive",
            got={"size": f"{path.stat().st_size:,} bytes"},
            expected=".zip, .tar or .tar.gz",
            fix=_FETCH_AGAIN,
        )
    )


def member_names(path: Path) -> Iterator[str]:
    """Yields the members' file names without their folders, reading no further than asked.

    Raises:
        DataError: not an archive, damaged, or with more members than a data set has.
    """
    kind = kind_of(path)
    with readable(path), path.open("rb") as raw:
        stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if kind == "gzip" else raw  # type: ignore[assignment]
        bounded = _Bounded(stream, _LISTING_LIMIT)
        try:
            if kind == "zip":
                with zipfile.ZipFile(raw) as archive:
                    names = [member.filename for member in archive.infolist()]
                    _check_total(path, len(names), 0, {})
                yield from (name.rsplit("/", 1)[-1] for name in names)
                return
            with tarfile.open(fileobj=_as_binary(bounded), mode="r|") as tar:
                for count, member in enumerate(tar, start=1):
                    _check_total(path, count, 0, {})
                    yield member.name.rsplit("/", 1)[-1]
        except _TooLarge:
            limit = f"more than {_LISTING_LIMIT:,}"
            raise DataError(_too_large(path, "the archive", limit, _LISTING_LIMIT)) from None
        except DataError:  # is a ValueError itself
            raise
        except _DAMAGED as error:
            raise DataError(_damaged(path, error, bounded.count)) from error


def read_plain_or_gzip(path: Path, limit: int) -> bytes:
    """Reads one file, decompressed if it is gzipped, of at most `limit` bytes.

    Raises:
        DataError: damaged, truncated, or larger than `limit` once decompressed.
    """
    with readable(path), path.open("rb") as stream:
        compressed = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        source: IO[bytes] = gzip.GzipFile(fileobj=stream) if compressed else stream  # type: ignore[assignment]
        bounded = _Bounded(source, limit)
        blocks: list[bytes] = []
        try:
            while block := bounded.read(_BLOCK):
                blocks.append(block)
        except _TooLarge:
            raise DataError(_too_large(path, path.name, f"more than {limit:,}", limit)) from None
        except DataError:  # is a ValueError itself
            raise
        except _DAMAGED as error:
            raise DataError(_damaged(path, error, bounded.count)) from error
        return b"".join(blocks)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what the operating system says about `path` into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(
            describe(
                f"read {path}",
                error.strerror or str(error) or type(error).__name__,
                fix="check the path, its permissions and the disk",
            )
        ) from error


def _from_folder(path: Path, wanted: Mapping[str, int]) -> dict[str, bytes]:
    folders = [path, *sorted(p for p in path.iterdir() if p.is_dir())]
    found: dict[str, bytes] = {}
    for name, limit in wanted.items():
        places = [p for folder in folders if (p := folder / name).is_file()]
        if not places:
            continue
        if len(places) > 1 and places[0].parent != path:
            raise DataError(
                describe(
                    f"read {path}",
                    f"{name} is there more than once",
                    got={"places": ", ".join(str(p) for p in places)},
                    fix="name the sub-folder that is meant",
                )
            )
        size = places[0].stat().st_size
        if size > limit:
            raise DataError(_too_large(path, name, f"{size:,}", limit))
        found[name] = places[0].read_bytes()
    return found


def _from_zip(path: Path, wanted: Mapping[str, int]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_total(path, len(members), sum(m.file_size for m in members), wanted)
            for member in members:
                _check_name(path, member.filename)
                mode = member.external_attr >> 16
                if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise DataError(_hostile(path, member.filename, "is a link or a device"))
            for member in members:
                name = member.filename.rsplit("/", 1)[-1]
                if name not in wanted or member.is_dir():
                    continue
                _check_member(path, name, member.file_size, wanted, found)
                if member.flag_bits & 1:
                    raise DataError(_hostile(path, member.filename, "is encrypted"))
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise DataError(
                        _hostile(path, member.filename, "is compressed otherwise than by deflate")
                    )
                with archive.open(member) as stream:
                    data = stream.read(member.file_size + 1)
                if len(data) != member.file_size:
                    raise EOFError(f"{name} has {len(data):,} of {member.file_size:,} bytes")
                found[name] = data
    except DataError:  # is a ValueError itself
        raise
    except _DAMAGED as error:
        raise DataError(_damaged(path, error, sum(len(d) for d in found.values()))) from error
    return found


def _from_tar(path: Path, wanted: Mapping[str, int], compressed: bool) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with path.open("rb") as raw:
        stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if compressed else raw  # type: ignore[assignment]
        # The stream is read once from front to end ("r|"), so the count below is all that was
        # ever decompressed, headers included.
        bounded = _Bounded(stream, sum(wanted.values()) + _SLACK)
        try:
            with tarfile.open(fileobj=_as_binary(bounded), mode="r|") as archive:
                _read_tar(path, archive, wanted, found)
            while bounded.read(_BLOCK):  # reach the checksum at the end
                pass
        except _TooLarge:
            raise DataError(
                _too_large(path, "the archive", f"more than {bounded.limit:,}", bounded.limit)
            ) from None
        except DataError:  # is a ValueError itself
            raise
        except _DAMAGED as error:
            raise DataError(_damaged(path, error, bounded.count)) from error
    return found


def _read_tar(
    path: Path, archive: tarfile.TarFile, wanted: Mapping[str, int], found: dict[str, bytes]
) -> None:
    for count, member in enumerate(archive, start=1):
        _check_total(path, count, 0, wanted)
        _check_name(path, member.name)
        if member.issparse() or not (member.isreg() or member.isdir()):
            raise DataError(_hostile(path, member.name, "is a link, a device or sparse"))
        name = member.name.rsplit("/", 1)[-1]
        if name not in wanted or member.isdir():
            continue
        _check_member(path, name, member.size, wanted, found)
        content = archive.extractfile(member)
        data = content.read() if content is not None else b""
        if len(data) != member.size:
            raise EOFError(f"{name} has {len(data):,} of {member.size:,} bytes")
        found[name] = data


def _as_binary(stream: object) -> BinaryIO:
    """Tells the type checker that `read` is all that a streamed tar asks for."""
    return stream  # type: ignore[return-value]


def _check_name(path: Path, name: str) -> None:
    parts = re.split(r"[/\\]", name)
    if name.startswith(("/", "\\")) or ".." in parts or re.match(r"^[A-Za-z]:", name):
        raise DataError(_hostile(path, name, "would be written outside the folder"))
    if any(ord(c) < 32 for c in name):
        raise DataError(_hostile(path, name, "has control characters in its name"))


def _check_total(path: Path, count: int, size: int, wanted: Mapping[str, int]) -> None:
    if count > MAX_MEMBERS:
        raise DataError(
            describe(
                f"read {path}",
                f"more than {MAX_MEMBERS} members in the archive",
                expected="a data set of a few files",
            )
        )
    limit = sum(wanted.values()) + _SLACK
    if size > limit:
        raise DataError(_too_large(path, "the archive", f"{size:,}", limit))


def _check_member(
    path: Path, name: str, size: int, wanted: Mapping[str, int], found: Mapping[str, bytes]
) -> None:
    if name in found:
        raise DataError(_hostile(path, name, "is there twice"))
    if size > wanted[name]:
        raise DataError(_too_large(path, name, f"{size:,}", wanted[name]))


def _hostile(path: Path, member: str, why: str) -> str:
    return describe(
        f"read {path}",
        f"refused: member {member!r} {why}",
        fix="fetch the archive from its publisher; nothing was written",
    )


def _too_large(path: Path, what: str, size: str, limit: int) -> str:
    return describe(
        f"read {path}",
        f"refused: {what} has {size} bytes uncompressed",
        expected=f"at most {limit:,} bytes",
        fix=_FETCH_AGAIN,
    )


def _damaged(path: Path, error: BaseException, count: int) -> str:
    return describe(
        f"read {path}",
        f"damaged or truncated: {str(error) or type(error).__name__}",
        got={"file": f"{path.stat().st_size:,} bytes", "read": f"{count:,} bytes uncompressed"},
        fix=_FETCH_AGAIN,
    )
