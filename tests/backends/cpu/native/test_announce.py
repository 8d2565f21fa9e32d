"""The line that says that kernels are being compiled."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from stepgraph.backends.cpu.native import announce as module
from stepgraph.backends.cpu.native.announce import announce


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    found = Terminal()
    monkeypatch.setattr(module, "sys", SimpleNamespace(stderr=found))
    for name, value in (("_waited", 0.0), ("_last", 0.0), ("_said", False)):
        monkeypatch.setattr(module, name, value)
    return found


def test_a_long_wait_is_announced_once(terminal):
    announce(2.0)
    announce(2.0)
    assert terminal.getvalue().count("\n") == 1
    assert "compiling kernels" in terminal.getvalue()


def test_many_short_ones_are_a_long_wait(terminal):
    for _ in range(9):
        announce(0.1)
    assert not terminal.getvalue()
    for _ in range(9):
        announce(0.1)
    assert terminal.getvalue().count("\n") == 1


def test_short_ones_far_apart_are_none(terminal, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    for _ in range(50):
        announce(0.1)
        now[0] += 10
    assert not terminal.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO(), None])
def test_nothing_is_said_where_nobody_looks(terminal, monkeypatch, stream):
    monkeypatch.setattr(module.sys, "stderr", stream)
    announce(5.0)
    assert stream is None or not stream.getvalue()
