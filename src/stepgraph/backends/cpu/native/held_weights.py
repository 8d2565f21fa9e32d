"""Products that hold weights in registers and go over rows: the data gradient's way.

    c[m][i] += alpha * sum_o a[m][o] * w[i][o]      16 x 16 weights at a time

`native.product` holds sums and lets weights pass. For a data gradient these lie the wrong way
round: it has to transpose them into memory, and reads them from there again for every few rows.
Here a block of 16 x 16 is transposed once and stays, 16 registers of 16 lanes; 8 rows' sums of 16
products each are made beside it, and added to the results in memory. That takes registers of 512
bits, and 32 of them.

Arithmetic, for 8 rows of a block: 128 multiply-adds, each with a factor from memory in the same
instruction, 8 results read and 8 written: a cycle for each multiply-add where units are of 256
bits, the rest beside them. About 60 cycles a block for its transposition, which some dozen rows
repay: from 32 rows on 85 to 90 % of the peak should be reached (`benchmarks/native_product.py`).
Results pass through memory once a block, so rows come in tiles that the first-level cache keeps
(`TILE`).

Sums of 16 are added up one after the other: rounding errors are those of a sum of a 16th as many.

Weights that no cache holds are another matter: few rows take less time than it takes to read them,
and memory is read faster in the order it lies than in blocks that lie apart. The kernel
``held_parts`` gives each task a range of outputs, all inputs: weights from end to end. Results are
partial then, to be added up (`native.partials`).
"""

from __future__ import annotations

from functools import partial

from stepgraph.backends.cpu.native.emit import Function, Module, Pointer, Value
from stepgraph.backends.cpu.native.layout import share, turned
from stepgraph.backends.cpu.native.product import PANEL, Blocking
from stepgraph.backends.cpu.native.value import f32, i64, pointer

_BLOCK = PANEL * PANEL
# Rows that a task goes over with all weights before the next: results and data of a panel, 8 KB
# each.
TILE = 128

# What a block goes over, in floats unless said otherwise; one slot of eight bytes each.
_PLACES = (
    *("rows", "a_row", "c_row", "down", "a_down", "c_down", "across", "a_across", "c_across"),
    *("first", "last"),
)
_ARGUMENTS = {
    **{name: pointer(f32) for name in ("w", "ahead", "a", "c")},
    **{"place": i64, "places": pointer(i64), "alpha": f32, "added": i64},
}


class Places:
    """A rectangle of places, each with as many rows, in a function's stack memory.

    Fields: ``rows`` (a count) at each place, ``a_row`` and ``c_row`` from one to the next; ``down``
    and ``across`` (counts) places, ``a_down``, ``c_down``, ``a_across``, ``c_across`` from one to
    the next; in `c` only places ``first`` <= number < ``last`` are meant, 16 floats each. New, it
    is one place of rows that follow each other.
    """

    def __init__(self, f: Function) -> None:
        self.f = f
        self.memory = f.stack(i64, len(_PLACES))
        ones = dict.fromkeys(("down", "across", "last"), 1)
        self.set(**dict.fromkeys(_PLACES, 0) | ones | {"a_row": PANEL, "c_row": PANEL})

    def set(self, **values: Value | int) -> None:
        """Stores fields."""
        for name, value in values.items():
            (self.memory + _PLACES.index(name)).store(self.f.index(value))


def emit_held(module: Module, blocking: Blocking) -> Function | None:
    """Adds ``held_block``: rows of one block of weights, which lie with outputs side by side.

    Its arguments are the block, one to be asked for from memory, `a` and `c`, the number of the
    first place in `c`, `Places`, alpha, and whether to add to `c`.

    Returns:
        None where the registers do not suffice.
    """
    most = blocking.held
    if not most:
        return None
    with module.function("held_block", _ARGUMENTS, inline=False) as (f, x):
        at = {name: (x.places + number).load() for number, name in enumerate(_PLACES)}
        for line in range(PANEL):
            (x.ahead + line * PANEL).prefetch()
        weights = turned(f, [(x.w + line * PANEL).load(PANEL) for line in range(PANEL)])
        groups = (at["rows"] + (most - 1)) // most
        small = at["rows"] // groups
        larger = at["rows"] - small * groups

        def rows(a_first: Pointer, c_first: Pointer, added: bool) -> None:
            a, c = f.variable(a_first), f.variable(c_first)
            with f.loop(0, groups, nonempty=True) as group:
                count = small + f.cast(group < larger, i64)
                places = (a.get(), at["a_row"], c.get(), at["c_row"])
                cases = {
                    n: partial(_rows, n, f, weights, places, x.alpha, added)
                    for n in range(1, most + 1)
                }
                f.switch(count, cases)
                a.set(a.get() + count * at["a_row"])
                c.set(c.get() + count * at["c_row"])

        def go(added: bool) -> None:
            with f.loop(0, at["down"]) as down, f.loop(0, at["across"]) as across:
                place = x.place + down * at["c_down"] + across * at["c_across"]
                with f.if_((place >= at["first"]) & (place < at["last"])):
                    a = x.a + (down * at["a_down"] + across * at["a_across"])
                    rows(a, x.c + place * PANEL, added)

        f.if_else(x.added == 0, lambda: go(False), lambda: go(True))
    return f


def _rows(
    count: int,
    f: Function,
    weights: list[Value],
    places: tuple[Pointer, Value, Pointer, Value],
    alpha: Value,
    added: bool,
) -> None:
    """So many rows of a block, each 16 contiguous floats in `a` and in `c`."""
    a, a_row, c, c_row = places
    starts = [a + a_row * row if row else a for row in range(count)]
    sums: list[Value] = []
    for number, held in enumerate(weights):
        factors = [f.splat((start + number).load(), PANEL) for start in starts]
        if not sums:
            sums = [factor * held for factor in factors]
        else:
            pairs = zip(factors, sums, strict=True)
            sums = [f.fma(factor, held, total) for factor, total in pairs]
    scale = f.splat(alpha, PANEL)
    for row, total in enumerate(sums):
        place = c + c_row * row
        place.store(f.fma(total, scale, place.load(PANEL)) if added else total * scale)


_PARTS_FIELDS = {
    **{name: pointer(f32) for name in ("x", "w", "y")},
    **dict.fromkeys(("rows", "in_panels", "out_panels", "parts"), i64),
}
# Weights from which on they are read in the order they lie: more than a second-level cache holds.
_STREAMED = 1 << 21
# Panels of outputs in a part, and fewest parts: results of a part are written, read and added.
_PART_PANELS, _LEAST_PARTS = 4, 8


def held_parts(in_panels: int, out_panels: int) -> int:
    """In how many parts few rows' data gradient is summed; 0 if weights need no such care."""
    if in_panels * out_panels * _BLOCK * 4 < _STREAMED:
        return 0
    return min(out_panels, max(_LEAST_PARTS, out_panels // _PART_PANELS))


def emit_held_parts(module: Module, block: Function | None) -> None:
    """Adds the kernel ``held_parts``: x[part][c][m] of a part of the outputs.

    Args:
        module: where to.
        block: from `emit_held`; without it there is no such kernel.
    """
    if block is None:
        return
    with module.kernel("held_parts", _PARTS_FIELDS) as (f, x):
        start, stop = share(f, x.out_panels, x.task, x.parts)
        panel = x.rows * PANEL
        one, first = f.constant(f32, 1.0), f.index(0)
        places = Places(f)
        places.set(rows=x.rows)
        w = f.variable(x.w + start * x.in_panels * _BLOCK)
        a = f.variable(x.y + start * panel)
        with f.loop(start, stop) as out:
            added = f.cast(out > start, i64)
            c = f.variable(x.x + x.task * x.in_panels * panel)
            with f.loop(0, x.in_panels, nonempty=True):
                at = w.get()
                operands = (at, at + 4 * _BLOCK, a.get(), c.get(), first, places.memory)
                f.call(block, *operands, one, added)
                w.set(at + _BLOCK)
                c.set(c.get() + panel)
            a.set(a.get() + panel)
