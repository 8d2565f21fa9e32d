"""Runs on the GPU: state, several under way, results handed back, errors."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

import stepgraph as sg
from stepgraph.backends.executable import ExecutionDescriptor
from stepgraph.backends.mps.compiled import IN_FLIGHT
from stepgraph.backends.mps.device import use
from stepgraph.errors import DeviceError, ShapeError
from tests.mps.double import Double


@pytest.fixture
def double():
    double = Double((18, 1))
    with use(double):
        yield double
    double.raise_failures()


RUN = "runAsyncWithMTLCommandQueue:inputsArray:resultsArray:executionDescriptor:"


def counter(start=0.0):
    """A graph that adds what it is fed to a variable."""
    graph = sg.Graph()
    step = graph.placeholder((), name="step")
    count = graph.variable(start, name="count")
    after = count + step
    return graph, step, count, after, graph.assign(count, after)


def test_feeds_and_targets_are_matched_by_identity(double):
    graph = sg.Graph()
    a, b = graph.placeholder((2, 3), name="a"), graph.placeholder((3,), name="b")
    run = graph.compile([a, b], [a - b, b / a, a - b], device="mps")
    x = np.arange(1, 7, dtype="float32").reshape(2, 3)
    y = np.array([3, 4, 5], "float32")
    for _ in range(2):
        first, second, third = run.run({a: x, b: y})
        np.testing.assert_array_equal(first, x - y)
        np.testing.assert_array_equal(second, y / x)
        first += 1  # belongs to the caller, as does its twin
        np.testing.assert_array_equal(third, x - y)


def test_what_needs_no_gpu_is_handed_back_without_it(double):
    graph = sg.Graph()
    a = graph.placeholder((2,), name="a")
    nothing = graph.placeholder((0, 2), name="nothing")
    run = graph.compile([a, nothing], [a, graph.constant([1, 2]), nothing + a], device="mps")
    sent = double.sent.total()
    value = np.array([3, 4], "float32")
    first, second, third = run.run({a: value, nothing: np.zeros((0, 2), "float32")})
    value[:] = 0
    assert first.tolist() == [3, 4]
    assert second.tolist() == [1, 2]
    assert third.shape == (0, 2)
    assert double.sent.total() == sent


def test_a_step_is_one_message(double):
    graph, step, _, after, assign = counter()
    run = graph.compile([step], [after], [assign], device="mps")
    run.run({step: 1.0})
    sent = double.sent.total()
    run.run({step: 1.0})
    assert double.sent.total() == sent + 1


def test_executables_of_a_graph_share_its_variables(double):
    graph, step, count, after, assign = counter(5.0)
    train = graph.compile([step], [after], [assign], device="mps")
    read = graph.compile([], [count * 2.0], device="mps")
    assert train.run({step: 2.0})[0].shape == ()
    assert float(read.run()[0]) == 14.0
    assert float(graph.get_value(count, device="mps")) == 7.0


def test_values_are_written_with_the_next_run_and_read_after_the_last(double):
    graph, step, count, after, assign = counter()
    other = graph.variable(np.arange(3, dtype="float32"), name="other")
    graph.set_value(count, 10.0, device="mps")  # before anything is built
    run = graph.compile([step], [after, other * 1.0], [assign], device="mps")
    assert float(run.run({step: 1.0})[0]) == 11.0
    graph.set_value(count, 100.0, device="mps")
    graph.set_value(other, [7, 8, 9], device="mps")
    assert float(graph.get_value(count, device="mps")) == 100.0
    value, others = run.run({step: 1.0})
    assert float(value) == 101.0
    assert others.tolist() == [7, 8, 9]
    run.run({step: 1.0})
    assert float(graph.get_value(count, device="mps")) == 102.0
    assert graph.get_value(other, device="mps").tolist() == [7, 8, 9]
    with pytest.raises(ShapeError, match=r"shape \(3,\), the value \(2,\)"):
        graph.set_value(other, [1, 2], device="mps")


def test_swapped_variables(double):
    graph = sg.Graph()
    a, b = graph.variable(1.0, name="a"), graph.variable(2.0, name="b")
    swap = [graph.assign(a, b), graph.assign(b, a)]
    graph.run(operations=swap, device="mps")
    assert [float(graph.get_value(v, device="mps")) for v in (a, b)] == [2.0, 1.0]


def test_runs_overlap_and_finish_in_order(double):
    graph, step, count, after, assign = counter()
    run = graph.compile([step], [after], [assign], device="mps")
    told: list[float] = []
    threads = set()

    def handler(results, error):
        assert error is None
        threads.add(threading.current_thread())
        told.append(float(results[0]))

    futures, late = [], []
    feed = np.zeros((), "float32")
    with double.held():
        for i in range(IN_FLIGHT):
            feed[...] = i + 1
            futures.append(run.run_async({step: feed}, ExecutionDescriptor(handler)))
        assert double.sent[RUN] == IN_FLIGHT
        assert not any(f.done() for f in futures)
        # One more has to wait for room, elsewhere than in this thread.
        thread = threading.Thread(target=lambda: late.append(run.run_async({step: 10.0})))
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
        assert double.sent[RUN] == IN_FLIGHT
    thread.join()
    assert [float(f.result()[0]) for f in (*futures, *late)] == [1.0, 3.0, 6.0, 16.0]
    assert told == [1.0, 3.0, 6.0]
    assert threading.main_thread() not in threads
    assert float(graph.get_value(count, device="mps")) == 16.0


def test_a_handler_may_run_the_graph_again(double):
    graph, step, _, after, assign = counter()
    run = graph.compile([step], [after], [assign], device="mps")
    seen = []

    def handler(results, error):
        seen.append(float(run.run({step: 1.0})[0]))

    for _ in range(2 * IN_FLIGHT):
        last = run.run_async({step: 1.0}, ExecutionDescriptor(handler))
    last.result()
    assert len(seen) == 2 * IN_FLIGHT
    assert seen == sorted(seen)
    assert seen[-1] == 4 * IN_FLIGHT


def test_an_error_of_the_gpu_is_an_exception(double):
    graph, step, _, after, assign = counter()
    run = graph.compile([step], [after], [assign], device="mps")
    double.device_errors.append("out of memory")
    with pytest.raises(DeviceError, match="out of memory"):
        run.run({step: 1.0})
    assert float(run.run({step: 1.0})[0]) == 1.0
    double.device_errors.append("not in the background")
    errors = []
    descriptor = ExecutionDescriptor(lambda results, error: errors.append(error))
    future = run.run_async({step: 1.0}, descriptor)
    with pytest.raises(DeviceError, match="not in the background"):
        future.result()
    assert isinstance(errors[0], DeviceError)
    for _ in range(2 * IN_FLIGHT):  # no room was lost
        run.run_async({step: 1.0})
    assert float(run.run({step: 0.0})[0]) == 1.0 + 2 * IN_FLIGHT


def test_a_run_on_values_that_could_not_be_written_fails(double):
    graph, step, count, after, assign = counter()
    run = graph.compile([step], [after], [assign], device="mps")
    run.run({step: 1.0})
    for start in (run.run, lambda feeds: run.run_async(feeds).result()):
        graph.set_value(count, 5.0, device="mps")
        double.device_errors.append("lost")
        with pytest.raises(DeviceError, match="lost"):
            start({step: 1.0})
        run.run({step: 1.0})


def test_nothing_is_kept_once_the_device_is_given_up():
    double = Double()
    with use(double) as session:
        graph, step, count, after, assign = counter()
        run = graph.compile([step], [after], [assign], device="mps")
        run.run({step: 1.0})
        graph.set_value(count, 3.0, device="mps")
        run.run({step: 1.0})
        graph.get_value(count, device="mps")
        for runner in run._runners.values():
            runner.close()
        graph.states["mps"][0].close()
        assert session.version == (26, 0)
    assert not double.owned()
    assert not double.alive()


def test_what_python_collects_is_let_go(double):
    """Weights of a graph that nobody holds do not stay on the GPU; an executable goes first."""
    graph, step, _, after, assign = counter()
    run = graph.compile([step], [after], [assign], device="mps")
    for _ in range(2 * IN_FLIGHT):
        last = run.run_async({step: 1.0})
    assert float(last.result()[0]) == 2 * IN_FLIGHT
    graph.set_value("count", 0.0, device="mps")
    run.run({step: 1.0})
    graph.get_value("count", device="mps")
    del graph, step, after, assign, run, last
    gc.collect()
    other = sg.Graph()
    other.run(targets=[other.variable(1.0) * 2.0], device="mps")
    owned = double.owned()
    assert owned["MPSGraph"] == 1
    assert owned["MPSGraphExecutable"] == 1


def test_buffers_of_a_checkpoint_are_not_kept(double):
    graph = sg.Graph()
    variables = [graph.variable(np.zeros(50, "float32"), name=f"v{i}") for i in range(4)]
    updates = [graph.assign(v, v + 1.0) for v in variables]
    run = graph.compile([], [variables[0] * 1.0], updates, device="mps")
    run.run()
    before = double.owned()
    for value in (1.0, 8.0):
        assert [graph.get_value(v, device="mps")[0] for v in variables] == [value] * 4
        for v in variables:
            graph.set_value(v, np.full(50, 7.0), device="mps")
        run.run()
    graph.states["mps"][0].session.collector.submit(int).result()  # all is collected
    run.run()
    kept = double.owned()
    assert kept["MPSGraphTensorData"] == before["MPSGraphTensorData"]


def test_shared_arrays_are_read_where_they_lie(double):
    graph = sg.Graph()
    x = graph.placeholder((None, 3), name="x")
    scale = graph.placeholder((), name="scale")
    run = graph.compile([x, scale], [x * scale], device="mps")
    with pytest.raises(ShapeError, match="give all sizes"):
        run.feed_array(x)
    first, second = run.feed_array(x, (2, 3)), run.feed_array(x, (2, 3))
    factor = run.feed_array(scale)
    first[:], second[:] = 1.0, 2.0
    factor[...] = 3.0
    buffers = "newBufferWithLength:options:"
    made = double.sent[buffers]
    assert run.run({x: first, scale: factor})[0].tolist() == [[3.0] * 3] * 2
    assert double.sent[buffers] == made + 1  # the result's alone
    assert run.run({x: second, scale: 4.0})[0].tolist() == [[8.0] * 3] * 2
    assert double.sent[buffers] == made + 2  # and one for the plain number
    with double.held():
        future = run.run_async({x: first, scale: factor})
        del first  # the run holds it
        gc.collect()
    assert future.result()[0].tolist() == [[3.0] * 3] * 2
    # A part is not the whole: it is copied like any other array.
    whole = run.feed_array(x, (4, 3))
    whole[:] = np.arange(12, dtype="float32").reshape(4, 3)
    assert run.run({x: whole[:2], scale: 1.0})[0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert run.run({x: whole[2:], scale: 1.0})[0].tolist() == [[6, 7, 8], [9, 10, 11]]
    before = double.owned()["MPSGraphTensorData"]
    del whole, second, factor
    gc.collect()
    run.run({x: np.zeros((2, 3), "float32"), scale: 1.0})
    assert not graph.states["mps"][0].session._shared
    assert double.owned()["MPSGraphTensorData"] == before - 3  # each had one


def test_a_shared_array_changed_too_early_is_seen_by_the_gpu(double):
    """Which is what sharing means; the double refuses such a run."""
    graph = sg.Graph()
    x = graph.placeholder((3,), name="x")
    run = graph.compile([x], [x + 1.0], device="mps")
    for array, harm in ((run.feed_array(x), True), (np.empty(3, "float32"), False)):
        array[:] = 1.0
        with double.held():
            future = run.run_async({x: array})
            array[0] = 2.0
        if harm:
            with pytest.raises(DeviceError):
                future.result()
            assert "written to before the run had completed" in str(double.failures.pop(0))
        else:
            assert future.result()[0].tolist() == [2.0] * 3


def test_profile_describe_and_plan(double):
    graph, step, _, after, assign = counter()
    run = graph.compile([step], [after], [assign], device="mps")
    assert [t.name for t in run.profile({step: 1.0})] == ["run"]
    assert "planned" in run.describe()
    assert run.planned_bytes() >= 12
