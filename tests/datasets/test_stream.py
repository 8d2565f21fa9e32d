"""Streams: in order, resumable, with and without a thread that prepares ahead."""

from __future__ import annotations

import gc
import threading
import time
import traceback
import weakref
from typing import Any

import numpy as np
import pytest

from stepgraph.datasets import Augment, Batch, Batches, Position, from_arrays
from stepgraph.errors import DataError

FORMS = [(0, False), (0, True), (1, False), (3, False), (1, True), (4, True)]


def batches(**options: Any) -> Batches:
    pixels = np.random.default_rng(0).integers(0, 256, (22, 5, 5, 1), dtype=np.uint8)
    return Batches(
        from_arrays(pixels, np.arange(22) % 3), 4, **({"seed": 5, "augment": Augment(1)} | options)
    )


def threads() -> int:
    return sum(t.name == "stepgraph-prefetch" for t in threading.enumerate())


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Any:
    yield
    gc.collect()
    assert threads() == 0


@pytest.mark.parametrize(("prefetch", "reuse"), FORMS)
@pytest.mark.parametrize("drop", [True, False])
def test_epochs_in_order(prefetch: int, reuse: bool, drop: bool) -> None:
    source = batches(drop_remainder=drop)
    steps = 5 if drop else 6
    count = 0
    with source.stream(epochs=3, prefetch=prefetch, reuse=reuse) as stream:
        for got in stream:
            want = source.batch(*divmod(count, steps))
            np.testing.assert_array_equal(got.x, want.x)
            np.testing.assert_array_equal(got.y, want.y)
            count += 1
            assert stream.state == Position(*divmod(count, steps))
    assert count == 3 * steps
    assert next(stream, None) is None


@pytest.mark.parametrize(("prefetch", "reuse"), FORMS)
def test_resumes_anywhere_with_the_same_bits(prefetch: int, reuse: bool) -> None:
    whole = [(b.x.copy(), b.y.copy()) for b in batches().stream(epochs=3)]
    for stop in (0, 1, 4, 5, 9, 14, 15):
        with batches().stream(epochs=3, prefetch=prefetch, reuse=reuse) as first:
            for _ in range(stop):
                next(first)
            state = first.state
        with batches().stream(*state, epochs=3, prefetch=prefetch, reuse=reuse) as second:
            rest = [(b.x.copy(), b.y.copy()) for b in second]
        assert len(rest) == 15 - stop
        for (x, y), (want_x, want_y) in zip(rest, whole[stop:], strict=True):
            assert x.tobytes() == want_x.tobytes()
            assert y.tobytes() == want_y.tobytes()


def test_step_at_the_end_of_an_epoch_is_the_next_epochs_start() -> None:
    assert batches().stream(1, 5).state == Position(2, 0)
    assert list(batches().stream(1, 5, epochs=2)) == []
    for wrong in ({"step": 6}, {"step": -1}, {"epoch": -1}, {"prefetch": -1}):
        with pytest.raises(DataError, match="cannot begin"):
            batches().stream(**wrong)


def test_buffers_rotate_only_when_wanted() -> None:
    with batches().stream(prefetch=2) as stream:
        kept = [next(stream) for _ in range(12)]
    assert len({b.x.ctypes.data for b in kept}) == 12
    for i, b in enumerate(kept):
        np.testing.assert_array_equal(b.x, batches().batch(*divmod(i, 5)).x)
    with batches().stream(prefetch=2, reuse=True) as stream:
        places = {next(stream).x.ctypes.data for _ in range(30)}
    assert len(places) <= 3


def test_batch_in_use_is_not_overwritten() -> None:
    with batches().stream(prefetch=3, reuse=True) as stream:
        for i in range(12):
            got = next(stream)
            time.sleep(0.002)  # time for the thread to do harm
            np.testing.assert_array_equal(got.x, batches().batch(*divmod(i, 5)).x)


class Counting(Batches):
    """Counts what was prepared and fails where told to."""

    made = 0
    fail_at: tuple[int, int] | None = None

    def batch(self, epoch: int, step: int, out: Batch | None = None) -> Batch:
        if (epoch, step) == self.fail_at:
            raise RuntimeError("the disk is gone")
        self.made += 1
        return super().batch(epoch, step, out)


def counting() -> Counting:
    source = batches()
    return Counting(source.dataset, 4, seed=5, augment=Augment(1))


def wait_until(condition: Any) -> None:
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    assert condition()


@pytest.mark.parametrize("reuse", [False, True])
def test_it_prepares_so_many_ahead_and_no_more(reuse: bool) -> None:
    source = counting()
    with source.stream(prefetch=3, reuse=reuse) as stream:
        wait_until(lambda: source.made == 3)
        time.sleep(0.05)
        assert source.made == 3
        next(stream)
        wait_until(lambda: source.made == 4)
        time.sleep(0.05)
        assert source.made == 4
        assert stream.state == Position(0, 1)


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_errors_come_where_the_batch_would_have(prefetch: int, reuse: bool) -> None:
    source = counting()
    source.fail_at = (1, 2)
    stream = source.stream(prefetch=prefetch, reuse=reuse)
    for _ in range(7):
        next(stream)
    with pytest.raises(RuntimeError, match="the disk is gone") as caught:
        next(stream)
    places = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert places[-1] == "batch"
    assert stream.state == Position(1, 2)
    if prefetch:
        assert "_work" in places
        assert next(stream, None) is None
        assert threads() == 0
    stream.close()


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("taken", [0, 1, 7])
def test_closing_at_any_time_ends_the_thread(reuse: bool, taken: int) -> None:
    stream = batches().stream(prefetch=2, reuse=reuse)
    for _ in range(taken):
        next(stream)
    assert threads() == 1
    stream.close()
    stream.close()
    assert threads() == 0
    assert next(stream, None) is None


def test_a_forgotten_stream_ends_its_thread() -> None:
    stream = batches().stream(prefetch=2)
    next(stream)
    seen = weakref.ref(stream)
    del stream
    gc.collect()
    assert seen() is None
    wait_until(lambda: threads() == 0)


def test_an_error_in_the_loop_closes_it() -> None:
    def loop() -> None:
        with batches().stream(prefetch=2) as stream:
            next(stream)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        loop()
    assert threads() == 0
