"""Sums over the positions of each channel, and sums of squared distances from the mean, at once.

A mean and a variance read a map twice, because distances are only known behind the mean. Here a
task takes a block of positions while it is in the cache: first its mean m, roughly, then the
distances d from that, whose sum says by how much m is off (n numbers):

    m_b = m + sum(d) / n        q_b = sum(d * d) - sum(d) ** 2 / n

``total`` puts the blocks together (Chan, Golub and LeVeque 1979):

    M = m_0 + sum_b n_b * (m_b - m_0) / N        Q = sum_b q_b + n_b * (m_b - M) ** 2

which is as accurate as two passes over the map: nothing large is subtracted from anything large.

Arithmetic: 5 additions or multiplications per number, read once from memory: bound by that.
"""

from __future__ import annotations

from collections.abc import Callable

from stepgraph.backends.cpu.layouts import LANES
from stepgraph.backends.cpu.native.emit import Function, Module, Pointer, Value, f32, i64, pointer
from stepgraph.backends.cpu.native.layout import least
from stepgraph.backends.cpu.native.value import vector

_F32 = vector(f32, LANES)
# Sums that run side by side, to hide what an addition takes.
_WAYS = 4
_FIELDS = {
    **{name: pointer(f32) for name in ("x", "sums", "squares")},
    **dict.fromkeys(("positions", "panels", "block", "blocks"), i64),
}


def moments_module() -> Module:
    """The module with the kernels ``moments`` (task: panel and block) and ``total`` (panel)."""
    module = Module("moments")
    with module.kernel("moments", _FIELDS) as (f, a):
        panel, block = a.task // a.blocks, a.task % a.blocks
        first = block * a.block
        count = least(f, a.positions - first, a.block)
        start = a.x + (panel * a.positions + first) * LANES

        def load(number: Value) -> list[Value]:
            return [(start + number * LANES).load(LANES)]

        size = f.splat(f.cast(count, f32), LANES)
        rough = _summed(f, count, load, 1)[0] / size

        def distances(number: Value) -> list[Value]:
            distance = load(number)[0] - rough
            return [distance, distance * distance]

        off, squares = _summed(f, count, distances, 2)
        # Distances from an infinite mean are no numbers; the mean stays what it is.
        mean = f.select(off == off, rough + off / size, rough)
        at = (block * a.panels + panel) * LANES
        alone = f.splat(a.blocks, LANES) == 1
        (a.sums + at).store(f.select(alone, mean * size, mean))
        # Squares too large for a number stay infinite, as in two passes.
        exact = squares - off * off / size
        (a.squares + at).store(f.select(exact == exact, exact, squares))
    fields = {**_FIELDS, "sum": pointer(f32), "square": pointer(f32)}
    with module.kernel("total", fields) as (f, a):

        def part(base: Pointer, block: Value | int) -> Value:
            value: Value = (base + (f.index(block) * a.panels + a.task) * LANES).load(LANES)
            return value

        def size_of(block: Value) -> Value:
            return f.splat(f.cast(least(f, a.positions - block * a.block, a.block), f32), LANES)

        zero = f.constant(_F32, 0.0)
        first = part(a.sums, 0)
        ahead, spread = f.variable(zero), f.variable(zero)
        with f.loop(1, a.blocks) as block:
            ahead.set(ahead.get() + size_of(block) * (part(a.sums, block) - first))
        whole = f.splat(f.cast(a.positions, f32), LANES)
        more = ahead.get() / whole
        mean = f.select(more == more, first + more, first)
        with f.loop(0, a.blocks) as block:
            apart = part(a.sums, block) - mean
            inner = part(a.squares, block)
            spread.set(spread.get() + (inner + size_of(block) * (apart * apart)))
        (a.sum + a.task * LANES).store(mean * whole)
        (a.square + a.task * LANES).store(spread.get())
    return module


def _summed(
    f: Function, count: Value, values: Callable[[Value], list[Value]], number: int
) -> list[Value]:
    """Sums of some vectors, or of several made of each, added up in a fixed order."""
    zero = f.constant(_F32, 0.0)
    parts = [[f.variable(zero) for _ in range(_WAYS)] for _ in range(number)]

    def add(at: Value, way: int) -> None:
        for ways, value in zip(parts, values(at), strict=True):
            ways[way].set(ways[way].get() + value)

    whole = count // _WAYS * _WAYS
    with f.loop(0, whole, _WAYS) as at:
        for way in range(_WAYS):
            add(at + way, way)
    with f.loop(whole, count) as at:
        add(at, 0)
    found = []
    for ways in parts:
        sums = [way.get() for way in ways]
        while len(sums) > 1:
            sums = [a + b for a, b in zip(sums[::2], sums[1::2], strict=True)]
        found.append(sums[0])
    return found
