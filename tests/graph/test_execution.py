"""Compiling and running: feeds, targets, dynamic sizes, asynchronous runs, errors in words."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import stepgraph as sg
from stepgraph.backends.executable import ExecutionDescriptor
from stepgraph.errors import FeedError, GraphError, ShapeError, UnsupportedError


@pytest.fixture
def doubling():
    graph = sg.Graph()
    x = graph.placeholder((None, 2), name="x")
    return graph, x, x * 2.0


# -- compile -------------------------------------------------------------------------------------


def test_targets_come_back_in_their_order(device, doubling):
    graph, x, y = doubling
    z = y + 1.0
    executable = graph.compile([x], [z, x, y, z], device=device)
    found = executable.run({x: [[1.0, 2.0]]})
    np.testing.assert_array_equal(
        np.concatenate(found), [[3.0, 5.0], [1.0, 2.0], [2.0, 4.0], [3.0, 5.0]]
    )
    assert all(a.dtype == np.float32 for a in found)


def test_later_additions_do_not_change_an_executable(device, doubling):
    graph, x, y = doubling
    executable = graph.compile([x], [y], device=device)
    y + 1.0
    np.testing.assert_array_equal(executable.run({x: [[1.0, 2.0]]})[0], [[2.0, 4.0]])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (lambda g, x, y: {}, GraphError, "neither targets nor operations"),
        (lambda g, x, y: {"targets": [y]}, FeedError, "need placeholder 'x'"),
        (lambda g, x, y: {"feeds": [y], "targets": [y]}, FeedError, "is no placeholder"),
        (
            lambda g, x, y: {"feeds": [sg.Graph().placeholder((2,))], "targets": [y]},
            FeedError,
            "another graph",
        ),
        (lambda g, x, y: {"feeds": {x: (3, 3)}, "targets": [y]}, ShapeError, r"\(\?, 2\)"),
        (lambda g, x, y: {"feeds": [x], "targets": [y.operation]}, GraphError, "is no tensor"),
        (lambda g, x, y: {"feeds": [x], "operations": [y]}, GraphError, "is no operation"),
        (
            lambda g, x, y: {"feeds": [x], "targets": [sg.Graph().constant(1.0)]},
            GraphError,
            "another graph",
        ),
        (
            lambda g, x, y: {"feeds": [x], "targets": [y], "device": "gpu9"},
            UnsupportedError,
            "no device 'gpu9'",
        ),
    ],
    ids=lambda a: a if isinstance(a, str) else "",
)
def test_wrong_compiles_are_answered_in_words(device, doubling, arguments, error, words):
    graph, x, y = doubling
    with pytest.raises(error, match=words):
        graph.compile(**{"device": device, **arguments(graph, x, y)})


def test_sizes_are_checked_when_they_become_known(device):
    graph = sg.Graph()
    a, b = graph.placeholder((None,), name="a"), graph.placeholder((None,), name="b")
    executable = graph.compile([a, b], [a + b], device=device)
    with pytest.raises(ShapeError, match=r"addition") as caught:
        executable.run({a: np.ones(2), b: np.ones(3)})
    assert "test_execution.py" in str(caught.value), "names the user's line"
    np.testing.assert_array_equal(executable.run({a: np.ones(2), b: np.ones(2)})[0], [2.0, 2.0])


# -- dynamic sizes -------------------------------------------------------------------------------


def test_each_set_of_shapes_is_compiled_once(device, doubling, monkeypatch):
    graph, x, y = doubling
    executable = graph.compile([x], [y], device=device)
    prepared = []
    prepare = executable._device.prepare

    def counting(graph, feeds, *rest, **options):
        prepared.append(tuple(feeds.values()))
        return prepare(graph, feeds, *rest, **options)

    monkeypatch.setattr(executable._device, "prepare", counting, raising=False)
    for rows in (1, 3, 1, 3, 3, 2):
        array = np.arange(2.0 * rows, dtype="float32").reshape(rows, 2)
        np.testing.assert_array_equal(executable.run({x: array})[0], array * 2)
    assert prepared == [((1, 2),), ((3, 2),), ((2, 2),)]


def test_a_fixed_shape_is_compiled_at_once(device, doubling):
    graph, x, y = doubling
    executable = graph.compile({x: (3, 2)}, [y], device=device)
    assert len(executable._runners) == 1
    executable.run({x: np.ones((3, 2))})
    assert len(executable._runners) == 1
    with pytest.raises(FeedError, match=r"has shape \(3, 2\), the value \(4, 2\)"):
        executable.run({x: np.ones((4, 2))})


def test_each_value_of_a_steering_bool_is_compiled_once(device):
    graph = sg.Graph()
    x, flag = graph.placeholder((2,)), graph.placeholder((), "bool")
    y = graph.if_(flag, lambda: x * 2.0, lambda: x)
    executable = graph.compile([x, flag], [y], device=device)
    for value in (True, False, True, True):
        executable.run({x: [1.0, 2.0], flag: value})
    assert len(executable._runners) == 2
    assert "if(" not in executable.describe({x: [1.0, 2.0], flag: True})


# -- feeds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "no value for placeholder 'x'"),
        (np.ones((2, 3)), r"has shape \(\?, 2\), the value \(2, 3\)"),
        (np.ones(2), "has shape"),
        (np.ones((1, 2), "complex64"), "is float32, the value complex64"),
        ([["a", "b"]], "is float32"),
    ],
)
def test_wrong_feeds_are_answered_in_words(device, doubling, value, words):
    graph, x, y = doubling
    executable = graph.compile([x], [y], device=device)
    with pytest.raises(FeedError, match=words):
        executable.run({} if value is None else {x: value})


def test_unknown_feeds_are_refused(device, doubling):
    graph, x, y = doubling
    other = graph.placeholder((1,), name="other")
    executable = graph.compile([x], [y], device=device)
    with pytest.raises(FeedError, match="not among the feeds"):
        executable.run({x: np.ones((1, 2)), other: [1.0]})


def test_feeds_that_nothing_needs_may_be_left_out(device, doubling):
    graph, x, y = doubling
    spare = graph.placeholder((1,), name="spare")
    executable = graph.compile([x, spare], [y], device=device)
    np.testing.assert_array_equal(executable.run({x: [[1.0, 2.0]]})[0], [[2.0, 4.0]])
    executable.run({x: [[1.0, 2.0]], spare: [1.0]})


def test_integers_are_fed_exactly(device):
    graph = sg.Graph()
    n = graph.placeholder((2,), "uint8")
    executable = graph.compile([n], [n], device=device)
    np.testing.assert_array_equal(executable.run({n: np.array([1, 255])})[0], [1, 255])
    with pytest.raises(FeedError, match="does not fit uint8"):
        executable.run({n: np.array([1, 256])})
    with pytest.raises(FeedError, match="is uint8, the value float64"):
        executable.run({n: np.array([1.0, 2.0])})


def test_strided_feeds_are_read_right(device, doubling):
    graph, x, y = doubling
    array = np.arange(12.0, dtype="float32").reshape(2, 6).T[::2]
    np.testing.assert_array_equal(
        graph.run({x: array}, [y], device=device)[0], np.asarray(array) * 2
    )


# -- asynchronous runs ---------------------------------------------------------------------------


def test_completion_handler_is_called_once_with_the_results(device, doubling):
    graph, x, y = doubling
    executable = graph.compile([x], [y], device=device)
    calls = []
    descriptor = ExecutionDescriptor(
        lambda results, error: calls.append((results, error, threading.current_thread()))
    )
    future = executable.run_async({x: [[1.0, 2.0]]}, descriptor)
    np.testing.assert_array_equal(future.result(timeout=30)[0], [[2.0, 4.0]])
    ((results, error, thread),) = calls
    np.testing.assert_array_equal(results[0], [[2.0, 4.0]])
    assert error is None
    assert thread is not threading.current_thread()


def test_completion_handler_is_called_once_with_the_error(device):
    graph = sg.Graph()
    a, b = graph.placeholder((None,)), graph.placeholder((None,))
    executable = graph.compile([a, b], [a + b], device=device)
    calls = []
    descriptor = ExecutionDescriptor(
        lambda results, error: calls.append((results, error)), wait_until_completed=True
    )
    future = executable.run_async({a: np.ones(2), b: np.ones(3)}, descriptor)
    assert future.done()
    ((results, error),) = calls
    assert results is None
    assert isinstance(error, ShapeError)
    assert future.exception() is error


def test_wrong_feeds_are_refused_before_an_asynchronous_run_starts(device, doubling):
    graph, x, y = doubling
    executable = graph.compile([x], [y], device=device)
    with pytest.raises(FeedError, match="no value for placeholder 'x'"):
        executable.run_async({})


def test_waiting_returns_after_the_handler(device, doubling):
    graph, x, y = doubling
    executable = graph.compile([x], [y], device=device)
    release, calls = threading.Event(), []

    def handler(results, error):
        release.wait(30)
        calls.append(results)

    threading.Timer(0.05, release.set).start()
    executable.run_async({x: [[1.0, 2.0]]}, ExecutionDescriptor(handler, True))
    assert len(calls) == 1


def test_asynchronous_runs_happen_in_order(device):
    graph = sg.Graph()
    v, x = graph.variable(0.0), graph.placeholder(())
    update = graph.assign(v, v * 2.0 + x)
    executable = graph.compile([x], [v], [update], device=device)
    futures = [executable.run_async({x: float(i)}) for i in range(20)]
    wanted = 0.0
    for i, future in enumerate(futures):
        assert float(future.result(timeout=30)[0]) == wanted
        wanted = wanted * 2 + i


def test_threads_may_share_an_executable(device):
    graph = sg.Graph()
    v = graph.variable(0.0)
    executable = graph.compile([], [], [graph.assign(v, v + 1.0)], device=device)

    def work():
        for _ in range(50):
            executable.run()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert float(graph.get_value(v, device)) == 200.0
