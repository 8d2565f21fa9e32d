"""Matrix products of row-major arrays with any strides, in batches.

    C[z][i, j] = alpha * sum_k A[z][i, k] * B[z][k, j] + beta * C[z][i, j]

A is read in place whatever its strides. B is read in place where its columns are contiguous and 16
of them are left; otherwise (a transposed B, the last columns) a panel of it is copied into
the thread's scratch memory, one visit's depth at a time. C's rows must have contiguous columns;
its last columns, if fewer than 16, are computed in scratch memory and copied.

Per task: one panel of 16 columns, or as many as the registers hold, of one matrix of the batch, and
a share of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepgraph.backends.cpu.native.emit import Function, Module, Pointer, Value
from stepgraph.backends.cpu.native.layout import least, share
from stepgraph.backends.cpu.native.product import PANEL, Blocking, Product, Walk
from stepgraph.backends.cpu.native.value import f32, i64, pointer, vector

# Depth of a product between two visits of C, and rows of C in a thread's scratch memory.
DEPTH = 256
ROWS = 64

_SIZES = (
    *("rows", "columns", "depth", "a_batch", "a_row", "a_k", "b_batch", "b_k", "b_column"),
    *("c_batch", "c_row", "parts", "scratch_size"),
)
FIELDS = {
    **{name: pointer(f32) for name in ("a", "b", "c", "scratch")},
    **dict.fromkeys(_SIZES, i64),
    **dict.fromkeys(("alpha", "beta"), f32),
}


@dataclass(frozen=True)
class MatrixProduct:
    """Shapes and strides (in floats) of a batch of products.

    Attributes:
        batch: number of products.
        rows: of A and C.
        depth: columns of A, rows of B.
        columns: of B and C.
        a: strides of A: batch, row, column.
        b: strides of B: batch, row, column.
        c: strides of C: batch, row; its columns are contiguous.
    """

    batch: int
    rows: int
    depth: int
    columns: int
    a: tuple[int, int, int]
    b: tuple[int, int, int]
    c: tuple[int, int]

    def arguments(self, blocking: Blocking) -> tuple[dict[str, int], int]:
        """Sizes for ``matrix_product``, and its number of tasks.

        ``scratch_size`` is the floats of scratch memory that each thread needs.
        """
        groups = -(-self.columns // (PANEL * blocking.panels))
        work = self.rows * self.depth * PANEL * blocking.panels
        parts = max(1, min(work >> 19, self.rows // 24))
        scratch = PANEL * blocking.panels * (DEPTH + ROWS)
        values = (
            *(self.rows, self.columns, self.depth, *self.a, *self.b, *self.c, parts, scratch),
        )
        return dict(zip(_SIZES, values, strict=True)), self.batch * groups * parts


class _Matmul:
    """The code of the kernel."""

    def __init__(self, f: Function, x: Any, product: Product) -> None:
        self.f, self.x, self.product = f, x, product
        most = product.blocking.panels
        groups = (x.columns + (PANEL * most - 1)) // (PANEL * most)
        unit = x.task // x.parts
        batch = unit // groups
        first = (unit - batch * groups) * (PANEL * most)
        self.start, self.stop = share(f, x.rows, x.task - unit * x.parts, x.parts)
        self.columns = least(f, x.columns - first, PANEL * most)
        self.panels = (self.columns + (PANEL - 1)) // PANEL
        self.a = x.a + batch * x.a_batch
        self.b = x.b + (batch * x.b_batch + first * x.b_column)
        self.c = x.c + (batch * x.c_batch + first)
        self.packed = x.scratch + x.thread * x.scratch_size
        self.tile = self.packed + DEPTH * PANEL * most
        self.walk = Walk(f)
        self.walk.set(a_row=x.a_row, a_k=x.a_k, alpha=x.alpha)
        self.whole = self.columns == self.panels * PANEL

    def emit(self) -> None:
        f, x = self.f, self.x
        in_place = self.whole & (x.b_column == 1)
        with f.loop(0, x.depth, DEPTH) as first:
            count = least(f, x.depth - first, DEPTH)
            source = self.b + first * x.b_k
            self.beta = f.select(first == 0, x.beta, 1.0)
            self.walk.set(run=count, beta=self.beta)

            def packed(source: Pointer = source, count: Value = count) -> None:
                self._pack(source, count)
                self.walk.set(b_k=PANEL, b_panel=DEPTH * PANEL)

            f.if_else(in_place, lambda: self.walk.set(b_k=x.b_k, b_panel=PANEL), packed)
            b = source.select(in_place, self.packed)
            a = self.a + first * x.a_k
            f.if_else(self.whole, lambda: self._rows(a, b), lambda: self._tiles(a, b))

    def _pack(self, source: Pointer, count: Value) -> None:
        """Copies a visit's panels of B, zeros where columns are missing."""
        f, x = self.f, self.x
        with f.loop(0, self.panels) as panel:
            lanes = least(f, self.columns - panel * PANEL, PANEL)
            to = self.packed + panel * (DEPTH * PANEL)
            at = source + panel * PANEL * x.b_column
            with f.loop(0, count) as k:
                (to + k * PANEL).store(f.constant(vector(f32, PANEL), 0.0))
            with f.loop(0, lanes) as lane, f.loop(0, count) as k:
                (to + (k * PANEL + lane)).store((at + (k * x.b_k + lane * x.b_column)).load())

    def _rows(self, a: Pointer, b: Pointer) -> None:
        f, x = self.f, self.x
        self.walk.set(c_row=x.c_row, c_panel=PANEL)
        c = self.c + self.start * x.c_row
        rows = self.stop - self.start
        self.product.call(f, a + self.start * x.a_row, b, c, rows, self.panels, self.walk)

    def _tiles(self, a: Pointer, b: Pointer) -> None:
        """Some rows at a time in scratch memory, then the existing columns into C."""
        f, x = self.f, self.x
        self.walk.set(c_row=PANEL, c_panel=ROWS * PANEL, beta=0)
        with f.loop(self.start, self.stop, ROWS) as first:
            rows = least(f, self.stop - first, ROWS)
            self.product.call(f, a + first * x.a_row, b, self.tile, rows, self.panels, self.walk)
            with f.loop(0, rows) as row, f.loop(0, self.columns) as column:
                panel = column // PANEL
                within = column - panel * PANEL
                value = (self.tile + (panel * (ROWS * PANEL) + row * PANEL + within)).load()
                place = self.c + ((first + row) * x.c_row + column)
                self._add(place, value)

    def _add(self, place: Pointer, value: Value) -> None:
        f = self.f
        f.if_else(
            self.beta == 0.0,
            lambda: place.store(value),
            lambda: place.store(f.fma(place.load(), self.beta, value)),
        )


def emit_matmul(module: Module, product: Product) -> None:
    """Adds the kernel ``matrix_product``; its arguments are `FIELDS`."""
    with module.kernel("matrix_product", FIELDS) as (f, x):
        _Matmul(f, x, product).emit()
