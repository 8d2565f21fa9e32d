"""The device ``mps``: Apple's GPUs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from stepgraph.backends.mps import bridge as rubicon_bridge
from stepgraph.backends.mps.executable import MpsRunner
from stepgraph.backends.mps.lowering import LOWERINGS
from stepgraph.backends.mps.messages import Bridge
from stepgraph.backends.mps.session import Session
from stepgraph.backends.mps.state import MpsState
from stepgraph.compiler.pipeline import compile_program
from stepgraph.compiler.program import Program
from stepgraph.errors import GraphError, UnsupportedError, describe
from stepgraph.graph.definition import Array, OpDefinition
from stepgraph.graph.dtypes import DType
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import Shape
from stepgraph.graph.tensor import Tensor, Variable

# What the builder says itself.
_MEMORY = frozenset({"placeholder", "variable", "constant", "parameter"})


class MpsDevice:
    """This machine's GPU, through MPSGraph."""

    name = "mps"
    overlaps = True
    defers = False

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._session: Session | None = None

    def session(self) -> Session:
        """The connection to the GPU, made when first needed."""
        with self._lock:
            if self._session is None:
                self._session = Session(rubicon_bridge.connect())
            return self._session

    def unavailable(self) -> str | None:
        """Why there is no GPU to be reached."""
        if self._session is not None:
            return None
        reason = rubicon_bridge.unavailable()
        if reason is None:
            try:
                self.session()
            except UnsupportedError as error:
                reason = str(error)
        return reason

    def summary(self) -> str:
        """One line for people."""
        return self.session().summary()

    def supports(self, definition: OpDefinition) -> bool:
        """Whether an op is said to MPSGraph as it is."""
        return supports(definition)

    def new_state(self, variables: Mapping[str, Variable], variant: str) -> MpsState:
        """Fresh values."""
        if variant:
            raise GraphError(describe("device", f"'mps' has no variant '{variant}'"))
        return MpsState(self.session(), variables)

    def feed_array(self, shape: Sequence[int], dtype: DType) -> Array:
        """An array that the GPU reads where it lies."""
        if 0 in shape:
            return np.empty(tuple(shape), dtype.numpy)
        return self.session().shared_array(shape, dtype)

    def prepare(
        self,
        graph: Graph,
        feeds: Mapping[Tensor, Shape],
        targets: Sequence[Tensor],
        operations: Sequence[Operation],
        values: Mapping[str, Array],
        state: Any,
        variant: str,
        *,
        disable: Sequence[str] = (),
        threads: int | None = None,
    ) -> MpsRunner:
        """Compiles; see `Graph.compile`."""
        del threads  # of the processor; the GPU has its own
        program = lowered_program(graph, feeds, targets, operations, values, disable=disable)
        return MpsRunner(program, state)


def supports(definition: OpDefinition) -> bool:
    """Whether an op is said to MPSGraph as it is."""
    return definition.name in LOWERINGS or definition.name in _MEMORY


def lowered_program(
    graph: Graph,
    feeds: Mapping[Tensor, Shape],
    targets: Sequence[Tensor],
    operations: Sequence[Operation],
    values: Mapping[str, Array] | None = None,
    *,
    disable: Sequence[str] = (),
) -> Program:
    """The program as it is built into an MPSGraph; arguments as for `compile_program`."""
    return compile_program(
        graph, feeds, targets, operations, values=values, supports=supports, disable=disable
    )


DEVICE = MpsDevice()


@contextmanager
def use(bridge: Bridge) -> Iterator[Session]:
    """Makes the device send its messages through another bridge.

    Graphs that already have values on the device keep the bridge they got them through.

    Args:
        bridge: where messages go meanwhile.

    Yields:
        The device as that bridge shows it.
    """
    before = DEVICE._session
    session = DEVICE._session = Session(bridge)
    try:
        yield session
    finally:
        DEVICE._session = before
        session.close()
