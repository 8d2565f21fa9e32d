"""MPSDataType: its values, and the NumPy types that carry them."""

from __future__ import annotations

import numpy as np

from . import sdk
from .errors import NotModelled, Refused

_NAMES = {
    "Float32": np.float32,
    "Float16": np.float16,
    "Int8": np.int8,
    "Int16": np.int16,
    "Int32": np.int32,
    "Int64": np.int64,
    "UInt8": np.uint8,
    "UInt16": np.uint16,
    "UInt32": np.uint32,
    "UInt64": np.uint64,
    "Bool": np.bool_,
    "ComplexFloat32": np.complex64,
}
NUMPY: dict[int, np.dtype] = {
    sdk.value("MPSDataType" + name): np.dtype(kind) for name, kind in _NAMES.items()
}
NAMES: dict[int, str] = {
    v: name.removeprefix("MPSDataType") for name, v in sdk.enum("MPSDataType")["values"].items()
}
FLOAT32 = sdk.value("MPSDataTypeFloat32")
FLOAT16 = sdk.value("MPSDataTypeFloat16")
COMPLEX64 = sdk.value("MPSDataTypeComplexFloat32")
BOOL = sdk.value("MPSDataTypeBool")
INT32 = sdk.value("MPSDataTypeInt32")
INT64 = sdk.value("MPSDataTypeInt64")
FLOATS = (FLOAT32, FLOAT16)
INTS = tuple(k for k, v in NUMPY.items() if v.kind in "iu")
UNSIGNED = tuple(k for k, v in NUMPY.items() if v.kind == "u")


def numpy(dtype: int) -> np.dtype:
    """The NumPy type of a data type that tensors can have here."""
    if dtype in NUMPY:
        return NUMPY[dtype]
    name = NAMES.get(dtype, str(dtype))
    if name == "Invalid" or name.endswith("Bit"):
        raise Refused(f"MPSDataType{name} is no type that a tensor can have")
    raise NotModelled(f"tensors of MPSDataType{name} are not modelled")


def size(dtype: int) -> int:
    return numpy(dtype).itemsize
