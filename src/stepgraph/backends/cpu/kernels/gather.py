"""Rows picked by indices, and rows added (or otherwise combined) to where indices say.

Tensors are seen as [before][axis][behind], the indices as one line; with batch dimensions every
`before` belongs to a batch with indices of its own.

``gather``: tasks are blocks of result rows. ``scatter``: tasks are pairs of a `before` and a block
of `behind`; each goes through all indices in order, so that no two tasks write the same element and
sums are added up in an order that never changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stepgraph.backends.cpu.kernels.copy import TYPES
from stepgraph.backends.cpu.layouts import LANES
from stepgraph.backends.cpu.native.emit import Function, Module, Value, i64, pointer
from stepgraph.backends.cpu.native.layout import least
from stepgraph.backends.cpu.native.value import i32, is_float


@dataclass(frozen=True)
class GatherSpec:
    """What one kernel does.

    Attributes:
        kind: ``gather`` or a scatter's mode.
        dtype: of the elements.
        index: of the indices, ``int32`` or ``int64``.
    """

    kind: str
    dtype: str
    index: str


def build_gather(spec: GatherSpec) -> Module:
    """The module with the kernel ``move``."""
    module = Module("gather")
    element = pointer(TYPES[spec.dtype])
    index = pointer(i32 if spec.index == "int32" else i64)
    fields: dict[str, Any] = {"x": element, "indices": index, "y": element}
    # `inner` is how many of `before` share the indices of one batch.
    fields |= dict.fromkeys(("before", "inner", "size", "behind", "count", "block", "blocks"), i64)
    with module.kernel("move", fields) as (f, a):
        (_gather if spec.kind == "gather" else _scatter)(spec, f, a)
    return module


def _gather(spec: GatherSpec, f: Function, a: Any) -> None:
    """From x [before][size][behind] to y [before][count][behind]."""
    first = a.task * a.block
    with f.loop(first, least(f, first + a.block, a.before * a.count)) as row:
        before, k = row // a.count, row % a.count
        at = f.cast((a.indices + (before // a.inner * a.count + k)).load(), i64)
        source, target = a.x + (before * a.size + at) * a.behind, a.y + row * a.behind
        _along(f, f.index(0), a.behind, lambda i, n: (target + i).store((source + i).load(n)))


def _scatter(spec: GatherSpec, f: Function, a: Any) -> None:
    """From x [before][count][behind] into y [before][size][behind]."""
    combine = MODES[spec.kind]
    before, block = a.task // a.blocks, a.task % a.blocks
    first = block * a.block
    last = least(f, first + a.block, a.behind)
    with f.loop(0, a.count) as k:
        at = f.cast((a.indices + (before // a.inner * a.count + k)).load(), i64)
        source = a.x + (before * a.count + k) * a.behind
        target = a.y + (before * a.size + at) * a.behind

        def update(i: Value, n: int, source: Any = source, target: Any = target) -> None:
            place = target + i
            place.store(combine(f, place.load(n), (source + i).load(n)))

        _along(f, first, last, update)


def _along(f: Function, first: Value, last: Value, body: Callable[[Value, int], None]) -> None:
    """Vectors of 16 as far as they fit, then one element after the other."""
    whole = first + (last - first) // LANES * LANES
    with f.loop(first, whole, LANES) as i:
        body(i, LANES)
    with f.loop(whole, last) as i:
        body(i, 1)


def _extreme(name: str) -> Callable[[Function, Value, Value], Value]:
    def combine(f: Function, old: Value, new: Value) -> Value:
        if is_float(old.type):
            return f.intrinsic(name, old, new)
        return f.select(old > new if name == "maximum" else old < new, old, new)

    return combine


MODES: dict[str, Callable[[Function, Value, Value], Value]] = {
    "add": lambda f, old, new: old + new,
    "sub": lambda f, old, new: old - new,
    "mul": lambda f, old, new: old * new,
    "div": lambda f, old, new: old / new,
    "min": _extreme("minimum"),
    "max": _extreme("maximum"),
    "set": lambda f, old, new: new,
}
