"""Threads, and programs of kernel launches that they run together.

A `Program` is a list of launches (kernel address, argument slots, number of tasks) with, where
needed, Python calls between them. `Pool.run` makes one foreign call per stretch of launches; inside
it, the calling thread and the pool's workers go through the records as `executor_ir` describes.
Which thread runs a task never decides a result: kernels compute from (arguments, task) alone and
use the thread number only to find scratch memory.

Cost: about a microsecond for the foreign call and less than half of one for each record that is
shared. Workers watch for work for some tens of microseconds, yield to others for about a
millisecond and then sleep, so an idle pool, or one whose processors are taken by other programs,
burns nothing for long.

On Windows a pool has one thread (there are no POSIX threads to sleep on); results are the same.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stepgraph.backends.cpu.native import executor_ir, storage
from stepgraph.backends.cpu.native.compile import Library, build
from stepgraph.backends.cpu.native.target import host_target
from stepgraph.errors import UnsupportedError, describe

THREADS_VARIABLE = "STEPGRAPH_NUM_THREADS"
# Turns a thread watches before it yields: 40 to 150 microseconds, by how long the processor's
# pause instruction takes. Longer than what Python needs between two steps, shorter than a
# time slice that another program might have wanted.
WATCH_TURNS = 3000
# How often it then yields before it sleeps: about a millisecond where nobody else wants the
# processor, what it takes to prepare a batch; where somebody does, he has it meanwhile.
YIELDS = 3000


def default_threads() -> int:
    """Number of threads: ``STEPGRAPH_NUM_THREADS``, or the processors this process may use."""
    text = os.environ.get(THREADS_VARIABLE)
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise UnsupportedError(
                describe(
                    THREADS_VARIABLE,
                    f"not a number of threads: {text!r}",
                    fix="set it to 1 or more, or unset it",
                )
            )
        return int(text)
    if sys.platform != "win32" and hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Launch:
    """One record of a program.

    Attributes:
        kernel: address of the function.
        arguments: its packed argument slots.
        tasks: how many times it is called, with task numbers from 0.
        name: for profiles.
    """

    kernel: int
    arguments: bytes
    tasks: int
    name: str


class Program:
    """A list of launches and Python calls, run in order; each sees what those before it wrote.

    Launches are added first; the first run seals the program. After that nothing can be added, but
    argument slots can be changed in place through `slots` (a feed's address, a learning rate).
    """

    def __init__(self) -> None:
        self._steps: list[Launch | Callable[[], object]] = []
        self._count = 0
        self._sealed = False
        self._slots: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._records: npt.NDArray[np.int64] = np.zeros((0, 4), np.int64)
        self._starts: list[int] = []
        self.segments: list[tuple[int, int] | Callable[[], object]] = []

    def launch(self, kernel: int, arguments: bytes, tasks: int, name: str = "") -> int:
        """Adds a launch.

        Args:
            kernel: the function's address in a loaded library.
            arguments: from `Arguments.pack`.
            tasks: number of tasks; 0 is allowed and does nothing.
            name: shown in profiles.

        Returns:
            The record's number, for `slot`.

        Raises:
            ValueError: too many tasks, or the program is sealed.
        """
        if self._sealed:
            raise ValueError("program: already sealed by its first run")
        if not 0 <= tasks <= executor_ir.MAXIMUM_TASKS:
            most = executor_ir.MAXIMUM_TASKS
            raise ValueError(f"program: {tasks} tasks; at most {most} are possible")
        self._steps.append(Launch(kernel, arguments, tasks, name))
        self._count += 1
        return self._count - 1

    def call(self, function: Callable[[], object]) -> None:
        """Adds a Python function, called between the launches before and after it."""
        if self._sealed:
            raise ValueError("program: already sealed by its first run")
        self._steps.append(function)

    @property
    def launches(self) -> list[Launch]:
        """The launches in order, without the Python calls."""
        return [step for step in self._steps if isinstance(step, Launch)]

    def seal(self) -> None:
        """Lays records and argument slots out in memory; done by the first run."""
        if self._sealed:
            return
        launches = self.launches
        sizes = [-(-len(launch.arguments) // 64) * 8 for launch in launches]
        self._starts = list(itertools.accumulate(sizes, initial=0))[:-1]
        self._slots = storage.zeros(sum(sizes) + 8, np.int64)
        self._records = storage.zeros(4 * len(launches), np.int64).reshape(-1, 4)
        for number, (launch, start) in enumerate(zip(launches, self._starts, strict=True)):
            values = np.frombuffer(launch.arguments, np.int64)
            self._slots[start : start + values.size] = values
            where = self._slots.ctypes.data + 8 * start
            self._records[number] = launch.kernel, where, launch.tasks, 0
        self._segment()
        self._sealed = True

    def _segment(self) -> None:
        record = 0
        for step in self._steps:
            if not isinstance(step, Launch):
                self.segments.append(step)
                continue
            last = self.segments[-1] if self.segments else None
            if isinstance(last, tuple) and last[1] < executor_ir.MAXIMUM_RECORDS:
                self.segments[-1] = (last[0], last[1] + 1)
            else:
                self.segments.append((self._records.ctypes.data + 32 * record, 1))
            record += 1

    def slots(self, record: int) -> npt.NDArray[np.int64]:
        """The argument slots of a launch, to be changed in place between runs.

        A float32 argument lies in the lower half of its slot: ``slots(r)[i:i + 1].view("f4")[0]``.
        """
        self.seal()
        size = len(self.launches[record].arguments) // 8
        return self._slots[self._starts[record] : self._starts[record] + size]

    def record_address(self, record: int) -> int:
        """Where a record lies; for running it alone."""
        self.seal()
        return self._records.ctypes.data + 32 * record


@functools.cache
def _library() -> tuple[Library, Callable[..., None], Callable[..., None], Callable[..., None]]:
    text = executor_ir.executor_ir(host_target(), threads=sys.platform != "win32")
    library = build(text, executor_ir.EXPORTS)
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    participate = ctypes.CFUNCTYPE(None, pointer, number, number)
    run = ctypes.CFUNCTYPE(None, pointer, pointer, number)
    stop = ctypes.CFUNCTYPE(None, pointer)
    return (
        library,
        participate(library["executor_participate"]),
        run(library["executor_run"]),
        stop(library["executor_stop"]),
    )


class Pool:
    """A number of threads that run programs: the caller's own, and workers started at first use.

    Attributes:
        threads: how many there are, the calling one included.
    """

    def __init__(
        self,
        threads: int | None = None,
        *,
        watch_turns: int = WATCH_TURNS,
        yields: int = YIELDS,
    ) -> None:
        """Makes a pool.

        Args:
            threads: how many; `default_threads` if not given. 1 on Windows.
            watch_turns: how long a thread watches for work before it yields.
            yields: how often it yields before it sleeps.
        """
        wanted = threads if threads is not None else default_threads()
        if wanted < 1:
            raise ValueError(f"pool: {wanted} threads; at least 1 is needed")
        self.threads = 1 if sys.platform == "win32" else wanted
        self._watch_turns, self._yields = watch_turns, yields
        self._lock = threading.Lock()
        self._state: npt.NDArray[np.int64] | None = None
        self._address = 0
        self._finalizer: weakref.finalize[..., Pool] | None = None
        self._execute = _library()[2]
        _pools.add(self)

    def _start(self) -> int:
        """Starts the workers unless they run; returns the shared state's address."""
        if self._state is not None:
            return self._address
        state = storage.zeros(executor_ir.STATE_BYTES // 8, np.int64)
        address = int(state.ctypes.data)
        if self.threads > 1:
            process = ctypes.CDLL(None)
            process.pthread_mutex_init(ctypes.c_void_p(address + executor_ir.MUTEX), None)
            process.pthread_cond_init(ctypes.c_void_p(address + executor_ir.CONDITION), None)
        # No record, no tasks: what a run leaves behind.
        state[executor_ir.TICKET // 8] = executor_ir.OVER
        state[executor_ir.TURNS // 8] = self._watch_turns
        state[executor_ir.YIELDS // 8] = self._yields
        state[executor_ir.SHIFT // 8] = (2 * self.threads - 1).bit_length()
        _, participate, _, stop = _library()
        workers = [
            threading.Thread(
                target=participate,
                args=(address, number, 0),
                name=f"stepgraph-{number}",
                daemon=True,
            )
            for number in range(1, self.threads)
        ]
        for worker in workers:
            worker.start()
        self._state, self._address = state, address
        self._finalizer = weakref.finalize(self, _finish, state, workers, stop, os.getpid())
        return address

    def run(self, program: Program) -> None:
        """Runs a program to its end; one at a time, others wait.

        Raises:
            Exception: whatever one of the program's Python calls raises; later steps are not run.
        """
        program.seal()
        for segment in program.segments:
            if isinstance(segment, tuple):
                with self._lock:
                    self._execute(self._start(), *segment)
            else:
                segment()

    def profile(self, program: Program) -> list[tuple[str, float]]:
        """Runs a program launch by launch and measures each.

        Returns:
            Name and seconds of every step, Python calls included; each figure contains about a
            microsecond for starting it alone.
        """
        program.seal()
        times: list[tuple[str, float]] = []
        record = 0
        for step in program._steps:
            start = time.perf_counter()
            if isinstance(step, Launch):
                with self._lock:
                    self._execute(self._start(), program.record_address(record), 1)
                record += 1
                name = step.name
            else:
                step()
                name = getattr(step, "__name__", "python")
            times.append((name, time.perf_counter() - start))
        return times

    def close(self) -> None:
        """Sends the workers home and waits for them; the next run starts new ones."""
        with self._lock:
            if self._finalizer is not None:
                self._finalizer()
            self._state = self._finalizer = None

    def _forget(self) -> None:
        """After a fork the child has no workers, and the lock and mutex may be held by ghosts."""
        if self._finalizer is not None:
            self._finalizer.detach()
        self._state = self._finalizer = None
        self._lock = threading.Lock()


def _finish(
    state: npt.NDArray[np.int64],
    workers: list[threading.Thread],
    stop: Callable[[int], None],
    process: int,
) -> None:
    """Ends the workers before the code they run is unmapped, at exit or when a pool is dropped."""
    if process == os.getpid() and workers:
        stop(state.ctypes.data)
        for worker in workers:
            worker.join()


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_pools):
        pool._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@functools.cache
def shared_pool() -> Pool:
    """The pool that a process's executables share, so that they do not compete for processors."""
    return Pool()
