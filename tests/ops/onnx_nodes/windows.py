"""Convolutions, poolings, resizing, matrix products. Pictures are NCHW; one axis becomes two."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import stepgraph as sg
from tests.ops.onnx_import import Node, gap, rule

NCHW = {"data_layout": "NCHW"}
OIHW = {**NCHW, "weights_layout": "OIHW"}
Pads = tuple[tuple[int, int], ...]


def _two(values: Any, rank: int, fill: int) -> tuple[int, int]:
    """Numbers per axis, with a height of one before a single axis."""
    values = [int(v) for v in values] if values is not None else [fill] * rank
    return (fill, values[0]) if rank == 1 else (values[0], values[1])


def _flat(n: Node, tensor: sg.Tensor) -> tuple[sg.Tensor, int]:
    """A tensor with two window axes, and how many it had."""
    rank = tensor.rank - 2
    if rank not in (1, 2):
        raise gap("rank")
    return (n.graph.expand_dims(tensor, 2) if rank == 1 else tensor), rank


def _back(n: Node, tensor: sg.Tensor, rank: int) -> sg.Tensor:
    return n.graph.squeeze(tensor, 2) if rank == 1 else tensor


def _sizes(tensor: sg.Tensor) -> tuple[int, int]:
    height, width = tensor.shape[2:]
    assert height is not None
    assert width is not None
    return height, width


def _pads(
    n: Node, rank: int, source: tuple[int, int], extent: tuple[int, int], strides: tuple[int, int]
) -> dict[str, Any]:
    """The padding arguments of a builder."""
    automatic = n.attribute("auto_pad", "NOTSET")
    if automatic == "SAME_UPPER":
        return {"padding": "TF_SAME"}
    if automatic == "VALID":
        return {"padding": "TF_VALID"}
    if automatic == "SAME_LOWER":
        pads = []
        for size, reach, stride in zip(source, extent, strides, strict=True):
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
            pads.append((total - total // 2, total // 2))
        return {"padding": "explicit", "explicit_padding": tuple(pads)}
    given = n.attribute("pads")
    begin = _two(given[:rank] if given else None, rank, 0)
    end = _two(given[rank:] if given else None, rank, 0)
    return {"padding": "explicit", "explicit_padding": tuple(zip(begin, end, strict=True))}


def _with_bias(n: Node, made: sg.Tensor) -> sg.Tensor:
    bias = n.get(2)
    return made if bias is None else made + n.graph.reshape(bias, (1, -1, 1, 1))


@rule("Conv")
def convolution(n: Node) -> sg.Tensor:
    (source, rank), (weights, _) = _flat(n, n[0]), _flat(n, n[1])
    strides = _two(n.attribute("strides"), rank, 1)
    dilations = _two(n.attribute("dilations"), rank, 1)
    extent = _extent(_sizes(weights), dilations)
    padding = _pads(n, rank, _sizes(source), extent, strides)
    groups = n.attribute("group", 1)
    made = n.graph.convolution_2d(source, weights, strides, dilations, groups, **padding, **OIHW)
    return _back(n, _with_bias(n, made), rank)


def _extent(kernel: tuple[int, int], dilations: tuple[int, int]) -> tuple[int, int]:
    return (kernel[0] - 1) * dilations[0] + 1, (kernel[1] - 1) * dilations[1] + 1


@rule("ConvTranspose")
def convolution_transpose(n: Node) -> sg.Tensor:
    (source, rank), (weights, _) = _flat(n, n[0]), _flat(n, n[1])
    strides = _two(n.attribute("strides"), rank, 1)
    dilations = _two(n.attribute("dilations"), rank, 1)
    more = _two(n.attribute("output_padding"), rank, 0)
    wanted = n.attribute("output_shape")
    automatic = n.attribute("auto_pad", "NOTSET")
    given = n.attribute("pads") or [0] * (2 * rank)
    begin, end = _two(given[:rank], rank, 0), _two(given[rank:], rank, 0)
    pads, sizes = [], []
    extents = _extent(_sizes(weights), dilations)
    for axis, (size, extent) in enumerate(zip(_sizes(source), extents, strict=True)):
        full = strides[axis] * (size - 1) + more[axis] + extent
        before, after = begin[axis], end[axis]
        if wanted is not None or automatic.startswith("SAME"):
            asked = _two(wanted, rank, 1)[axis] if wanted is not None else size * strides[axis]
            total = full - asked
            less, rest = total // 2, total - total // 2
            before, after = (less, rest) if automatic == "SAME_UPPER" else (rest, less)
        sizes.append(full - before - after)
        # What is added behind the result lies where no window reaches.
        pads.append((max(before, 0), max(after - more[axis], 0)))
    made = n.graph.convolution_transpose_2d(
        source,
        weights,
        tuple(sizes),
        strides,
        dilations,
        n.attribute("group", 1),
        padding="explicit",
        explicit_padding=tuple(pads),
        **OIHW,
    )
    return _back(n, _with_bias(n, made), rank)


def _pool(n: Node) -> tuple[sg.Tensor, int, tuple[int, int], tuple[int, int], dict[str, Any]]:
    """The source, how many window axes it had, kernel, strides, padding."""
    if not n[0].dtype.is_float:
        raise gap("integer arithmetic")
    source, rank = _flat(n, n[0])
    if any(d != 1 for d in n.attribute("dilations", [])):
        raise gap("pool dilation")
    kernel = _two(n.attribute("kernel_shape"), rank, 1)
    strides = _two(n.attribute("strides"), rank, 1)
    padding = _pads(n, rank, _sizes(source), kernel, strides)
    if n.attribute("ceil_mode", 0):
        padding["explicit_padding"] = _ceiled(_sizes(source), kernel, strides, padding)
    return source, rank, kernel, strides, padding


def _ceiled(
    sizes: tuple[int, int], kernel: tuple[int, int], strides: tuple[int, int], padding: Any
) -> Pads:
    """Padding behind grown until the last window, which must begin inside, fits."""
    found = []
    for axis, (before, after) in enumerate(padding["explicit_padding"]):
        size, stride = sizes[axis] + before, strides[axis]
        count = -(-(size + after - kernel[axis]) // stride) + 1
        if (count - 1) * stride >= size:
            count -= 1
        reach = (count - 1) * stride + kernel[axis]
        found.append((before, max(after, reach - size)))
    return tuple(found)


@rule("MaxPool")
def max_pool(n: Node) -> sg.Tensor:
    if len(n.outputs) > 1:
        raise gap("pool indices")
    source, rank, kernel, strides, padding = _pool(n)
    made = n.graph.max_pooling_2d(source, kernel, strides, **padding, **NCHW)
    return _back(n, made, rank)


@rule("AveragePool")
def average_pool(n: Node) -> sg.Tensor:
    source, rank, kernel, strides, padding = _pool(n)
    whole = bool(n.attribute("count_include_pad", 0))
    if whole and n.attribute("ceil_mode", 0):
        raise gap("ceil mode")
    made = n.graph.avg_pooling_2d(
        source, kernel, strides, **padding, include_zero_pad_to_average=whole, **NCHW
    )
    return _back(n, made, rank)


@rule("LpPool")
def lp_pool(n: Node) -> sg.Tensor:
    source, rank, kernel, strides, padding = _pool(n)
    p = float(n.attribute("p", 2))
    made = n.graph.avg_pooling_2d(
        n.graph.power(n.graph.absolute(source), p),
        kernel,
        strides,
        **padding,
        include_zero_pad_to_average=True,
        **NCHW,
    )
    return _back(n, n.graph.power(made * float(kernel[0] * kernel[1]), 1 / p), rank)


@rule("GlobalAveragePool")
def global_average(n: Node) -> sg.Tensor:
    return n.graph.mean(n[0], tuple(range(2, n[0].rank)))


@rule("GlobalMaxPool")
def global_maximum(n: Node) -> sg.Tensor:
    return n.graph.reduction_maximum(n[0], tuple(range(2, n[0].rank)))


# -- resizing ------------------------------------------------------------------------------------

# (mode, coordinate_transformation_mode, nearest_mode) to the builder and its settings; where a
# place halfway between two elements may come up, the rounding has to be the same as well.
CONVENTIONS: dict[tuple[str, str, str], tuple[str, bool, bool]] = {
    ("nearest", "asymmetric", "floor"): ("resize_nearest", False, False),
    ("nearest", "half_pixel", "round_prefer_ceil"): ("resize_nearest", False, True),
    ("nearest", "align_corners", "round_prefer_ceil"): ("resize_nearest", True, False),
    ("linear", "asymmetric", ""): ("resize_bilinear", False, False),
    ("linear", "half_pixel", ""): ("resize_bilinear", False, True),
    ("linear", "align_corners", ""): ("resize_bilinear", True, False),
}


@rule("Resize", "Upsample")
def resize(n: Node) -> sg.Tensor:
    mode = n.attribute("mode", "nearest")
    coordinates = n.attribute("coordinate_transformation_mode", "half_pixel")
    rounding = n.attribute("nearest_mode", "round_prefer_floor") if mode == "nearest" else ""
    if n.type == "Upsample":
        coordinates, rounding = "asymmetric", "floor"
    unusual = n.attribute("antialias", 0) or n.attribute("axes") is not None
    policy = n.attribute("keep_aspect_ratio_policy", "stretch")
    source = n[0]
    if source.rank != 4 or unusual or policy != "stretch" or not source.dtype.is_float:
        raise gap("resize mode")
    scales = n.static(1 if n.type == "Upsample" else 2)
    sizes = n.static(3)
    before = np.array(source.shape)
    if sizes is not None:
        after = sizes
    else:
        assert scales is not None
        after = np.array([math.floor(s * d) for s, d in zip(scales, before, strict=True)])
        # A scale that does not give a whole size is used as it is; we use the ratio of the sizes.
        if np.any(np.abs(scales * before - after) > 1e-6):
            raise gap("resize mode")
    if tuple(before[:2]) != tuple(after[:2]):
        raise gap("resize mode")
    if rounding == "round_prefer_floor" and not _halfway(before[2:], after[2:], coordinates):
        rounding = "round_prefer_ceil"
    key = (mode, coordinates, rounding)
    if key not in CONVENTIONS:
        raise gap("resize mode")
    builder, corners, centred = CONVENTIONS[key]
    size = (int(after[2]), int(after[3]))
    return getattr(n.graph, builder)(source, size, corners, centred, data_layout="NCHW")


def _halfway(before: np.ndarray, after: np.ndarray, coordinates: str) -> bool:
    """Whether a position lies in the middle between two elements."""
    for size, wanted in zip(before, after, strict=True):
        index = np.arange(wanted)
        if coordinates == "align_corners":
            position = index * (size - 1) / max(wanted - 1, 1)
        else:
            position = (index + 0.5) * size / wanted - 0.5
        if np.any(np.abs(position - np.floor(position) - 0.5) < 1e-9):
            return True
    return False


# -- matrix products -----------------------------------------------------------------------------


def _floats(*tensors: sg.Tensor) -> None:
    if not all(t.dtype.is_float for t in tensors):
        raise gap("integer arithmetic")


@rule("MatMul")
def matrix_product(n: Node) -> sg.Tensor:
    a, b = n[0], n[1]
    _floats(a, b)
    left = n.graph.expand_dims(a, 0) if a.rank == 1 else a
    right = n.graph.expand_dims(b, 1) if b.rank == 1 else b
    made = n.graph.matrix_multiplication(left, right)
    if b.rank == 1:
        made = n.graph.squeeze(made, made.rank - 1)
    return n.graph.squeeze(made, made.rank - (1 if b.rank == 1 else 2)) if a.rank == 1 else made


@rule("Gemm")
def general_product(n: Node) -> sg.Tensor:
    _floats(n[0], n[1])
    flip = bool(n.attribute("transA", 0)), bool(n.attribute("transB", 0))
    made = n.graph.matrix_multiplication(n[0], n[1], *flip) * n.attribute("alpha", 1.0)
    bias = n.get(2)
    return made if bias is None else made + bias * n.attribute("beta", 1.0)
