"""Tiles: which values a chain keeps out of memory, which it makes again, and what it computes."""

from dataclasses import replace

import pytest
from tests.backends.cpu.test_chains import _train

from stepgraph.backends.cpu.chains import block_cuts, chained, panel_cuts
from stepgraph.backends.cpu.layouts import PANELS
from stepgraph.backends.cpu.plan import At, Buffer, ChainStep, Grid, KernelStep, Step
from stepgraph.graph.dtypes import float32

ROWS = block_cuts(64, 8)


def _buffers(names, channels=32):
    return [Buffer((64, channels), float32, PANELS, name) for name in names]


def _step(name, reads, writes, *, rows=ROWS, width=1, kernel="nest", offset=0):
    """A launch over 2 panels that tiles all its large buffers alike."""
    tiled = [b for b in (*reads, *writes) if b.count > 64]
    grid = Grid(panel_cuts(2, width), dict.fromkeys(tiled, tuple(rows)))
    arguments = {f"place{k}": At(b, offset) for k, b in enumerate([*reads, *writes])}
    tasks = (len(grid.panels) - 1) * (len(rows) - 1)
    settings = {"kernel": kernel, "arguments": arguments, "tasks": tasks, "grid": grid}
    return KernelStep(name, reads, writes, **settings)


def test_what_only_members_read_lies_in_tiles():
    a, b, c, d = _buffers("abcd")
    steps = [_step("first", [a], [b]), _step("second", [b], [c]), _step("third", [c], [d])]
    (chain,) = chained(steps, [d], threads=2)
    assert isinstance(chain, ChainStep)
    assert [tile.buffer for tile in chain.tiles] == [b, c]
    assert (b.kind, c.kind) == ("tile", "tile")
    assert not {b, c} & {*chain.reads, *chain.writes}
    assert chain.tile_memory in chain.writes
    assert chain.tile_memory.nbytes >= 2 * chain.tile_bytes
    # Both are alive in the second member: 8 positions of 16 channels each, and a vector's room.
    assert [tile.offset for tile in chain.tiles] == [0, 8 * 64 + 64]
    panel, block = 64 * 64, 8 * 64
    assert list(chain.tiles[0].starts) == [p * panel + k * block for p in (0, 1) for k in range(8)]


def test_tiles_of_values_that_are_done_with_are_used_again():
    a, b, c, d, e = _buffers("abcde")
    steps = [_step(f"s{k}", [x], [y]) for k, (x, y) in enumerate([(a, b), (b, c), (c, d), (d, e)])]
    (chain,) = chained(steps, [e])
    assert [tile.offset for tile in chain.tiles] == [0, 576, 0]


@pytest.mark.parametrize("why", ["kept", "read later", "wide", "offset", "state", "off"])
def test_other_values_stay_in_memory(why):
    a, b, c, d = _buffers("abcd")
    if why == "state":
        b.kind = "state"
    width = 2 if why == "wide" else 1
    first = _step("first", [a], [b], width=width, offset=why == "offset")
    steps = [first, _step("second", [b], [c], width=width)]
    if why == "read later":
        steps.append(Step("later", [b], [d]))
    found = chained(steps, [c, b] if why == "kept" else [c], tiled=why != "off")
    assert isinstance(found[0], ChainStep)
    assert not found[0].tiles
    assert b.kind != "tile"


@pytest.mark.parametrize("told", ["both", "one"])
def test_tiles_of_several_panels_need_launches_that_can_be_told_where_these_lie(told):
    a, b, c = _buffers("abc")
    steps = [_step("first", [a], [b], width=2), _step("second", [b], [c], width=2)]
    for step in steps[: 2 if told == "both" else 1]:
        step.grid = replace(step.grid, pitches={b: ("pitch",)})
        step.arguments["pitch"] = 64 * 16
    (chain,) = chained(steps, [c])
    if told == "one":
        assert not chain.tiles
        return
    assert [tile.buffer for tile in chain.tiles] == [b]
    # Tiles are of 8 positions in 2 panels; a position more lies between these.
    assert [member.arguments["pitch"] for member in chain.members] == [9 * 16] * 2
    assert list(chain.tiles[0].starts) == [8 * 64 * k for k in range(8)]
    assert chain.tile_bytes >= 2 * 9 * 64
    assert steps[0].arguments["pitch"] == 64 * 16


def _forth_and_back(why=""):
    """A map, what a nest makes of it, a later chain that reads that once more."""
    source, made, out, other, later, end = _buffers(
        ["source", "made", "out", "other", "later", "z"]
    )
    small = Buffer((1, 32), float32, PANELS, "small")
    forth = [
        _step("nest", [source, small], [made], kernel="heavy" if why == "no nest" else "nest"),
        _step("heavy", [made], [out], kernel="heavy"),
    ]
    between = Step("between", [out], [other])
    if why == "changed":
        between.writes.append(small)
    if why == "read alone":
        between.reads.append(made)
    rows = block_cuts(64, 4) if why == "other tiles" else ROWS
    back = [
        _step("before", [out, other], [later], rows=rows, kernel="heavy"),
        _step("reader", [later, made], [end], rows=rows, kernel="heavy"),
    ]
    kept = [end, made] if why == "kept" else [end]
    return chained([*forth, between, *back], kept), made, source, small


def test_a_later_chain_makes_a_value_again():
    (forth, _, back), made, source, small = _forth_and_back()
    assert made.kind == "tile"
    assert [m.name for m in back.members] == ["before", "nest", "reader"]
    maker, reader = back.members[1:]
    (another,) = maker.writes
    assert another is not made
    assert another.kind == "tile"
    assert another in reader.reads
    assert made not in reader.reads
    assert {source, small} <= set(back.reads)
    assert [t.buffer for t in forth.tiles] == [made]
    assert all(v.buffer is not made for m in (maker, reader) for v in m.arguments.values())


@pytest.mark.parametrize("why", ["no nest", "changed", "read alone", "other tiles", "kept"])
def test_or_reads_it_from_memory(why):
    found, made, *_ = _forth_and_back(why)
    assert made.kind != "tile"
    assert "nest" not in [m.name for m in found[-1].members if isinstance(found[-1], ChainStep)]


@pytest.mark.parametrize("reader", [None, "itself", "behind", "later", "other tiles"])
def test_a_value_takes_the_place_of_one_read_before_in_the_same_tiles(reader):
    a, b, c, d = _buffers("abcd")
    steps = [_step("first", [a], [b]), _step("second", [b], [c])]
    if reader == "itself":
        steps[1] = _step("second", [b, a], [c])
    if reader == "other tiles":
        del steps[0].grid.rows[a]
    if reader == "behind":
        steps.append(_step("third", [c, a], [d]))
    if reader == "later":
        steps.append(Step("later", [a], [d]))
    chained([Step("source", [], [a]), *steps], [c, d])
    assert (c.root is a) == (reader is None)


def test_networks_hold_less_with_tiles():
    program = _train(8, 16)[2]
    assert "multiplication+addition+relu+minimum" in program
    again = [line for line in program.splitlines() if "depthwise_convolution_2d_weights" in line]
    assert any("relu+minimum" in line and "> depthwise" in line for line in again)
    assert "tiles" in program
    assert "tiles" not in _train(8, 16, 2, ["tiles"])[2]
