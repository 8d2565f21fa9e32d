"""Poolings and their gradients over panels: 16 channels of one window at a time.

One structure serves all of them: a task takes one panel of one image and a block of rows, and walks
over the windows that it needs. The gradients recompute which pixel won instead of having it stored.
Their tasks own rows of the source: windows that reach over the border of a block are looked at by
both neighbours, each of which adds to its own rows only, so that nothing is written twice.

Arithmetic: bandwidth-bound; each window reads its taps from the first-level cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stepgraph.backends.cpu.layouts import LANES
from stepgraph.backends.cpu.native.emit import Function, Module, Pointer, Value, f32, i64, pointer
from stepgraph.backends.cpu.native.layout import greatest, least
from stepgraph.backends.cpu.native.value import i32, vector

# Windows of up to this many taps are written out; larger ones are loops.
UNROLLED = 25
SIZES = ("h", "w", "oh", "ow", "sh", "sw", "top", "left", "block", "blocks")
_F32 = vector(f32, LANES)
_I32 = vector(i32, LANES)


@dataclass(frozen=True)
class PoolingSpec:
    """What one kernel does.

    Attributes:
        kind: ``max``, ``avg``, ``at_maximum``, ``max_gradient`` or ``avg_gradient``.
        kernel: taps in height and width.
        count_padding: an average divides by all taps, not by the pixels the window sees.
    """

    kind: str
    kernel: tuple[int, int]
    count_padding: bool = False

    @property
    def backward(self) -> bool:
        """Whether tasks own rows of the source instead of rows of windows."""
        return self.kind.endswith("_gradient")

    @property
    def reads(self) -> tuple[str, ...]:
        """Arguments that are read, in the order of the op's inputs."""
        return {
            "max": ("x",),
            "avg": ("x",),
            "at_maximum": ("v", "x"),
            "max_gradient": ("g", "x"),
            "avg_gradient": ("g",),
        }[self.kind]


def build_pooling(spec: PoolingSpec) -> Module:
    """The module with the kernel ``pool``."""
    module = Module("pooling")
    fields: dict[str, Any] = {name: pointer(f32) for name in (*spec.reads, "y")}
    with module.kernel("pool", fields | dict.fromkeys(SIZES, i64)) as (f, args):
        _Emission(spec, f, args).run()
    return module


@dataclass
class _Window:
    """One window: where its taps lie, and which of them are inside the source."""

    row: Value
    column: Value
    rows: tuple[Value, Value]
    columns: tuple[Value, Value]


class _Emission:
    def __init__(self, spec: PoolingSpec, f: Function, args: Any) -> None:
        self.spec = spec
        self.f = f
        self.args = args
        self.kh, self.kw = spec.kernel

    def run(self) -> None:
        f, a, spec = self.f, self.args, self.spec
        plane, block = a.task // a.blocks, a.task % a.blocks
        source, pooled = plane * (a.h * a.w * LANES), plane * (a.oh * a.ow * LANES)
        inner = {"x": source, "v": source, "g": pooled, "y": source if spec.backward else pooled}
        self.at: dict[str, Pointer] = {
            name: getattr(a, name) + inner[name] for name in (*spec.reads, "y")
        }
        first = block * a.block
        if not spec.backward:
            self._windows(first, least(f, first + a.block, a.oh), self._forward)
            return
        last = least(f, first + a.block, a.h)
        zero = f.constant(_F32, 0.0)
        with f.loop(first * a.w, last * a.w) as pixel:
            (self.at["y"] + pixel * LANES).store(zero)
        self.first, self.last = first, last
        top = (greatest(f, first + a.top - (self.kh - 1), 0) + a.sh - 1) // a.sh
        self._windows(top, least(f, (last - 1 + a.top) // a.sh + 1, a.oh), self._backward)

    # -- windows -------------------------------------------------------------------------------

    def _windows(
        self, first: Value, last: Value, body: Callable[[Value, _Window, Value], None]
    ) -> None:
        """Calls `body` with each window's number, the window, and whether all its taps count."""
        f, a = self.f, self.args
        with f.loop(first, last) as oy:
            row = oy * a.sh - a.top
            rows = greatest(f, -row, 0), least(f, a.h - row, self.kh)
            all_rows = rows[1] - rows[0] == self.kh
            if self.spec.backward:
                inside = (row >= self.first) & (row + self.kh <= self.last)
                all_rows = all_rows & inside
            with f.loop(0, a.ow) as ox:
                column = ox * a.sw - a.left
                columns = greatest(f, -column, 0), least(f, a.w - column, self.kw)
                whole = all_rows & (columns[1] - columns[0] == self.kw)
                body(oy * a.ow + ox, _Window(row, column, rows, columns), whole)

    def _offset(self, window: _Window, i: Value | int, j: Value | int) -> Value:
        return ((window.row + i) * self.args.w + window.column + j) * LANES

    def _taps(
        self,
        window: _Window,
        whole: Value,
        visit: Callable[[Value, Value], None],
        rows: tuple[Value, Value] | None = None,
    ) -> None:
        """Calls `visit` with offset and number of each tap inside, row by row."""
        f = self.f
        first, last = rows or window.rows

        def written_out() -> None:
            for i in range(self.kh):
                for j in range(self.kw):
                    visit(self._offset(window, i, j), f.constant(i32, i * self.kw + j))

        def looped() -> None:
            with f.loop(first, last) as i, f.loop(*window.columns) as j:
                visit(self._offset(window, i, j), f.cast(i * self.kw + j, i32))

        if self.kh * self.kw <= UNROLLED:
            f.if_else(whole, written_out, looped)
        else:
            looped()

    # -- what is computed ----------------------------------------------------------------------

    def _wins(self, seen: Value, best: Value) -> Value:
        """Greater than the best so far, or the first NaN."""
        b = self.f.builder
        ahead = Value(self.f, b.fcmp_unordered(">", seen.ir, best.ir))
        return ahead & (best == best)

    def _count(self, window: _Window) -> Value:
        if self.spec.count_padding:
            return self.f.constant(_F32, self.kh * self.kw)
        seen = (window.rows[1] - window.rows[0]) * (window.columns[1] - window.columns[0])
        return self.f.splat(self.f.cast(seen, f32), LANES)

    def _place(self, window: _Window, whole: Value) -> Value:
        """The number of the tap that sees the first maximum, lane by lane."""
        f, x = self.f, self.at["x"]
        i, j = window.rows[0], window.columns[0]
        best = f.variable((x + self._offset(window, i, j)).load(LANES))
        place = f.variable(f.splat(f.cast(i * self.kw + j, i32), LANES))

        def visit(offset: Value, tap: Value) -> None:
            seen = (x + offset).load(LANES)
            wins = self._wins(seen, best.get())
            best.set(f.select(wins, seen, best.get()))
            place.set(f.select(wins, f.splat(tap, LANES), place.get()))

        self._taps(window, whole, visit)
        winner: Value = place.get()
        return winner

    def _forward(self, number: Value, window: _Window, whole: Value) -> None:
        f, kind, x = self.f, self.spec.kind, self.at["x"]
        start = self._offset(window, window.rows[0], window.columns[0])
        target = self.at["y"] + number * LANES
        if kind == "at_maximum":
            place, made = self._place(window, whole), f.variable(f.constant(_F32, 0.0))

            def pick(offset: Value, tap: Value) -> None:
                here = place == f.splat(tap, LANES)
                made.set(f.select(here, (self.at["v"] + offset).load(LANES), made.get()))

            self._taps(window, whole, pick)
            target.store(made.get())
            return
        maximum = kind == "max"
        total = f.variable((x + start).load(LANES) if maximum else f.constant(_F32, 0.0))

        def visit(offset: Value, tap: Value) -> None:
            seen = (x + offset).load(LANES)
            now = total.get()
            total.set(f.intrinsic("maximum", now, seen) if maximum else now + seen)

        self._taps(window, whole, visit)
        target.store(total.get() if maximum else total.get() / self._count(window))

    def _backward(self, number: Value, window: _Window, whole: Value) -> None:
        f, y = self.f, self.at["y"]
        incoming = (self.at["g"] + number * LANES).load(LANES)
        own = (
            greatest(f, window.rows[0], self.first - window.row),
            least(f, window.rows[1], self.last - window.row),
        )
        if self.spec.kind == "avg_gradient":
            share = incoming / self._count(window)

            def add(offset: Value, tap: Value) -> None:
                place = y + offset
                place.store(place.load(LANES) + share)

            self._taps(window, whole, add, own)
            return
        winner = self._place(window, whole)

        def add_to_winner(offset: Value, tap: Value) -> None:
            place = y + offset
            mine = f.select(winner == f.splat(tap, LANES), incoming, 0.0)
            place.store(place.load(LANES) + mine)

        self._taps(window, whole, add_to_winner, own)
