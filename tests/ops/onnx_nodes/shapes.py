"""Shapes, joining, padding, constants."""

from __future__ import annotations

from typing import Any

import numpy as np

import stepgraph as sg
from tests.ops.onnx_import import Node, gap, require_dtype, rule


def known(tensor: sg.Tensor) -> list[int]:
    """Sizes, all of which node tests give."""
    return [int(d) for d in tensor.shape if d is not None]


@rule("Reshape")
def reshape(n: Node) -> sg.Tensor:
    shape = n.numbers(1, "shape")
    assert shape is not None
    sizes = known(n[0])
    if not n.attribute("allowzero", 0):
        shape = [sizes[i] if d == 0 else d for i, d in enumerate(shape)]
    return n.graph.reshape(n[0], shape)


@rule("Transpose")
def transpose(n: Node) -> sg.Tensor:
    return n.graph.permute(n[0], n.attribute("perm") or range(n[0].rank)[::-1])


@rule("Flatten")
def flatten(n: Node) -> sg.Tensor:
    sizes, axis = known(n[0]), n.attribute("axis", 1)
    axis = axis + n[0].rank if axis < 0 else axis
    return n.graph.reshape(n[0], (int(np.prod(sizes[:axis])), int(np.prod(sizes[axis:]))))


@rule("Squeeze")
def squeeze(n: Node) -> sg.Tensor:
    return n.graph.squeeze(n[0], n.numbers(1, "axes"))


@rule("Unsqueeze")
def unsqueeze(n: Node) -> sg.Tensor:
    axes = n.numbers(1, "axes")
    assert axes is not None
    return n.graph.expand_dims(n[0], axes)


@rule("Expand")
def expand(n: Node) -> sg.Tensor:
    shape = n.numbers(1)
    assert shape is not None
    return n.graph.broadcast(n[0], np.broadcast_shapes(tuple(shape), tuple(known(n[0]))))


@rule("Concat")
def concat(n: Node) -> sg.Tensor:
    return n.graph.concat(n.tensors(), n.attribute("axis"))


@rule("Split")
def split(n: Node) -> list[sg.Tensor]:
    axis, sizes = n.attribute("axis", 0), n.numbers(1, "split")
    count = n.attribute("num_outputs") or len(n.outputs)
    if sizes is None:
        whole = known(n[0])[axis]
        part = -(-whole // count)
        sizes = [min(part, whole - part * i) for i in range(count)]
    return n.graph.split(n[0], sizes, axis)


@rule("Tile")
def tile(n: Node) -> sg.Tensor:
    repeats = n.numbers(1)
    assert repeats is not None
    return n.graph.tile(n[0], repeats)


@rule("Pad")
def pad(n: Node) -> sg.Tensor:
    mode = n.attribute("mode", "constant")
    if mode == "wrap":
        raise gap("pad mode")
    pads, axes, value = n.numbers(1, "pads"), n.numbers(3), n.static(2)
    assert pads is not None
    axes = [a % n[0].rank for a in axes] if axes is not None else list(range(n[0].rank))
    paddings = [(0, 0)] * n[0].rank
    for i, axis in enumerate(axes):
        paddings[axis] = (pads[i], pads[i + len(axes)])
    filling: Any = n.attribute("value", 0.0) if value is None else value.item()
    return n.graph.pad(n[0], paddings, mode, filling)


@rule("Shape")
def shape(n: Node) -> sg.Tensor:
    part = slice(n.attribute("start", 0), n.attribute("end"))
    return n.graph.cast(n.graph.shape_of(n[0])[part], "int64")


@rule("Size")
def size(n: Node) -> sg.Tensor:
    return n.graph.element_count(n[0], dtype="int64")


@rule("Constant")
def constant(n: Node) -> sg.Tensor:
    import onnx

    (name, value), *_ = n.attributes.items()
    if name == "value":
        return n.importer.constant(onnx.numpy_helper.to_array(value))
    dtypes = {"value_float": "f4", "value_floats": "f4", "value_int": "i8", "value_ints": "i8"}
    if name not in dtypes:
        raise gap("dtype")
    return n.importer.constant(np.array(value, dtypes[name]))


@rule("ConstantOfShape")
def constant_of_shape(n: Node) -> sg.Tensor:
    import onnx

    given = n.attribute("value")
    value = np.zeros(1, "float32") if given is None else onnx.numpy_helper.to_array(given)
    require_dtype(value.dtype)
    sizes = n.numbers(0)
    return n.graph.constant(value.reshape(-1)[0], shape=sizes)


@rule("Range")
def arange(n: Node) -> sg.Tensor:
    start, limit, delta = (n.importer.value(n[i]).item() for i in range(3))
    count = max(int(np.ceil((limit - start) / delta)), 0)
    steps = n.graph.coordinate_along_axis((count,), 0)
    return n.graph.cast(steps, n[0].dtype) * delta + start


def _coordinates(n: Node, tensor: sg.Tensor) -> tuple[sg.Tensor, sg.Tensor]:
    sizes = known(tensor)[-2:]
    return n.graph.coordinate_along_axis(sizes, 0), n.graph.coordinate_along_axis(sizes, 1)


@rule("EyeLike")
def eye_like(n: Node) -> sg.Tensor:
    import onnx

    rows, columns = _coordinates(n, n[0])
    number = n.attribute("dtype")
    dtype = n[0].dtype if number is None else onnx.helper.tensor_dtype_to_np_dtype(number).name
    return n.graph.cast(n.graph.equal(columns, rows + n.attribute("k", 0)), dtype)


@rule("Trilu")
def triangle(n: Node) -> sg.Tensor:
    rows, columns = _coordinates(n, n[0])
    diagonal = n.static(1)
    edge = rows + (0 if diagonal is None else int(diagonal.item()))
    kept = columns >= edge if n.attribute("upper", 1) else columns <= edge
    return n.graph.select(kept, n[0], 0)


@rule("DepthToSpace")
def depth_to_space(n: Node) -> sg.Tensor:
    batch, depth, height, width = known(n[0])
    block = n.attribute("blocksize")
    less = depth // block**2
    if n.attribute("mode", "DCR") == "DCR":
        parts = n.graph.reshape(n[0], (batch, block, block, less, height, width))
        parts = n.graph.permute(parts, (0, 3, 4, 1, 5, 2))
    else:
        parts = n.graph.reshape(n[0], (batch, less, block, block, height, width))
        parts = n.graph.permute(parts, (0, 1, 4, 2, 5, 3))
    return n.graph.reshape(parts, (batch, less, height * block, width * block))


@rule("SpaceToDepth")
def space_to_depth(n: Node) -> sg.Tensor:
    batch, depth, height, width = known(n[0])
    block = n.attribute("blocksize")
    parts = n.graph.reshape(n[0], (batch, depth, height // block, block, width // block, block))
    parts = n.graph.permute(parts, (0, 3, 5, 1, 2, 4))
    return n.graph.reshape(parts, (batch, depth * block**2, height // block, width // block))
