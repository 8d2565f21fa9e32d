"""What a device is, and the table of devices."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

import numpy as np

from stepgraph.errors import FeedError, UnsupportedError, describe, nearest
from stepgraph.graph.definition import Array, OpDefinition
from stepgraph.graph.dtypes import DType
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import (
    Shape,
)
from stepgraph.graph.tensor import Tensor, Variable

# Name of a device to the module that offers it as `DEVICE`, imported when first used.
DEVICES: dict[str, str] = {
    "cpu": "stepgraph.backends.cpu",
    "mps": "stepgraph.backends.mps",
    "reference": "stepgraph.backends.reference",
}


class State(Protocol):
    """The values of one graph's variables on one device."""

    def read(self, name: str) -> Array:
        """A copy of a variable's value, row-major."""

    def write(self, name: str, value: Array) -> None:
        """Gives a variable a value of its shape and dtype."""


class StepTime(NamedTuple):
    """What one step of a run took.

    Attributes:
        name: what it does.
        seconds: how long.
        flops: floating-point operations in it, where they are counted; else 0.
    """

    name: str
    seconds: float
    flops: int


class Deferred(Protocol):
    """A value for a placeholder that is written where the device wants it, in place of an array.

    Attributes:
        shape: of the array it stands for.
        dtype: likewise.
        kind: what it is made of: ``rows`` or ``pictures`` (`datasets.pictures`), whose attributes
            a device may look at to write it in a way of its own, with the same bits.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    kind: str

    def write_into(self, out: Array) -> None:
        """Writes the values into an array of that shape and dtype."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The values as an array."""


class Runner(Protocol):
    """A program made ready for one device, one set of shapes and fixed values."""

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Runs once; feeds are checked already. Results are the caller's to keep."""

    def describe(self) -> str:
        """The program as it runs, for people: operations, kernels, planned memory."""

    def profile(self, feeds: Mapping[str, Array]) -> list[StepTime]:
        """Runs once, step by step, and measures each."""

    @property
    def planned_bytes(self) -> int:
        """Memory planned for intermediate values; 0 where nothing is planned."""

    @property
    def held_bytes(self) -> int:
        """Memory of the variables and constants that runs use; 0 where it is not known."""


class OverlappingRunner(Runner, Protocol):
    """A runner that takes a run while others are under way."""

    def start(self, feeds: Mapping[str, Array]) -> Future[list[Array]]:
        """Starts a run, after all started before; feeds must not change until it is over."""


class Device(Protocol):
    """The only thing that knows hardware.

    Attributes:
        name: what users call it.
        overlaps: whether its runners are `OverlappingRunner`.
        defers: whether its runners take a `Deferred` for an array.
    """

    name: str
    overlaps: bool
    defers: bool

    def unavailable(self) -> str | None:
        """Why the device cannot be used here; None when it can."""

    def summary(self) -> str:
        """One line for people: which hardware, how many threads."""

    def supports(self, definition: OpDefinition) -> bool:
        """Whether an op is run as it stands; one that has a decomposition is spelled out else."""

    def new_state(self, variables: Mapping[str, Variable], variant: str) -> State:
        """Fresh values, each variable at its initial one."""

    def feed_array(self, shape: Sequence[int], dtype: DType) -> Array:
        """An array to be filled and fed, which the device reads without a copy if it can."""

    def prepare(
        self,
        graph: Graph,
        feeds: Mapping[Tensor, Shape],
        targets: Sequence[Tensor],
        operations: Sequence[Operation],
        values: Mapping[str, Array],
        state: State,
        variant: str,
        **options: Any,
    ) -> Runner:
        """Compiles; see `Graph.compile`."""


def located(error: FeedError, operation: Operation) -> FeedError:
    """The error with the operation it arose in, which a reference or kernel does not know."""
    where = f"  operation: '{operation.name}'\n  created at: {operation.created_at}"
    return FeedError(f"{error}\n{where}")


def get_device(name: str) -> tuple[Device, str]:
    """The device of that name and its variant (what follows a colon, as in ``reference:float64``).

    Raises:
        UnsupportedError: there is none of that name, or it cannot be used here.
    """
    base, _, variant = str(name).partition(":")
    if base not in DEVICES:
        raise UnsupportedError(
            describe("device", f"no device '{name}'", fix=nearest(base, DEVICES))
        )
    device: Device = importlib.import_module(DEVICES[base]).DEVICE
    reason = device.unavailable()
    if reason:
        raise UnsupportedError(
            describe(
                "device",
                f"'{base}' cannot be used here: {reason}",
                fix="device='reference' runs everywhere, slowly",
            )
        )
    return device, variant


def devices() -> dict[str, str]:
    """Every device with one line about it, those that cannot be used included.

    Example:
        >>> import stepgraph as sg
        >>> "reference" in sg.devices()
        True
    """
    lines = {}
    for name, module in DEVICES.items():
        device: Device = importlib.import_module(module).DEVICE
        reason = device.unavailable()
        lines[name] = f"not available: {reason}" if reason else device.summary()
    return lines
