"""What is computed once and kept between runs is never older than the variables it is made of."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import stepgraph as sg
from stepgraph.backends.cpu.device import CpuRunner

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 16, 16, 32)).astype("float32")


def network():
    """A convolution by Winograd's method, whose weights are transformed once, and a scale."""
    graph = sg.Graph("net")
    x = graph.placeholder(X.shape, name="x")
    w = graph.variable(RNG.standard_normal((3, 3, 32, 32)).astype("float32"), name="w")
    scale = graph.variable(RNG.random(32).astype("float32") + 0.5, name="scale")
    y = graph.convolution_2d(x, w, padding="TF_SAME") * scale
    return graph, x, y


def runner_of(executable) -> CpuRunner:
    (runner,) = executable._runners.values()
    return runner


def plain(graph, x, y):
    """The same without anything prepared."""
    return graph.compile([x], [y], disable=["prepare", "fold_scales"])


def agree(run, graph, x, y):
    wanted = plain(graph, x, y).run({x: X})[0]
    np.testing.assert_allclose(run.run({x: X})[0], wanted, rtol=1e-4, atol=1e-3)


def test_weights_are_transformed_and_scaled_once():
    graph, x, y = network()
    run = graph.compile([x], [y])
    runner = runner_of(run)
    names = [step.name for step in runner.prepared]
    assert any("winograd weights" in name for name in names)
    assert "multiplication" in names
    assert not any("weights" in step.name for step in runner.steps)
    assert "prepared, and again after a variable is written" in run.describe()
    assert "fetch" not in [time.name for time in run.profile({x: X})]
    agree(run, graph, x, y)


def test_they_are_kept_while_nothing_is_written():
    graph, x, y = network()
    run = graph.compile([x], [y])
    run.run({x: X})
    runner = runner_of(run)
    # What nobody writes is not looked at again: a mark in what is kept stays.
    kept = {b.root for step in runner.steps for b in step.reads if b.root.kind == "prepared"}
    for buffer in kept:
        buffer.storage[:] = 0
    assert not run.run({x: X})[0].any()
    graph.set_value("scale", graph.get_value("scale"))
    agree(run, graph, x, y)


def test_a_value_set_from_outside_is_seen():
    graph, x, y = network()
    run = graph.compile([x], [y])
    run.run({x: X})
    for name in ("w", "scale"):
        graph.set_value(name, graph.get_value(name) * 2 + 1)
        agree(run, graph, x, y)


def test_training_between_predictions_is_seen():
    graph, x, y = network()
    w, scale = graph.get_variable("w"), graph.get_variable("scale")
    loss = graph.mean(graph.square(y), keep_dims=False)
    gradients = graph.gradients(of=loss, with_=[w, scale])
    updates = [
        graph.assign(v, graph.stochastic_gradient_descent(0.01, v, gradients[v]))
        for v in (w, scale)
    ]
    run, step = graph.compile([x], [y]), graph.compile([x], [loss], updates)
    before = run.run({x: X})[0]
    for _ in range(3):
        step.run({x: X})
        agree(run, graph, x, y)
    step.profile({x: X})
    agree(run, graph, x, y)
    assert np.abs(run.run({x: X})[0] - before).max() > 1e-2
    assert not runner_of(step).prepared


def test_two_executables_keep_their_own():
    graph, x, y = network()
    z = graph.relu(y)
    first, second = graph.compile([x], [y]), graph.compile([x], [z])
    for factor in (1.0, -2.0):
        graph.set_value("w", graph.get_value("w") * factor)
        wanted = plain(graph, x, y).run({x: X})[0]
        for _ in range(2):
            np.testing.assert_allclose(first.run({x: X})[0], wanted, rtol=1e-4, atol=1e-3)
            found = second.run({x: X})[0]
            np.testing.assert_allclose(found, np.maximum(wanted, 0), rtol=1e-4, atol=1e-3)


def test_an_update_of_one_variable_leaves_what_is_made_of_another():
    graph = sg.Graph()
    x = graph.placeholder((4, 32), name="x")
    frozen = graph.variable(RNG.standard_normal((32, 32)).astype("float32"), name="frozen")
    scale = graph.variable(np.full(32, 2.0, "float32"), name="scale")
    steps = graph.variable(np.zeros((), "float32"), name="steps")
    y = (x @ frozen) * scale
    run = graph.compile([x], [y], [graph.assign(steps, steps + 1.0)])
    value = X[0, 0, :4]
    for factor in (1.0, 3.0):
        graph.set_value("scale", np.full(32, factor, "float32"))
        for _ in range(2):
            wanted = value @ graph.get_value("frozen") * factor
            np.testing.assert_allclose(run.run({x: value})[0], wanted, rtol=1e-4, atol=1e-4)
    assert graph.get_value("steps") == 4
    assert runner_of(run).prepared


def test_it_is_counted():
    graph, x, y = network()
    run, without = graph.compile([x], [y]), plain(graph, x, y)
    kept = run.held_bytes() - without.held_bytes()
    # Sixteen numbers of nine.
    assert kept >= 4 * 16 * 32 * 32
    assert f"{len(runner_of(run).prepared)} prepared steps" in run.describe()


def test_threads_that_write_and_run():
    graph, x, y = network()
    run = graph.compile([x], [y])
    values = [np.full((3, 3, 32, 32), v, "float32") for v in (0.0, 1.0)]
    stop = threading.Event()

    def write() -> None:
        for k in range(60):
            graph.set_value("w", values[k % 2])
        stop.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not stop.is_set():
        run.run({x: X})
    thread.join()
    agree(run, graph, x, y)


def test_what_would_grow_is_not_kept():
    graph = sg.Graph()
    x = graph.placeholder((64, 4096), name="x")
    bias = graph.variable(np.arange(4096, dtype="float32"), name="bias")
    y = x + graph.broadcast(graph.square(bias), (64, 4096))
    run = graph.compile([x], [y])
    assert run.held_bytes() < 8 * 4 * 4096
    value = np.ones((64, 4096), "float32")
    np.testing.assert_allclose(run.run({x: value})[0][3], 1 + np.arange(4096.0) ** 2, rtol=1e-6)


def test_a_target_may_be_prepared():
    graph = sg.Graph()
    x = graph.placeholder((3,), name="x")
    v = graph.variable(np.arange(3, dtype="float32"), name="v")
    run = graph.compile([x], [graph.square(v), x + v])
    for add in (0.0, 1.0):
        graph.set_value("v", np.arange(3, dtype="float32") + add)
        square, total = run.run({x: np.ones(3, "float32")})
        np.testing.assert_array_equal(square, (np.arange(3) + add) ** 2)
        np.testing.assert_array_equal(total, np.arange(3) + add + 1)


@pytest.mark.parametrize("disable", [(), ("prepare",), ("share_memory",), ("chain",), ("fuse",)])
def test_switching_it_off_changes_nothing(disable):
    graph, x, y = network()
    run = graph.compile([x], [y], disable=list(disable))
    agree(run, graph, x, y)
    assert bool(runner_of(run).prepared) == ("prepare" not in disable)


def test_what_constants_alone_decide_is_prepared_too():
    graph = sg.Graph()
    x = graph.placeholder((4, 64), name="x")
    w = RNG.standard_normal((64, 64)).astype("float32")
    scale = np.linspace(1, 2, 64, dtype="float32")
    y = (x @ graph.constant(w)) * graph.constant(scale)
    value = X[0, :4, :2].reshape(4, 64)
    run = graph.compile([x], [y], disable=["fold"])
    assert runner_of(run).prepared
    np.testing.assert_allclose(run.run({x: value})[0], value @ w * scale, rtol=1e-4, atol=1e-4)
