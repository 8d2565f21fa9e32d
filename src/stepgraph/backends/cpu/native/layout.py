"""What kernels over panels share: borders, shares of work, 16 x 16 transposes in registers.

Panels: activations ``[C/16][M][16]`` with M the positions (images * height * width); weights
``[O/16][I/16][taps][16 i][16 o]``. Channels that do not fill their panel are zero there, and every
kernel keeps them zero: a product with zero weight columns writes zeros.
"""

from __future__ import annotations

from stepgraph.backends.cpu.native.emit import Function, Pointer, Value
from stepgraph.backends.cpu.native.product import PANEL
from stepgraph.backends.cpu.native.target import Target


def least(f: Function, a: Value | int, b: Value | int) -> Value:
    """The smaller of two i64."""
    first, second = f.index(a), f.index(b)
    return f.select(first < second, first, second)


def greatest(f: Function, a: Value | int, b: Value | int) -> Value:
    """The greater of two i64."""
    first, second = f.index(a), f.index(b)
    return f.select(first > second, first, second)


def share(f: Function, units: Value, part: Value, parts: Value) -> tuple[Value, Value]:
    """First and last-plus-one of a part's units, when parts differ by at most one."""
    return units * part // parts, units * (part + 1) // parts


def turned(f: Function, rows: list[Value]) -> list[Value]:
    """The transpose of a square of vectors, as many as each has lanes.

    By butterflies: stage s exchanges, between rows i and i + s, the lanes whose number has bit s.
    That is log2(lanes) shuffles a vector.
    """
    rows, lanes, stage = list(rows), len(rows), 1
    while stage < lanes:
        low = [j if not j & stage else lanes + j - stage for j in range(lanes)]
        high = [j + stage if not j & stage else lanes + j for j in range(lanes)]
        for i in range(lanes):
            if not i & stage:
                a, b = rows[i], rows[i + stage]
                rows[i], rows[i + stage] = f.shuffle(a, b, low), f.shuffle(a, b, high)
        stage *= 2
    return rows


def transpose_block(f: Function, target: Target, source: Pointer, to: Pointer) -> None:
    """Transposes 16 contiguous rows of 16 floats into another such block, in squares of `lanes`."""
    lanes = min(target.lanes, PANEL)
    for top in range(0, PANEL, lanes):
        for left in range(0, PANEL, lanes):
            rows = [(source + ((top + i) * PANEL + left)).load(lanes) for i in range(lanes)]
            for i, row in enumerate(turned(f, rows)):
                (to + ((left + i) * PANEL + top)).store(row)
