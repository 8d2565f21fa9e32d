"""Adding up what several tasks have computed of the same numbers.

    target = alpha * sum_p partial[p] + beta * target

A weight gradient sums over positions. Where there are fewer pairs of panels than threads could
use, its positions are cut into parts whose sums lie side by side, and this kernel adds them, in
their order. The number of parts depends on shapes alone, so threads do not change a bit. Bound by
memory: 4 bytes read per part and number, against some hundred multiply-adds that made it.
"""

from __future__ import annotations

from typing import Any

from stepgraph.backends.cpu.native.emit import Function, Module, Value
from stepgraph.backends.cpu.native.layout import share
from stepgraph.backends.cpu.native.product import PANEL
from stepgraph.backends.cpu.native.value import f32, i64, pointer, vector

# Vectors of 16 summed side by side: lines that lie together are read together.
VECTORS = 4
FIELDS = {
    **dict.fromkeys(("source", "target"), pointer(f32)),
    **dict.fromkeys(("size", "count", "parts"), i64),
    **dict.fromkeys(("alpha", "beta"), f32),
}
# Numbers that a task should at least sum: the reading of some ten microseconds.
_TASK_READS = 1 << 15


def partial_sums(size: int, count: int) -> tuple[dict[str, int], int]:
    """Sizes for ``sum_partials``, and its number of tasks.

    Args:
        size: numbers of one partial result, a multiple of 16.
        count: partial results, one after the other.
    """
    parts = max(1, min(size * count // _TASK_READS, size // (VECTORS * PANEL), 64))
    return {"size": size, "count": count, "parts": parts}, parts


def _sum(f: Function, x: Any, at: Value, vectors: int) -> None:
    """Sums and writes some vectors of 16 from place `at` on."""
    zero = f.constant(vector(f32, PANEL), 0.0)
    sums = [f.variable(zero) for _ in range(vectors)]
    source = f.variable(x.source + at)
    with f.loop(0, x.count, nonempty=True):
        for number, total in enumerate(sums):
            total.set(total.get() + (source.get() + number * PANEL).load(PANEL))
        source.set(source.get() + x.size)
    places = [x.target + (at + number * PANEL) for number in range(vectors)]

    def fresh() -> None:
        for place, total in zip(places, sums, strict=True):
            place.store(total.get() * x.alpha)

    def added() -> None:
        for place, total in zip(places, sums, strict=True):
            place.store(total.get() * x.alpha + place.load(PANEL) * x.beta)

    f.if_else(x.beta == 0.0, fresh, added)


def emit_partials(module: Module) -> None:
    """Adds the kernel ``sum_partials``; its arguments are `FIELDS`."""
    with module.kernel("sum_partials", FIELDS) as (f, x):
        first, last = share(f, x.size // PANEL, x.task, x.parts)
        whole = first + (last - first) // VECTORS * VECTORS
        with f.loop(first, whole, VECTORS) as block:
            _sum(f, x, block * PANEL, VECTORS)
        with f.loop(whole, last) as block:
            _sum(f, x, block * PANEL, 1)
