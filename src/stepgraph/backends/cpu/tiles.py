"""Values that only the members of one chain read: each thread keeps the tile it is working on.

A map that one member writes and the next ones read, and nobody else, goes through memory for
nothing: written (which reads it first), evicted, never read again. In its place each thread has
room for one tile, which stays in the second-level cache from task to task.

Some maps are read once more much later, by the backward pass: an activation, by the gradient of
the weights it was multiplied with. Where a nest made it from one map that is still there, that
chain makes the tile again: as much is read as before, and the map need neither be written nor
kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import replace

from stepgraph.backends.cpu.chains import Chain, Member
from stepgraph.backends.cpu.layouts import LANES, PANELS, ROWS, STEM, WEIGHTS
from stepgraph.backends.cpu.native.chain import MOST_SLOTS
from stepgraph.backends.cpu.plan import At, Buffer, Grid, KernelStep, Step, Tile
from stepgraph.graph.dtypes import float32

# What a nest reads besides the one map that it goes over is this much smaller, at least.
SMALL = 4
# Tiles begin at multiples of so many bytes.
ALIGN = 64

# Which steps read or write a buffer, by number.
Uses = dict[Buffer, set[int]]


def settle_tiles(
    chains: Sequence[Chain], steps: Sequence[Step], kept: Collection[Buffer], threads: int
) -> None:
    """Decides which values lie in tiles, and which of them are made again.

    Args:
        chains: in order; changed.
        steps: what was joined.
        kept: buffers that are wanted at the end.
        threads: how many keep tiles.
    """
    uses: Uses = {}
    for i, step in enumerate(steps):
        for root in _roots([*step.reads, *step.writes]):
            uses.setdefault(root, set()).add(i)
    for buffer in kept:
        uses.setdefault(buffer.root, set()).add(len(steps))
    _make_again(chains, steps, uses)
    for chain in chains:
        if len(chain.members) > 1:
            _keep_tiles(chain, uses)
    tiled = [chain for chain in chains if chain.tiles]
    if tiled:
        # One place for all chains, so that it stays in the cache.
        size = max(chain.tile_bytes for chain in tiled)
        memory = Buffer((threads * size // float32.size,), float32, ROWS, "tiles")
        for chain in tiled:
            chain.tile_memory, chain.tile_bytes = memory, size


def _roots(buffers: Sequence[Buffer]) -> set[Buffer]:
    return {b.root for b in buffers}


# -- values that are made again -------------------------------------------------------------------


def _make_again(chains: Sequence[Chain], steps: Sequence[Step], uses: Uses) -> None:
    """Frees values from readers in other chains, where all of these can make them again."""
    chain_of = {number: chain for chain in chains for number in chain.numbers}
    number_of = {id(step): i for i, step in enumerate(steps)}
    for home in chains:
        for member in home.members:
            made = number_of.get(id(member.step))
            value = _made_from_one_map(member.step)
            if value is None or made is None or not _fits(home, value, uses[value] & home.numbers):
                continue
            found: list[tuple[Chain, Member, Member]] = []
            others = sorted(uses[value] - home.numbers)
            for number in others:
                chain = chain_of.get(number)
                if chain is None or chain in [c for c, _, _ in found]:
                    break
                reader = next((m for m in chain.members if m.step is steps[number]), None)
                if reader is None:
                    break
                between = steps[made + 1 : max(chain.numbers) + 1]
                maker = _maker(member.step, reader, value)
                if maker is None or _changed(member.step, between):
                    break
                found.append((chain, reader, maker))
            if not found or len(found) < len(others):
                continue
            for (chain, reader, maker), number in zip(found, others, strict=True):
                reader.step = _with_another(reader.step, value, maker.step.writes[0])
                chain.members.insert(chain.members.index(reader), maker)
                for root in _roots(maker.step.reads):
                    uses[root].add(number)
            uses[value] &= home.numbers


def _made_from_one_map(step: KernelStep) -> Buffer | None:
    """What a nest writes, if that is one map in panels made of one other and of small values."""
    if step.kernel != "nest" or step.grid is None or len(step.writes) != 1:
        return None
    (value,) = step.writes
    large = {b.root for b in step.reads if b.count * SMALL > value.count}
    whole = {b.root for b in step.grid.rows}
    plain = value.kind == "arena" and value.layout is PANELS and value in whole
    return value if plain and len(large) == 1 and large <= whole else None


def _changed(maker: KernelStep, steps: Sequence[Step]) -> bool:
    """Whether steps write something that a nest reads."""
    read = _roots(maker.reads)
    return any(read & _roots(step.writes) for step in steps)


def _maker(step: KernelStep, reader: Member, value: Buffer) -> Member | None:
    """A launch like `step` that makes a reader's tiles of a value; None if they do not fit."""
    tiles = reader.tiles(value)
    assert step.grid is not None
    if tiles is None or not _plain(reader.step, value) or not _single(tiles[0]):
        return None
    panel_at = {panel: k for k, panel in enumerate(step.grid.panels)}
    row_at = {row: k for k, row in enumerate(step.grid.rows[value])}
    panels, rows = [panel_at.get(k, -1) for k in tiles[0]], [row_at.get(k, -1) for k in tiles[1]]
    if min(*panels, *rows) < 0:
        return None
    another = Buffer(value.shape, value.dtype, value.layout, f"{value.name} again")
    return Member(_with_another(step, value, another), panels, rows)


def _with_another(step: KernelStep, old: Buffer, new: Buffer) -> KernelStep:
    """A launch on another buffer in one's place."""
    assert step.grid is not None
    arguments = {
        name: At(new) if isinstance(value, At) and value.buffer.root is old else value
        for name, value in step.arguments.items()
    }
    rows = {new if b.root is old else b: cuts for b, cuts in step.grid.rows.items()}
    reads, writes = ([new if b.root is old else b for b in s] for s in (step.reads, step.writes))
    aliases = tuple(b for b in step.aliases if b.root is not old)
    pitches = {new if b.root is old else b: names for b, names in step.grid.pitches.items()}
    asking = step.asking
    if asking is not None and asking[0].root is old:
        asking = new, asking[1]
    return replace(
        step,
        reads=reads,
        writes=writes,
        arguments=arguments,
        aliases=aliases,
        grid=Grid(step.grid.panels, rows, pitches),
        asking=asking,
    )


# -- values that lie in tiles ---------------------------------------------------------------------


def _single(panels: Sequence[int]) -> bool:
    """Whether every tile is of one panel: then nothing in it depends on how large the map is."""
    return all(after - at == 1 for at, after in itertools.pairwise(panels))


def _plain(step: KernelStep, value: Buffer) -> bool:
    """Whether a launch takes a value by its address alone."""
    places = [v for v in step.arguments.values() if isinstance(v, At) and v.buffer.root is value]
    direct = any(isinstance(v, Buffer) and v.root is value for v in step.arguments.values())
    moved = bool(places) and not direct and all(v.offset == 0 for v in places)
    return moved and len(step.arguments) <= MOST_SLOTS and not step.accumulates


def _fits(chain: Chain, value: Buffer, used: Collection[int]) -> bool:
    """Whether a value that is used by these steps alone may lie in tiles."""
    paneled = value.layout in (PANELS, WEIGHTS, STEM)
    if not set(used) <= chain.numbers or value.kind != "arena" or not paneled:
        return False
    members = [m for m in chain.members if value in _roots([*m.step.reads, *m.step.writes])]
    if len(members) < 2:
        return False
    first, *others = members
    writes = value in first.step.writes and value not in _roots(first.step.reads)
    again = any(value in _roots(m.step.writes) for m in others)
    tiles = first.tiles(value)
    same = tiles is not None and all(m.tiles(value) == tiles for m in others)
    plain = all(_plain(m.step, value) for m in members)
    if not (writes and not again and same and plain) or tiles is None:
        return False
    return _single(tiles[0]) or all(_pitches(m.step, value) for m in members)


def _pitches(step: KernelStep, value: Buffer) -> tuple[str, ...]:
    """The arguments that hold the distance between a value's panels."""
    assert step.grid is not None
    return step.grid.pitches.get(value, ())


def _with_pitch(step: KernelStep, value: Buffer, pitch: int) -> KernelStep:
    """The launch on a value whose panels lie so many elements apart."""
    return replace(step, arguments=step.arguments | dict.fromkeys(_pitches(step, value), pitch))


def _keep_tiles(chain: Chain, uses: Uses) -> None:
    """Takes values out of memory that only this chain uses."""
    written = dict.fromkeys(b.root for m in chain.members for b in m.step.writes)
    places: list[tuple[int, int, int]] = []  # (offset, bytes, last member that uses it)
    for value in written:
        if not _fits(chain, value, uses.get(value, ())):
            continue
        using = [
            k
            for k, m in enumerate(chain.members)
            if value in _roots([*m.step.reads, *m.step.writes])
        ]
        member = chain.members[using[0]]
        tiles = member.tiles(value)
        assert tiles is not None
        assert member.step.grid is not None
        panels, rows = tiles
        row = LANES * value.dtype.size
        longest = max(b - a for a, b in itertools.pairwise(rows))
        most = max(b - a for a, b in itertools.pairwise(panels))
        size = -(-most * (longest + 1) * row // ALIGN) * ALIGN
        pitch = next(v for b, v in member.step.grid.rows.items() if b.root is value)[-1]
        if most > 1:
            # Panels lie closer together in a tile; a place more keeps them off one cache set.
            pitch = longest + 1
            for k in using:
                chain.members[k].step = _with_pitch(chain.members[k].step, value, pitch * LANES)
        starts = tuple((p * pitch + r) * row for p in panels[:-1] for r in rows[:-1])
        free = [k for k, (_, room, last) in enumerate(places) if last < using[0] and room >= size]
        if free:
            offset, size, _ = places[free[0]]
            places[free[0]] = (offset, size, using[-1])
        else:
            offset = chain.tile_bytes
            places.append((offset, size, using[-1]))
            chain.tile_bytes += size
        value.kind = "tile"
        chain.tiles.append(Tile(value, offset, starts))
