"""Reductions that no fused loop takes, and running sums: any element type, one run of axes.

Tensors are seen as [before][length][behind], reduced over the middle. 16 neighbours of `behind` are
reduced at once, the rest one by one; each result is made by one task, in order.

- ``sum``, ``product``, ``maximum``, ``minimum``, ``and``, ``or``: NaN comes through the extremes.
- ``arg_maximum``, ``arg_minimum``: the first of equals, the first NaN before all.
- ``cumulative``: sums so far; `start` and `step` (in elements) say from which end, `exclusive`
  leaves an element's own value out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stepgraph.backends.cpu.kernels.copy import TYPES
from stepgraph.backends.cpu.layouts import LANES
from stepgraph.backends.cpu.native.emit import Function, Module, Pointer, Value, i64, pointer
from stepgraph.backends.cpu.native.layout import least
from stepgraph.backends.cpu.native.value import i32, is_float, vector


@dataclass(frozen=True)
class ReduceSpec:
    """What one kernel does.

    Attributes:
        kind: as above.
        dtype: of the elements.
        exclusive: see above.
    """

    kind: str
    dtype: str
    exclusive: bool = False


def build_reduce(spec: ReduceSpec) -> Module:
    """The module with the kernel ``reduce``; tasks: `before` times blocks of `behind`."""
    module = Module("reduce")
    element = pointer(TYPES[spec.dtype])
    target = pointer(i32) if spec.kind.startswith("arg") else element
    fields: dict[str, Any] = {"x": element, "y": target}
    fields |= dict.fromkeys(("length", "behind", "block", "blocks", "rows", "before"), i64)
    fields |= dict.fromkeys(("start", "step"), i64)
    body = {"cumulative": _cumulative}.get(
        spec.kind, _argument if spec.kind[:3] == "arg" else _fold
    )
    with module.kernel("reduce", fields) as (f, a):
        block = a.task % a.blocks
        first_row = a.task // a.blocks * a.rows
        first = block * a.block
        last = least(f, first + a.block, a.behind)
        whole = first + (last - first) // LANES * LANES
        with f.loop(first_row, least(f, first_row + a.rows, a.before)) as row:
            source = a.x + row * a.length * a.behind
            with f.loop(first, whole, LANES) as i:
                body(spec, f, a, row, source + i, i, LANES)
            with f.loop(whole, last) as i:
                body(spec, f, a, row, source + i, i, 1)
    return module


def _fold(
    spec: ReduceSpec, f: Function, a: Any, row: Value, source: Pointer, i: Value, n: int
) -> None:
    combine = COMBINE[spec.kind]
    total = f.variable(source.load(n))
    with f.loop(1, a.length) as k:
        total.set(combine(f, total.get(), (source + k * a.behind).load(n)))
    (a.y + (row * a.behind + i)).store(total.get())


def _argument(
    spec: ReduceSpec, f: Function, a: Any, row: Value, source: Pointer, i: Value, n: int
) -> None:
    best = f.variable(source.load(n))
    place = f.variable(f.constant(vector(i32, n), 0))
    with f.loop(1, a.length) as k:
        seen, now = (source + k * a.behind).load(n), best.get()
        if not is_float(seen.type):
            wins = seen > now if spec.kind == "arg_maximum" else seen < now
        else:
            sign = ">" if spec.kind == "arg_maximum" else "<"
            ahead = Value(f, f.builder.fcmp_unordered(sign, seen.ir, now.ir))
            wins = ahead & (now == now)
        here = f.cast(k, i32)
        best.set(f.select(wins, seen, now))
        place.set(f.select(wins, f.splat(here, n) if n > 1 else here, place.get()))
    (a.y + (row * a.behind + i)).store(place.get())


def _cumulative(
    spec: ReduceSpec, f: Function, a: Any, row: Value, source: Pointer, i: Value, n: int
) -> None:
    target = a.y + (row * a.length * a.behind + i)
    total = f.variable(f.constant(vector(TYPES[spec.dtype], n), 0))
    with f.loop(0, a.length) as k:
        offset = a.start + k * a.step
        seen = (source + offset).load(n)
        if spec.exclusive:
            (target + offset).store(total.get())
        total.set(total.get() + seen)
        if not spec.exclusive:
            (target + offset).store(total.get())


def _extreme(name: str) -> Callable[[Function, Value, Value], Value]:
    def combine(f: Function, a: Value, b: Value) -> Value:
        if is_float(a.type):
            return f.intrinsic(name, a, b)
        return f.select(a > b if name == "maximum" else a < b, a, b)

    return combine


COMBINE: dict[str, Callable[[Function, Value, Value], Value]] = {
    "sum": lambda f, a, b: a + b,
    "product": lambda f, a, b: a * b,
    "maximum": _extreme("maximum"),
    "minimum": _extreme("minimum"),
    "and": lambda f, a, b: a & b,
    "or": lambda f, a, b: a | b,
}
