"""Metal: the device, buffers, command queues and command buffers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from stepgraph.backends.mps.messages import Block

from . import dtypes, executables
from .errors import Refused, need
from .graph import check_shape
from .objects import Object

# Metal's objects are of private classes that conform to the protocols.
DEVICE = ("AGXDevice", ("MTLDevice",))
QUEUE = ("AGXCommandQueue", ("MTLCommandQueue",))
BUFFER = ("AGXBuffer", ("MTLBuffer",))
COMMANDS = ("AGXCommandBuffer", ("MTLCommandBuffer",))

FILL = 0xBD
ENDED_FILL = 0xDD


class Metal:
    """The one device of the double, and what is made on it."""

    def __init__(self, double: Any) -> None:
        self.double = double
        self.heap = double.heap
        self.name = "Apple M4 (strict double)"
        self.device = Object(*DEVICE)
        self.device.immortal = True
        self.allocated = 0
        self.gate = threading.Event()
        self.gate.set()
        self.in_flight = 0
        self._lock = threading.Lock()

    # Buffers ----------------------------------------------------------------------------------

    def buffer(self, length: int, options: int) -> Object:
        need(length > 0, "newBufferWithLength:options: of length 0 is nil")
        need(options & 0xF0 == 0, "a buffer that Python reads and writes must be in shared memory")
        memory = np.full(length, FILL, np.uint8)
        o = Object(*BUFFER, memory=memory, length=length)

        def end() -> None:
            memory.fill(ENDED_FILL)
            self.allocated -= length

        o.on_end = end
        self.allocated += length
        return o

    def tensor_data(
        self, shape: Sequence[int], dtype: int, buffer: Object | None = None, data: Any = None
    ) -> Object:
        where = "MPSGraphTensorData"
        shape = check_shape(shape, where)
        need(shape != (), f"{where}: rank 0; ranks are 1 to 16")
        count = int(np.prod(shape, dtype=np.int64)) * dtypes.size(dtype)
        o = Object("MPSGraphTensorData", shape=shape, dtype=dtype)
        if buffer is not None:
            need(
                buffer.length >= count,
                f"{where}: a buffer of {buffer.length} bytes for {count} bytes of {shape}",
            )
            o.memory = buffer.memory
            self.heap.hold(o, buffer)
        elif data is not None:
            need(data.size == count, f"{where}: {data.size} bytes of data for {count} of {shape}")
            o.memory = data.copy()
        else:
            o.memory = np.full(count, FILL, np.uint8)
        return o

    # Queues -----------------------------------------------------------------------------------

    def queue(self) -> Object:
        worker = ThreadPoolExecutor(1, thread_name_prefix="mps-double")
        o = Object(*QUEUE, worker=worker)
        o.on_end = lambda: worker.shutdown(wait=False)
        return o

    def run_now(self, queue: Object, program: Any, inputs: Any, results: Any) -> None:
        """Waits for what was queued before, then for this run."""
        self.gate_open("a blocking run")
        queue.worker.submit(executables.execute, program, inputs, results).result()

    def gate_open(self, what: str) -> None:
        need(self.gate.is_set(), f"{what} would wait for ever: the device is held")

    def run_later(
        self,
        queue: Object,
        program: Any,
        inputs: Sequence[Object],
        results: Sequence[Object],
        descriptor: Object | None,
        keep: Sequence[Object],
        as_pairs: bool = False,
    ) -> None:
        """Queues a run; its handlers are called on the queue's own thread."""
        double = self.double
        stamps = [_stamp(d) for d in inputs]
        handlers = (
            []
            if descriptor is None
            else [descriptor.properties.get(n) for n in ("scheduledHandler", "completionHandler")]
        )
        handlers = [h for h in handlers if h is not None]
        with self._lock:
            self.in_flight += 1
            if double.results_reused and self.in_flight > 1:
                raise Refused("concurrent runs without results of their own overwrite each other")
        held = Object("NSArray", items=[])
        self.heap.hold(held, *program.targets)
        self.heap.own(held)

        def work() -> None:
            self.gate.wait()
            error = None
            try:
                gone = [o for o in (*inputs, *results, *keep) if o.ended]
                if gone:
                    raise Refused(f"{gone[0]} ended before the run that uses it had completed")
                if stamps != [_stamp(d) for d in inputs]:
                    raise Refused("an input's buffer was written to before the run had completed")
                if double.device_errors:
                    error = double.device_errors.pop(0)
                else:
                    executables.execute(program, inputs, results)
            except BaseException as e:
                double.failures.append(e)
                error = f"{type(e).__name__}: {e}"
            finally:
                with self._lock:
                    self.in_flight -= 1
            self._handle(handlers, program, results, error, as_pairs)
            self.heap.disown(held)

        future: Future[None] = queue.worker.submit(work)
        if descriptor is not None and descriptor.properties.get("waitUntilCompleted"):
            self.gate_open("waitUntilCompleted")
            future.result()
            double.raise_failures()

    def _handle(
        self,
        handlers: Sequence[Block],
        program: Any,
        results: Sequence[Object],
        error: str | None,
        as_pairs: bool,
    ) -> None:
        double = self.double
        for handler in handlers:
            try:
                with self.heap.pool():
                    if as_pairs:
                        pairs = list(zip(program.targets, results, strict=True))
                        array = Object("NSDictionary", pairs=pairs)
                    else:
                        array = Object("NSArray", items=list(results))
                    live = [r for r in results if not r.ended]
                    self.heap.hold(array, *live)
                    self.heap.autorelease(array, "a completion handler")
                    failed = None
                    if error is not None:
                        failed = Object("NSError", text=error)
                        self.heap.autorelease(failed, "a completion handler")
                    double.call_block(handler, (array, failed), "a completion handler")
            except BaseException as e:
                double.failures.append(e)


def _stamp(data: Object) -> int:
    import zlib

    return zlib.adler32(data.memory)


Method = Callable[..., Any]


def device_methods(metal: Metal) -> dict[str, Method]:
    return {
        "name": lambda o: metal.name,
        "hasUnifiedMemory": lambda o: True,
        "isLowPower": lambda o: False,
        "isHeadless": lambda o: False,
        "registryID": lambda o: 1,
        "recommendedMaxWorkingSetSize": lambda o: 10923 << 20,
        "maxBufferLength": lambda o: 8 << 30,
        "currentAllocatedSize": lambda o: metal.allocated,
        "supportsFamily:": lambda o, family: family in (5001, *range(1001, 1010)),
        "newCommandQueue": lambda o: metal.queue(),
        "newCommandQueueWithMaxCommandBufferCount:": lambda o, n: metal.queue(),
        "newBufferWithLength:options:": lambda o, n, options: metal.buffer(n, options),
    }


def queue_methods(metal: Metal) -> dict[str, Method]:
    return {
        "device": lambda o: metal.device,
        "commandBuffer": lambda o: _commands(metal, o, COMMANDS),
    }


def buffer_methods(metal: Metal) -> dict[str, Method]:
    return {
        "length": lambda o: o.length,
        "device": lambda o: metal.device,
        "storageMode": lambda o: 0,
        "contents": lambda o: o.memory.ctypes.data,
        "allocatedSize": lambda o: o.length,
    }


def _commands(metal: Metal, queue: Object, kind: tuple[str, tuple[str, ...]]) -> Object:
    o = Object(*kind, queue=queue, jobs=[], handlers=[], status=0, future=None)
    metal.heap.hold(o, queue)
    return o


def command_buffer_methods(metal: Metal) -> dict[str, Method]:
    """Of both the raw command buffer and MPSCommandBuffer."""

    def commit(o: Object) -> None:
        need(o.status < 2, "a command buffer is committed twice")
        o.status = 2
        jobs, o.jobs = o.jobs, []

        def work() -> None:
            metal.gate.wait()
            try:
                for program, inputs, results in jobs:
                    if any(d.ended for d in (*inputs, *results)):
                        raise Refused("data of a committed command buffer ended before it ran")
                    executables.execute(program, inputs, results)
                o.status = 4
                for handler in o.handlers:
                    with metal.heap.pool():
                        metal.double.call_block(handler, (o,), "a completed handler")
            except BaseException as e:
                metal.double.failures.append(e)
                o.status = 5

        o.future = o.queue.worker.submit(work)

    def wait(o: Object) -> None:
        need(o.future is not None, "waitUntilCompleted before commit would wait for ever")
        metal.gate_open("waitUntilCompleted")
        o.future.result()
        metal.double.raise_failures()

    def go_on(o: Object) -> None:
        commit(o)
        o.status = 0

    return {
        "commit": commit,
        "commitAndContinue": go_on,
        "waitUntilCompleted": wait,
        "addCompletedHandler:": lambda o, block: o.handlers.append(block),
        "status": lambda o: o.status,
        "commandQueue": lambda o: o.queue,
        "device": lambda o: metal.device,
        "error": lambda o: None,
        "GPUStartTime": lambda o: 0.0,
        "GPUEndTime": lambda o: 0.0,
    }


def mps_command_buffer(metal: Metal, queue: Object) -> Object:
    return _commands(metal, queue, ("MPSCommandBuffer", ("MTLCommandBuffer",)))
