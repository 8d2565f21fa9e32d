"""Variables: what reads see, what order assigns need, who shares the values."""

from __future__ import annotations

import numpy as np
import pytest

import stepgraph as sg
from stepgraph.compiler.pipeline import compile_program
from stepgraph.errors import GraphError, ShapeError


def value(graph, variable, device):
    return float(graph.get_value(variable, device))


@pytest.fixture
def counter():
    graph = sg.Graph()
    return graph, graph.variable(1.0, name="v")


# -- what a read sees ----------------------------------------------------------------------------


def test_unordered_reads_see_the_start_of_the_run(device, counter):
    graph, v = counter
    before = v * 10.0
    update = graph.assign(v, v + 1.0)
    behind, explicit = v * 10.0, graph.read(v)
    executable = graph.compile([], [before, behind, explicit, v], [update], device=device)
    assert [float(a) for a in executable.run()] == [10.0, 10.0, 1.0, 1.0]
    assert [float(a) for a in executable.run()] == [20.0, 20.0, 2.0, 2.0]


def test_ordered_reads_see_the_assigned_value(device, counter):
    graph, v = counter
    update = graph.assign(v, v + 1.0)
    behind = graph.control_dependency([update], lambda: v * 10.0)
    assert float(graph.run(targets=[behind], device=device)[0]) == 20.0
    assert value(graph, v, device) == 2.0


def test_the_start_value_is_returned_beside_the_assigned_one(device, counter):
    graph, v = counter
    update = graph.assign(v, v + 1.0)
    behind = graph.control_dependency([update], lambda: graph.read(v))
    found = graph.run(targets=[v, behind], operations=[update], device=device)
    assert [float(a) for a in found] == [1.0, 2.0]


def test_order_reaches_through_what_depends_on_it(device, counter):
    graph, v = counter
    update = graph.assign(v, 5.0)
    later = graph.control_dependency([update], lambda: graph.constant(1.0) * 2.0)
    behind = graph.control_dependency([later], lambda: graph.read(v))
    assert float(graph.run(targets=[behind], device=device)[0]) == 5.0


def test_a_read_sees_the_latest_assign_ordered_before_it(device, counter):
    graph, v = counter
    first = graph.assign(v, 2.0)
    second = graph.control_dependency([first], lambda: graph.assign(v, v * 10.0))
    between = graph.control_dependency([first], lambda: graph.read(v))
    behind = graph.control_dependency([second], lambda: graph.read(v))
    found = graph.run(targets=[between, behind, v], device=device)
    assert [float(a) for a in found] == [2.0, 20.0, 1.0]
    assert value(graph, v, device) == 20.0


def test_order_by_data_counts(device):
    graph = sg.Graph()
    v = graph.variable(1.0)
    first = graph.assign(v, v + 1.0)
    seen = graph.control_dependency([first], lambda: graph.read(v))
    second = graph.assign(v, seen * 10.0)
    graph.run(operations=[second], device=device)
    assert value(graph, v, device) == 20.0


def test_an_assign_runs_only_when_asked_for(device, counter):
    graph, v = counter
    graph.assign(v, 9.0)
    graph.run(targets=[v + 0.0], device=device)
    assert value(graph, v, device) == 1.0


# -- order of assigns ----------------------------------------------------------------------------


def test_two_unordered_assigns_are_refused(device, counter):
    graph, v = counter
    first, second = graph.assign(v, 1.0, name="first"), graph.assign(v, 2.0, name="second")
    with pytest.raises(GraphError, match="two unordered assigns to variable 'v'") as caught:
        graph.compile(operations=[first, second], device=device)
    assert "first: created at test_state.py" in str(caught.value)
    assert "control_dependency" in str(caught.value)
    for operation, wanted in ((first, 1.0), (second, 2.0)):
        graph.run(operations=[operation], device=device)
        assert value(graph, v, device) == wanted


def test_two_assigns_behind_a_third_still_need_an_order(device, counter):
    graph, v = counter
    first = graph.assign(v, 1.0)
    second = graph.control_dependency([first], lambda: graph.assign(v, 2.0))
    third = graph.control_dependency([first], lambda: graph.assign(v, 3.0))
    with pytest.raises(GraphError, match="two unordered assigns"):
        graph.compile(operations=[second, third], device=device)
    last = graph.control_dependency([second], lambda: graph.assign(v, 4.0))
    graph.run(operations=[last], device=device)
    assert value(graph, v, device) == 4.0


def test_assigns_to_different_variables_need_no_order(device):
    graph = sg.Graph()
    a, b = graph.variable(1.0), graph.variable(2.0)
    swap = [graph.assign(a, b), graph.assign(b, a)]
    graph.run(operations=swap, device=device)
    assert (value(graph, a, device), value(graph, b, device)) == (2.0, 1.0)


def test_an_assign_that_changes_nothing_is_no_update(counter):
    graph, v = counter
    program = compile_program(graph, {}, [], [graph.assign(v, v)])
    assert program.updates == {}


# -- who shares values ---------------------------------------------------------------------------


def test_executables_of_a_graph_share_values(device, counter):
    graph, v = counter
    train = graph.compile([], [], [graph.assign(v, v * 2.0)], device=device)
    evaluate = graph.compile([], [v + 0.5], device=device)
    for wanted in (2.5, 4.5):
        train.run()
        assert float(evaluate.run()[0]) == wanted


def test_each_device_has_its_own_values(device, counter):
    graph, v = counter
    update = graph.assign(v, v + 1.0)
    graph.run(operations=[update], device=device)
    graph.run(operations=[update], device=device)
    graph.run(operations=[update], device="reference:float64")
    assert (value(graph, v, device), value(graph, v, "reference:float64")) == (3.0, 2.0)


def test_variables_made_after_compiling_start_at_their_initial_value(device, counter):
    graph, v = counter
    graph.run(targets=[v + 1.0], device=device)
    late = graph.variable([1.0, 2.0], name="late")
    np.testing.assert_array_equal(graph.run(targets=[late * 1.0], device=device)[0], [1.0, 2.0])


def test_values_are_set_and_got_by_name(device, counter):
    graph, v = counter
    graph.set_value("v", 7.0, device)
    got = graph.get_value(v, device)
    assert float(got) == 7.0
    got += 1.0
    assert value(graph, v, device) == 7.0, "what is got is a copy"
    with pytest.raises(ShapeError, match="has shape"):
        graph.set_value(v, [1.0, 2.0], device)
    with pytest.raises(GraphError, match="no variable 'w'"):
        graph.get_value("w", device)


def test_results_belong_to_the_caller(device, counter):
    graph, v = counter
    x = graph.placeholder((2,))
    executable = graph.compile([x], [x, v], device=device)
    fed = np.array([1.0, 2.0], "float32")
    results = executable.run({x: fed})
    results[0][:] = 0.0
    results[1][...] = 0.0
    np.testing.assert_array_equal(fed, [1.0, 2.0])
    assert value(graph, v, device) == 1.0


def test_initial_value_is_copied(device):
    graph = sg.Graph()
    initial = np.array([1.0, 2.0], "float32")
    v = graph.variable(initial)
    initial[:] = 0.0
    np.testing.assert_array_equal(graph.get_value(v, device), [1.0, 2.0])


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_one_value_everywhere_is_kept_once(device):
    graph = sg.Graph()
    for number in (1.5, np.float32(2.5)):
        variable = graph.variable(number, shape=(300, 400))
        assert variable.initial.base.nbytes == 4
        with pytest.raises(ValueError, match="read-only"):
            variable.initial[0, 0] = 1
        value = graph.get_value(variable, device)
        assert value.shape == (300, 400)
        assert np.unique(value) == number
        graph.set_value(variable, np.arange(120000, dtype="f").reshape(300, 400), device)
        assert graph.get_value(variable, device)[0, 1] == 1
