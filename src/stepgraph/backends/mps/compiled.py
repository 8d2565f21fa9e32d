"""An MPSGraph compiled: its buffers and its runs, several of which may be under way."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepgraph.backends.mps.enums import MPSGraphOptimization, data_type
from stepgraph.backends.mps.messages import Block, Bridge, Dictionary, Handle, List, numbers
from stepgraph.backends.mps.session import Buffer, Session
from stepgraph.errors import DeviceError, describe
from stepgraph.graph.definition import Array
from stepgraph.graph.dtypes import DType

# Runs of one executable under way at a time; one more waits. Two keep the GPU busy, the third is
# filled meanwhile.
IN_FLIGHT = 3

_RUN = "runAsyncWithMTLCommandQueue:inputsArray:resultsArray:executionDescriptor:"
_COMPILE = "compileWithDevice:feeds:targetTensors:targetOperations:compilationDescriptor:"


@dataclass(frozen=True)
class Port:
    """A tensor through which values enter or leave a graph.

    Attributes:
        name: whose it is.
        shape: on the GPU: never of rank 0.
        dtype: element type.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType


class Slot:
    """Memory for the feeds and results of one run, used again by later ones."""

    def __init__(self, session: Session, feeds: Sequence[Port], targets: Sequence[Port]) -> None:
        bridge = session.bridge
        self.inputs = List(())
        self._ports = feeds
        # Made when first needed: a feed may lie in shared memory already.
        self.feeds: list[Buffer | None] = [None] * len(feeds)
        self._fed: list[Array] = []
        self._session = session
        self.results = [Buffer(session, p.shape, p.dtype) for p in targets]
        self.outputs = List(tuple(b.data for b in self.results))
        self.done = threading.Event()
        self.error: str | None = None
        self.descriptor = bridge.new("MPSGraphExecutableExecutionDescriptor")
        takes = ("NSArray<MPSGraphTensorData>", "NSError")
        bridge.send(
            self.descriptor,
            "setCompletionHandler:",
            Block("void", takes, _handler(bridge, weakref.ref(self))),
        )

    def fill(self, feeds: Mapping[str, Array]) -> None:
        """Takes over the feeds of a run; to be called with lock and pool.

        Arrays in shared memory are read where they lie, and held until `release`.
        """
        self._fed = [feeds[p.name].reshape(p.shape) for p in self._ports]
        inputs = []
        for i, (array, port) in enumerate(zip(self._fed, self._ports, strict=True)):
            shared = self._session.shared(array)
            if shared is not None:
                inputs.append(shared.data)
                continue
            buffer = self.feeds[i]
            if buffer is None:
                buffer = self.feeds[i] = Buffer(self._session, port.shape, port.dtype)
            np.copyto(buffer.array, array, casting="no")
            inputs.append(buffer.data)
        self.inputs = List(tuple(inputs))

    def release(self) -> None:
        """Lets go of the feeds of a run that is over."""
        self._fed = []

    @property
    def handles(self) -> list[Handle]:
        """What is owned."""
        buffers = (*(b for b in self.feeds if b is not None), *self.results)
        return [self.descriptor, *(handle for b in buffers for handle in b.handles)]


def _handler(bridge: Bridge, reference: weakref.ref[Slot]) -> Any:
    """What the framework calls, on a thread of its own, when a run is over: it only takes note."""

    def handler(results: Handle | None, error: Handle | None) -> None:
        slot = reference()
        if slot is None:
            return
        try:
            if error is not None:
                slot.error = "unknown"
                with bridge.pool():
                    slot.error = bridge.text(bridge.send(error, "localizedDescription"))
        finally:
            slot.done.set()

    return handler


def _nothing() -> None:
    """What happens before a run unless somebody says otherwise."""


class Compiled:
    """An ``MPSGraphExecutable`` with buffers for its runs.

    Args:
        session: the device.
        graph: the MPSGraph.
        feeds: placeholders.
        targets: tensors to compute; at least one.
        operations: what must also happen.
        keep: whether the buffers of a run are kept for the next.

    Must be made with a pool open and the session's lock held.
    """

    def __init__(
        self,
        session: Session,
        graph: Handle,
        feeds: Sequence[tuple[Handle, Port]],
        targets: Sequence[tuple[Handle, Port]],
        operations: Sequence[Handle],
        keep: bool = True,
    ) -> None:
        self._session = session
        bridge = session.bridge
        self._executable = bridge.keep(_compile(session, graph, feeds, targets, operations))
        # The order of a dictionary says nothing: the executable tells which input is whose.
        self._feeds = _ordered(bridge, self._executable, "feedTensors", feeds)
        self._targets = _ordered(bridge, self._executable, "targetTensors", targets)
        place = {port: i for i, port in enumerate(self._targets)}
        self._places = [place[port] for _, port in targets]
        self._free: list[Slot] = []
        self._slots: list[Slot] = []
        self._room = threading.Semaphore(IN_FLIGHT)
        self._keep = keep
        self._end = weakref.finalize(self, _discard, session, self._executable, self._slots)
        self._end.atexit = False

    def run(self, feeds: Mapping[str, Array], before: Callable[[], None] = _nothing) -> list[Array]:
        """Runs once and returns the targets' values, of their shapes on the GPU.

        Args:
            feeds: by name; may hold more than is needed.
            before: called with the session's lock held, just before the run is put on the queue.
        """
        slot = self._take(feeds)
        self._submit(slot, before)
        return self._collect(slot)

    def start(
        self, feeds: Mapping[str, Array], before: Callable[[], None] = _nothing
    ) -> Future[list[Array]]:
        """Like `run`, but waits only if too many runs are under way."""
        slot = self._take(feeds)
        with self._session.lock:
            self._submit(slot, before)
            return self._session.collector.submit(self._collect, slot)

    def _take(self, feeds: Mapping[str, Array]) -> Slot:
        self._room.acquire()
        try:
            with self._session.lock, self._session.bridge.pool():
                self._session.sweep()
                if self._free:
                    slot = self._free.pop()
                else:
                    slot = Slot(self._session, self._feeds, self._targets)
                    self._slots.append(slot)
                slot.fill(feeds)
        except BaseException:
            self._room.release()
            raise
        return slot

    def _submit(self, slot: Slot, before: Callable[[], None]) -> None:
        session = self._session
        try:
            with session.lock, session.bridge.pool():
                before()
                session.bridge.send(
                    self._executable,
                    _RUN,
                    session.queue,
                    slot.inputs,
                    slot.outputs,
                    slot.descriptor,
                )
        except BaseException:
            self._give(slot)
            raise

    def _collect(self, slot: Slot) -> list[Array]:
        try:
            slot.done.wait()
        except BaseException:  # interrupted: the GPU still writes there, so it is not used again
            self._room.release()
            raise
        slot.done.clear()
        error, slot.error = slot.error, None
        results = [slot.results[i].array.copy() for i in self._places] if error is None else []
        self._give(slot)
        if error is not None:
            raise DeviceError(
                describe(
                    "mps",
                    f"the GPU gave a run up: {error}",
                    fix="variables may be half updated: resume from a checkpoint",
                )
            )
        return results

    def _give(self, slot: Slot) -> None:
        slot.release()
        if self._keep:
            self._free.append(slot)
        else:
            self._slots.remove(slot)
            self._session.discard(slot.handles)
        self._room.release()

    def close(self) -> None:
        """Waits for runs under way, then frees executable and memory."""
        for _ in range(IN_FLIGHT):
            self._room.acquire()
        self._end()
        with self._session.lock:
            self._session.sweep()


def _discard(session: Session, executable: Handle, slots: list[Slot]) -> None:
    session.discard([executable, *(handle for slot in slots for handle in slot.handles)])
    slots.clear()


def _compile(
    session: Session,
    graph: Handle,
    feeds: Sequence[tuple[Handle, Port]],
    targets: Sequence[tuple[Handle, Port]],
    operations: Sequence[Handle],
) -> Handle:
    bridge = session.bridge
    types = [
        bridge.new(
            "MPSGraphShapedType", "initWithShape:dataType:", numbers(p.shape), data_type(p.dtype)
        )
        for _, p in feeds
    ]
    descriptor = bridge.new("MPSGraphCompilationDescriptor")
    try:
        # Level1 may move work to other processors, whose arithmetic differs.
        bridge.send(descriptor, "setOptimizationLevel:", MPSGraphOptimization.Level0)
        bridge.send(descriptor, "setWaitForCompilationCompletion:", True)
        executable: Handle = bridge.send(
            graph,
            _COMPILE,
            session.device,
            Dictionary(tuple((h, t) for (h, _), t in zip(feeds, types, strict=True))),
            List(tuple(h for h, _ in targets)),
            List(tuple(operations)) if operations else None,
            descriptor,
        )
    finally:
        for handle in (descriptor, *types):
            bridge.drop(handle)
    return executable


def _ordered(
    bridge: Bridge, executable: Handle, selector: str, ports: Sequence[tuple[Handle, Port]]
) -> list[Port]:
    """The ports in the order in which the executable takes or gives them."""
    by_handle = dict(ports)
    array = bridge.send(executable, selector)
    found = [by_handle.get(h) for h in bridge.items(array)] if array is not None else []
    if None in found or len(found) != len(by_handle):
        raise DeviceError(
            describe(
                "mps",
                f"{selector} of the compiled graph are not those asked for",
                got={"asked for": len(by_handle), "found": len(found)},
            )
        )
    return [port for port in found if port is not None]
