"""The table of the framework's faults says what the lowerings do."""

from __future__ import annotations

import pathlib
import re

import pytest

import stepgraph.backends.mps as package
from stepgraph.backends.mps.builder import Builder
from stepgraph.backends.mps.lowering import DECOMPOSED, LOWERINGS
from stepgraph.backends.mps.quirks import ALWAYS, LIMIT, QUIRKS, SWITCH
from stepgraph.backends.mps.recording import Recorder
from stepgraph.backends.mps.system import Version, parse_system
from stepgraph.errors import UnsupportedError
from stepgraph.graph.ops import OPS

SOURCE = "".join(
    path.read_text("utf-8") for path in pathlib.Path(package.__file__).parent.rglob("*.py")
)


def builder(system: str) -> Builder:
    return Builder(Recorder(system), "graph", parse_system(system), LOWERINGS, str)


@pytest.mark.parametrize("quirk", QUIRKS.values(), ids=QUIRKS)
def test_entries_are_whole(quirk):
    assert quirk.how in (ALWAYS, SWITCH, LIMIT)
    assert quirk.what
    assert quirk.around
    assert quirk.source
    assert set(quirk.ops) <= set(OPS)
    if quirk.how != SWITCH:
        with pytest.raises(ValueError, match="gone around on every system"):
            builder("iOS 26.0").quirk(quirk.name)


def test_switches_are_asked_for_and_nothing_else_is():
    asked = set(re.findall(r'\bquirk\("(\w+)"\)', SOURCE))
    assert asked == {name for name, quirk in QUIRKS.items() if quirk.how == SWITCH}


def test_what_is_spelt_out_is_decomposed():
    spelt = [q for q in QUIRKS.values() if "spelt out" in q.around and q.ops != ("softmax",)]
    assert spelt
    for quirk in spelt:
        assert set(quirk.ops) <= set(DECOMPOSED), quirk.name


def test_limits_belong_to_lowerings():
    for quirk in QUIRKS.values():
        if quirk.how == LIMIT:
            for op in quirk.ops:
                assert LOWERINGS[op].limits, f"{quirk.name}: '{op}' has no limit"


@pytest.mark.parametrize(
    ("system", "old", "new"),
    [
        ("iOS 17.4", True, False),
        ("macOS 14.4", True, False),
        ("macOS 15.0", False, False),
        ("iOS 26.0", False, True),
        ("macOS 26.1", False, True),
    ],
)
def test_switches_follow_the_system(system, old, new):
    made = builder(system)
    assert made.quirk("slice_update_missing") is old
    assert made.quirk("attention_miscompiled") is new
    assert made.quirk("matmul_long_inner")


def test_systems_are_on_one_scale():
    assert parse_system("macOS 15.3") == parse_system("iOS 18.3") == Version(18, 3)
    assert str(Version(18, 1)) == "iOS 18.1 / macOS 15.1"
    assert str(Version(26)) == "iOS/macOS 26.0"
    assert QUIRKS["large_convolutions"].systems == "before iOS 18.1 / macOS 15.1"
    assert QUIRKS["aliased_buffers"].systems == "from iOS/macOS 26.0"
    with pytest.raises(UnsupportedError, match="no system that MPSGraph runs on"):
        parse_system("Linux 6.1")
