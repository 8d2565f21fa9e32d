"""Depthwise convolutions with small windows, a row of outputs at a time.

- ``forward``: some neighbouring outputs of a row are summed in registers; each column of the source
  is loaded once per kernel row and used for every output that sees it. With `flipped` weights it is
  the data gradient of a convolution of stride 1, read as a convolution of the gradient.
- ``weights``: a sum per tap in registers over a task's rows, one partial result per task, which
  `depthwise` adds up in order.

A column outside the source is read from a vector of zeros: an address is chosen, nothing branches,
and blocks whose columns all lie inside do without. Kernel rows outside are left out.

Arithmetic: one multiply-add per tap and vector. For 8 outputs of stride 1 and a 3-wide kernel, 24
of them per 10 loads of the source and 3 of weights: bound by the multiply-add units as long as the
source is in the second-level cache, and 8 bytes moved per 9 multiply-adds: by memory if it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stepgraph.backends.cpu.kernels.ahead import Lines, ahead_fields, ask_ahead
from stepgraph.backends.cpu.kernels.depthwise import load_weights, total_kernel
from stepgraph.backends.cpu.layouts import LANES
from stepgraph.backends.cpu.native.emit import Function, Module, Pointer, Value, f32, i64, pointer
from stepgraph.backends.cpu.native.layout import greatest, least
from stepgraph.backends.cpu.native.value import Variable, vector

_F32 = vector(f32, LANES)
# Columns are written out: wider kernels would make long code.
WIDEST, MOST_TAPS = 7, 49
_SIZES = ("channels", "images", "h", "w", "oh", "ow", "top", "left", "block", "blocks")


@dataclass(frozen=True)
class RowsSpec:
    """What one kernel does.

    Attributes:
        kind: ``forward`` or ``weights``.
        kernel: taps in height and width.
        strides: down, across.
        dilations: steps between two taps.
        columns: outputs of a row that are computed together.
        flipped: the weights are read from the last tap to the first.
        together: sums of all kernel rows fit into registers (for weights).
        ahead: what is asked for on the way; see `ahead`.
    """

    kind: str
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    columns: int
    flipped: bool = False
    together: bool = True
    ahead: tuple[Lines, ...] = ()


def fits_rows(kernel: tuple[int, int]) -> bool:
    """Whether windows are small enough to be written out."""
    return kernel[1] <= WIDEST and kernel[0] * kernel[1] <= MOST_TAPS


def build_rows(spec: RowsSpec) -> Module:
    """The module with the kernel ``depthwise``, and ``total`` for weight gradients."""
    module = Module("depthwise_rows")
    fields: dict[str, Any] = {name: pointer(f32) for name in ("x", "k", "y")}
    fields |= dict.fromkeys(_SIZES, i64) | ahead_fields(spec.ahead)
    with module.kernel("depthwise", fields) as (f, args):
        _Rows(spec, f, args).run()
    if spec.kind == "weights":
        total_kernel(module, spec.kernel[0] * spec.kernel[1])
    return module


@dataclass
class _Row:
    """One row of outputs: the source's plane and row of its first tap, taps inside, its number."""

    source: Pointer
    top: Value
    taps: tuple[Value, Value]
    number: Value


class _Rows:
    """Tasks are (panel, part): a part is some rows of outputs of all images."""

    def __init__(self, spec: RowsSpec, f: Function, args: Any) -> None:
        self.spec, self.f, self.args = spec, f, args
        self.kh, self.kw = spec.kernel
        self.panel, self.part = args.task // args.blocks, args.task % args.blocks
        self.zeros = f.stack(f32, LANES)
        self.zeros.store(f.constant(_F32, 0.0))
        self.line = args.w * LANES

    def run(self) -> None:
        (self._forward if self.spec.kind == "forward" else self._weights)()

    # -- walking -------------------------------------------------------------------------------

    def _rows(self, body: Callable[[_Row], None]) -> None:
        """Calls `body` for each of the task's rows."""
        f, a, spec = self.f, self.args, self.spec
        first = self.part * a.block
        image = first // a.oh
        now, oy = f.variable(image), f.variable(first - image * a.oh)
        dilation = spec.dilations[0]
        with f.loop(first, least(f, first + a.block, a.images * a.oh)) as number:
            top = oy.get() * spec.strides[0] - a.top
            before, room = greatest(f, -top, 0), greatest(f, a.h - top, 0)
            if dilation > 1:
                before, room = ((v + (dilation - 1)) // dilation for v in (before, room))
            taps = before, least(f, room, self.kh)
            source = a.x + (self.panel * a.images + now.get()) * a.h * self.line
            body(_Row(source, top, taps, number))
            below = oy.get() + 1
            wrapped = below == a.oh
            oy.set(f.select(wrapped, f.index(0), below))
            now.set(now.get() + f.cast(wrapped, i64))

    def _inner(self) -> tuple[Value, Value]:
        """First output of a row whose columns all lie inside, and the one behind the last."""
        f, a, stride = self.f, self.args, self.spec.strides[1]
        reach = a.w - 1 + a.left - (self.kw - 1) * self.spec.dilations[1]
        last = f.select(reach < 0, f.index(0), least(f, reach // stride + 1, a.ow))
        return (a.left + (stride - 1)) // stride, last

    def _columns(self, count: int) -> dict[int, list[tuple[int, int]]]:
        """Source columns that `count` outputs see, each with the (output, tap) pairs it meets."""
        found: dict[int, list[tuple[int, int]]] = {}
        for output in range(count):
            for tap in range(self.kw):
                column = output * self.spec.strides[1] + tap * self.spec.dilations[1]
                found.setdefault(column, []).append((output, tap))
        return dict(sorted(found.items()))

    def _loads(
        self, line: Pointer, left: Value, count: int, bordered: bool
    ) -> Sequence[tuple[Value, list[tuple[int, int]]]]:
        """The columns of one source row from `left` on, and what they meet."""
        made = []
        for column, pairs in self._columns(count).items():
            at = left + column
            place = line + at * LANES
            if bordered:
                place = place.select((at >= 0) & (at < self.args.w), self.zeros)
            made.append((place.load(LANES), pairs))
        return made

    def _blocks(
        self, first: Value | int, last: Value, count: int, body: Callable[[Value, bool], None]
    ) -> None:
        """Calls `body` for blocks of outputs, with whether columns may lie outside."""
        f, (low, high) = self.f, self.inner
        with f.loop(first, last, count) as ox:
            plain = (ox >= low) & (ox + count <= high)
            f.if_else(plain, lambda: body(ox, False), lambda: body(ox, True))

    def _ask(self, row: _Row, ox: Value, count: int) -> None:
        """Asks for what lies ahead, as much as belongs to some outputs."""
        a = self.args
        first = (self.panel * a.images * a.oh + row.number) * a.ow + ox
        ask_ahead(a, self.spec.ahead, first, count)

    # -- outputs -------------------------------------------------------------------------------

    def _forward(self) -> None:
        f, a, spec = self.f, self.args, self.spec
        weights = load_weights(f, a.k, a.channels, self.panel, self.kh * self.kw, spec.flipped)
        nowhere = f.stack(f32, LANES)
        self.inner = self._inner()
        zero = f.constant(_F32, 0.0)

        def row(row: _Row) -> None:
            out = a.y + (self.panel * a.images * a.oh + row.number) * a.ow * LANES

            def block(ox: Value, bordered: bool) -> None:
                self._ask(row, ox, spec.columns)
                sums = [f.variable(zero) for _ in range(spec.columns)]
                left = ox * spec.strides[1] - a.left
                with f.loop(*row.taps) as i:
                    line = row.source + (row.top + i * spec.dilations[0]) * self.line
                    at = weights + i * (self.kw * LANES)
                    factors = [(at + j * LANES).load(LANES) for j in range(self.kw)]
                    for value, pairs in self._loads(line, left, spec.columns, bordered):
                        for output, tap in pairs:
                            total = sums[output]
                            total.set(f.fma(value, factors[tap], total.get()))
                for output, total in enumerate(sums):
                    place = out + (ox + output) * LANES
                    if bordered:
                        place = place.select(ox + output < a.ow, nowhere)
                    place.store(total.get())

            self._blocks(0, a.ow, spec.columns, block)

        self._rows(row)

    # -- weights -------------------------------------------------------------------------------

    def _weights(self) -> None:
        f, a, spec = self.f, self.args, self.spec
        taps = self.kh * self.kw
        zero = f.constant(_F32, 0.0)
        sums = [f.variable(zero) for _ in range(taps)]
        self.inner = self._inner()
        whole = a.ow // spec.columns * spec.columns

        def row(row: _Row) -> None:
            incoming = a.k + (self.panel * a.images * a.oh + row.number) * a.ow * LANES

            def over(lines: Sequence[int]) -> None:
                def add(count: int) -> Callable[[Value, bool], None]:
                    return lambda ox, bordered: self._add(
                        sums, row, incoming, (ox, count), lines, bordered
                    )

                self._blocks(0, whole, spec.columns, add(spec.columns))
                self._blocks(whole, a.ow, 1, add(1))

            def one_by_one() -> None:
                for i in range(self.kh):
                    with f.if_((row.taps[0] <= i) & (row.taps[1] > i)):
                        over([i])

            if spec.together:
                every = row.taps[1] - row.taps[0] == self.kh
                f.if_else(every, lambda: over(range(self.kh)), one_by_one)
            else:
                one_by_one()

        self._rows(row)
        panels = (a.channels + (LANES - 1)) // LANES
        place = a.y + (self.part * panels + self.panel) * (taps * LANES)
        for tap, total in enumerate(sums):
            (place + tap * LANES).store(total.get())

    def _add(
        self,
        sums: Sequence[Variable],
        row: _Row,
        incoming: Pointer,
        block: tuple[Value, int],
        lines: Sequence[int],
        bordered: bool,
    ) -> None:
        """Adds what some outputs say about the weights of some kernel rows."""
        f, a, spec = self.f, self.args, self.spec
        ox, count = block
        self._ask(row, ox, count)
        values = [(incoming + (ox + n) * LANES).load(LANES) for n in range(count)]
        left = ox * spec.strides[1] - a.left
        for i in lines:
            line = row.source + (row.top + i * spec.dilations[0]) * self.line
            for seen, pairs in self._loads(line, left, count, bordered):
                for output, tap in pairs:
                    total = sums[i * self.kw + tap]
                    total.set(f.fma(seen, values[output], total.get()))
