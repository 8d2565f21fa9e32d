"""Where every buffer lies: one arena, planned by liveness, reported before the first run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepgraph.backends.cpu.native import storage
from stepgraph.backends.cpu.native.storage import ALIGN
from stepgraph.backends.cpu.plan import Buffer, Step


class Arena:
    """One block of memory for all intermediate values.

    Attributes:
        nbytes: its size.
        naive: what the buffers would take if none shared memory.
        buffers: what lies in it.
    """

    def __init__(self, steps: Sequence[Step], kept: Sequence[Buffer], share: bool = True) -> None:
        """Plans.

        Args:
            steps: in order.
            kept: buffers that must hold their values at the end.
            share: without it every buffer gets memory of its own.
        """
        first, last = _liveness(steps, kept)
        offsets, self.nbytes = _place(steps, first, last, share)
        self.naive = sum(_rounded(b.nbytes) for b in offsets)
        self.buffers = list(offsets)
        whole = storage.zeros(self.nbytes, np.uint8)
        for buffer, offset in offsets.items():
            size = buffer.nbytes // buffer.dtype.size * buffer.dtype.size
            buffer.storage = whole[offset : offset + size].view(buffer.dtype.numpy)


def _rounded(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


def _planned(buffer: Buffer) -> bool:
    return buffer.root.kind in ("arena", "feed")


def _liveness(
    steps: Sequence[Step], kept: Sequence[Buffer]
) -> tuple[dict[Buffer, int], dict[Buffer, int]]:
    first: dict[Buffer, int] = {}
    last: dict[Buffer, int] = {}
    for i, step in enumerate(steps):
        for buffer in (*step.reads, *step.writes):
            root = buffer.root
            if not _planned(root):
                continue
            # Feeds are written before the first step.
            first.setdefault(root, -1 if root.kind == "feed" else i)
            last[root] = i
    for buffer in kept:
        if _planned(buffer):
            first.setdefault(buffer.root, -1)
            last[buffer.root] = len(steps)
    return first, last


def _place(
    steps: Sequence[Step], first: dict[Buffer, int], last: dict[Buffer, int], share: bool
) -> tuple[dict[Buffer, int], int]:
    """Offsets by best fit among the gaps between what is alive."""
    offsets: dict[Buffer, int] = {}
    free: list[tuple[int, int]] = []  # (offset, size), sorted by offset
    top = 0
    starting: dict[int, list[Buffer]] = {}
    ending: dict[int, list[Buffer]] = {}
    for buffer, i in first.items():
        starting.setdefault(i, []).append(buffer)
        ending.setdefault(last[buffer], []).append(buffer)
    taken_over: set[Buffer] = set()
    for i in range(-1, len(steps)):
        heir = _heir(steps[i], i, first, last) if share and i >= 0 else None
        for buffer in sorted(starting.get(i, ()), key=lambda b: -b.nbytes):
            size = _rounded(buffer.nbytes)
            if heir is not None and buffer is heir[1] and heir[0] in offsets:
                offsets[buffer] = offsets[heir[0]]
                taken_over.add(heir[0])
                continue
            fits = [(s, o) for o, s in free if s >= size] if share else []
            if fits:
                found, offset = min(fits)
                free.remove((offset, found))
                if found > size:
                    free.append((offset + size, found - size))
            else:
                offset = top
                if share and free and free[-1][0] + free[-1][1] == top:
                    offset = free.pop()[0]
                top = offset + size
            offsets[buffer] = offset
            free.sort()
        for buffer in ending.get(i, ()):
            if buffer not in taken_over:
                free.append((offsets[buffer], _rounded(buffer.nbytes)))
        free = _merged(sorted(free))
    return offsets, top


def _heir(
    step: Step, i: int, first: dict[Buffer, int], last: dict[Buffer, int]
) -> tuple[Buffer, Buffer] | None:
    """An input that dies in this step and the output that may take over its memory."""
    if not step.aliases or not step.writes:
        return None
    new = step.writes[0].root
    if first.get(new) != i or last.get(new) == i:
        return None
    for old in step.aliases:
        root = old.root
        same = root.nbytes == new.nbytes and root.kind == "arena"
        if same and last.get(root) == i and first.get(root, i) < i:
            return root, new
    return None


def _merged(free: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for offset, size in free:
        if merged and merged[-1][0] + merged[-1][1] == offset:
            merged[-1] = (merged[-1][0], merged[-1][1] + size)
        else:
            merged.append((offset, size))
    return merged
