"""What members of a chain ask for ahead: which maps, by whom, from where on; and the same bits."""

import numpy as np
import pytest
from tests.backends.cpu.test_chains import _train

from stepgraph.backends.cpu import ahead
from stepgraph.backends.cpu.chains import block_cuts, chained, panel_cuts
from stepgraph.backends.cpu.kernels.ahead import Lines
from stepgraph.backends.cpu.layouts import LANES, PANELS
from stepgraph.backends.cpu.plan import Buffer, Grid, KernelSource, KernelStep
from stepgraph.graph.dtypes import float32

POSITIONS, TILE = 1 << 14, 1 << 10


def _buffers(names, positions=POSITIONS):
    return [Buffer((positions, 32), float32, PANELS, name) for name in names]


def _step(name, reads, writes, over=None):
    """A launch that tiles all its maps in 16; it can ask, going over one of them."""
    rows = {b: block_cuts(b.shape[0], b.shape[0] // 16) for b in (*reads, *writes)}
    step = KernelStep(name, reads, writes, tasks=32, grid=Grid(panel_cuts(2, 1), rows))
    step.source = KernelSource(name, None)
    if over is not None:
        step.asking = over, lambda lines: KernelSource((name, lines), None)
    return step


def _asked(steps, kept):
    """For each member: its source's key, and the maps it asks for with how far ahead."""
    (chain,) = chained(steps, kept, tiled=False)
    return [
        (m.source.key, [(v.buffer, v.offset) for n, v in m.arguments.items() if "ahead" in n])
        for m in chain.members
    ]


def test_what_comes_before_is_asked_for_at_the_next_tile_and_what_comes_behind_at_this_one():
    a, b, c, d, e, f = _buffers("abcdef")
    steps = [
        _step("plain", [a], [b]),
        _step("first", [b], [c], over=c),
        _step("second", [c, d], [e], over=e),
        _step("last", [e], [f]),
    ]
    read, written = Lines(1), Lines(1, write=True)
    assert _asked(steps, [a, b, c, d, e, f]) == [
        ("plain", []),
        # What it writes itself is touched before it gets to ask for it: the one before asks, or
        # the last one, a tile earlier.
        (("first", (read, written)), [(d, 0), (e, 0)]),
        (
            ("second", (read, written, written, written)),
            [(a, TILE * LANES), (b, TILE * LANES), (c, TILE * LANES), (f, 0)],
        ),
        ("last", []),
    ]


def test_larger_maps_are_asked_for_in_step_and_small_ones_not_at_all():
    (large,), (pooled, out), (small,) = (
        _buffers("a", 4 * POSITIONS),
        _buffers("bc"),
        _buffers("d", 64),
    )
    steps = [_step("plain", [large, small], [pooled]), _step("pooling", [pooled], [out], over=out)]
    keys = [key for key, _ in _asked(steps, [large, pooled, out])]
    assert keys[1] == ("pooling", (Lines(4), Lines(1, write=True), Lines(1, write=True)))


@pytest.mark.parametrize("able", [True, False])
def test_a_launch_alone_or_one_that_cannot_ask_stays_as_it_was(able):
    a, b, c = _buffers("abc")
    if able:
        (step,) = chained([_step("alone", [a], [b], over=b)], [b])
        assert step.source.key == "alone"
    else:
        assert _asked([_step("one", [a], [b]), _step("two", [b], [c])], [c]) == [
            ("one", []),
            ("two", []),
        ]


def test_asking_changes_no_bit(monkeypatch):
    asked = []

    def spied(chain, member, wanted):
        asked.append(asking(chain, member, wanted))
        return asked[-1]

    asking = ahead._asking
    monkeypatch.setattr(ahead, "_asking", spied)
    losses, variables, _ = _train(8, 32)
    kinds = {(s.source.key[0], lines.count) for s in asked for lines in s.source.key[1].ahead}
    assert kinds >= {("depthwise_rows", 1), ("depthwise_rows", 4), ("depthwise", 4)}
    del asked[:]
    plain = _train(8, 32, 2, ["ask_ahead"])
    assert not asked
    assert losses == plain[0]
    for one, other in zip(variables, plain[1], strict=True):
        assert np.array_equal(one, other)
