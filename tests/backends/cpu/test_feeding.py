"""Arrays that launches read where they are, without a copy: same bits, and never written."""

from __future__ import annotations

import ctypes
import gc
import mmap
import sys

import numpy as np
import pytest

import stepgraph as sg
from stepgraph.backends.cpu.device import CpuRunner
from stepgraph.backends.cpu.feeding import PAGE
from stepgraph.backends.cpu.native import storage
from stepgraph.datasets.pictures import Rows

ROWS, WIDTH, CLASSES = 40, 80, 5


def _step(disable=(), threads=2):
    """A dense network that reads what is fed forward and in its first weights' gradient."""
    rng = np.random.default_rng(0)
    graph = sg.Graph("dense")
    x = graph.placeholder((ROWS, WIDTH), name="x")
    labels = graph.placeholder((ROWS, CLASSES), name="labels")
    weights = [
        graph.variable(0.2 * rng.standard_normal(shape).astype("float32"))
        for shape in ((WIDTH, 33), (33, CLASSES))
    ]
    logits = graph.relu(x @ weights[0]) @ weights[1]
    loss = graph.softmax_cross_entropy(logits, labels, reduction="mean")
    gradients = graph.gradients(of=loss, with_=weights)
    updates = [
        graph.assign(w, graph.stochastic_gradient_descent(0.5, w, gradients[w])) for w in weights
    ]
    step = graph.compile([x, labels], [loss], updates, disable=list(disable), threads=threads)
    return step, x, labels, (lambda: [graph.get_value(w, "cpu") for w in weights])


def _batches(count):
    rng = np.random.default_rng(1)
    shape = (count, ROWS, WIDTH)
    labels = np.eye(CLASSES, dtype="float32")[rng.integers(0, CLASSES, (count, ROWS))]
    return rng.standard_normal(shape).astype("float32"), labels


def _at_a_pages_end(array):
    """A copy with nothing behind it on its last page."""
    pages = -(-array.nbytes // PAGE)
    whole = storage.zeros((pages + 1) * PAGE, np.uint8)
    end = pages * PAGE + -whole.ctypes.data % PAGE
    place = whole[end - array.nbytes : end].view(array.dtype).reshape(array.shape)
    place[...] = array
    return place


def _elsewhere(array):
    """A copy one number further on, aligned for numbers only."""
    whole = np.empty(array.size + PAGE, array.dtype)
    place = whole[1 : array.size + 1].reshape(array.shape)
    place[...] = array
    return place


WAYS = {
    "as it is": lambda a: a,
    "at a page's end": _at_a_pages_end,
    "hardly aligned": _elsewhere,
    "by columns": np.asfortranarray,
    "doubles": lambda a: a.astype("float64"),
    "deferred": lambda a: Rows(a[::-1].copy(), np.arange(ROWS)[::-1].copy()),
}


@pytest.mark.parametrize("threads", [1, 2])
def test_arrays_in_any_place_give_the_bits_of_copies(threads):
    data, labels = _batches(3 * len(WAYS))
    step, x, y, weights = _step(threads=threads)
    plain, plain_x, plain_y, plain_weights = _step(["lend_feeds"], threads)
    for number, (batch, label) in enumerate(zip(data, labels, strict=True)):
        given = list(WAYS.values())[number % len(WAYS)](batch)
        before = batch.copy()
        (loss,) = step.run({x: given, y: label})
        (expected,) = plain.run({plain_x: batch, plain_y: label})
        assert loss == expected
        np.testing.assert_array_equal(batch, before)
    for got, expected in zip(weights(), plain_weights(), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_an_array_changed_between_runs_is_read_anew():
    data, labels = _batches(2)
    step, x, y, _ = _step()
    plain, plain_x, plain_y, _ = _step(["lend_feeds"])
    batch = data[0].copy()
    for values in data:
        batch[...] = values
        (loss,) = step.run({x: batch, y: labels[0]})
        assert loss == plain.run({plain_x: values, plain_y: labels[0]})[0]


@pytest.mark.skipif(sys.platform == "win32", reason="pages are protected in another way there")
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "uint8"])
@pytest.mark.parametrize("left", [0, 64, 128])
def test_nothing_is_read_beyond_the_page_that_an_array_ends_on(dtype, left):
    graph = sg.Graph("echo")
    x = graph.placeholder((1025, 5), dtype=dtype, name="x")
    step = graph.compile([x], [x + x, graph.reduction_sum(graph.cast(x, "float32"), 0)], [])
    values = np.random.default_rng(2).integers(0, 99, (1025, 5)).astype(dtype)
    pages = -(-(values.nbytes + left) // PAGE)
    whole = np.frombuffer(mmap.mmap(-1, (pages + 1) * PAGE), np.uint8)
    end = pages * PAGE - left
    given = whole[end - values.nbytes : end].view(dtype).reshape(values.shape)
    given[...] = values
    fence = ctypes.c_void_p(whole.ctypes.data + pages * PAGE)
    assert ctypes.CDLL(None).mprotect(fence, ctypes.c_size_t(PAGE), 0) == 0
    doubled, total = step.run({x: given})
    np.testing.assert_array_equal(doubled, values + values)
    np.testing.assert_allclose(total, values.sum(0, "float64", keepdims=True), rtol=1e-5)


def test_large_feeds_that_launches_read_are_lent():
    step, x, y, _ = _step()
    data, labels = _batches(1)
    step.run({x: data[0], y: labels[0]})
    (runner,) = _runners(step)
    assert {name for name, feeder in runner._feeders if feeder._readers} == {"x"}


def test_a_feed_that_is_a_target_or_read_by_numpy_is_copied():
    graph = sg.Graph("echo")
    x = graph.placeholder((ROWS, WIDTH), name="x")
    wide = graph.placeholder((ROWS, WIDTH), name="wide")
    back = graph.reshape(x, (WIDTH, ROWS))
    largest = graph.sort(wide, -1)
    step = graph.compile([x, wide], [back, graph.relu(x), largest], [])
    data, _ = _batches(2)
    for values in data:
        echoed, positive, ordered = step.run({x: values, wide: values})
        np.testing.assert_array_equal(echoed, values.reshape(WIDTH, ROWS))
        np.testing.assert_array_equal(positive, np.maximum(values, 0))
        np.testing.assert_array_equal(ordered, np.sort(values, -1))
        assert not np.shares_memory(echoed, values)
    (runner,) = _runners(step)
    assert not any(feeder._readers for _, feeder in runner._feeders)


def _runners(step):
    gc.collect()
    return [r for r in step._runners.values() if isinstance(r, CpuRunner)]
