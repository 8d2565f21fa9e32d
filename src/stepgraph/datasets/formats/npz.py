"""NumPy's ``.npz`` with ``x_train``, ``y_train``, ``x_test``, ``y_test``, or ``x`` and ``y``."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepgraph.datasets.archives import kind_of, read_members, readable
from stepgraph.datasets.arrays import Splits, from_arrays
from stepgraph.errors import DataError, describe

MAX_BYTES = 8 << 30
_WHOLE = ("x", "y")
_SPLIT = ("x_train", "y_train", "x_test", "y_test")
_CLASSES = "class_names"


def read_splits(path: Path, test_fraction: float = 0.2, seed: int = 0) -> Splits:
    """Reads an ``.npz`` as `numpy.savez` writes it; arrays as `from_arrays` takes them.

    A file with only ``x`` and ``y`` is split, stratified, by `test_fraction` and `seed`. An array
    ``class_names`` of strings names the classes.

    Raises:
        DataError: not an ``.npz``, arrays missing, damaged, holding Python objects, or more than
            8 GiB uncompressed.
    """
    with readable(path):
        if path.is_dir() or kind_of(path) != "zip":
            raise DataError(describe(f"read {path}", "not an .npz file"))
    names = (*_WHOLE, *_SPLIT, _CLASSES)
    content = read_members(path, {f"{name}.npy": MAX_BYTES // len(names) for name in names})
    arrays = {name[:-4]: _array(data, f"read {path}, {name}") for name, data in content.items()}
    classes = [str(c) for c in arrays[_CLASSES]] if _CLASSES in arrays else None
    if all(name in arrays for name in _SPLIT):
        if classes is None:
            top = max(
                int(np.max(arrays[y], initial=0))
                if arrays[y].ndim == 1 or arrays[y].shape[1] == 1
                else arrays[y].shape[1] - 1
                for y in ("y_train", "y_test")
            )
            classes = [str(i) for i in range(top + 1)]
        return Splits(
            from_arrays(arrays["x_train"], arrays["y_train"], classes, f"{path.stem} train"),
            from_arrays(arrays["x_test"], arrays["y_test"], classes, f"{path.stem} test"),
        )
    if all(name in arrays for name in _WHOLE):
        return from_arrays(arrays["x"], arrays["y"], classes, path.stem).split(test_fraction, seed)
    raise DataError(
        describe(
            f"read {path}",
            "lacks the arrays of a data set",
            got={"found": ", ".join(sorted(arrays)) or "none of them"},
            expected=f"{', '.join(_SPLIT)}; or {', '.join(_WHOLE)}",
        )
    )


def _array(data: bytes, what: str) -> NDArray[Any]:
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(stream)
        # NumPy makes room for what the header says before it looks for the bytes.
        left = len(data) - stream.tell()
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != left:
            raise ValueError(f"{dtype} {shape} in {left:,} bytes")
        stream.seek(0)
        return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
    except (ValueError, EOFError, OSError) as error:
        raise DataError(
            describe(
                what,
                f"not a readable array: {error}",
                expected="numbers or strings, as numpy.savez writes them",
            )
        ) from error
