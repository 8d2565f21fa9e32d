"""How every op is said to MPSGraph: one table per family, named as in `graph.ops`."""

from __future__ import annotations

from types import ModuleType

from stepgraph.backends.mps.lowering import arithmetic
from stepgraph.backends.mps.lowering.table import Lowering

FAMILIES: tuple[ModuleType, ...] = (arithmetic,)


def _table() -> dict[str, Lowering]:
    table: dict[str, Lowering] = {}
    for family in FAMILIES:
        for name, lowering in family.LOWERINGS.items():
            if name in table:
                raise RuntimeError(f"op {name!r} has two lowerings")
            table[name] = lowering
    return table


LOWERINGS: dict[str, Lowering] = _table()
