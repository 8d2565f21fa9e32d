"""Chains: a launch and those that read what it writes, run tile by tile as one launch.

A map that a convolution writes is read again at once: its statistics are summed, or the gradient of
an activation is taken and summed up. Where tasks of both launches tile the map in ways that agree,
each tile can go through both while it is in the second-level cache, and other threads need not wait
for the first launch to end. Results do not change: the same tasks run, only in another order.

Launches say how they tile by their `Grid`. A chain's own tiles begin where those of all its members
do; a launch joins if enough of them are left. It may overtake launches between it and the chain
that have nothing to do with it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from stepgraph.backends.cpu.plan import Buffer, ChainStep, KernelStep, Step

# How many launches a launch may overtake to join a chain, and how many may join.
REACH, LONGEST = 8, 6
# A chain needs this many tasks, and so many for each thread, or as many as its member of fewest
# tasks has; which launches are chained changes no result. More than that are joined only while a
# tile of all that members share stays in the second-level cache.
TASKS, TASKS_PER_THREAD = 8, 4
TILE = 768 * 1024


@dataclass
class _Member:
    """A launch of a chain, and where the chain's tiles begin among its own rows of tasks."""

    step: KernelStep
    panels: list[int]
    rows: list[int]


class _Chain:
    """Launches joined so far."""

    def __init__(self, first: KernelStep, wanted: int) -> None:
        assert first.grid is not None
        self.wanted = wanted
        panels, rows = (len(v) - 1 for v in (first.grid.panels, _any(first)))
        self.members = [_Member(first, list(range(panels + 1)), list(range(rows + 1)))]

    def join(self, step: KernelStep) -> bool:
        """Adds a launch if its tiles agree with the chain's."""
        grid = step.grid
        if grid is None or len(self.members) == LONGEST:
            return False
        shared = [(m, b) for m in self.members for b in _roots(m.step.writes) & _roots(step.reads)]
        loose = any(
            _roots(m.step.reads) & _roots(step.writes)
            or _roots(m.step.writes) & _roots(step.writes)
            for m in self.members
        )
        if not shared or loose:
            return False
        # Places of the chain's tiles that the launch has too, as numbers of its own rows of tasks.
        panel_at = {panel: k for k, panel in enumerate(grid.panels)}
        columns: list[int] | None = None
        lines: list[int] | None = None
        for member, buffer in shared:
            assert member.step.grid is not None
            theirs, ours = (_rows_of(s, buffer) for s in (member.step, step))
            if theirs is None or ours is None:
                return False
            row_at = {row: k for k, row in enumerate(ours)}
            found = [row_at.get(theirs[k], -1) for k in member.rows]
            lines = _merged(lines, found)
            panels = member.step.grid.panels
            columns = _merged(columns, [panel_at.get(panels[k], -1) for k in member.panels])
            if lines is None or columns is None:
                return False
        assert lines is not None
        assert columns is not None
        kept = [k for k, at in enumerate(lines) if at >= 0]
        kept_panels = [k for k, at in enumerate(columns) if at >= 0]
        tasks = (len(kept) - 1) * (len(kept_panels) - 1)
        fewest = min(step.tasks, *(m.step.tasks for m in self.members))
        if tasks < min(self.wanted, fewest):
            return False
        tile = sum(b.nbytes for b in dict.fromkeys(b for _, b in shared)) // tasks
        if tile > TILE:
            return False
        for member in self.members:
            member.rows = [member.rows[k] for k in kept]
            member.panels = [member.panels[k] for k in kept_panels]
        own = [columns[k] for k in kept_panels], [lines[k] for k in kept]
        self.members.append(_Member(step, *own))
        return True

    def step(self) -> Step:
        """The chain as one step; a launch that nothing joined is left as it was."""
        if len(self.members) == 1:
            return self.members[0].step
        steps = [m.step for m in self.members]
        first = self.members[0]
        ranges = []
        for column in range(len(first.panels) - 1):
            for row in range(len(first.rows) - 1):
                ranges.append(
                    [
                        (number, part * (len(_any(m.step)) - 1) + m.rows[row], height)
                        for number, m in enumerate(self.members)
                        for height in [m.rows[row + 1] - m.rows[row]]
                        for part in range(m.panels[column], m.panels[column + 1])
                    ]
                )
        return ChainStep(
            name=" > ".join(step.name for step in steps),
            reads=list(dict.fromkeys(b for s in steps for b in s.reads)),
            writes=list(dict.fromkeys(b for s in steps for b in s.writes)),
            flops=sum(s.flops for s in steps),
            members=steps,
            ranges=ranges,
        )


def _any(step: KernelStep) -> tuple[int, ...]:
    """Where rows of tasks begin in some buffer."""
    assert step.grid is not None
    return next(iter(step.grid.rows.values()))


def _rows_of(step: KernelStep, root: Buffer) -> tuple[int, ...] | None:
    assert step.grid is not None
    return next((rows for b, rows in step.grid.rows.items() if b.root is root), None)


def _roots(buffers: Sequence[Buffer]) -> set[Buffer]:
    return {b.root for b in buffers}


def _merged(known: list[int] | None, found: list[int]) -> list[int] | None:
    """Places that all agree on; None if two say different things of one, or ends are missing."""
    if known is not None:
        if any(a != b for a, b in zip(known, found, strict=True) if a >= 0 and b >= 0):
            return None
        found = [min(a, b) for a, b in zip(known, found, strict=True)]
    return found if found[0] >= 0 and found[-1] >= 0 else None


def chained(steps: Sequence[Step], kept: Collection[Buffer], threads: int = 1) -> list[Step]:
    """Joins what can be joined.

    Args:
        steps: in order.
        kept: buffers that are wanted at the end.
        threads: how many will share a chain's tasks.

    Returns:
        Steps in order; some of them chains.
    """
    wanted = max(TASKS, TASKS_PER_THREAD * threads)
    left: list[Step | None] = list(steps)
    last_use = {root: i for i, s in enumerate(steps) for root in _roots([*s.reads, *s.writes])}
    last_use |= dict.fromkeys(_roots(list(kept)), len(steps))
    joined: list[Step] = []
    for i, step in enumerate(steps):
        if left[i] is None:
            continue
        if not isinstance(step, KernelStep) or step.grid is None:
            joined.append(step)
            continue
        chain, numbers = _Chain(step, wanted), {i}
        passed: list[Step] = []
        at = i + 1
        while at < len(steps) and len(passed) < REACH:
            other = left[at]
            if other is not None:
                movable = isinstance(other, KernelStep) and not _bound(other, passed)
                if movable and isinstance(other, KernelStep) and chain.join(other):
                    left[at] = None
                    numbers.add(at)
                else:
                    passed.append(other)
            at += 1
        _in_place(chain, numbers, passed, last_use)
        joined.append(chain.step())
    return joined


def _bound(step: Step, passed: Sequence[Step]) -> bool:
    """Whether a step has to stay behind one that it would overtake."""
    reads, writes = _roots(step.reads), _roots(step.writes)
    return any(
        _roots(other.writes) & (reads | writes) or _roots(other.reads) & writes for other in passed
    )


def _in_place(
    chain: _Chain, numbers: set[int], passed: Sequence[Step], last_use: dict[Buffer, int]
) -> None:
    """Lets members write over what only they read, as `memory` does for launches on their own."""
    if len(chain.members) == 1:
        return
    members = [m.step for m in chain.members]
    overtaken = {root for step in passed for root in _roots(step.reads)}
    for member in members:
        new = member.writes[0] if member.writes else None
        if new is None or new.kind != "arena":
            continue
        for old in member.aliases:
            root = old.root
            others = [s for s in members if s is not member and root in _roots(s.reads)]
            same = root.kind == "arena" and root.nbytes == new.nbytes
            free = last_use[root] in numbers and root not in overtaken and not others
            if same and free and root is not new:
                new.kind, new.base = "view", root
                last_use[root] = last_use.get(new, last_use[root])
                break


def panel_cuts(panels: int, width: int) -> tuple[int, ...]:
    """Where parts of `width` panels begin, and the number of panels."""
    return (*range(0, panels, width), panels)


def block_cuts(size: int, block: int) -> tuple[int, ...]:
    """Where blocks of positions begin, and the number of positions."""
    return (*range(0, size, block), size)


def share_cuts(units: int, parts: int, size: int = 1) -> tuple[int, ...]:
    """Where shares of units begin (see `native.layout.share`), in positions of `size` to a unit."""
    return tuple(units * part // parts * size for part in range(parts + 1))
