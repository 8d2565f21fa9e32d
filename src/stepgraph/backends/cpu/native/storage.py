"""Memory that machine code reads and writes: all of it comes from here.

One place, so that the tests can put fences behind every block, and lend it to emulated processors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# A cache line, and the widest vector.
ALIGN = 64


def zeros(count: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A flat array of zeros that begins at a multiple of 64 bytes.

    Args:
        count: how many elements.
        dtype: their type.

    Returns:
        The array.

    Example:
        >>> zeros(3, "float32")
        array([0., 0., 0.], dtype=float32)
    """
    kind = np.dtype(dtype)
    size = count * kind.itemsize
    raw = np.zeros(size + ALIGN, np.uint8)
    start = -raw.ctypes.data % ALIGN
    return raw[start : start + size].view(kind)
