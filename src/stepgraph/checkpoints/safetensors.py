"""Named arrays in a file of the safetensors format, with NumPy alone.

Eight bytes of header length (little-endian), a JSON header naming dtype, shape and place of each
array, then the arrays' bytes, little-endian, without gaps. Reading executes nothing and allocates
no more than the file is long.

Source: https://github.com/huggingface/safetensors (format description); the tests read with that
library what is written here, and the other way round.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stepgraph.errors import CheckpointError, DTypeError, describe

Array = NDArray[Any]

# The format's name of a dtype to NumPy's.
DTYPES: dict[str, str] = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_HEADER = 100_000_000  # the format's own limit, bytes


class ArraySpec(NamedTuple):
    """What a header says of an array."""

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


class _Entry(NamedTuple):
    name: str
    spec: ArraySpec
    begin: int
    end: int


def write(
    path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Writes arrays to a new file and syncs it.

    Args:
        path: must not exist.
        arrays: name to array, of a dtype in `DTYPES`.
        metadata: strings kept in the header.

    Returns:
        The file's size in bytes and its SHA-256.

    Raises:
        DTypeError: an array's dtype is not part of the format.
        OSError: the file cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    # Largest elements first, so that every array is aligned for readers that map the file.
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    begin = 0
    for name in order:
        array = arrays[name]
        code = _NAMES.get(array.dtype.name)
        if code is None or name == "__metadata__":
            raise DTypeError(
                describe(
                    f"save {path.name}",
                    f"'{name}' cannot be stored",
                    got={name: f"{array.dtype} {array.shape}"},
                    expected=f"one of {', '.join(DTYPES.values())}",
                )
            )
        end = begin + array.nbytes
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for part in (len(text).to_bytes(8, "little"), text):
            file.write(part)
            digest.update(part)
        for name in order:
            little = arrays[name].dtype.newbyteorder("<")
            view = np.ascontiguousarray(arrays[name], little).reshape(-1).view(np.uint8)
            file.write(view.data)
            digest.update(view.data)
        file.flush()
        os.fsync(file.fileno())
    return 8 + len(text) + begin, digest.hexdigest()


def read(
    path: Path,
    *,
    sha256: str | None = None,
    check: Callable[[dict[str, ArraySpec]], None] | None = None,
) -> dict[str, Array]:
    """Reads all arrays of a file.

    Args:
        path: the file.
        sha256: what its SHA-256 must be; None if unknown.
        check: called with names, shapes and dtypes before the arrays' bytes are read; raises if
            they do not suit.

    Raises:
        CheckpointError: the file is damaged, truncated or not of this format.
    """
    what = f"read {path}"
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256()
            entries = _header(what, file, size, digest.update)
            if check is not None:
                check({entry.name: entry.spec for entry in entries})
            arrays = {}
            for entry in entries:
                dtype = np.dtype(entry.spec.dtype).newbyteorder("<")
                array = np.empty(entry.spec.shape, dtype)
                raw = array.reshape(-1).view(np.uint8)
                if file.readinto(raw.data) != raw.nbytes:
                    raise _damaged(what, "ends too early")
                digest.update(raw.data)
                if entry.spec.dtype == "bool" and raw.max(initial=0) > 1:
                    raise _damaged(what, f"'{entry.name}' is bool and holds other bytes than 0, 1")
                arrays[entry.name] = array.astype(entry.spec.dtype, copy=False)
    except OSError as error:
        raise _damaged(what, error.strerror or str(error)) from error
    if sha256 is not None and digest.hexdigest() != sha256:
        raise _damaged(what, "its bytes are not those that were written (SHA-256 differs)")
    return arrays


def read_specs(path: Path) -> dict[str, ArraySpec]:
    """Reads names, shapes and dtypes only.

    Raises:
        CheckpointError: as `read`.
    """
    what = f"read {path}"
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return {e.name: e.spec for e in _header(what, file, size, lambda _: None)}
    except OSError as error:
        raise _damaged(what, error.strerror or str(error)) from error


def _header(what: str, file: BinaryIO, size: int, seen: Callable[[bytes], object]) -> list[_Entry]:
    """Parses and checks the header; entries come in the order of their bytes."""
    first = file.read(8)
    length = int.from_bytes(first, "little")
    if len(first) < 8 or length > min(MAX_HEADER, size - 8):
        raise _damaged(what, f"too short for its header ({size:,} bytes)")
    text = file.read(length)
    seen(first)
    seen(text)
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise _damaged(what, f"its header is not readable: {error}") from error
    if not isinstance(header, dict):
        raise _damaged(what, "its header is no object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise _damaged(what, "its metadata is no object")
    entries = sorted(
        (_entry(what, name, item) for name, item in header.items()),
        key=lambda entry: (entry.begin, entry.end),
    )
    place = 0
    for entry in entries:
        if entry.begin != place:
            raise _damaged(what, f"'{entry.name}' overlaps another array or leaves a gap")
        place = entry.end
    if place != size - 8 - length:
        raise _damaged(
            what, f"holds {size - 8 - length:,} bytes of arrays, its header says {place:,}"
        )
    return entries


def _entry(what: str, name: str, item: Any) -> _Entry:
    if not isinstance(item, dict) or set(item) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(what, f"'{name[:80]}' is not described as an array")
    code, shape, offsets = item["dtype"], item["shape"], item["data_offsets"]
    dtype = DTYPES.get(code) if isinstance(code, str) else None
    if dtype is None:
        raise _damaged(what, f"'{name[:80]}' has dtype {str(code)[:20]}, which is not read here")
    if not _naturals(shape) or len(shape) > 32 or not _naturals(offsets) or len(offsets) != 2:
        raise _damaged(what, f"'{name[:80]}' has no proper shape or place")
    begin, end = offsets
    if end - begin != math.prod(shape) * np.dtype(dtype).itemsize:
        raise _damaged(what, f"'{name[:80]}' has {end - begin} bytes, its shape needs others")
    return _Entry(name, ArraySpec(tuple(shape), dtype), begin, end)


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 62 for n in value
    )


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _damaged(what: str, fault: str) -> CheckpointError:
    return CheckpointError(describe(what, fault, fix="use an older checkpoint or another copy"))
