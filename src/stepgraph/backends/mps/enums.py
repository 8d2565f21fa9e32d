"""The SDK's enums, as far as they are used: ``Class.Member`` is the constant ``ClassMember``."""

from __future__ import annotations

from enum import IntEnum

from stepgraph.errors import UnsupportedError, describe
from stepgraph.graph.dtypes import DType


class MPSDataType(IntEnum):
    """Element types."""

    Float32 = 0x10000020
    Float16 = 0x10000010
    Int8 = 0x20000008
    Int16 = 0x20000010
    Int32 = 0x20000020
    Int64 = 0x20000040
    UInt8 = 0x8
    UInt16 = 0x10
    UInt32 = 0x20
    UInt64 = 0x40
    Bool = 0x80000008


class MPSGraphTensorNamedDataLayout(IntEnum):
    """Order of the axes of images and weights."""

    NCHW = 0
    NHWC = 1
    OIHW = 2
    HWIO = 3


class MPSGraphPaddingStyle(IntEnum):
    """How the padding of a window is said; only Explicit is used, see quirks."""

    Explicit = 0


class MPSGraphPaddingMode(IntEnum):
    """What stands in the padding."""

    Constant = 0
    Reflect = 1
    Symmetric = 2
    ClampToEdge = 3


class MPSGraphScatterMode(IntEnum):
    """What scattering does to the element that is there."""

    Add = 0
    Sub = 1
    Mul = 2
    Div = 3
    Min = 4
    Max = 5
    Set = 6


class MPSGraphOptimization(IntEnum):
    """Level0 stays on the GPU; the default may place work elsewhere."""

    Level0 = 0


class MTLResourceOptions(IntEnum):
    """Where a buffer lies."""

    StorageModeShared = 0


DATA_TYPES: dict[str, MPSDataType] = {
    "float32": MPSDataType.Float32,
    "float16": MPSDataType.Float16,
    "int8": MPSDataType.Int8,
    "int16": MPSDataType.Int16,
    "int32": MPSDataType.Int32,
    "int64": MPSDataType.Int64,
    "uint8": MPSDataType.UInt8,
    "uint16": MPSDataType.UInt16,
    "uint32": MPSDataType.UInt32,
    "uint64": MPSDataType.UInt64,
    "bool": MPSDataType.Bool,
}


def data_type(dtype: DType) -> MPSDataType:
    """The SDK's element type.

    Raises:
        UnsupportedError: the GPU has none such (float64).
    """
    found = DATA_TYPES.get(dtype.name)
    if found is None:
        raise UnsupportedError(
            describe(
                "mps",
                f"Apple GPUs have no {dtype}",
                expected=", ".join(DATA_TYPES),
                fix='cast it, as in graph.cast(x, "float32"), or use device="cpu"',
            )
        )
    return found


# Enums whose constants do not begin with the enum's name.
_PREFIXES: dict[type[IntEnum], str] = {
    MTLResourceOptions: "MTLResource",
}


def constant_name(member: IntEnum) -> str:
    """The SDK's name of a constant.

    Example:
        >>> constant_name(MPSDataType.Float32), constant_name(MTLResourceOptions.StorageModeShared)
        ('MPSDataTypeFloat32', 'MTLResourceStorageModeShared')
    """
    kind = type(member)
    return _PREFIXES.get(kind, kind.__name__) + member.name
