"""The product behind matrix multiplication, convolution and their gradients.

    C[r][j] = alpha * sum_k A[r][k] * B[k][j] + beta * C[r][j]      r < rows, j < 16 * panels

Columns come in *panels* of 16 floats: B and C rows of a panel are 16 contiguous floats. Everything
else is strides, given by a `Walk`: where row r of A and C lies, and how k goes through A and B in
four nested levels (a run, and three counts around it). A 3x3 convolution reads its input in place
this way (run: kernel columns x 16 channels; then kernel rows; then channel panels), and so does
each gradient: nothing is packed or unrolled into a matrix first.

The micro-kernel keeps rows x 16 * panels of C in registers, reads one B row per panel and
broadcasts one A value per row and k: per k it does ``rows * panels * 16 / lanes`` fused
multiply-adds for ``rows + panels * 16 / lanes`` loads. `BLOCKING` is chosen so that accumulators,
one B row and one broadcast value fill the registers without spilling, and there are enough
independent sums to hide the multiply-add's latency (4 cycles; 2 a cycle of 256 bits, or 1 to 2 of
512). Rows are dealt evenly: 16 rows on a 12-row target run as 8 + 8, not 12 + 4.

A result of at most 8 columns has micro-kernels of its own, of twice the rows: half a panel is
computed, the other half written as zeros. Where vectors are of 512 bits but units of 256, and where
they are shorter, that is half the work.

Sums run in the order of the walk, so a result depends on the walk alone. Every `SUMMED` steps or so
the accumulators are added to totals beside them and start again: the rounding errors of a long sum
grow with its square root, those of a sum of short ones with that of their number. Totals lie in the
first-level cache; visiting them costs some 1 % of the steps between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from stepgraph.backends.cpu.native.emit import Function, Module, Pointer, Value, Variable
from stepgraph.backends.cpu.native.target import Target
from stepgraph.backends.cpu.native.value import f32, i64, lanes, pointer, vector

PANEL = 16
# Columns of a narrow result.
NARROW = PANEL // 2

# What a product walks over, all in floats; one slot of eight bytes each, in this order.
WALK_FIELDS = (
    *("a_row", "c_row", "b_panel", "c_panel", "a_k", "b_k", "run"),
    *("n1", "a1", "b1", "n2", "a2", "b2", "n3", "a3", "b3", "alpha", "beta"),
)


@dataclass(frozen=True)
class Blocking:
    """How much of C the micro-kernel holds in registers.

    Attributes:
        rows: at most this many rows.
        panels: at most this many panels of 16 columns.
        held: rows at a time of products that hold 16 x 16 weights instead (`native.held_weights`);
            0 where there are too few registers.
    """

    rows: int
    panels: int
    held: int = 0


# (vector bits, registers) -> blocking; measured on one machine of each kind where there was one.
BLOCKING: dict[tuple[int, int], Blocking] = {
    (512, 32): Blocking(12, 2, held=8),
    (256, 16): Blocking(6, 1),
    (128, 32): Blocking(6, 1),
    (128, 16): Blocking(2, 1),
}


def blocking_for(target: Target) -> Blocking:
    """The register blocking of a target."""
    return BLOCKING[target.vector_bits, target.vector_registers]


class Walk:
    """A walk in a function's stack memory, filled field by field at run time.

    Fields, in floats unless said otherwise: ``a_row``, ``c_row``: from one row of A, C to the next.
    ``b_panel``, ``c_panel``: from one panel of B, C to the next. ``run``: steps of the innermost
    level (a count), each moving ``a_k`` in A and ``b_k`` in B. ``n1, a1, b1`` to ``n3, a3, b3``:
    count and strides of the levels around it. ``alpha``, ``beta``: floats. Counts are at least 1.
    A new walk has one panel, runs along contiguous A and 16-float B rows, and counts of 1.
    """

    def __init__(self, f: Function) -> None:
        self.f = f
        self.memory = f.stack(i64, len(WALK_FIELDS))
        defaults = {"a_k": 1, "b_k": PANEL, "c_row": PANEL, "n1": 1, "n2": 1, "n3": 1}
        self.set(**{name: defaults.get(name, 0) for name in WALK_FIELDS[:-2]})
        self.set(alpha=f.constant(f32, 1.0), beta=f.constant(f32, 0.0))

    def set(self, **values: Value | int) -> None:
        """Stores fields."""
        for name, value in values.items():
            place = self.memory + WALK_FIELDS.index(name)
            if name in ("alpha", "beta"):
                Pointer(self.f, place.ir, f32).store(self.f.constant(f32, 0).like(value))
            else:
                place.store(self.f.index(value))


def _field(f: Function, walk: Pointer, name: str) -> Value:
    place = walk + WALK_FIELDS.index(name)
    if name in ("alpha", "beta"):
        return Pointer(f, place.ir, f32).load()
    return place.load()


# Up to this many rows, each row's distance from the first has a register of its own; beyond, LLVM
# goes from row to row by additions, whose latency the many multiply-adds of a step hide. Left to
# itself it does so with few rows too, which costs 7 % of a 6-row step.
_ROWS_WITH_OFFSETS = 8
# A narrow result's steps do half as much for a row and hide half as many additions, so its rows go
# in groups of this many, each with an address of its own: 24 rows take 320 ns instead of 510.
_GROUP = 6

# Steps after which accumulators are added to totals.
SUMMED = 128

_OPERANDS = {"a": pointer(f32), "b": pointer(f32), "c": pointer(f32), "walk": pointer(i64)}


class _Totals:
    """What accumulators have come to; untouched, and free, in short sums."""

    def __init__(self, f: Function, sums: list[Variable], zero: Value) -> None:
        self.f, self.sums, self.zero = f, sums, zero
        self.lanes = lanes(zero.type)
        # Behind an opaque address, or LLVM would hold all of it in registers that are not there.
        self.memory = self._hidden(f32, len(sums) * self.lanes)
        self.steps, self.used = self._hidden(i64, 1), self._hidden(i64, 1)
        self.steps.store(f.index(0))
        self.used.store(f.index(0))

    def _hidden(self, type_: Any, count: int) -> Pointer:
        f = self.f
        return f.at_address(f.opaque(f.address_of(f.stack(type_, count))), type_)

    def after(self, count: Value) -> None:
        """Says that so many steps have been summed; every `SUMMED` of them totals are visited."""
        f = self.f
        steps = self.steps.load() + count
        self.steps.store(steps)
        with f.if_(steps >= SUMMED, likely=False):
            f.if_else(self.used.load() == 0, lambda: self._visit(False), lambda: self._visit(True))
            for total in self.sums:
                total.set(self.zero)
            self.steps.store(f.index(0))
            self.used.store(f.index(1))

    def finish(self) -> None:
        """Adds the totals to the accumulators."""
        with self.f.if_(self.used.load() == 1, likely=False):
            for place, total in self._places():
                total.set(place.load(self.lanes) + total.get())

    def _visit(self, added: bool) -> None:
        for place, total in self._places():
            place.store(place.load(self.lanes) + total.get() if added else total.get())

    def _places(self) -> Iterator[tuple[Pointer, Variable]]:
        for number, total in enumerate(self.sums):
            yield self.memory + number * self.lanes, total


class Product:
    """The product's functions in one module; made once, called by the module's kernels."""

    def __init__(self, module: Module, target: Target, blocking: Blocking | None = None) -> None:
        """Emits micro-kernels for every row and panel count up to the blocking's."""
        self.blocking = blocking or blocking_for(target)
        self._lanes = min(target.lanes, PANEL)
        self._rows: dict[int, Function] = {}
        for panels in range(1, self.blocking.panels + 1):
            micro = {
                rows: self._micro_kernel(module, rows, panels)
                for rows in range(1, self.blocking.rows + 1)
            }
            self._rows[panels] = self._row_loop(module, f"p{panels}", micro)
        micro = {
            rows: self._micro_kernel(module, rows, 1, NARROW)
            for rows in range(1, PANEL // NARROW * self.blocking.rows + 1)
        }
        self._narrow = self._row_loop(module, "narrow", micro)

    def call(
        self, f: Function, a: Value, b: Value, c: Value, rows: Value, panels: Value, walk: Walk,
        narrow: Value | None = None,
    ) -> None:  # fmt: skip
        """Emits a product.

        Args:
            f: the calling function.
            a: first float of A.
            b: first float of B.
            c: first float of C.
            rows: i64, at least 1.
            panels: i64, from 1 to the blocking's number.
            walk: filled in.
            narrow: whether there is one panel of which B fills `NARROW` columns at most; the others
                of C are then written as zeros.
        """
        if narrow is not None:
            f.if_else(
                narrow,
                lambda: f.call(self._narrow, a, b, c, walk.memory, rows),
                lambda: self.call(f, a, b, c, rows, panels, walk),
            )
            return
        cases = {
            number: partial(f.call, function, a, b, c, walk.memory, rows)
            for number, function in self._rows.items()
        }
        if len(cases) == 1:
            cases[1]()
        else:
            f.switch(panels, cases)

    def _row_loop(self, module: Module, name: str, micro: dict[int, Function]) -> Function:
        """Deals any number of rows evenly to micro-kernels."""
        arguments = {**_OPERANDS, "rows": i64}
        with module.function(f"product_{name}", arguments, inline=False) as (f, x):
            a_row, c_row = _field(f, x.walk, "a_row"), _field(f, x.walk, "c_row")
            most = len(micro)
            blocks = (x.rows + (most - 1)) // most
            small = x.rows // blocks
            larger = x.rows - small * blocks
            a, c = f.variable(x.a), f.variable(x.c)
            with f.loop(0, blocks, nonempty=True) as block:
                rows = small + f.cast(block < larger, i64)

                operands = (a.get(), x.b, c.get(), x.walk)
                f.switch(
                    rows, {n: partial(f.call, kernel, *operands) for n, kernel in micro.items()}
                )
                a.set(a.get() + rows * a_row)
                c.set(c.get() + rows * c_row)
        return f

    def _micro_kernel(self, module: Module, rows: int, panels: int, width: int = PANEL) -> Function:
        """C[rows][16 * panels] of one walk, in registers; of each panel, `width` columns."""
        count = min(self._lanes, width)
        parts = width // count
        name = f"micro_{rows}x{panels}" + ("" if width == PANEL else "_narrow")
        with module.function(name, _OPERANDS, inline=False) as (f, x):
            field = {name: _field(f, x.walk, name) for name in WALK_FIELDS}
            zero = f.constant(vector(f32, count), 0.0)
            sums = [[f.variable(zero) for _ in range(panels * parts)] for _ in range(rows)]
            offsets = [field["a_row"] * row for row in range(rows)]
            if rows <= _ROWS_WITH_OFFSETS:
                offsets = [f.opaque(offset) for offset in offsets]

            size = _GROUP if width < PANEL and rows > _ROWS_WITH_OFFSETS else rows

            def heads(a: Pointer) -> list[Pointer]:
                """The first row of each group, about whose distance LLVM knows nothing."""
                others = [a + offsets[row] for row in range(size, rows, size)]
                return [a, *(f.at_address(f.opaque(f.address_of(at)), f32) for at in others)]

            def step(groups: list[Pointer], b: Pointer) -> None:
                starts = [b] + [b + field["b_panel"] * panel for panel in range(1, panels)]
                b_row = [(at + part * count).load(count) for at in starts for part in range(parts)]
                for number, row in enumerate(sums):
                    group, place = divmod(number, size)
                    at = groups[group] + offsets[place] if place else groups[group]
                    value = f.splat(at.load(), count)
                    for total, factor in zip(row, b_row, strict=True):
                        total.set(f.fma(value, factor, total.get()))

            totals = _Totals(f, [total for row in sums for total in row], zero)
            self._levels(f, x, field, (heads, step), totals)
            totals.finish()
            self._store(f, x.c, field, sums, count)
            if width < PANEL:
                zeros = f.constant(vector(f32, PANEL - width), 0.0)
                for row in range(rows):
                    (x.c + (field["c_row"] * row + width)).store(zeros)
        return f

    def _levels(
        self, f: Function, x: Any, field: dict[str, Value], code: tuple[Any, Any], totals: _Totals
    ) -> None:
        """The four nested levels of a walk, outermost first; what starts a run, and its step."""
        heads, step = code
        a3, b3 = f.variable(x.a), f.variable(x.b)
        with f.loop(0, field["n3"], nonempty=True):
            a2, b2 = f.variable(a3.get()), f.variable(b3.get())
            with f.loop(0, field["n2"], nonempty=True):
                a1, b1 = f.variable(a2.get()), f.variable(b2.get())
                with f.loop(0, field["n1"], nonempty=True):
                    rows, b = [f.variable(at) for at in heads(a1.get())], f.variable(b1.get())
                    with f.loop(0, field["run"], SUMMED, nonempty=True) as first:
                        left = field["run"] - first
                        count = f.select(left < SUMMED, left, SUMMED)
                        with f.loop(0, count, nonempty=True):
                            step([a.get() for a in rows], b.get())
                            for a in rows:
                                a.set(a.get() + field["a_k"])
                            b.set(b.get() + field["b_k"])
                        totals.after(count)
                    a1.set(a1.get() + field["a1"])
                    b1.set(b1.get() + field["b1"])
                a2.set(a2.get() + field["a2"])
                b2.set(b2.get() + field["b2"])
            a3.set(a3.get() + field["a3"])
            b3.set(b3.get() + field["b3"])

    def _store(
        self, f: Function, c: Pointer, field: dict[str, Value], sums: Any, count: int
    ) -> None:
        """Writes alpha * sums + beta * C, vectors of `count`; C is not read where beta is 0."""
        parts = PANEL // count
        alpha = f.splat(field["alpha"], count)
        beta = f.splat(field["beta"], count)

        def places() -> Any:
            for number, row in enumerate(sums):
                at = c + field["c_row"] * number
                for column, total in enumerate(row):
                    panel, part = divmod(column, parts)
                    place = at + field["c_panel"] * panel if panel else at
                    yield place + part * count, total.get()

        def fresh() -> None:
            for place, total in places():
                place.store(total * alpha)

        def added() -> None:
            for place, total in places():
                place.store(f.fma(total, alpha, place.load(count) * beta))

        f.if_else(field["beta"] == 0.0, fresh, added)
