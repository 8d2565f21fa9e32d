"""What a chain's members ask for while they compute.

A member that reads a map from memory and computes little waits for it; one that computes much on
what the cache holds leaves memory idle. Members of the second kind that can ask for lines on the
way (`KernelStep.asking`) ask for what the members behind them touch first at this tile, and the
last of them for what those before it will touch at the next one: tiles of one buffer follow each
other in memory, and so do, mostly, the tasks of a thread. Wrong guesses cost a line's transfer.

    normalise x > depthwise to y > sums of y      depthwise asks for the next tiles of x and y
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stepgraph.backends.cpu.chains import Chain, Member
from stepgraph.backends.cpu.kernels.ahead import Lines
from stepgraph.backends.cpu.layouts import LANES, PANELS
from stepgraph.backends.cpu.plan import At, Buffer, KernelStep

# Maps up to this size stay in a second-level cache from their maker to their reader.
LARGE = 1 << 20
# The most lines that a member asks for at one of its positions.
MOST = 8


def ask_ahead(chain: Chain) -> None:
    """Lets the members of a chain that can ask for lines do so."""
    able = [k for k, m in enumerate(chain.members) if m.step.asking is not None]
    if not able or len(chain.members) < 2:
        return
    wanted: dict[int, list[tuple[Buffer, int, bool]]] = {k: [] for k in able}
    seen: set[Buffer] = set()
    for number, member in enumerate(chain.members):
        for buffer in (*member.step.reads, *member.step.writes):
            root = buffer.root
            tiles = member.tiles(root)
            if root in seen or tiles is None or not _large(root):
                continue
            seen.add(root)
            before = [k for k in able if k < number]
            ahead = 0 if before else tiles[1][1] - tiles[1][0]
            write = buffer in member.step.writes
            wanted[before[-1] if before else able[-1]].append((buffer, ahead, write))
    for number, found in wanted.items():
        member = chain.members[number]
        member.step = _asking(chain, member, found)


def _large(root: Buffer) -> bool:
    return root.kind != "tile" and root.layout is PANELS and root.nbytes > LARGE


def _asking(chain: Chain, member: Member, wanted: Sequence[tuple[Buffer, int, bool]]) -> KernelStep:
    step = member.step
    assert step.asking is not None
    assert step.grid is not None
    over, made = step.asking
    own = step.grid.rows[over][-1]
    lines: list[Lines] = []
    places: dict[str, At] = {}
    for buffer, ahead, write in wanted:
        positions = next(
            rows[-1]
            for m in chain.members
            if m.step.grid is not None
            for b, rows in m.step.grid.rows.items()
            if b.root is buffer.root
        )
        count = -(-positions // own)
        if count + sum(line.count for line in lines) <= MOST:
            places[f"ahead{len(lines)}"] = At(buffer, ahead * LANES)
            lines.append(Lines(count, write))
    if not lines:
        return step
    return replace(step, source=made(tuple(lines)), arguments=step.arguments | places)
