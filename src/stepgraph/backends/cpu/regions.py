"""Control flow: Python decides what runs next, and each region is a program of its own.

What a region reads from outside, and what a loop carries from trip to trip, are variables of these
programs: captured weights are brought into the layout that the kernels want once per loop, carried
values are updated in place and are copied out only behind the last trip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stepgraph.backends.cpu.native.pool import Pool, shared_pool
from stepgraph.backends.cpu.state import CpuState
from stepgraph.compiler.program import Program
from stepgraph.graph.copying import inline, needed
from stepgraph.graph.definition import Array
from stepgraph.graph.dtypes import DType
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Block, Operation
from stepgraph.graph.ops.memory import PLACEHOLDER, VARIABLE
from stepgraph.graph.shapes import known_shape
from stepgraph.graph.tensor import Tensor

if TYPE_CHECKING:
    from stepgraph.backends.cpu.device import CpuRunner

Run = Callable[[Mapping[Tensor, Array]], list[Array]]


def region_function(
    operation: Operation, distinct: Sequence[Tensor], threads: int
) -> Callable[[Sequence[Array]], Sequence[Array]]:
    """Compiles a control-flow operation's regions.

    Args:
        operation: an ``if``, ``for`` or ``while``.
        distinct: its inputs, each once.
        threads: how many run the regions' kernels.

    Returns:
        From arrays in the order of `distinct` to the operation's outputs.
    """
    regions = _Regions(operation, threads)
    run = RUNS[operation.type](regions)

    def function(arrays: Sequence[Array]) -> Sequence[Array]:
        values = dict(zip(distinct, arrays, strict=True))
        regions.enter(values)
        return run(values)

    return function


@dataclass(frozen=True)
class _Place:
    """What the state needs to know of a variable."""

    shape: tuple[int, ...]
    dtype: DType

    @property
    def initial(self) -> Array:
        return np.zeros(self.shape, self.dtype.numpy)


class _Regions:
    """The regions of one operation, over one set of variables.

    Attributes:
        operation: whose regions.
        state: the variables: ``captured0``... and ``carried0``...
    """

    def __init__(self, operation: Operation, threads: int) -> None:
        self.operation = operation
        self._pool = _pool_of(threads)
        self._places: dict[str, _Place] = {}
        self._captured: dict[Tensor, str] = {}
        self.state = CpuState(self._places)  # type: ignore[arg-type]
        explicit = operation.attributes.get("explicit", len(operation.inputs))
        first = {"for": 1, "if": explicit}.get(operation.type, 0)
        self.initial = operation.inputs[first:explicit]
        for k, tensor in enumerate(self.initial):
            self._places[f"carried{k}"] = _place(tensor)

    def enter(self, values: Mapping[Tensor, Array]) -> None:
        """Sets the variables before anything runs."""
        for tensor, name in self._captured.items():
            self.state.write(name, values[tensor])
        for k, tensor in enumerate(self.initial):
            self.state.write(f"carried{k}", values[tensor])

    def carried(self) -> list[Array]:
        """Copies of the carried values."""
        return [self.state.read(f"carried{k}") for k in range(len(self.initial))]

    def compile(self, region: Block, updates: bool) -> CpuRunner:
        """A program of a region.

        Args:
            region: its parameters are the carried values, behind an index if there is one more.
            updates: its results become the carried values; otherwise they are returned.
        """
        from stepgraph.backends.cpu.device import CpuRunner

        graph = Graph(self.operation.name)
        program = Program(graph)
        arguments: list[Tensor] = []
        for parameter in region.parameters[: len(region.parameters) - len(self.initial)]:
            attributes = {"shape": parameter.shape, "dtype": parameter.dtype}
            index = graph._add(PLACEHOLDER, (), attributes, name="index").output
            program.feeds["index"] = index
            arguments.append(index)
        if len(region.parameters) > 0:
            arguments += [self._variable(program, f"carried{k}") for k in range(len(self.initial))]
        mapping = {t: self._capture(program, t) for t in _captured(region)}
        results = inline(graph, region, arguments, mapping)
        if updates:
            carried = arguments[len(arguments) - len(self.initial) :]
            program.updates = {
                f"carried{k}": result
                for k, (result, own) in enumerate(zip(results, carried, strict=True))
                if result is not own
            }
        else:
            program.targets = results
        return CpuRunner(program, self.state, self._pool, ())

    def _capture(self, program: Program, tensor: Tensor) -> Tensor:
        if tensor.operation.type == "constant":
            return program.graph.constant(tensor.operation.attributes["value"], dtype=tensor.dtype)
        name = self._captured.setdefault(tensor, f"captured{len(self._captured)}")
        self._places[name] = _place(tensor)
        return self._variable(program, name)

    def _variable(self, program: Program, name: str) -> Tensor:
        place = self._places[name]
        attributes = {"shape": place.shape, "dtype": place.dtype}
        made = program.graph._add(VARIABLE, (), attributes, name=name).output
        program.variables[name] = made
        return made


def _place(tensor: Tensor) -> _Place:
    return _Place(known_shape(tensor.shape), tensor.dtype)


def _captured(region: Block) -> list[Tensor]:
    """Tensors of blocks around a region that its results are made of."""
    used = [t for op in needed(region, region.results) for t in op.inputs]
    outside = [t for t in (*used, *region.results) if t.operation.block is not region]
    return list(dict.fromkeys(outside))


def _pool_of(threads: int) -> Pool:
    from stepgraph.backends.cpu.device import _pool

    shared = shared_pool()
    return shared if shared.threads == threads else _pool(threads)


def _true(predicate: Array) -> bool:
    return bool(predicate.reshape(-1)[0])


def _if(regions: _Regions) -> Run:
    then, other = (regions.compile(region, False) for region in regions.operation.regions)
    predicate = regions.operation.inputs[0]
    return lambda values: (then if _true(values[predicate]) else other).run({})


def _for(regions: _Regions) -> Run:
    operation = regions.operation
    settings, iterations = operation.attributes, operation.inputs[0]
    body = regions.compile(operation.regions[0], True)

    def run(values: Mapping[Tensor, Array]) -> list[Array]:
        count = int(values[iterations].reshape(-1)[0])
        if settings["maximum_iterations"] is not None:
            count = min(count, settings["maximum_iterations"])
        for trip in range(count):
            index = np.array(settings["lower_bound"] + trip * settings["step"], np.int32)
            body.run({"index": index})
        return regions.carried()

    return run


def _while(regions: _Regions) -> Run:
    operation = regions.operation
    before = regions.compile(operation.regions[0], False)
    after = regions.compile(operation.regions[1], True)
    maximum = operation.attributes["maximum_iterations"]

    def run(values: Mapping[Tensor, Array]) -> list[Array]:
        trip = 0
        while (maximum is None or trip < maximum) and _true(before.run({})[0]):
            after.run({})
            trip += 1
        return regions.carried()

    return run


RUNS: dict[str, Callable[[_Regions], Run]] = {"if": _if, "for": _for, "while": _while}
