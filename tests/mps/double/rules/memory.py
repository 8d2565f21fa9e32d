"""MPSGraphMemoryOps: placeholders, constants, variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.mps.double import dtypes
from tests.mps.double.graph import Builder, check_shape
from tests.mps.double.objects import Object


def placeholder(b: Builder, shape: Sequence[int] | None, dtype: int = dtypes.FLOAT32) -> Object:
    b.need(shape is not None, "a placeholder without a shape is unranked, and aborts further on")
    b.need(b.state.blocks == 0, "a placeholder is made inside a block")
    op = b.operation([], [(check_shape(shape, b.selector), dtype)], None, kind="placeholder")
    tensor = op.outputs[0]
    b.state.placeholders.append(tensor)
    return tensor


def _array(b: Builder, data: np.ndarray, shape: Sequence[int], dtype: int) -> np.ndarray:
    shape = check_shape(shape, b.selector)
    wanted = int(np.prod(shape, dtype=np.int64)) * dtypes.size(dtype)
    b.need(data.size == wanted, f"{data.size} bytes of data for {wanted} bytes of {shape}")
    if dtype == dtypes.BOOL:
        b.need((data <= 1).all(), "a bool constant's bytes must be 0 or 1")
    return data.view(dtypes.numpy(dtype)).reshape(shape)


def _constant(b: Builder, value: np.ndarray, dtype: int) -> Object:
    value.setflags(write=False)
    return b.one([], value.shape, dtype, lambda: value, kind="constant", value=value)


def constant(b: Builder, data: np.ndarray, shape: Sequence[int], dtype: int) -> Object:
    return _constant(b, _array(b, data, shape, dtype), dtype)


def _scalar(b: Builder, value: float, shape: Sequence[int], dtype: int) -> Object:
    b.need(dtype != dtypes.BOOL, "a bool scalar is written as 255: cast or compare instead")
    shape = check_shape(shape, b.selector)
    kind = dtypes.numpy(dtype)
    if kind.kind in "iu":
        b.need(float(value).is_integer(), f"{value} as {kind}")
        b.need(abs(value) <= 2**53, f"{value} travels as a double and loses bits")
        info = np.iinfo(kind)
        b.need(info.min <= value <= info.max, f"{value} does not fit {kind}")
    return _constant(b, np.full(shape, value, kind), dtype)


def variable(b: Builder, data: np.ndarray, shape: Sequence[int], dtype: int) -> Object:
    b.need(b.state.blocks == 0, "a variable is made inside a block")
    value = _array(b, data, shape, dtype)
    value.setflags(write=False)
    op = b.operation(
        [],
        [(shape, dtype)],
        None,
        kind="variable",
        class_name="MPSGraphVariableOp",
        value=value,
    )
    return op.outputs[0]


def variable_from_tensor(b: Builder, tensor: Object) -> Object:
    b.need(tensor.operation.kind == "constant", "a variable's first value must be a constant")
    op = b.operation(
        [],
        [(tensor.shape, tensor.dtype)],
        None,
        kind="variable",
        class_name="MPSGraphVariableOp",
        value=tensor.operation.value,
    )
    return op.outputs[0]


def _is_variable(b: Builder, tensor: Object) -> Object:
    b.need(tensor.operation.kind == "variable", f"{tensor} is no variable")
    return tensor.operation


def read(b: Builder, tensor: Object) -> Object:
    _is_variable(b, tensor)
    return b.one([tensor], tensor.shape, tensor.dtype, lambda v: v)


def assign_operation(b: Builder, target: Object, inputs: list[Object], compute: Any) -> Object:
    """An operation that writes a variable; `compute` gives the new value."""

    def write(run: Any, *values: np.ndarray) -> None:
        run.assign(target, compute(*values))

    return b.operation(inputs, [], write, kind="assign", variable=target)


def assign(b: Builder, tensor: Object, value: Object) -> Object:
    target = _is_variable(b, tensor)
    b.same_dtype(tensor, value)
    b.need(value.shape == tensor.shape, f"a value of {value.shape} for {tensor.shape}")
    return assign_operation(b, target, [tensor, value], lambda old, new: new)


RULES: dict[str, Any] = {
    "placeholderWithShape:dataType:name:": placeholder,
    "placeholderWithShape:name:": placeholder,
    "constantWithData:shape:dataType:": constant,
    "constantWithScalar:dataType:": lambda b, value, dtype: _scalar(b, value, (), dtype),
    "constantWithScalar:shape:dataType:": _scalar,
    "variableWithData:shape:dataType:name:": variable,
    "variableFromTensorWithTensor:name:": variable_from_tensor,
    "readVariable:name:": read,
    "assignVariable:withValueOfTensor:name:": assign,
}
