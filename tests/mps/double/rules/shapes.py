"""MPSGraphTensorShapeOps: reshape, transpose, concat, split, tile, broadcast, cast and the like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.mps.double import dtypes
from tests.mps.double.errors import Refused
from tests.mps.double.graph import Builder
from tests.mps.double.objects import Object


def reshape(b: Builder, x: Object, shape: Sequence[int]) -> Object:
    count = math.prod(x.shape)
    open_ = [i for i, d in enumerate(shape) if d == -1]
    b.need(len(open_) <= 1, f"more than one -1 in {tuple(shape)}")
    if open_:
        rest = math.prod(d for d in shape if d != -1)
        b.need(rest > 0 and count % rest == 0, f"{x.shape} does not fit into {tuple(shape)}")
        shape = [count // rest if d == -1 else d for d in shape]
    b.need(math.prod(shape) == count, f"{x.shape} has another volume than {tuple(shape)}")
    target = tuple(shape)
    return b.one([x], target, x.dtype, lambda v: v.reshape(target), settles=True)


def permute(b: Builder, x: Object, permutation: Sequence[int]) -> Object:
    rank = len(x.shape)
    order = tuple(permutation)
    b.need(sorted(order) == list(range(rank)), f"{order} is no permutation of {rank} axes")
    shape = tuple(x.shape[i] for i in order)
    return b.one([x], shape, x.dtype, lambda v: v.transpose(order))


def swap(b: Builder, x: Object, first: int, second: int) -> Object:
    rank = len(x.shape)
    b.need(first < rank and second < rank, f"axes {first}, {second} are outside rank {rank}")
    order = list(range(rank))
    order[first], order[second] = second, first
    return permute(b, x, order)


def concat(b: Builder, tensors: Sequence[Object], axis: int, interleave: bool = False) -> Object:
    b.need(tensors, "nothing to join")
    kind = b.same_dtype(*tensors)
    rank = len(tensors[0].shape)
    b.need(rank > 0, "tensors of rank 0 cannot be joined")
    axis = b.axis(axis, rank)
    for t in tensors:
        rest = t.shape[:axis] + t.shape[axis + 1 :]
        wanted = tensors[0].shape[:axis] + tensors[0].shape[axis + 1 :]
        b.need(rest == wanted, f"{t.shape} and {tensors[0].shape} differ off axis {axis}")
    shape = list(tensors[0].shape)
    shape[axis] = sum(t.shape[axis] for t in tensors)
    if interleave:
        b.need(len({t.shape for t in tensors}) == 1, "interleaving needs equal shapes")
        return b.one(
            list(tensors),
            shape,
            kind,
            lambda *vs: np.stack(vs, axis + 1).reshape(shape),
        )
    return b.one(list(tensors), shape, kind, lambda *vs: np.concatenate(vs, axis))


def stack(b: Builder, tensors: Sequence[Object], axis: int) -> Object:
    b.need(tensors, "nothing to stack")
    kind = b.same_dtype(*tensors)
    b.need(len({t.shape for t in tensors}) == 1, "tensors of several shapes")
    axis = b.axis(axis, len(tensors[0].shape) + 1)
    shape = list(tensors[0].shape)
    shape.insert(axis, len(tensors))
    return b.one(list(tensors), shape, kind, lambda *vs: np.stack(vs, axis))


def split_sizes(b: Builder, x: Object, sizes: Sequence[int], axis: int) -> list[Object]:
    axis = b.axis(axis, len(x.shape))
    b.need(all(n > 0 for n in sizes), f"sizes {list(sizes)} must be positive")
    b.need(sum(sizes) == x.shape[axis], f"sizes {list(sizes)} are not {x.shape[axis]} in all")
    shapes = [(*x.shape[:axis], n, *x.shape[axis + 1 :]) for n in sizes]
    places = np.cumsum(sizes)[:-1]
    return b.many([x], [(s, x.dtype) for s in shapes], lambda v: np.split(v, places, axis))


def split_count(b: Builder, x: Object, count: int, axis: int) -> list[Object]:
    where = b.axis(axis, len(x.shape))
    b.need(count > 0, "no parts")
    each = -(-x.shape[where] // count)
    last = x.shape[where] - each * (count - 1)
    b.need(last > 0, f"{x.shape[where]} into {count} parts leaves the last with {last}")
    return split_sizes(b, x, [each] * (count - 1) + [last], axis)


def tile(b: Builder, x: Object, multiplier: Sequence[int]) -> Object:
    b.need(len(multiplier) == len(x.shape), f"{len(multiplier)} multipliers, rank {len(x.shape)}")
    b.need(all(m > 0 for m in multiplier), f"multipliers {list(multiplier)} must be positive")
    shape = tuple(d * m for d, m in zip(x.shape, multiplier, strict=True))
    return b.one([x], shape, x.dtype, lambda v: np.tile(v, multiplier))


def tile_gradient(b: Builder, incoming: Object, x: Object, multiplier: Sequence[int]) -> Object:
    b.fault("tile_gradient", "reads out of bounds: reshape and sum instead")
    kind = b.same_dtype(incoming, x)
    part = tuple(slice(0, d) for d in x.shape)
    return b.one([incoming, x], x.shape, kind, lambda g, v: g[part])


def reverse(b: Builder, x: Object, axes: Sequence[int] | None = None) -> Object:
    rank = len(x.shape)
    where = tuple(range(rank)) if axes is None else tuple(b.axis(a, rank) for a in axes)
    b.need(len(set(where)) == len(where), f"axes {where} stand twice")
    return b.one([x], x.shape, x.dtype, lambda v: np.flip(v, where))


def flatten2d(b: Builder, x: Object, axis: int) -> Object:
    b.need(0 <= axis <= len(x.shape), f"axis {axis} is outside rank {len(x.shape)} (none from end)")
    shape = (math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
    return b.one([x], shape, x.dtype, lambda v: v.reshape(shape), settles=True)


def broadcast(b: Builder, x: Object, shape: Sequence[int]) -> Object:
    target = tuple(shape)
    b.need(len(target) >= len(x.shape), f"{x.shape} has a higher rank than {target}")
    tail = target[len(target) - len(x.shape) :]
    bad = [(d, t) for d, t in zip(x.shape, tail, strict=True) if d not in (1, t)]
    if not bad:
        return b.one([x], target, x.dtype, lambda v: np.broadcast_to(v, target))
    b.need(all(t > d for d, t in bad), f"{x.shape} is wider than {target}, and stays so")
    b.fault("broadcast_zeros", f"{x.shape} to {target} is filled up with zeros")
    part = (..., *(slice(0, d if d > 1 else None) for d in x.shape))

    def fill(v: np.ndarray) -> np.ndarray:
        out = np.zeros(target, v.dtype)
        out[part] = v
        return out

    return b.one([x], target, x.dtype, fill)


def shape_of(b: Builder, x: Object) -> Object:
    b.need(x.shape, "the shape of rank 0 has no elements")
    return b.one([x], (len(x.shape),), dtypes.INT32, lambda v: np.array(v.shape, np.int32))


def cast(b: Builder, x: Object, dtype: int) -> Object:
    kind = dtypes.numpy(dtype)
    value = getattr(x.operation, "value", None)
    if x.operation.kind == "constant" and value.dtype.kind == "f":
        b.need(not np.isinf(value).any(), "a cast of an infinite constant crashes some drivers")

    def convert(v: np.ndarray) -> np.ndarray:
        if kind.kind in "iu" and v.dtype.kind in "fiu":
            info = np.iinfo(kind)
            whole = np.trunc(v) if v.dtype.kind == "f" else v
            wide = whole.astype(np.float64) if v.dtype.kind == "f" else whole
            if not ((wide >= info.min) & (wide <= info.max)).all():
                raise Refused(f"values that {kind} does not hold: nothing says what comes out")
        return v.astype(kind)

    return b.one([x], x.shape, dtype, convert)


def reinterpret(b: Builder, x: Object, dtype: int) -> Object:
    b.need(x.shape, "reinterpreting rank 0 fails")
    kind = dtypes.numpy(dtype)
    b.need(kind.itemsize == dtypes.size(x.dtype), "only types of one size are safe")
    b.need(dtypes.BOOL not in (dtype, x.dtype), "bool has no bits to speak of")
    return b.one([x], x.shape, dtype, lambda v: np.ascontiguousarray(v).view(kind))


def squeeze(b: Builder, x: Object, axes: Sequence[int] | None = None) -> Object:
    rank = len(x.shape)
    if axes is None:
        where = {i for i, d in enumerate(x.shape) if d == 1}
    else:
        where = {b.axis(a, rank) for a in axes}
        b.need(len(where) == len(axes), f"axes {list(axes)} stand twice")
        b.need(all(x.shape[i] == 1 for i in where), f"axes {list(axes)} of {x.shape} are not 1")
    shape = tuple(d for i, d in enumerate(x.shape) if i not in where)
    return b.one([x], shape, x.dtype, lambda v: v.reshape(shape))


def expand(b: Builder, x: Object, axes: Sequence[int]) -> Object:
    """The axes are positions in the result."""
    rank = len(x.shape) + len(axes)
    where = {b.axis(a, rank) for a in axes}
    b.need(len(where) == len(axes), f"axes {list(axes)} stand twice")
    rest = iter(x.shape)
    shape = tuple(1 if i in where else next(rest) for i in range(rank))
    return b.one([x], shape, x.dtype, lambda v: v.reshape(shape))


def coordinate(b: Builder, axis: int, shape: Sequence[int]) -> Object:
    target = tuple(shape)
    axis = b.axis(axis, len(target))
    line = [1] * len(target)
    line[axis] = target[axis]
    values = np.broadcast_to(np.arange(target[axis], dtype=np.int32).reshape(line), target)
    return b.one([], target, dtypes.INT32, lambda: values)


def _space_to_depth(
    b: Builder, x: Object, width: int, height: int, depth: int, block: int, shuffle: bool
) -> Object:
    rank = len(x.shape)
    b.need(len({width, height, depth}) == 3 and max(width, height, depth) < rank, "bad axes")
    b.need(block > 0, "a block of 0")
    b.need(
        x.shape[width] % block == 0 and x.shape[height] % block == 0,
        f"{x.shape} is not made of blocks of {block}",
    )
    shape = list(x.shape)
    shape[width] //= block
    shape[height] //= block
    shape[depth] *= block * block

    def compute(v: np.ndarray) -> np.ndarray:
        v = np.moveaxis(v, (height, width, depth), (-3, -2, -1))
        *lead, h, w, c = v.shape
        v = v.reshape(*lead, h // block, block, w // block, block, c)
        n = len(lead)
        tail = (n + 4, n + 1, n + 3) if shuffle else (n + 1, n + 3, n + 4)
        v = v.transpose(*range(n), n, n + 2, *tail)
        v = v.reshape(*lead, h // block, w // block, c * block * block)
        return np.moveaxis(v, (-3, -2, -1), (height, width, depth))

    return b.one([x], shape, x.dtype, compute)


def _depth_to_space(
    b: Builder, x: Object, width: int, height: int, depth: int, block: int, shuffle: bool
) -> Object:
    rank = len(x.shape)
    b.need(len({width, height, depth}) == 3 and max(width, height, depth) < rank, "bad axes")
    b.need(block > 0 and x.shape[depth] % (block * block) == 0, f"depth of {x.shape} by {block}^2")
    shape = list(x.shape)
    shape[width] *= block
    shape[height] *= block
    shape[depth] //= block * block

    def compute(v: np.ndarray) -> np.ndarray:
        v = np.moveaxis(v, (height, width, depth), (-3, -2, -1))
        *lead, h, w, c = v.shape
        c //= block * block
        n = len(lead)
        if shuffle:
            v = v.reshape(*lead, h, w, c, block, block)
            v = v.transpose(*range(n), n, n + 3, n + 1, n + 4, n + 2)
        else:
            v = v.reshape(*lead, h, w, block, block, c)
            v = v.transpose(*range(n), n, n + 2, n + 1, n + 3, n + 4)
        v = v.reshape(*lead, h * block, w * block, c)
        return np.moveaxis(v, (-3, -2, -1), (height, width, depth))

    return b.one([x], shape, x.dtype, compute)


def constants(rule: Any, *places: int, scalar: Sequence[int] = ()) -> Any:
    """The form of a rule that takes some arguments as tensors: those must be constants."""

    def tensor_form(b: Builder, *arguments: Any) -> Any:
        given = list(arguments)
        for i in places:
            value = b.constant_of(given[i], f"argument {i}")
            given[i] = [int(v) for v in np.atleast_1d(value)]
        for i in scalar:
            value = b.constant_of(given[i], f"argument {i}")
            b.need(value.size == 1, f"argument {i} must be one number")
            given[i] = int(value.reshape(())[()])
        return rule(b, *given)

    return tensor_form


RULES: dict[str, Any] = {
    "reshapeTensor:withShape:name:": reshape,
    "reshapeTensor:withShapeTensor:name:": constants(reshape, 1),
    "transposeTensor:permutation:name:": permute,
    "transposeTensor:dimension:withDimension:name:": swap,
    "concatTensor:withTensor:dimension:name:": lambda b, x, y, axis: concat(b, [x, y], axis),
    "concatTensors:dimension:name:": concat,
    "concatTensors:dimension:interleave:name:": concat,
    "stackTensors:axis:name:": stack,
    "splitTensor:splitSizes:axis:name:": split_sizes,
    "splitTensor:splitSizesTensor:axis:name:": constants(split_sizes, 1),
    "splitTensor:numSplits:axis:name:": split_count,
    "tileTensor:withMultiplier:name:": tile,
    "tileGradientWithIncomingGradientTensor:sourceTensor:withMultiplier:name:": tile_gradient,
    "reverseTensor:name:": reverse,
    "reverseTensor:axes:name:": reverse,
    "reverseTensor:axesTensor:name:": constants(reverse, 1),
    "flatten2DTensor:axis:name:": flatten2d,
    "flatten2DTensor:axisTensor:name:": constants(flatten2d, scalar=[1]),
    "broadcastTensor:toShape:name:": broadcast,
    "broadcastTensor:toShapeTensor:name:": constants(broadcast, 1),
    "shapeOfTensor:name:": shape_of,
    "castTensor:toType:name:": cast,
    "reinterpretCastTensor:toType:name:": reinterpret,
    "squeezeTensor:name:": squeeze,
    "squeezeTensor:axis:name:": lambda b, x, axis: squeeze(b, x, [axis]),
    "squeezeTensor:axes:name:": squeeze,
    "squeezeTensor:axesTensor:name:": constants(squeeze, 1),
    "expandDimsOfTensor:axis:name:": lambda b, x, axis: expand(b, x, [axis]),
    "expandDimsOfTensor:axes:name:": expand,
    "expandDimsOfTensor:axesTensor:name:": constants(expand, 1),
    "coordinateAlongAxis:withShape:name:": coordinate,
    "coordinateAlongAxis:withShapeTensor:name:": constants(coordinate, 1),
    "coordinateAlongAxisTensor:withShape:name:": constants(coordinate, scalar=[0]),
    "coordinateAlongAxisTensor:withShapeTensor:name:": constants(coordinate, 1, scalar=[0]),
    "spaceToDepth2DTensor:widthAxis:heightAxis:depthAxis:blockSize:usePixelShuffleOrder:name:": (
        _space_to_depth
    ),
    "depthToSpace2DTensor:widthAxis:heightAxis:depthAxis:blockSize:usePixelShuffleOrder:name:": (
        _depth_to_space
    ),
}
