"""Batches one after the other, prepared in the background if wanted."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from stepgraph.errors import DataError, describe

if TYPE_CHECKING:
    from stepgraph.datasets.batches import Batch, Batches

_END = object()


class Position(NamedTuple):
    """A place in training: the step of an epoch, both from 0."""

    epoch: int
    step: int


class Stream:
    """An iterator over batches that knows its place; made by `Batches.stream`.

    With `prefetch`, a thread prepares that many batches ahead. It ends when the stream is closed,
    dropped or exhausted. What goes wrong in it is raised here, by the `next` that would have
    returned the batch, with the thread's traceback.

    Attributes:
        state: the place of the batch that `next` returns next; what a checkpoint keeps. Batches
            prepared ahead do not count.
    """

    def __init__(
        self,
        batches: Batches,
        epoch: int = 0,
        step: int = 0,
        *,
        epochs: int | None = None,
        prefetch: int = 0,
        reuse: bool = False,
        deferred: bool = False,
    ) -> None:
        if deferred and (prefetch or reuse):
            raise DataError(
                describe(
                    "stream",
                    "deferred batches are not prepared ahead or reused: there is nothing to write",
                    got={"prefetch": prefetch, "reuse": reuse},
                    fix="leave prefetch and reuse out",
                )
            )
        steps = batches.steps_per_epoch
        if epoch < 0 or not 0 <= step <= steps or prefetch < 0:
            raise DataError(
                describe(
                    "stream",
                    f"cannot begin at step {step} of epoch {epoch}, prefetch {prefetch}",
                    expected=f"steps 0..{steps}, nothing negative",
                )
            )
        self.state = Position(epoch + 1, 0) if step == steps else Position(epoch, step)
        self._batches = batches
        self._epochs = epochs
        self._deferred = deferred
        self._closed = False
        self._lent: Batch | None = None
        self._free: queue.SimpleQueue[Batch | None] | None = None
        if reuse:
            # One is in the user's hands; the others lie ready, or one of them is being filled.
            self._free = queue.SimpleQueue()
            for _ in range(prefetch + 1):
                self._free.put(batches.empty())
        self._ahead: _Ahead | None = None
        if prefetch:
            self._ahead = _Ahead(batches, self.state, epochs, prefetch, self._free)

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        if self._closed or not _goes_on(self.state, self._epochs):
            self.close()
            raise StopIteration
        if self._deferred:
            made = self._batches.deferred(*self.state)
            self.state = _after(self.state, self._batches.steps_per_epoch)
            return made
        if self._free is not None and self._lent is not None:
            self._free.put(self._lent)
            self._lent = None
        if self._ahead is None:
            buffers = self._free.get() if self._free is not None else None
            batch = self._batches.batch(*self.state, out=buffers)
        else:
            try:
                buffers, batch = self._ahead.take()
            except BaseException:
                self.close()
                raise
        self._lent = buffers
        self.state = _after(self.state, self._batches.steps_per_epoch)
        return batch

    def close(self) -> None:
        """Ends the thread, if there is one, and waits for it; the stream is exhausted then."""
        self._closed = True
        if self._ahead is not None:
            self._ahead.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Also reached when __init__ raised; the thread itself does not refer to the stream.
        if getattr(self, "_ahead", None) is not None:
            self.close()


class _Ahead:
    """The background thread and the bounded queue between it and the stream."""

    def __init__(
        self,
        batches: Batches,
        start: Position,
        epochs: int | None,
        depth: int,
        free: queue.SimpleQueue[Batch | None] | None,
    ) -> None:
        self.ready: queue.Queue[object] = queue.Queue()
        # A semaphore bounds the queue instead of its maxsize: closing releases it, so neither
        # side ever has to poll.
        self.room = threading.Semaphore(depth)
        self.stop = threading.Event()
        self.free = free
        self.thread = threading.Thread(
            target=_work,
            name="stepgraph-prefetch",
            daemon=True,
            args=(batches, start, epochs, self.ready, self.room, self.stop, free),
        )
        self.thread.start()

    def take(self) -> tuple[Batch | None, Batch]:
        item = self.ready.get()
        if isinstance(item, BaseException):
            raise item
        if item is _END:
            raise StopIteration
        self.room.release()
        return item  # type: ignore[return-value]

    def close(self) -> None:
        self.stop.set()
        self.room.release()
        if self.free is not None:
            self.free.put(None)
        if self.thread is not threading.current_thread():
            self.thread.join()


def _work(
    batches: Batches,
    start: Position,
    epochs: int | None,
    ready: queue.Queue[object],
    room: threading.Semaphore,
    stop: threading.Event,
    free: queue.SimpleQueue[Batch | None] | None,
) -> None:
    try:
        for place in _places(start, batches.steps_per_epoch, epochs):
            room.acquire()
            buffers = None if free is None or stop.is_set() else free.get()
            if stop.is_set():
                return
            ready.put((buffers, batches.batch(*place, out=buffers)))
    except BaseException as error:  # handed to the consumer, which raises it
        ready.put(error)
    else:
        ready.put(_END)


def _places(start: Position, steps: int, epochs: int | None) -> Iterator[Position]:
    place = start
    while _goes_on(place, epochs):
        yield place
        place = _after(place, steps)


def _after(place: Position, steps: int) -> Position:
    return (
        Position(place.epoch, place.step + 1)
        if place.step + 1 < steps
        else Position(place.epoch + 1, 0)
    )


def _goes_on(place: Position, epochs: int | None) -> bool:
    return epochs is None or place.epoch < epochs
