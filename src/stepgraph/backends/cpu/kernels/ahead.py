"""Asking for what is read soon, from inside a kernel that computes more than it moves.

A chain's launches take turns at a tile: some read maps from memory and compute little, others work
on what is in the cache. While these compute, memory would do nothing; so they ask for what the
launches behind them, or the next tile, will need. Which maps that are `chains` decides
(`stepgraph.backends.cpu.ahead`); a kernel that can ask goes over its positions and asks for as many
lines of each map as belong to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepgraph.backends.cpu.layouts import LANES
from stepgraph.backends.cpu.native.emit import Value, f32, pointer


@dataclass(frozen=True)
class Lines:
    """What a kernel asks for of one map, whose address is an argument of its own.

    Attributes:
        count: lines of 16 floats for each of the kernel's positions.
        write: the map will be written first.
    """

    count: int
    write: bool = False


def ahead_fields(ahead: tuple[Lines, ...]) -> dict[str, Any]:
    """The arguments with the maps' addresses."""
    return {f"ahead{k}": pointer(f32) for k in range(len(ahead))}


def ask_ahead(args: Any, ahead: tuple[Lines, ...], first: Value, count: int) -> None:
    """Asks for what belongs to `count` positions from `first` on, into the second-level cache."""
    for k, lines in enumerate(ahead):
        start = getattr(args, f"ahead{k}") + first * (lines.count * LANES)
        for line in range(count * lines.count):
            (start + line * LANES).prefetch(write=lines.write, level=2)
