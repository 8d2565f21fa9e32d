"""How poolings and depthwise convolutions walk: windows over one panel of one image.

A task takes one panel of one image and a block of rows. Kernels that write the pooled map own rows
of windows. Those that write the source's gradient own rows of the source: windows that reach over
the border of a block are looked at by both neighbours, each of which adds to its own rows only, so
that nothing is written twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stepgraph.backends.cpu.layouts import LANES
from stepgraph.backends.cpu.native.emit import Function, Value, i64
from stepgraph.backends.cpu.native.layout import greatest, least

# Windows of up to this many taps are written out; larger ones are loops.
UNROLLED = 25
SIZES = ("h", "w", "oh", "ow", "sh", "sw", "top", "left", "block", "blocks")
FIELDS: dict[str, Any] = dict.fromkeys(SIZES, i64)

Span = tuple[Value, Value]


@dataclass
class Window:
    """One window.

    Attributes:
        row, column: source position of its first tap; may lie outside.
        rows, columns: first tap inside the source and the one behind the last.
    """

    row: Value
    column: Value
    rows: Span
    columns: Span


class Walker:
    """Emits loops over windows and taps; see `FIELDS` for the arguments it needs.

    Attributes:
        plane: number of the task's panel and image: panel * images + image.
        block: number of its block of rows.
        own: rows of the source that a task of a gradient writes.
    """

    def __init__(
        self,
        f: Function,
        args: Any,
        kernel: tuple[int, int],
        dilations: tuple[int, int] = (1, 1),
    ) -> None:
        self.f = f
        self.args = args
        self.kh, self.kw = kernel
        self.dh, self.dw = dilations
        self.plane, self.block = args.task // args.blocks, args.task % args.blocks
        self.own: Span | None = None

    @property
    def source_size(self) -> Value:
        """Elements of one plane of the source."""
        size: Value = self.args.h * self.args.w * LANES
        return size

    @property
    def pooled_size(self) -> Value:
        """Elements of one plane of the pooled map."""
        size: Value = self.args.oh * self.args.ow * LANES
        return size

    def forward(self, body: Callable[[Value, Window, Value], None]) -> None:
        """The windows of the task's rows; see `windows`."""
        a = self.args
        first = self.block * a.block
        self.windows(first, least(self.f, first + a.block, a.oh), body)

    def backward(self, body: Callable[[Value, Window, Value], None]) -> None:
        """The windows that the task's own rows of the source lie in."""
        f, a = self.f, self.args
        first = self.block * a.block
        last = least(f, first + a.block, a.h)
        self.own = first, last
        reach = (self.kh - 1) * self.dh
        top = (greatest(f, first + a.top - reach, 0) + a.sh - 1) // a.sh
        self.windows(top, least(f, (last - 1 + a.top) // a.sh + 1, a.oh), body)

    def _inside(self, start: Value, size: Value, taps: int, dilation: int) -> Span:
        f = self.f
        before, left = greatest(f, -start, 0), greatest(f, size - start, 0)
        if dilation > 1:
            before, left = ((v + (dilation - 1)) // dilation for v in (before, left))
        return before, least(f, left, taps)

    def windows(
        self, first: Value, last: Value, body: Callable[[Value, Window, Value], None]
    ) -> None:
        """Calls `body` with each window's number, the window, and whether all its taps count."""
        f, a = self.f, self.args
        with f.loop(first, last) as oy:
            row = oy * a.sh - a.top
            rows = self._inside(row, a.h, self.kh, self.dh)
            all_rows = rows[1] - rows[0] == self.kh
            if self.own is not None:
                end = row + (self.kh - 1) * self.dh
                all_rows = all_rows & (row >= self.own[0]) & (end < self.own[1])
            with f.loop(0, a.ow) as ox:
                column = ox * a.sw - a.left
                columns = self._inside(column, a.w, self.kw, self.dw)
                whole = all_rows & (columns[1] - columns[0] == self.kw)
                body(oy * a.ow + ox, Window(row, column, rows, columns), whole)

    def offset(self, window: Window, i: Value | int, j: Value | int) -> Value:
        """Where a tap lies in its plane, in elements."""
        row, column = window.row + i * self.dh, window.column + j * self.dw
        place: Value = (row * self.args.w + column) * LANES
        return place

    def own_rows(self, window: Window) -> Span:
        """The taps inside the source whose rows the task owns."""
        f, own = self.f, self.own
        assert own is not None
        before, left = own[0] - window.row, own[1] - window.row
        if self.dh > 1:
            before, left = ((greatest(f, v, 0) + (self.dh - 1)) // self.dh for v in (before, left))
        return greatest(f, window.rows[0], before), least(f, window.rows[1], left)

    def taps(
        self,
        window: Window,
        whole: Value,
        visit: Callable[[Value, Value | int], None],
        rows: Span | None = None,
    ) -> None:
        """Calls `visit` with offset and number of each tap inside, row by row."""
        f = self.f
        first, last = rows or window.rows

        def written_out() -> None:
            for i in range(self.kh):
                for j in range(self.kw):
                    visit(self.offset(window, i, j), i * self.kw + j)

        def looped() -> None:
            with f.loop(first, last) as i, f.loop(*window.columns) as j:
                visit(self.offset(window, i, j), i * self.kw + j)

        if self.kh * self.kw <= UNROLLED:
            f.if_else(whole, written_out, looped)
        else:
            looped()
