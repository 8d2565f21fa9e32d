"""The element types of tensors: one table, named as NumPy names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from stepgraph.errors import DTypeError, describe, nearest


@dataclass(frozen=True)
class DType:
    """An element type.

    Attributes:
        name: NumPy's name for it, such as ``"float32"``.
        kind: ``"float"``, ``"int"`` (signed), ``"uint"`` or ``"bool"``.
        size: bytes an element takes.
    """

    name: str
    kind: str
    size: int

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The NumPy dtype."""
        return np.dtype(self.name)

    @property
    def is_float(self) -> bool:
        """Whether gradients can flow through it."""
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        """Whether it counts: signed or unsigned."""
        return self.kind in ("int", "uint")

    @property
    def is_bool(self) -> bool:
        """Whether it is a truth value."""
        return self.kind == "bool"

    def __repr__(self) -> str:
        return self.name


float16 = DType("float16", "float", 2)
float32 = DType("float32", "float", 4)
float64 = DType("float64", "float", 8)
int8 = DType("int8", "int", 1)
int16 = DType("int16", "int", 2)
int32 = DType("int32", "int", 4)
int64 = DType("int64", "int", 8)
uint8 = DType("uint8", "uint", 1)
uint16 = DType("uint16", "uint", 2)
uint32 = DType("uint32", "uint", 4)
uint64 = DType("uint64", "uint", 8)
bool_ = DType("bool", "bool", 1)

DTYPES: dict[str, DType] = {
    t.name: t
    for t in (
        float16,
        float32,
        float64,
        int8,
        int16,
        int32,
        int64,
        uint8,
        uint16,
        uint32,
        uint64,
        bool_,
    )
}

DTypeLike: TypeAlias = DType | str | type | np.dtype[np.generic]


def as_dtype(value: DTypeLike) -> DType:
    """Turns a name, a NumPy dtype or a Python type into a `DType`.

    Raises:
        DTypeError: there is no such element type.

    Example:
        >>> as_dtype("float32"), as_dtype(np.int64), as_dtype(bool)
        (float32, int64, bool)
    """
    if isinstance(value, DType):
        return value
    try:
        name = np.dtype(value).name
    except TypeError:
        name = str(value)
    if name not in DTYPES:
        raise DTypeError(describe("dtype", f"{value!r} is unknown", fix=nearest(name, DTYPES)))
    return DTYPES[name]
