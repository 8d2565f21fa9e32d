"""Fused loops: any chain of elementwise ops, with sums over rows or lanes, as one kernel.

A nest walks a grid of (outer..., row, mid) positions with 16 lanes at each. An operand is a base
address and a stride along each dimension (0 where it is broadcast); layouts, broadcasting, slices
and transposes are all strides. What an operand does not depend on is loaded and computed outside
the loop, so a channel's scale and shift stay in registers while the loop walks down its panel.

    task -> (outer position, block of rows, block of mid)
      for row in block:
        for mid in block:
          16 lanes: load, compute, store, accumulate

Reductions: ``"grid"`` adds over rows and mid, lane by lane (sums over the batch and the map, per
channel), one partial result per block, `SUMMED` positions at a time, because sums of short sums
are more accurate than a long one; ``"lanes"`` adds over mid and lanes (sums along the last axis),
one result per row. Blocks have fixed sizes, so results do not depend on the number of threads.

Arithmetic: bandwidth-bound; every full operand is read once and every result written once.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from llvmlite import ir

from stepgraph.backends.cpu.kernels.scalar_ops import SCALARS, constant, emitter
from stepgraph.backends.cpu.layouts import LANES
from stepgraph.backends.cpu.native.emit import Function, Module, Pointer, Value, f32, i64, pointer
from stepgraph.backends.cpu.native.value import Variable, i1, i8, i32, vector

OUTER, ROW, MID = 0, 1, 2
# Lanes that are computed where a panel has no more channels than this.
NARROW = LANES // 2
# Positions along mid whose sum is added up before it joins the block's.
SUMMED = 32


@dataclass(frozen=True)
class Operand:
    """How an input or output of a nest moves.

    Attributes:
        dtype: element type.
        outer: for each outer dimension, whether its stride is not 0.
        row: whether its row stride is not 0.
        mid: whether its mid stride is not 0.
        lane: ``"one"`` element for all lanes, ``"next"`` for neighbours, ``"stride"`` otherwise.
    """

    dtype: str
    outer: tuple[bool, ...]
    row: bool
    mid: bool
    lane: str

    @property
    def level(self) -> int:
        """The innermost loop it changes in."""
        return MID if self.mid else ROW if self.row else OUTER


@dataclass(frozen=True)
class Node:
    """One op of a nest; arguments are numbers of inputs, then of earlier nodes.

    The attributes' text tells nodes apart that would be equal by value but make other code: -0.0
    and 0.0, True and 1.
    """

    op: str
    arguments: tuple[int, ...]
    attributes: tuple[tuple[str, Any], ...] = ()
    dtypes: tuple[str, ...] = ()
    text: str = field(init=False)

    def __post_init__(self) -> None:
        """Spells the attributes."""
        object.__setattr__(self, "text", repr(self.attributes))


@dataclass(frozen=True)
class NestSpec:
    """A nest's structure; sizes, strides and addresses are given at run time.

    Attributes:
        inputs: operands read.
        nodes: what is computed, in order.
        outputs: (value, operand) pairs to store.
        reductions: (value, kind) pairs; kind is ``sum``, ``maximum``, ``minimum`` or ``product``.
        reduce: ``""``, ``"grid"`` or ``"lanes"``.
        masked: lanes may pass the end of the last axis.
        chunk: which dimension counts the chunks of 16 lanes when masked: an outer dimension's
            number, or -1 for mid.
        zeros: lanes past the end are stored as zeros instead of left alone (panels).
        lanes: how many of the 16 are computed; `NARROW` if the others are all past the end.
    """

    inputs: tuple[Operand, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[tuple[int, Operand], ...] = ()
    reductions: tuple[tuple[int, str], ...] = ()
    reduce: str = ""
    masked: bool = False
    chunk: int = -1
    zeros: bool = False
    lanes: int = LANES

    @property
    def outer_rank(self) -> int:
        """Number of outer dimensions."""
        for operand in (*self.inputs, *(o for _, o in self.outputs)):
            return len(operand.outer)
        return 0


IDENTITY = {"sum": 0.0, "product": 1.0, "maximum": -np.inf, "minimum": np.inf}


def fields(spec: NestSpec) -> dict[str, Any]:
    """The kernel's arguments: sizes, then per operand its address and the strides it uses."""
    found: dict[str, Any] = {"rows": i64, "mid": i64, "row_block": i64, "mid_block": i64}
    found |= {"row_blocks": i64, "mid_blocks": i64}
    found |= {f"outer{k}": i64 for k in range(spec.outer_rank)}
    if spec.masked:
        found["lanes"] = i64
    for label, operand in _operands(spec):
        found[label] = pointer(_memory(operand.dtype))
        found |= {f"{label}_o{k}": i64 for k, used in enumerate(operand.outer) if used}
        if operand.row:
            found[f"{label}_r"] = i64
        if operand.mid:
            found[f"{label}_m"] = i64
        if operand.lane == "stride":
            found[f"{label}_l"] = i64
    for k in range(len(spec.reductions)):
        found[f"sum{k}"] = pointer(f32)
        found |= {f"sum{k}_o{j}": i64 for j in range(spec.outer_rank)}
        found[f"sum{k}_b"] = i64
    return found


def _operands(spec: NestSpec) -> list[tuple[str, Operand]]:
    inputs = [(f"in{k}", operand) for k, operand in enumerate(spec.inputs)]
    return inputs + [(f"out{k}", operand) for k, (_, operand) in enumerate(spec.outputs)]


def _memory(dtype: str) -> Any:
    return i8 if dtype == "bool" else SCALARS[dtype]


def build_nest(spec: NestSpec) -> Module:
    """The module with the kernel ``nest`` of a structure."""
    module = Module("nest")
    with module.kernel("nest", fields(spec)) as (f, args):
        _Emission(spec, f, args).run()
    return module


class _Emission:
    """Writes one nest; holds what several of its parts need."""

    def __init__(self, spec: NestSpec, f: Function, args: Any) -> None:
        self.spec = spec
        self.f = f
        self.args = args
        self.lanes = spec.lanes
        self.values: list[Value | None] = [None] * (len(spec.inputs) + len(spec.nodes))
        self.levels = self._levels()
        self.base: dict[str, Pointer] = {}
        self.row_base: dict[str, Pointer] = {}

    def _levels(self) -> list[int]:
        levels = [operand.level for operand in self.spec.inputs]
        for node in self.spec.nodes:
            levels.append(max((levels[a] for a in node.arguments), default=OUTER))
        return levels

    def run(self) -> None:
        f, args, spec = self.f, self.args, self.spec
        blocks = args.row_blocks * args.mid_blocks
        block = args.task % blocks
        outer = args.task // blocks
        self.row_index, self.mid_index = block // args.mid_blocks, block % args.mid_blocks
        self.block = block
        self.outer_at = self._decode(outer)
        first_row = self.row_index * args.row_block
        last_row = self._smaller(first_row + args.row_block, args.rows)
        first_mid = self.mid_index * args.mid_block
        last_mid = self._smaller(first_mid + args.mid_block, args.mid)
        for label, operand in _operands(spec):
            self.base[label] = self._outer_base(label, operand)
        if spec.masked and spec.chunk >= 0:
            self.mask = self._mask(self.outer_at[spec.chunk])
        self._compute(OUTER, None, None)
        grid = spec.reduce == "grid"
        totals = self._totals() if grid else []
        with f.loop(first_row, last_row) as row:
            for label, operand in _operands(spec):
                self.row_base[label] = (
                    self.base[label] + row * getattr(args, f"{label}_r")
                    if operand.row
                    else self.base[label]
                )
            self._compute(ROW, row, None)
            if grid:
                with f.loop(first_mid, last_mid, SUMMED) as start:
                    some = self._totals()
                    self._positions(start, self._smaller(start + SUMMED, last_mid), row, some)
                    for total, part, (_, kind) in zip(totals, some, spec.reductions, strict=True):
                        total.set(self._combine(kind, total.get(), part.get()))
            else:
                totals = self._totals() if spec.reduce else []
                self._positions(first_mid, last_mid, row, totals)
            if spec.reduce == "lanes":
                self._finish_lanes(totals, row)
        if grid:
            self._finish_grid(totals)

    def _positions(self, first: Value, last: Value, row: Value, totals: list[Variable]) -> None:
        """Everything at some positions of a row."""
        with self.f.loop(first, last) as mid:
            if self.spec.masked and self.spec.chunk < 0:
                self.mask = self._mask(mid)
            self._compute(MID, row, mid)
            self._store(row, mid)
            self._accumulate(totals)

    def _smaller(self, a: Value, b: Value) -> Value:
        return self.f.select(a < b, a, b)

    def _decode(self, outer: Value) -> list[Value]:
        found: list[Value] = []
        for k in reversed(range(self.spec.outer_rank)):
            size = getattr(self.args, f"outer{k}")
            found.insert(0, outer % size if k else outer)
            outer = outer // size
        return found

    def _outer_base(self, label: str, operand: Operand) -> Pointer:
        base: Pointer = getattr(self.args, label)
        for k, used in enumerate(operand.outer):
            if used:
                base = base + self.outer_at[k] * getattr(self.args, f"{label}_o{k}")
        return base

    def _mask(self, chunk: Value) -> Value:
        f = self.f
        left = f.cast(self.args.lanes - chunk * LANES, i32)
        self.left = left
        numbers = Value(f, ir.Constant(vector(i32, self.lanes), list(range(self.lanes))))
        return numbers < f.splat(left, self.lanes)

    def _compute(self, level: int, row: Value | None, mid: Value | None) -> None:
        spec = self.spec
        count = len(spec.inputs)
        for k, operand in enumerate(spec.inputs):
            if self.levels[k] == level:
                self.values[k] = self._load(f"in{k}", operand, mid)
        for k, node in enumerate(spec.nodes):
            if self.levels[count + k] == level:
                self.values[count + k] = self._node(node)

    def _node(self, node: Node) -> Value:
        settings = dict(node.attributes)
        if node.op == "number":
            return constant(self.f, settings["dtype"], settings["value"], self.lanes)
        emit = emitter(node.op, node.dtypes)
        assert emit is not None, node
        arguments = [self.values[a] for a in node.arguments]
        return emit(self.f, *arguments, **settings)

    def _place(self, label: str, operand: Operand, mid: Value | None) -> Pointer:
        place = self.row_base.get(label, self.base[label]) if operand.level else self.base[label]
        if operand.mid:
            assert mid is not None
            place = place + mid * getattr(self.args, f"{label}_m")
        return place

    def _load(self, label: str, operand: Operand, mid: Value | None) -> Value:
        f = self.f
        place = self._place(label, operand, mid)
        if operand.lane == "one":
            value = f.splat(place.load(), self.lanes)
        elif operand.lane == "next":
            value = place.load(self.lanes)
        else:
            value = self._load_strided(label, place)
        return value != 0 if operand.dtype == "bool" else value

    def _load_strided(self, label: str, place: Pointer) -> Value:
        f = self.f
        stride = getattr(self.args, f"{label}_l")
        value = Value(f, ir.Constant(vector(place.element, self.lanes), ir.Undefined))
        for lane in range(self.lanes):
            number = f.index(lane)
            if self.spec.masked:
                # A lane past the end reads the last element again.
                number = self._smaller(number, f.cast(self.left, i64) - 1)
            value = value.with_lane(lane, (place + number * stride).load())
        return value

    def _store(self, row: Value, mid: Value) -> None:
        f = self.f
        for k, (number, operand) in enumerate(self.spec.outputs):
            label = f"out{k}"
            place = self._place(label, operand, mid)
            value = self.values[number]
            assert value is not None
            if operand.dtype == "bool":
                value = f.cast(value, i8)
            if operand.lane == "stride":
                self._store_strided(label, place, value)
            elif self.spec.masked and self.spec.zeros:
                place.store(self._widened(f.select(self.mask, value, 0), 0))
            elif self.spec.masked:
                self._store_masked(place, value)
            else:
                place.store(value)

    def _widened(self, value: Value, past: float) -> Value:
        """All 16 lanes; those that are not computed are `past`."""
        if self.lanes == LANES:
            return value
        return self.f.shuffle(value, value.like(past), range(LANES))

    def _store_masked(self, place: Pointer, value: Value) -> None:
        f, type_ = self.f, value.type
        kind = {"float": "f32", "i8": "i8", "i32": "i32", "i64": "i64"}[str(type_.element)]
        target = f.module.external(
            f"llvm.masked.store.v{self.lanes}{kind}.p0",
            ir.VoidType(),
            [type_, ir.PointerType(), i32, vector(i1, self.lanes)],
        )
        align = ir.Constant(i32, {"f32": 4, "i8": 1, "i32": 4, "i64": 8}[kind])
        f.builder.call(target, [value.ir, place.ir, align, self.mask.ir])

    def _store_strided(self, label: str, place: Pointer, value: Value) -> None:
        f = self.f
        stride = getattr(self.args, f"{label}_l")
        for lane in range(self.lanes):
            spot = place + f.index(lane) * stride
            if self.spec.masked:
                with f.if_(self.mask.lane(lane)):
                    spot.store(value.lane(lane))
            else:
                spot.store(value.lane(lane))

    # Reductions.

    def _totals(self) -> list[Variable]:
        f = self.f
        return [
            f.variable(f.constant(vector(f32, self.lanes), IDENTITY[kind]))
            for _, kind in self.spec.reductions
        ]

    def _combine(self, kind: str, a: Value, b: Value) -> Value:
        if kind == "sum":
            return a + b
        if kind == "product":
            return a * b
        return self.f.intrinsic(kind, a, b)

    def _accumulate(self, totals: list[Variable]) -> None:
        for total, (number, kind) in zip(totals, self.spec.reductions, strict=True):
            value = self.values[number]
            assert value is not None
            if self.spec.masked:
                value = self.f.select(self.mask, value, IDENTITY[kind])
            total.set(self._combine(kind, total.get(), value))

    def _sum_base(self, k: int) -> Pointer:
        base: Pointer = getattr(self.args, f"sum{k}")
        for j, at in enumerate(self.outer_at):
            base = base + at * getattr(self.args, f"sum{k}_o{j}")
        return base

    def _finish_grid(self, totals: list[Variable]) -> None:
        for k, total in enumerate(totals):
            base = self._sum_base(k) + self.block * getattr(self.args, f"sum{k}_b")
            base.store(self._widened(total.get(), IDENTITY[self.spec.reductions[k][1]]))

    def _finish_lanes(self, totals: list[Variable], row: Value) -> None:
        for k, total in enumerate(totals):
            combine = functools.partial(self._combine, self.spec.reductions[k][1])
            value = self.f.reduce(total.get(), combine)
            (self._sum_base(k) + row * getattr(self.args, f"sum{k}_b")).store(value)
