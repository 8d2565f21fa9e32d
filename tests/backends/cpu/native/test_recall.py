"""Compiled modules found again without writing their IR."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from stepgraph.backends.cpu.kernels.copy import CopySpec, build_copy
from stepgraph.backends.cpu.native import cache, recall
from stepgraph.backends.cpu.native.target import host_target

SPEC = CopySpec("float32", "float32", 1, "next", False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPGRAPH_CACHE_DIR", str(tmp_path))
    return tmp_path


def _make(calls):
    def make():
        calls.append(1)
        return build_copy(SPEC)

    return make


def test_second_fetch_writes_no_ir(folder):
    calls = []
    first, library = recall.fetch(("copy", SPEC), _make(calls))
    again, same = recall.fetch(("copy", SPEC), _make(calls))
    assert len(calls) == 1
    assert library.addresses == same.addresses
    assert {name: list(layout.fields) for name, layout in first.items()} == {
        name: list(layout.fields) for name, layout in again.items()
    }
    for name, layout in first.items():
        values = dict.fromkeys(layout.fields, 3)
        assert layout.pack(**values) == again[name].pack(**values)


def test_other_sources_are_other_modules(folder, monkeypatch):
    calls = []
    recall.fetch(("copy", SPEC), _make(calls))
    monkeypatch.setattr(recall, "_sources", lambda: "edited")
    recall.fetch(("copy", SPEC), _make(calls))
    monkeypatch.setattr(recall, "_sources", lambda: "")  # cannot be read: nothing is noted
    for _ in range(2):
        recall.fetch(("copy", SPEC), _make(calls))
    assert len(calls) == 4


@pytest.mark.parametrize(
    "note",
    [b"", b"no note", b"{}", b'{"object": "gone", "kernels": {}}', b"[1]"],
)
def test_odd_notes_are_written_anew(folder, note):
    calls = []
    name = recall.note_name(("copy", SPEC), host_target())
    cache.store(name, note)
    recall.fetch(("copy", SPEC), _make(calls))
    assert len(calls) == 1
    assert json.loads(cache.load(name))["kernels"]


def test_objects_that_were_trimmed_are_compiled_again(folder):
    calls = []
    recall.fetch(("copy", SPEC), _make(calls))
    note = json.loads(cache.load(recall.note_name(("copy", SPEC), host_target())))
    (folder / f"{note['object']}.kernel").unlink()
    recall.fetch(("copy", SPEC), _make(calls))
    assert len(calls) == 2


@dataclass(frozen=True)
class One:
    a: object


@dataclass(frozen=True)
class Other:
    a: object


def test_spelling_keeps_values_apart():
    values = [1, 1.0, True, "1", (1,), ((1,),), (1, 1), None, "None", One(1), Other(1), One((1,))]
    values += [-0.0, 0.0, ("1,",), ("1", ""), "'1',", float("inf")]
    assert len({recall.spelled(v) for v in values}) == len(values)


def test_what_cannot_be_spelled_is_made_every_time(folder):
    with pytest.raises(TypeError, match="object"):
        recall.spelled((object(),))
    calls = []
    for _ in range(2):
        recall.fetch(("copy", object()), _make(calls))
    assert len(calls) == 2
