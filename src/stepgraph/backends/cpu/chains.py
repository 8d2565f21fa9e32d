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

from stepgraph.backends.cpu.plan import Buffer, ChainStep, KernelStep, Step, Tile

# How many launches a launch may overtake to join a chain, and how many may join.
REACH, LONGEST = 8, 6
# A chain needs this many tasks, and so many for each thread, or as many as its member of fewest
# tasks has; which launches are chained changes no result. More than that are joined only while a
# tile of all that members share stays in the second-level cache.
TASKS, TASKS_PER_THREAD = 8, 4
TILE = 768 * 1024


@dataclass
class Member:
    """A launch of a chain, and where the chain's tiles begin among its own rows of tasks."""

    step: KernelStep
    panels: list[int]
    rows: list[int]

    def tiles(self, root: Buffer) -> tuple[list[int], list[int]] | None:
        """Panels and positions where tiles of a buffer begin; None if it is not taken in tiles."""
        rows = _rows_of(self.step, root)
        if rows is None or self.step.grid is None:
            return None
        return [self.step.grid.panels[k] for k in self.panels], [rows[k] for k in self.rows]


class Chain:
    """Launches joined so far.

    Attributes:
        members: the launches, in order.
        numbers: which steps they were.
        passed: launches that members have overtaken.
        tiles, tile_bytes, tile_memory: see `ChainStep`.
    """

    def __init__(self, first: KernelStep, wanted: int, number: int) -> None:
        assert first.grid is not None
        self.wanted = wanted
        panels, rows = (len(v) - 1 for v in (first.grid.panels, _any(first)))
        self.members = [Member(first, list(range(panels + 1)), list(range(rows + 1)))]
        self.numbers = {number}
        self.passed: list[Step] = []
        self.tiles: list[Tile] = []
        self.tile_bytes = 0
        self.tile_memory: Buffer | None = None

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
        self.members.append(Member(step, *own))
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
        reads, writes = (
            [b for b in dict.fromkeys(found) if b.root.kind != "tile"]
            for found in ([b for s in steps for b in side(s)] for side in (_read, _written))
        )
        return ChainStep(
            name=" > ".join(step.name for step in steps),
            reads=reads,
            writes=[*writes, *([self.tile_memory] if self.tile_memory else [])],
            flops=sum(s.flops for s in steps),
            members=steps,
            ranges=ranges,
            tiles=self.tiles,
            tile_memory=self.tile_memory,
            tile_bytes=self.tile_bytes,
        )


def _read(step: Step) -> list[Buffer]:
    return step.reads


def _written(step: Step) -> list[Buffer]:
    return step.writes


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


def chained(
    steps: Sequence[Step],
    kept: Collection[Buffer],
    threads: int = 1,
    tiled: bool = True,
    asking: bool = True,
) -> list[Step]:
    """Joins what can be joined.

    Args:
        steps: in order.
        kept: buffers that are wanted at the end.
        threads: how many will share a chain's tasks.
        tiled: whether values that only a chain's members read may lie in tiles (`tiles`).
        asking: whether members ask for what lies ahead (`ahead`).

    Returns:
        Steps in order; some of them chains.
    """
    from stepgraph.backends.cpu.ahead import ask_ahead
    from stepgraph.backends.cpu.tiles import settle_tiles

    wanted = max(TASKS, TASKS_PER_THREAD * threads)
    left: list[Step | None] = list(steps)
    joined: list[Step | Chain] = []
    for i, step in enumerate(steps):
        if left[i] is None:
            continue
        if not isinstance(step, KernelStep) or step.grid is None:
            joined.append(step)
            continue
        chain = Chain(step, wanted, i)
        at = i + 1
        while at < len(steps) and len(chain.passed) < REACH:
            other = left[at]
            if other is not None:
                movable = isinstance(other, KernelStep) and not _bound(other, chain.passed)
                if movable and isinstance(other, KernelStep) and chain.join(other):
                    left[at] = None
                    chain.numbers.add(at)
                else:
                    chain.passed.append(other)
            at += 1
        joined.append(chain)
    chains = [chain for chain in joined if isinstance(chain, Chain)]
    if tiled:
        settle_tiles(chains, steps, kept, threads)
    last_use: dict[Buffer, int] = {}
    for i, step in enumerate(steps):
        last_use |= dict.fromkeys(_roots([*step.reads, *step.writes]), i)
    for chain in chains:
        # What members read now may be more than what their steps did.
        for root in (r for m in chain.members for r in _roots(m.step.reads)):
            last_use[root] = max(last_use.get(root, -1), *chain.numbers)
    last_use |= dict.fromkeys(_roots(list(kept)), len(steps))
    for chain in chains:
        _in_place(chain, last_use)
        if asking:
            ask_ahead(chain)
    return [chain.step() if isinstance(chain, Chain) else chain for chain in joined]


def _bound(step: Step, passed: Sequence[Step]) -> bool:
    """Whether a step has to stay behind one that it would overtake."""
    reads, writes = _roots(step.reads), _roots(step.writes)
    return any(
        _roots(other.writes) & (reads | writes) or _roots(other.reads) & writes for other in passed
    )


def _in_place(chain: Chain, last_use: dict[Buffer, int]) -> None:
    """Lets members write over what dies in the chain, as `memory` does for launches on their own.

    That is what a member reads place by place, or what those before it have read; the tile at hand
    is in the cache then.
    """
    if len(chain.members) == 1:
        return
    overtaken = {root for step in chain.passed for root in _roots(step.reads)}
    for number, member in enumerate(chain.members):
        new = member.step.writes[0] if member.step.writes else None
        if new is None or new.kind != "arena":
            continue
        own = [b.root for b in member.step.aliases]
        for root in dict.fromkeys([*own, *_done_with(chain, number, new)]):
            same = root.kind == "arena" and root.nbytes == new.nbytes
            free = last_use[root] in chain.numbers and root not in overtaken
            if same and free and root is not new and _read_before(chain, number, root, new):
                new.kind, new.base = "view", root
                last_use[root] = last_use.get(new, last_use[root])
                break


def _read_before(chain: Chain, number: int, root: Buffer, new: Buffer) -> bool:
    """Whether other members that read a value come first, in the tiles of what takes its place."""
    tiles = chain.members[number].tiles(new)
    readers = [k for k, m in enumerate(chain.members) if root in _roots(m.step.reads)]
    others = [k for k in readers if k != number]
    in_tiles = tiles is not None and all(chain.members[k].tiles(root) == tiles for k in others)
    return not others or (max(others) < number and in_tiles)


def _done_with(chain: Chain, number: int, new: Buffer) -> list[Buffer]:
    """What members before one read and it does not, as large and laid out as what it writes."""
    written = {r for m in chain.members for r in _roots(m.step.writes)}
    own = _roots(chain.members[number].step.reads)
    found = dict.fromkeys(b.root for m in chain.members[:number] for b in m.step.reads)
    alike = [r for r in found if r.layout is new.layout and r.dtype == new.dtype]
    return [root for root in alike if root not in written and root not in own]


def panel_cuts(panels: int, width: int) -> tuple[int, ...]:
    """Where parts of `width` panels begin, and the number of panels."""
    return (*range(0, panels, width), panels)


def block_cuts(size: int, block: int) -> tuple[int, ...]:
    """Where blocks of positions begin, and the number of positions."""
    return (*range(0, size, block), size)


def share_cuts(units: int, parts: int, size: int = 1) -> tuple[int, ...]:
    """Where shares of units begin (see `native.layout.share`), in positions of `size` to a unit."""
    return tuple(units * part // parts * size for part in range(parts + 1))
