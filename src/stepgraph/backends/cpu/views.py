"""Strided views of buffers, handled as NumPy handles its own, and the step that copies between two.

A tensor in panels whose channels an op leaves alone is, to that op, the row-major array
``(panels, *other axes, 16)``: `lead_view` gives that, so that one description serves both layouts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stepgraph.backends.cpu.kernels.copy import RAW, TYPES, CopySpec, build_copy
from stepgraph.backends.cpu.layouts import LANES, PANELS, ROWS, panels_of
from stepgraph.backends.cpu.native import storage
from stepgraph.backends.cpu.plan import At, Buffer, KernelSource, KernelStep
from stepgraph.graph.definition import Array
from stepgraph.graph.dtypes import as_dtype

if TYPE_CHECKING:
    from stepgraph.backends.cpu.lower import Lowering

# Elements that one task copies; turns of the inner loop while lines of cache are shared.
ELEMENTS = 8192
TILE = 32


@dataclass(frozen=True)
class View:
    """Some elements of a buffer.

    Attributes:
        buffer: whose.
        sizes: along each axis.
        strides: in elements; 0 where broadcast.
        offset: of the first element.
    """

    buffer: Buffer
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    def permuted(self, order: Sequence[int]) -> View:
        """Axes in another order."""
        sizes, strides = (tuple(v[a] for a in order) for v in (self.sizes, self.strides))
        return replace(self, sizes=sizes, strides=strides)

    def sliced(self, axis: int, start: int, length: int, step: int = 1) -> View:
        """Elements ``start, start + step, ...`` of an axis."""
        sizes, strides = list(self.sizes), list(self.strides)
        offset = self.offset + start * strides[axis]
        sizes[axis] = length
        strides[axis] *= step
        return replace(self, sizes=tuple(sizes), strides=tuple(strides), offset=offset)

    def reversed(self, axis: int) -> View:
        """An axis backwards."""
        return self.sliced(axis, self.sizes[axis] - 1, self.sizes[axis], -1)

    def broadcast(self, shape: Sequence[int]) -> View:
        """To a shape, by NumPy's rules."""
        extra = len(shape) - len(self.sizes)
        strides = [0] * extra
        for size, stride, wanted in zip(self.sizes, self.strides, shape[extra:], strict=True):
            strides.append(stride if size == wanted else 0)
        return replace(self, sizes=tuple(shape), strides=tuple(strides))

    def split(self, axis: int, sizes: Sequence[int]) -> View:
        """One axis as several."""
        stride = self.strides[axis]
        strides: list[int] = []
        for size in reversed(sizes):
            strides.insert(0, stride)
            stride *= size
        return replace(
            self,
            sizes=(*self.sizes[:axis], *sizes, *self.sizes[axis + 1 :]),
            strides=(*self.strides[:axis], *strides, *self.strides[axis + 1 :]),
        )


def row_major(sizes: Sequence[int]) -> tuple[int, ...]:
    """Strides of an array in C order."""
    strides: list[int] = []
    step = 1
    for size in reversed(sizes):
        strides.insert(0, step)
        step *= size
    return tuple(strides)


def view(buffer: Buffer, shape: Sequence[int] | None = None) -> View:
    """All of a buffer in rows, by its shape or another of as many elements."""
    assert buffer.layout is ROWS, buffer
    sizes = tuple(buffer.shape if shape is None else shape)
    return View(buffer, sizes, row_major(sizes))


def lead_view(buffer: Buffer, shape: Sequence[int] | None = None) -> View:
    """All of a buffer in panels as (panels, *axes but the last, 16)."""
    assert buffer.layout is PANELS, buffer
    *lead, channels = buffer.shape if shape is None else shape
    sizes = (panels_of(channels), *lead, LANES)
    return View(buffer, sizes, row_major(sizes))


def any_view(buffer: Buffer, shape: Sequence[int] | None = None) -> View:
    """The view for an op that leaves the last axis alone; in panels its axes come one later."""
    return lead_view(buffer, shape) if buffer.layout is PANELS else view(buffer, shape)


def split_view(buffer: Buffer) -> View:
    """A buffer whose last axis fills its panels as (*axes but the last, panels, 16)."""
    whole = any_view(buffer)
    if buffer.layout is PANELS:
        rank = len(buffer.shape)
        return whole.permuted([*range(1, rank), 0, rank])
    return whole.split(len(buffer.shape) - 1, (buffer.shape[-1] // LANES, LANES))


def constant(array: Array, name: str) -> Buffer:
    """A buffer with numbers known now."""
    whole = storage.zeros(array.size + 128 // array.itemsize, array.dtype)
    whole[: array.size] = array.reshape(-1)
    return Buffer(array.shape, as_dtype(array.dtype), ROWS, name, "constant", whole)


def _collapsed(sizes: Sequence[int], *strides: Sequence[int]) -> tuple[list[int], list[list[int]]]:
    """Neighbouring axes that all strides walk as one are merged; axes of size 1 dropped."""
    kept: list[int] = []
    found: list[list[int]] = [[] for _ in strides]
    for axis, size in enumerate(sizes):
        if size == 1:
            continue
        here = [s[axis] for s in strides]
        if kept and all(f[-1] == h * size for f, h in zip(found, here, strict=True)):
            kept[-1] *= size
            for f, h in zip(found, here, strict=True):
                f[-1] = h
        else:
            kept.append(size)
            for f, h in zip(found, here, strict=True):
                f.append(h)
    return kept, found


def _types(source: Buffer, target: Buffer) -> tuple[str, str] | None:
    if source.dtype == target.dtype:
        raw = RAW[source.dtype.size]
        return raw, raw
    names = source.dtype.name, target.dtype.name
    return names if all(n in TYPES for n in names) else None


def copies(source: Buffer, target: Buffer) -> bool:
    """Whether there is a kernel between the element types."""
    return _types(source, target) is not None


def copy(
    ctx: Lowering,
    source: View,
    target: View,
    name: str,
    *,
    part: bool = False,
    over: bool = False,
) -> None:
    """A step that copies one view into another of the same sizes.

    Args:
        ctx: gets the step.
        source: read.
        target: written.
        name: for people.
        part: the target's buffer has other elements, which must keep their values.
        over: the target may take over the source's memory.
    """
    assert source.sizes == target.sizes, (source.sizes, target.sizes)
    types = _types(source.buffer, target.buffer)
    assert types is not None
    if 0 in source.sizes:
        return
    sizes, (ins, outs) = _collapsed(source.sizes, source.strides, target.strides)
    if not sizes:
        sizes, ins, outs = [1], [1], [1]
    lane = _pick(sizes, outs, ins)
    rest = [k for k in range(len(sizes)) if k != lane]
    mid = _pick([sizes[k] for k in rest], [ins[k] for k in rest], None) if rest else None
    mid = rest.pop(mid) if mid is not None else None
    spread = outs[lane] != 1
    kind = {0: "one", 1: "next"}.get(ins[lane], "stride")
    spec = CopySpec(*types, len(rest), kind, spread)
    lanes, turns = sizes[lane], sizes[mid] if mid is not None else 1
    # Strided reads share lines of cache from one turn to the next.
    lane_block = min(lanes, ELEMENTS) if turns == 1 or kind != "stride" else min(lanes, 4 * TILE)
    mid_block = max(1, min(turns, ELEMENTS // lane_block))
    lane_blocks, mid_blocks = -(-lanes // lane_block), -(-turns // mid_block)
    arguments: dict[str, Any] = {"lanes": lanes, "lane_block": lane_block}
    arguments |= {"lane_blocks": lane_blocks, "mid": turns, "mid_block": mid_block}
    arguments |= {"mid_blocks": mid_blocks}
    arguments |= {f"outer{k}": sizes[a] for k, a in enumerate(rest)}
    for label, side, strides in (("in0", source, ins), ("out0", target, outs)):
        arguments[label] = At(side.buffer, side.offset)
        arguments |= {f"{label}_o{k}": strides[a] for k, a in enumerate(rest)}
        arguments[f"{label}_m"] = strides[mid] if mid is not None else 0
        arguments[f"{label}_l"] = strides[lane]
    ctx.add(
        KernelStep(
            name=name,
            reads=[source.buffer],
            writes=[target.buffer],
            aliases=(source.buffer,) if over else (),
            source=KernelSource(("copy", spec), lambda: build_copy(spec)),
            kernel="copy",
            arguments=arguments,
            tasks=math.prod(sizes[a] for a in rest) * lane_blocks * mid_blocks,
            accumulates=part,
        )
    )


def copy_all(ctx: Lowering, source: Buffer, target: Buffer, name: str) -> None:
    """A step that copies all elements stored, between buffers of one layout and element type."""
    assert source.layout is target.layout
    whole = (source.count,)
    copy(ctx, View(source, whole, (1,)), View(target, whole, (1,)), name)


def _pick(sizes: Sequence[int], strides: Sequence[int], second: Sequence[int] | None) -> int:
    """The axis to walk closest: neighbours in memory, else the last."""
    near = [k for k, s in enumerate(strides) if s == 1]
    if second is not None and len(near) > 1:
        both = [k for k in near if second[k] == 1]
        near = both or near
    return near[-1] if near else len(sizes) - 1
