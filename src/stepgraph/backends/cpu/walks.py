"""Where the elements of operands lie, and how a nest walks them: sizes and strides only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stepgraph.backends.cpu.layouts import LANES, PANELS, Layout, panels_of


@dataclass
class Walk:
    """An operand's strides, in elements, along each leading axis, the chunks and the lanes.

    Attributes:
        lead: stride of each leading axis of the nest; 0 where broadcast.
        chunk: from one chunk of 16 channels to the next.
        lane: from one channel to the next.
    """

    lead: list[int]
    chunk: int
    lane: int


def walk(shape: Sequence[int], full: Sequence[int], layout: Layout) -> Walk:
    """The strides of an operand of `shape` broadcast to `full` (of rank 1 or more).

    Example:
        >>> from stepgraph.backends.cpu.layouts import ROWS
        >>> walk((3,), (2, 5, 3), ROWS)
        Walk(lead=[0, 0], chunk=16, lane=1)
    """
    # A reshape that drops leading axes of size 1 leaves an operand of higher rank than the nest.
    kept = list(shape)[max(0, len(shape) - len(full)) :]
    aligned = [1] * (len(full) - len(kept)) + kept
    *lead, channels = aligned
    scale = LANES if layout is PANELS else channels
    strides: list[int] = []
    size = 1
    for extent in reversed(lead):
        strides.insert(0, 0 if extent == 1 else size * scale)
        size *= extent
    if channels == 1 and full[-1] != 1:
        if layout is PANELS:
            raise ValueError("a single broadcast channel lies in rows")
        return Walk(strides, 0, 0)
    if layout is PANELS:
        return Walk(strides, size * LANES, 1)
    return Walk(strides, LANES, 1)


@dataclass
class Grid:
    """The sizes of a nest's loops.

    Attributes:
        outer: sizes decoded from the task number.
        rows: turns of the outer loop in a task's range.
        mid: turns of the inner loop.
        lanes: length of the last axis.
        chunk: where chunks are counted: number of an outer size, or -1 for mid.
        order: the place each leading axis became: ``("outer", k)``, ``("row", 0)``, ``("mid", 0)``.
    """

    outer: list[int]
    rows: int
    mid: int
    lanes: int
    chunk: int
    order: list[tuple[str, int]]

    @property
    def masked(self) -> bool:
        """Whether the last chunk has lanes past the end."""
        return self.lanes % LANES != 0


def collapse(lead: list[int], walks: list[Walk], apart: set[int]) -> tuple[list[int], set[int]]:
    """Merges neighbouring leading axes that every operand walks as one; changes `walks`.

    Args:
        lead: sizes.
        walks: of every operand.
        apart: axes that are reduced; they merge only with each other.

    Returns:
        The sizes left, and which of them are reduced.
    """
    i = 0
    sizes = list(lead)
    reduced = set(apart)
    while i + 1 < len(sizes):
        same_kind = (i in reduced) == (i + 1 in reduced)
        joined = all(w.lead[i] == w.lead[i + 1] * sizes[i + 1] for w in walks)
        drop = sizes[i] == 1 or sizes[i + 1] == 1
        if same_kind and (joined or drop):
            keep = i if sizes[i + 1] == 1 else i + 1
            for w in walks:
                stride = w.lead[keep]
                w.lead[i : i + 2] = [stride]
            sizes[i : i + 2] = [sizes[i] * sizes[i + 1]]
            reduced = {a if a <= i else a - 1 for a in reduced}
        else:
            i += 1
    return sizes, reduced


def place(
    sizes: list[int], lanes: int, reduced: set[int], lanes_reduced: bool, panels: bool
) -> Grid:
    """Decides which axes are decoded, which are looped over.

    Reduced axes are looped over; otherwise the last leading axis is, unless rows are long enough
    to be walked along.
    """
    chunks = panels_of(lanes)
    order: list[tuple[str, int]] = [("outer", 0)] * len(sizes)
    along = not reduced and not panels and (lanes > 4 * LANES or not sizes)
    if lanes_reduced or along:
        free = list(range(len(sizes)))
        rows = free.pop() if free else None
        outer = [sizes[a] for a in free]
        for k, a in enumerate(free):
            order[a] = ("outer", k)
        if rows is not None:
            order[rows] = ("row", 0)
        return Grid(outer, sizes[rows] if rows is not None else 1, chunks, lanes, -1, order)
    looped = sorted(reduced) if reduced else list(range(len(sizes)))[-2:]
    free = [a for a in range(len(sizes)) if a not in looped]
    outer = [sizes[a] for a in free] + [chunks]
    for k, a in enumerate(free):
        order[a] = ("outer", k)
    rows_at = looped[0] if len(looped) > 1 else None
    mid_at = looped[-1] if looped else None
    if rows_at is not None:
        order[rows_at] = ("row", 0)
    if mid_at is not None:
        order[mid_at] = ("mid", 0)
    return Grid(
        outer,
        sizes[rows_at] if rows_at is not None else 1,
        sizes[mid_at] if mid_at is not None else 1,
        lanes,
        len(outer) - 1,
        order,
    )
