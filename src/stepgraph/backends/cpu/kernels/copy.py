"""Copies between strided views, with a change of element type on the way.

A copy is sizes and two lists of strides; transposes, slices, reversals, broadcasts, joins and casts
are nothing else. One axis is walked in vectors of 16 (`lanes`), one is looped over (`mid`), the
others are decoded from the task number. A transpose loops over the axis that is contiguous in the
source, 16 lanes of the target at a time: each line of cache that it fetches is used up before it
leaves the first level.

Arithmetic: bandwidth-bound where both sides are contiguous; element by element, a line of cache at
a time, where not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from stepgraph.backends.cpu.layouts import LANES
from stepgraph.backends.cpu.native.emit import Function, Module, Pointer, Value, i64, pointer
from stepgraph.backends.cpu.native.layout import least
from stepgraph.backends.cpu.native.value import f32, f64, i1, i8, i16, i32, is_float, vector

TYPES: dict[str, Any] = {
    **{"float32": f32, "float64": f64, "bool": i8, "int8": i8, "uint8": i8},
    **{"int16": i16, "uint16": i16, "int32": i32, "uint32": i32, "int64": i64, "uint64": i64},
}
# What moves elements of a size without looking at them.
RAW: dict[int, str] = {1: "int8", 2: "int16", 4: "int32", 8: "int64"}


@dataclass(frozen=True)
class CopySpec:
    """A copy's structure; sizes and strides are given at run time.

    Attributes:
        source: element type read.
        target: element type written.
        outer: axes decoded from the task number.
        lane: how the source moves along the lanes: ``one`` element, ``next`` or ``stride``.
        spread: the target's lanes are no neighbours.
    """

    source: str
    target: str
    outer: int
    lane: str
    spread: bool


def fields(spec: CopySpec) -> dict[str, Any]:
    """Arguments: sizes, then address and strides of both sides, in elements."""
    found: dict[str, Any] = {"lanes": i64, "lane_block": i64, "lane_blocks": i64}
    found |= {"mid": i64, "mid_block": i64, "mid_blocks": i64}
    found |= {f"outer{k}": i64 for k in range(spec.outer)}
    for label, dtype in (("in0", spec.source), ("out0", spec.target)):
        found[label] = pointer(TYPES[dtype])
        found |= {f"{label}_o{k}": i64 for k in range(spec.outer)}
        found |= {f"{label}_m": i64, f"{label}_l": i64}
    return found


def build_copy(spec: CopySpec) -> Module:
    """The module with the kernel ``copy``."""
    module = Module("copy")
    with module.kernel("copy", fields(spec)) as (f, args):
        _Emission(spec, f, args).run()
    return module


class _Emission:
    def __init__(self, spec: CopySpec, f: Function, args: Any) -> None:
        self.spec = spec
        self.f = f
        self.args = args

    def run(self) -> None:
        f, a = self.f, self.args
        task, lane_block = a.task // a.lane_blocks, a.task % a.lane_blocks
        task, mid_block = task // a.mid_blocks, task % a.mid_blocks
        source, target = a.in0, a.out0
        for k in reversed(range(self.spec.outer)):
            size = getattr(a, f"outer{k}")
            at, task = (task % size, task // size) if k else (task, task)
            source = source + at * getattr(a, f"in0_o{k}")
            target = target + at * getattr(a, f"out0_o{k}")
        first = lane_block * a.lane_block
        last = least(f, first + a.lane_block, a.lanes)
        start = mid_block * a.mid_block
        stop = least(f, start + a.mid_block, a.mid)
        if self.spec.spread:
            with f.loop(start, stop) as mid, f.loop(first, last) as lane:
                value = (source + (mid * a.in0_m + lane * a.in0_l)).load()
                self._store(target + (mid * a.out0_m + lane * a.out0_l), value)
            return
        whole = first + (last - first) // LANES * LANES
        if self.spec.lane == "stride":
            with f.loop(first, whole, LANES) as lane:
                self._column(source, target, lane, start, stop, None)
            with f.loop(whole, last, LANES) as lane:
                self._column(source, target, lane, start, stop, last - lane)
            return
        with f.loop(start, stop) as mid:
            with f.loop(first, whole, LANES) as lane:
                self._column(source, target, lane, mid, mid + 1, None)
            with f.loop(whole, last, LANES) as lane:
                self._column(source, target, lane, mid, mid + 1, last - lane)

    def _column(
        self,
        source: Pointer,
        target: Pointer,
        lane: Value,
        start: Value,
        stop: Value,
        left: Value | None,
    ) -> None:
        """16 lanes (or what is left of them) of some turns of mid."""
        f, a = self.f, self.args
        numbers = Value(f, ir.Constant(vector(i32, LANES), list(range(LANES))))
        mask = None if left is None else numbers < f.splat(f.cast(left, i32), LANES)
        lane_places = []
        if self.spec.lane == "stride":
            for k in range(LANES):
                # A lane past the end reads the last element again.
                at = f.index(k) if left is None else least(f, k, left - 1)
                lane_places.append((lane + at) * a.in0_l)
        with f.loop(start, stop) as mid:
            place = source + mid * a.in0_m
            if self.spec.lane == "one":
                value = f.splat(place.load(), LANES)
            elif self.spec.lane == "next":
                value = (place + lane).load(LANES)
            else:
                type_ = vector(source.element, LANES)
                value = Value(f, ir.Constant(type_, ir.Undefined))
                for k, offset in enumerate(lane_places):
                    value = value.with_lane(k, (place + offset).load())
            self._store(target + (mid * a.out0_m + lane), value, mask)

    def _store(self, place: Pointer, value: Value, mask: Value | None = None) -> None:
        value = self._converted(value)
        if mask is None:
            place.store(value)
            return
        f, type_ = self.f, value.type
        kind = f"{'f' if is_float(type_) else 'i'}{_BITS[str(type_.element)]}"
        types = [type_, ir.PointerType(), i32, vector(i1, LANES)]
        name = f"llvm.masked.store.v{LANES}{kind}.p0"
        target = f.module.external(name, ir.VoidType(), types)
        align = ir.Constant(i32, _BITS[str(type_.element)] // 8)
        f.builder.call(target, [value.ir, place.ir, align, mask.ir])

    def _converted(self, value: Value) -> Value:
        """As NumPy's astype: truncation towards zero, integers modulo 2^n, truth is not zero."""
        f, source, target = self.f, self.spec.source, self.spec.target
        if source == target:
            return value
        if target == "bool":
            hit = value != 0
            type_ = i8 if hit.type == i1 else vector(i8, LANES)
            return Value(f, f.builder.zext(hit.ir, type_))
        new = TYPES[target]
        unsigned = source == "bool" or source.startswith("u")
        to = new if not isinstance(value.type, ir.VectorType) else vector(new, LANES)
        if unsigned and is_float(new):
            return Value(f, f.builder.uitofp(value.ir, to))
        if unsigned and new.width > TYPES[source].width:
            return Value(f, f.builder.zext(value.ir, to))
        if is_float(value.type) and not is_float(new) and new.width < 64:
            # Narrow and unsigned integers keep the low bits of what a wide one would be.
            wide = i32 if new.width < 32 or target == "int32" else i64
            return f.cast(f.cast(value, wide), new)
        return f.cast(value, new)


_BITS = {"float": 32, "double": 64, "i8": 8, "i16": 16, "i32": 32, "i64": 64}
