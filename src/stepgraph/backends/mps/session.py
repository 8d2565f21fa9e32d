"""One GPU, reached through one bridge: its queue, its lock, its operating system."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from stepgraph.backends.mps.enums import MTLResourceOptions, data_type
from stepgraph.backends.mps.messages import Bridge, Handle, numbers
from stepgraph.backends.mps.system import Version, parse_system
from stepgraph.errors import UnsupportedError, describe
from stepgraph.graph.definition import Array
from stepgraph.graph.dtypes import DType

# The selectors of bits came then, after transposing by a permutation, sorting and running sums:
# from there on every op can be said.
MINIMUM = Version(16, 1)


class Session:
    """What every graph on the device shares.

    Attributes:
        bridge: carries the messages.
        metal: the ``MTLDevice``.
        device: it as an ``MPSGraphDevice``.
        queue: the one command queue: runs happen in the order in which they were put there.
        lock: to be held while messages are sent; never taken by a completion handler.
        collector: the one thread that fetches results of asynchronous runs, in their order; it
            never runs anything of the user's.
        version: of the operating system.

    Objects whose owner was collected by Python are let go at the next build or run (`sweep`), not
    by the collection itself, which may come at any moment on any thread.
    """

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.lock = threading.RLock()
        self._shared: dict[int, SharedArray] = {}
        self._discarded: deque[Handle] = deque()
        self._discarded_graphs: deque[Handle] = deque()
        self.system = bridge.system()
        self.version = parse_system(self.system)
        if self.version < MINIMUM:
            raise UnsupportedError(
                describe("mps", f"{self.system} is too old", expected=f"{MINIMUM} or newer")
            )
        self.collector = ThreadPoolExecutor(1, thread_name_prefix="stepgraph-mps")
        with bridge.pool():
            metal = bridge.function("MTLCreateSystemDefaultDevice")
            if metal is None:
                raise UnsupportedError(describe("mps", "no Metal device", fix='use device="cpu"'))
            self.metal: Handle = metal  # a function that creates gives it to the caller
            self.name = bridge.text(bridge.send(metal, "name"))
            self.device = bridge.keep(bridge.send("MPSGraphDevice", "deviceWithMTLDevice:", metal))
            queue = bridge.send(metal, "newCommandQueue")
            if queue is None:
                raise UnsupportedError(describe("mps", "the Metal device gives no command queue"))
            self.queue: Handle = queue

    def summary(self) -> str:
        """One line for people."""
        return f"{self.name}, {self.system}"

    def shared_array(self, shape: Sequence[int], dtype: DType) -> Array:
        """An array in memory that the GPU reads where it lies; good as long as anybody holds it.

        Args:
            shape: sizes; none is zero.
            dtype: element type.
        """
        with self.lock, self.bridge.pool():
            self.sweep()
            buffer = Buffer(self, tuple(shape) or (1,), dtype)
        array = buffer.array
        address = array.__array_interface__["data"][0]
        self._shared[address] = SharedArray(buffer.data, array.shape, dtype)
        # Views of an array hold the one that was made of the memory, not each other.
        whole = array if array.base is None else array.base
        end = weakref.finalize(whole, self._forget, address, buffer.handles)
        end.atexit = False
        return array.reshape(tuple(shape))

    def shared(self, array: Array) -> SharedArray | None:
        """The shared memory that an array is, from its first to its last byte; None if none."""
        found = self._shared.get(array.__array_interface__["data"][0])
        if found is None or not array.flags.c_contiguous:
            return None
        same = found.dtype.numpy == array.dtype and found.shape == (array.shape or (1,))
        return found if same else None

    def _forget(self, address: int, handles: Iterable[Handle]) -> None:
        del self._shared[address]
        self.discard(handles)

    def discard(self, handles: Iterable[Handle], graphs: Iterable[Handle] = ()) -> None:
        """Has objects let go soon; may be called from anywhere, without the lock.

        Args:
            handles: owned.
            graphs: MPSGraph objects; an executable must not outlive its graph, so they go last.
        """
        self._discarded.extend(handles)
        self._discarded_graphs.extend(graphs)

    def sweep(self) -> None:
        """Lets go of what was discarded; to be called with the lock held."""
        graphs = [self._discarded_graphs.popleft() for _ in range(len(self._discarded_graphs))]
        while self._discarded:
            self.bridge.drop(self._discarded.popleft())
        for graph in graphs:
            self.bridge.drop(graph)

    def close(self) -> None:
        """Waits for what is under way and lets go of the device."""
        self.collector.shutdown()
        with self.lock:
            self.sweep()
            for handle in (self.queue, self.device, self.metal):
                self.bridge.drop(handle)


@dataclass(frozen=True)
class SharedArray:
    """Memory that a caller fills and the GPU reads, without a copy in between.

    Attributes:
        data: the ``MPSGraphTensorData`` over it.
        shape: on the GPU.
        dtype: element type.
    """

    data: Handle
    shape: tuple[int, ...]
    dtype: DType


class Buffer:
    """An array in memory that both the GPU and this process see, and its ``MPSGraphTensorData``.

    Attributes:
        array: the memory; of the shape on the GPU.
        data: the ``MPSGraphTensorData`` over it.
    """

    def __init__(self, session: Session, shape: Sequence[int], dtype: DType) -> None:
        bridge = session.bridge
        count = int(np.prod(shape, dtype=np.int64))
        length = count * dtype.size
        buffer = bridge.send(
            session.metal,
            "newBufferWithLength:options:",
            length,
            MTLResourceOptions.StorageModeShared,
        )
        if buffer is None:
            raise MemoryError(f"mps: no buffer of {length} bytes: use a smaller batch")
        self._buffer: Handle = buffer
        view = bridge.view(buffer, length)
        self.array: Array = np.frombuffer(view, dtype.numpy).reshape(tuple(shape))
        self.data = bridge.new(
            "MPSGraphTensorData",
            "initWithMTLBuffer:shape:dataType:",
            buffer,
            numbers(shape),
            data_type(dtype),
        )

    @property
    def handles(self) -> tuple[Handle, Handle]:
        """What is owned, and must be let go by who made this."""
        return self.data, self._buffer
