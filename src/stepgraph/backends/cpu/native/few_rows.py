"""Products of few rows with a matrix of weights, and their gradients: each weight is read once.

    forward   y[o][m]  = sum_c x[c][m] * w[o][c]
    data      dx[c][m] = sum_o dy[o][m] * w[o][c]'
    weights   dw[o][c] = alpha * sum_m x[c][m] * dy[o][m] + beta * dw[o][c]

Data in panels ``[C/16][M][16]``, weights in blocks ``[O/16][C/16][16 c][16 o]``, as for the product
of any number of rows (`native.product`). With a dozen rows that one spends as much on what stands
around its sums as on the sums, and transposes weights for the data gradient that are used a dozen
times only. Here the number of rows is part of the code:

- forward: rows x panels of sums in registers, one step for each input channel;
- data gradient: sums over lanes of output channels, so that weights are read as they lie; the lanes
  are added up at the end, for 16 input channels at once;
- weight gradient: all rows of 16 output channels in registers while their weights go by.

Arithmetic: 2 * M operations per weight and direction. A core of 118 GFLOP/s takes M / 3.7 ns for a
64-byte line of 16 weights, a cache shared by cores gives one in less than 1 ns: from a few rows on
arithmetic is the bound. Tasks are a microsecond of it at least.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepgraph.backends.cpu.native.emit import Function, Module, Pointer, Value, f32, i64, pointer
from stepgraph.backends.cpu.native.layout import least
from stepgraph.backends.cpu.native.product import PANEL, blocking_for
from stepgraph.backends.cpu.native.target import Target
from stepgraph.backends.cpu.native.value import vector

FORWARD, DATA, WEIGHTS = "forward", "data", "weights"
_BLOCK = PANEL * PANEL
# Most panels of the forward product's results that are summed side by side.
_PANELS = 4
# Sums that run side by side at least, so that none waits for the one before it.
_ENOUGH_SUMS = 8
# Panels of input channels between two visits of a result: long sums of parts are more accurate.
_DEPTH = 16
# Multiply-adds that a task should at least do: a microsecond of them.
_TASK_WORK = 1 << 16


@dataclass(frozen=True)
class FewRows:
    """What a kernel is made for; sizes of the matrix are given at run time.

    Attributes:
        kind: ``forward``, ``data`` or ``weights``.
        rows: M.
        lanes: of a vector register.
        sums: vector registers for sums.
    """

    kind: str
    rows: int
    lanes: int
    sums: int

    @property
    def parts(self) -> int:
        """Registers of a panel's row."""
        return PANEL // self.lanes

    @property
    def panels(self) -> int:
        """Panels of results at a time."""
        if self.kind != FORWARD:
            return 1
        return max(1, min(_PANELS, self.sums // (self.rows * self.parts)))

    @property
    def channels(self) -> int:
        """Input channels at a time, of the data gradient."""
        return max(n for n in (1, 2, 4, 8) if n * self.rows <= self.sums or n == 1)


def few_rows(kind: str, rows: int, target: Target) -> FewRows | None:
    """What suits a number of rows; None if they are too many."""
    blocking = blocking_for(target)
    lanes = min(target.lanes, PANEL)
    sums = blocking.rows * blocking.panels * PANEL // lanes
    return FewRows(kind, rows, lanes, sums) if rows <= blocking.rows else None


def cut(spec: FewRows, in_panels: int, out_panels: int) -> tuple[int, int]:
    """Panels of results (outputs, or inputs for the data gradient): a task's, and all."""
    across, along = (in_panels, out_panels) if spec.kind == DATA else (out_panels, in_panels)
    work = spec.panels * along * _BLOCK * spec.rows
    return min(across, spec.panels * -(-_TASK_WORK // work)), across


_FIELDS = {
    **dict.fromkeys(("x", "w", "y"), pointer(f32)),
    **dict.fromkeys(("in_panels", "out_panels", "width"), i64),
    **dict.fromkeys(("alpha", "beta"), f32),
}


def few_rows_module(spec: FewRows) -> Module:
    """The module with the kernel ``few_rows``; its task is a number of panels (see `cut`)."""
    module = Module("few_rows")
    with module.kernel("few_rows", _FIELDS) as (f, x):
        {FORWARD: _forward, DATA: _data_gradient, WEIGHTS: _weight_gradient}[spec.kind](f, x, spec)
    return module


def _vectors(place: Pointer, spec: FewRows) -> list[Value]:
    """A panel's row."""
    return [(place + part * spec.lanes).load(spec.lanes) for part in range(spec.parts)]


def _zero(f: Function, spec: FewRows) -> Value:
    return f.constant(vector(f32, spec.lanes), 0.0)


# -- forward --------------------------------------------------------------------------------------


def _forward(f: Function, x: Any, spec: FewRows) -> None:
    start = x.task * x.width
    stop = least(f, start + x.width, x.out_panels)
    with f.loop(start, stop, spec.panels) as first:
        counts = range(1, spec.panels + 1)
        cases = {count: lambda count=count: _sums(f, x, spec, first, count) for count in counts}
        f.switch(least(f, stop - first, spec.panels), cases)


def _sums(f: Function, x: Any, spec: FewRows, first: Value, panels: int) -> None:
    """Some panels of y."""
    rows = range(spec.rows)
    ways = 2 if spec.rows * panels * spec.parts < _ENOUGH_SUMS else 1
    data = f.variable(x.x)
    weights = [f.variable(x.w + (first + p) * x.in_panels * _BLOCK) for p in range(panels)]
    with f.loop(0, x.in_panels, _DEPTH) as depth:
        zero = _zero(f, spec)
        sums = [
            [[f.variable(zero) for _ in range(panels * spec.parts)] for _ in rows]
            for _ in range(ways)
        ]
        with f.loop(0, least(f, x.in_panels - depth, _DEPTH), nonempty=True):
            for k in range(PANEL):
                at = [v for place in weights for v in _vectors(place.get() + k * PANEL, spec)]
                for row, totals in zip(rows, sums[k % ways], strict=True):
                    value = f.splat((data.get() + (row * PANEL + k)).load(), spec.lanes)
                    for total, weight in zip(totals, at, strict=True):
                        total.set(f.fma(value, weight, total.get()))
            data.set(data.get() + spec.rows * PANEL)
            for place in weights:
                place.set(place.get() + _BLOCK)

        def store(added: bool) -> None:
            for row in rows:
                for number in range(panels * spec.parts):
                    panel, part = divmod(number, spec.parts)
                    to = x.y + (first + panel) * (spec.rows * PANEL)
                    to = to + (row * PANEL + part * spec.lanes)
                    total = sums[0][row][number].get()
                    if ways == 2:
                        total = total + sums[1][row][number].get()
                    to.store(to.load(spec.lanes) + total if added else total)

        f.if_else(depth == 0, lambda: store(False), lambda: store(True))


# -- weight gradient ------------------------------------------------------------------------------


def _weight_gradient(f: Function, x: Any, spec: FewRows) -> None:
    start = x.task * x.width
    stop = least(f, start + x.width, x.out_panels)
    alpha = f.splat(x.alpha, spec.lanes)
    beta = f.splat(x.beta, spec.lanes)
    with f.loop(start, stop) as panel:
        dy = x.y + panel * (spec.rows * PANEL)
        grads = [_vectors(dy + row * PANEL, spec) for row in range(spec.rows)]

        def go(added: bool, panel: Value = panel, grads: list[list[Value]] = grads) -> None:
            data, place = f.variable(x.x), f.variable(x.w + panel * x.in_panels * _BLOCK)
            with f.loop(0, x.in_panels, nonempty=True):
                for channel in range(PANEL):
                    for part, total in enumerate(_outer(f, data.get() + channel, grads, spec)):
                        to = place.get() + (channel * PANEL + part * spec.lanes)
                        scaled = total * alpha
                        if added:
                            scaled = f.fma(total, alpha, to.load(spec.lanes) * beta)
                        to.store(scaled)
                data.set(data.get() + spec.rows * PANEL)
                place.set(place.get() + _BLOCK)

        f.if_else(x.beta == 0.0, lambda: go(False), lambda: go(True))


def _outer(f: Function, data: Pointer, grads: list[list[Value]], spec: FewRows) -> list[Value]:
    """An input channel's sums over the rows."""
    totals: list[Value] = []
    for row, values in enumerate(grads):
        factor = f.splat((data + row * PANEL).load(), spec.lanes)
        if not totals:
            totals = [factor * value for value in values]
        else:
            pairs = zip(totals, values, strict=True)
            totals = [f.fma(factor, value, total) for total, value in pairs]
    return totals


# -- data gradient --------------------------------------------------------------------------------


def _data_gradient(f: Function, x: Any, spec: FewRows) -> None:
    start = x.task * x.width
    stop = least(f, start + x.width, x.in_panels)
    # Sums over lanes: [row][channel][lane].
    apart = f.stack(f32, spec.rows * PANEL * spec.lanes)
    step = x.in_panels * _BLOCK
    with f.loop(start, stop) as panel:
        with f.loop(0, PANEL, spec.channels, nonempty=True) as channel:
            zero = _zero(f, spec)
            sums = [[f.variable(zero) for _ in range(spec.rows)] for _ in range(spec.channels)]
            place = f.variable(x.w + (panel * _BLOCK + channel * PANEL))
            grad = f.variable(x.y)
            with f.loop(0, x.out_panels, nonempty=True):
                for part in range(spec.parts):
                    skip = part * spec.lanes
                    weights = [
                        (place.get() + (number * PANEL + skip)).load(spec.lanes)
                        for number in range(spec.channels)
                    ]
                    for row in range(spec.rows):
                        value = (grad.get() + (row * PANEL + skip)).load(spec.lanes)
                        for totals, weight in zip(sums, weights, strict=True):
                            totals[row].set(f.fma(value, weight, totals[row].get()))
                place.set(place.get() + step)
                grad.set(grad.get() + spec.rows * PANEL)
            for number, totals in enumerate(sums):
                for at, total in enumerate(totals):
                    place_of = apart + (channel + (at * PANEL + number)) * spec.lanes
                    place_of.store(total.get())
        to = x.x + panel * (spec.rows * PANEL)
        with f.loop(0, spec.rows, nonempty=True) as line:
            for part in range(spec.parts):
                start_at = apart + (line * PANEL + part * spec.lanes) * spec.lanes
                rows = [(start_at + i * spec.lanes).load(spec.lanes) for i in range(spec.lanes)]
                (to + line * PANEL + part * spec.lanes).store(_added_lanes(f, rows))


def _added_lanes(f: Function, rows: list[Value]) -> Value:
    """Lane j of the result is the sum of all lanes of vector j.

    Each stage adds two vectors' halves side by side: three operations instead of two sums of lanes.
    """
    count = len(rows)
    stage = 1
    while stage < count:
        low = [j if not j & stage else count + j - stage for j in range(count)]
        high = [j + stage if not j & stage else count + j for j in range(count)]
        rows = [
            f.shuffle(a, b, low) + f.shuffle(a, b, high)
            for a, b in zip(rows[::2], rows[1::2], strict=True)
        ]
        stage *= 2
    return rows[0]
