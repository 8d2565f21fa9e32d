"""Poolings and their gradients over panels: 16 channels of one window at a time.

One structure serves all of them (`windows`). The gradients recompute which pixel won instead of
having it stored.

Arithmetic: bandwidth-bound; each window reads its taps from the first-level cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepgraph.backends.cpu.kernels.windows import FIELDS, Walker, Window
from stepgraph.backends.cpu.layouts import LANES
from stepgraph.backends.cpu.native.emit import Function, Module, Pointer, Value, f32, pointer
from stepgraph.backends.cpu.native.layout import least
from stepgraph.backends.cpu.native.value import i32, vector

_F32 = vector(f32, LANES)


@dataclass(frozen=True)
class PoolingSpec:
    """What one kernel does.

    Attributes:
        kind: ``max``, ``avg``, ``at_maximum``, ``max_gradient`` or ``avg_gradient``.
        kernel: taps in height and width.
        count_padding: an average divides by all taps, not by the pixels the window sees.
        disjoint: windows are a kernel apart and all inside, as in most networks: each pixel of the
            source lies in one window or in none, so a gradient is written once, not added up.
    """

    kind: str
    kernel: tuple[int, int]
    count_padding: bool = False
    disjoint: bool = False

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
    with module.kernel("pool", fields | FIELDS) as (f, args):
        _Emission(spec, f, args).run()
    return module


class _Emission:
    def __init__(self, spec: PoolingSpec, f: Function, args: Any) -> None:
        self.spec = spec
        self.f = f
        self.args = args
        self.walker = Walker(f, args, spec.kernel)

    def run(self) -> None:
        f, a, spec, walker = self.f, self.args, self.spec, self.walker
        source, pooled = (walker.plane * size for size in (walker.source_size, walker.pooled_size))
        inner = {"x": source, "v": source, "g": pooled, "y": source if spec.backward else pooled}
        self.at: dict[str, Pointer] = {
            name: getattr(a, name) + inner[name] for name in (*spec.reads, "y")
        }
        if spec.disjoint:
            self._apart()
            return
        if not spec.backward:
            walker.forward(self._forward)
            return
        first = walker.block * a.block
        zero = f.constant(_F32, 0.0)
        with f.loop(first * a.w, least(f, first + a.block, a.h) * a.w) as pixel:
            (self.at["y"] + pixel * LANES).store(zero)
        walker.backward(self._backward)

    # -- windows that do not touch ---------------------------------------------------------------

    def _apart(self) -> None:
        """All taps written out; a block's rows are whole windows, and what lies beyond the last."""
        f, a = self.f, self.args
        (kh, kw), backward = self.spec.kernel, self.spec.backward
        first = self.walker.block * a.block
        last = least(f, first + a.block, a.h if backward else a.oh)
        window = kh if backward else 1
        low, high = first // window, least(f, last // window, a.oh)
        taps = [(i * a.w + j) * LANES for i in range(kh) for j in range(kw)]
        with f.loop(low, high) as oy:
            row = oy * kh * a.w * LANES
            with f.loop(0, a.ow) as ox:
                self._apart_window((oy * a.ow + ox) * LANES, row + ox * (kw * LANES), taps)
            if backward:
                for i in range(kh):
                    self._clear(row + i * a.w * LANES, a.ow * kw, a.w)
        if backward:
            self._clear(f.index(0), least(f, high * kh, last) * a.w, last * a.w)

    def _clear(self, start: Value, first: Value, last: Value) -> None:
        zero = self.f.constant(_F32, 0.0)
        with self.f.loop(first, last) as pixel:
            (self.at["y"] + (start + pixel * LANES)).store(zero)

    def _apart_window(self, pooled: Value, corner: Value, taps: list[Value]) -> None:
        f, kind, at = self.f, self.spec.kind, self.at
        count = len(taps)
        if kind == "avg_gradient":
            share = self._divided((at["g"] + pooled).load(LANES), count)
            for tap in taps:
                (at["y"] + (corner + tap)).store(share)
            return
        seen = [(at["x"] + (corner + tap)).load(LANES) for tap in taps]
        best = seen[0]
        if kind == "max_gradient":
            place = self._number(0)
            for number, value in enumerate(seen[1:], 1):
                wins = self._wins(value, best)
                best = f.select(wins, value, best)
                place = f.select(wins, self._number(number), place)
            incoming = (at["g"] + pooled).load(LANES)
            for number, tap in enumerate(taps):
                mine = f.select(place == self._number(number), incoming, 0.0)
                (at["y"] + (corner + tap)).store(mine)
            return
        for value in seen[1:]:
            best = f.intrinsic("maximum", best, value) if kind == "max" else best + value
        (at["y"] + pooled).store(best if kind == "max" else self._divided(best, count))

    @staticmethod
    def _divided(value: Value, count: int) -> Value:
        """The same bits by a multiplication, where that is exact."""
        return value * (1 / count) if count.bit_count() == 1 else value / float(count)

    # -- pieces --------------------------------------------------------------------------------

    def _number(self, tap: Value | int) -> Value:
        """A tap's number in every lane."""
        f = self.f
        if isinstance(tap, int):
            return f.constant(vector(i32, LANES), tap)
        return f.splat(f.cast(tap, i32), LANES)

    # -- what is computed ----------------------------------------------------------------------

    def _wins(self, seen: Value, best: Value) -> Value:
        """Greater than the best so far, or the first NaN."""
        b = self.f.builder
        ahead = Value(self.f, b.fcmp_unordered(">", seen.ir, best.ir))
        return ahead & (best == best)

    def _count(self, window: Window) -> Value:
        if self.spec.count_padding:
            return self.f.constant(_F32, self.walker.kh * self.walker.kw)
        seen = (window.rows[1] - window.rows[0]) * (window.columns[1] - window.columns[0])
        return self.f.splat(self.f.cast(seen, f32), LANES)

    def _place(self, window: Window, whole: Value) -> Value:
        """The number of the tap that sees the first maximum, lane by lane."""
        f, x = self.f, self.at["x"]
        i, j = window.rows[0], window.columns[0]
        best = f.variable((x + self.walker.offset(window, i, j)).load(LANES))
        place = f.variable(self._number(i * self.walker.kw + j))

        def visit(offset: Value, tap: Value | int) -> None:
            seen = (x + offset).load(LANES)
            wins = self._wins(seen, best.get())
            best.set(f.select(wins, seen, best.get()))
            place.set(f.select(wins, self._number(tap), place.get()))

        self.walker.taps(window, whole, visit)
        winner: Value = place.get()
        return winner

    def _forward(self, number: Value, window: Window, whole: Value) -> None:
        f, kind, x = self.f, self.spec.kind, self.at["x"]
        start = self.walker.offset(window, window.rows[0], window.columns[0])
        target = self.at["y"] + number * LANES
        if kind == "at_maximum":
            place, made = self._place(window, whole), f.variable(f.constant(_F32, 0.0))

            def pick(offset: Value, tap: Value | int) -> None:
                here = place == self._number(tap)
                made.set(f.select(here, (self.at["v"] + offset).load(LANES), made.get()))

            self.walker.taps(window, whole, pick)
            target.store(made.get())
            return
        maximum = kind == "max"
        total = f.variable((x + start).load(LANES) if maximum else f.constant(_F32, 0.0))

        def visit(offset: Value, tap: Value | int) -> None:
            seen = (x + offset).load(LANES)
            now = total.get()
            total.set(f.intrinsic("maximum", now, seen) if maximum else now + seen)

        self.walker.taps(window, whole, visit)
        target.store(total.get() if maximum else total.get() / self._count(window))

    def _backward(self, number: Value, window: Window, whole: Value) -> None:
        f, y = self.f, self.at["y"]
        incoming = (self.at["g"] + number * LANES).load(LANES)
        own = self.walker.own_rows(window)
        if self.spec.kind == "avg_gradient":
            share = incoming / self._count(window)

            def add(offset: Value, tap: Value | int) -> None:
                place = y + offset
                place.store(place.load(LANES) + share)

            self.walker.taps(window, whole, add, own)
            return
        winner = self._place(window, whole)

        def add_to_winner(offset: Value, tap: Value | int) -> None:
            place = y + offset
            mine = f.select(winner == self._number(tap), incoming, 0.0)
            place.store(place.load(LANES) + mine)

        self.walker.taps(window, whole, add_to_winner, own)
