"""The memory plan, against sums by hand."""

from __future__ import annotations

import numpy as np

import stepgraph as sg
from stepgraph.backends.mps.device import lowered_program
from stepgraph.backends.mps.plan import plan_memory


def plan(build):
    graph = sg.Graph()
    targets, operations = build(graph)
    feeds = {p: p.shape for p in graph.placeholders}
    # Passes would take the chains below apart.
    off = ("collapse", "simplify", "merge_common", "fold")
    return plan_memory(lowered_program(graph, feeds, targets, operations, disable=off))


def test_a_chain_holds_two_values_at_a_time():
    def build(graph):
        x = graph.placeholder((1000,), name="x")
        return [graph.sin(graph.cos(graph.sin(graph.cos(x))))], []

    found = plan(build)
    assert found.peak == 2 * 4000
    assert found.unshared == 4 * 4000
    assert found.ports == 2 * 4000
    assert found.variables == found.constants == 0
    assert found.total == 4 * 4000


def test_what_is_needed_again_is_held():
    def build(graph):
        x = graph.placeholder((1000,), name="x")
        first = graph.cos(x)
        return [graph.sin(graph.sin(graph.sin(first))) + first], []

    assert plan(build).peak == 3 * 4000


def test_views_share_their_source_s_memory():
    def build(graph):
        x = graph.placeholder((10, 100), name="x")
        y = graph.cos(x)
        return [graph.sin(graph.reshape(y, (1000,)))], []

    found = plan(build)
    assert found.peak == found.unshared == 2 * 4000


def test_variables_constants_and_new_values():
    def build(graph):
        weights = graph.variable(np.ones((50, 20), "float32"), name="weights")
        count = graph.variable(0, dtype="int64", name="count")
        table = graph.constant(np.arange(1000, dtype="float32").reshape(50, 20))
        flat = graph.constant(np.full((50, 20), 3.0, "float32"))
        step = graph.assign(weights, weights * table + flat)
        return [count + 1], [step]

    found = plan(build)
    assert found.variables == 4000 + 8
    assert found.constants == 4000  # one of a single value is a scalar
    assert found.ports == 8
    assert found.unshared == 2 * 4000 + 8
    # The new value is held to the end, where it is assigned.
    assert found.peak == 2 * 4000


def test_words_and_the_executable_say_the_same():
    from stepgraph.backends.mps.device import use
    from tests.mps.double import Double

    with use(Double()):
        graph = sg.Graph()
        x = graph.placeholder((1000,), name="x")
        run = graph.compile([x], [graph.cos(x)], device="mps")
        assert run.planned_bytes() == 12000
        assert "planned 0.0 MB: variables 0.0 MB" in run.describe()
