"""A program on the GPU: built, compiled, run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TypeAlias

import numpy as np

from stepgraph.backends.base import StepTime
from stepgraph.backends.mps.builder import Builder, Built, extents, sizes
from stepgraph.backends.mps.compiled import Compiled, Port
from stepgraph.backends.mps.lowering import LOWERINGS
from stepgraph.backends.mps.plan import plan_memory
from stepgraph.backends.mps.state import MpsState
from stepgraph.compiler.program import Program
from stepgraph.graph.definition import Array

# A run that gives variables the values that were set.
Write: TypeAlias = "Future[list[Array]]"


def build(program: Program, state: MpsState) -> tuple[Compiled | None, Built]:
    """Builds a program into the graph of its state and compiles it.

    Args:
        program: what to run.
        state: holds the MPSGraph and its variables.

    Returns:
        The executable, None if nothing is left to compute, and what was built.
    """
    session = state.session
    with session.lock, session.bridge.pool():
        session.sweep()
        builder = Builder(session.bridge, state.graph, session.version, LOWERINGS, state.variable)
        built = builder.build(program)
        if not built.targets:
            return None, built
        feeds = [
            (handle, Port(name, extents(program.feeds[name]), program.feeds[name].dtype))
            for name, handle in built.feeds.items()
        ]
        targets = [
            (handle, Port(f"{tensor.name} {i}", extents(tensor), tensor.dtype))
            for i, (handle, tensor) in enumerate(built.targets)
        ]
        compiled = Compiled(session, state.graph, feeds, targets, built.operations)
        return compiled, built


class MpsRunner:
    """A program compiled for the GPU."""

    def __init__(self, program: Program, state: MpsState) -> None:
        self._program = program
        self._state = state
        self._compiled, built = build(program, state)
        self._results = built.results
        self.plan = plan_memory(program)

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Runs once."""
        if self._compiled is None:
            return self._finish(feeds, [])
        writes: list[Write] = []
        values = self._compiled.run(feeds, lambda: self._before(writes))
        return self._finish(feeds, values, writes)

    def start(self, feeds: Mapping[str, Array]) -> Future[list[Array]]:
        """Starts a run, to be called in the order in which runs shall happen.

        Waits only if too many runs are under way. What is done on the future's completion happens
        on the thread that fetches all results, so it must not wait for another run.
        """
        future: Future[list[Array]] = Future()
        if self._compiled is None:
            future.set_result(self._finish(feeds, []))
            return future

        writes: list[Write] = []

        def finish(run: Future[list[Array]]) -> None:
            try:
                future.set_result(self._finish(feeds, run.result(), writes))
            except BaseException as error:
                future.set_exception(error)

        run = self._compiled.start(feeds, lambda: self._before(writes))
        run.add_done_callback(finish)
        return future

    def close(self) -> None:
        """Waits for runs under way and frees the executable with its memory."""
        if self._compiled is not None:
            self._compiled.close()

    def profile(self, feeds: Mapping[str, Array]) -> list[StepTime]:
        """Runs once: the framework runs a compiled graph as one step and times no part of it."""
        start = time.perf_counter()
        self.run(feeds)
        return [StepTime("run", time.perf_counter() - start, 0)]

    def describe(self) -> str:
        """The program and the memory planned for it."""
        return f"{self._program}\n  {self.plan}"

    @property
    def planned_bytes(self) -> int:
        """An estimate; see `MemoryPlan`."""
        return self.plan.total

    @property
    def held_bytes(self) -> int:
        """The framework does not say."""
        return 0

    def _before(self, writes: list[Write]) -> None:
        write = self._state.flush()
        if write is not None:
            writes.append(write)
        self._state.changed(self._program.updates)

    def _finish(
        self, feeds: Mapping[str, Array], values: list[Array], writes: Sequence[Write] = ()
    ) -> list[Array]:
        for write in writes:
            write.result()  # it was over before the run: raises what went wrong
        results: list[Array] = []
        taken: set[int] = set()
        for result, tensor in zip(self._results, self._program.targets, strict=True):
            if isinstance(result, int):
                value = values[result].reshape(sizes(tensor))
                results.append(value.copy() if result in taken else value)
                taken.add(result)
            else:
                results.append(np.array(feeds[result] if isinstance(result, str) else result))
        return results
