"""Named arrays in one file: the safetensors format, written so that a crash leaves no half of one.

Eight bytes of header length, a JSON header, the arrays' bytes. Written here in plain NumPy because
the front also runs where the format's own library does not.

Source: https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepgraph.errors import CheckpointError, describe

_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
_DTYPES = {short: name for name, short in _NAMES.items()}
# The format's own limit on a header.
_LARGEST_HEADER = 100_000_000


def write(
    path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
) -> None:
    """Writes arrays and strings; an existing file is replaced at once or not at all.

    Args:
        path: name of the file; its folder is made if it is missing.
        arrays: by name.
        metadata: strings beside them.
    """
    target = Path(path)
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    position = 0
    kept: list[NDArray[Any]] = []
    for name, array in arrays.items():
        array = np.asarray(array)
        array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"))).reshape(
            array.shape
        )
        header[name] = {
            "dtype": _NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [position, position + array.nbytes],
        }
        position += array.nbytes
        kept.append(array)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(struct.pack("<Q", len(text)))
            file.write(text)
            for array in kept:
                file.write(array.tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(target.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Makes the new name itself survive a power cut, where folders can be synced."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The arrays and strings of a file, every length checked before it is believed.

    Raises:
        CheckpointError: there is no such file, or it is damaged.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(
            describe("load", f"cannot read '{path}': {error.strerror}")
        ) from error
    try:
        return _parsed(data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            describe(
                "load",
                f"'{path}' is damaged, or no file of ours: {error}",
                expected="a file that save or save_weights wrote (safetensors)",
            )
        ) from None


def _parsed(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    if len(data) < 8:
        raise ValueError(f"{len(data)} bytes are too few")
    (length,) = struct.unpack("<Q", data[:8])
    if length > min(_LARGEST_HEADER, len(data) - 8):
        raise ValueError("the header is longer than the file")
    header = json.loads(data[8 : 8 + length].decode())
    metadata = {str(k): str(v) for k, v in header.pop("__metadata__", {}).items()}
    body = memoryview(data)[8 + length :]
    arrays = {}
    position = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype = np.dtype(_DTYPES[entry["dtype"]]).newbyteorder("<")
        shape = tuple(int(size) for size in entry["shape"])
        start, end = entry["data_offsets"]
        if min(shape, default=0) < 0 or end - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"'{name}' has a length that does not fit its shape")
        if start != position or end > len(body):
            raise ValueError(f"'{name}' lies outside the file, or over another array")
        position = end
        array = np.frombuffer(body[start:end], dtype).reshape(shape)
        arrays[name] = array.astype(dtype.newbyteorder("="))
    if position != len(body):
        raise ValueError(f"{len(body) - position} bytes too many")
    return arrays, metadata
