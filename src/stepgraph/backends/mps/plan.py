"""What memory a step needs, as far as that can be told without the framework."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from stepgraph.backends.mps.builder import extents, is_empty, is_uniform
from stepgraph.compiler.program import Program
from stepgraph.graph.operation import Operation
from stepgraph.graph.tensor import Tensor

# Their result is their input's memory under another shape.
_VIEWS = frozenset({"reshape", "identity", "squeeze", "expand_dims", "flatten_2d"})


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of one run.

    An estimate: MPSGraph plans its memory itself and says nothing about it. It is also known to
    keep all activations of a compiled forward and backward pass, so what it takes lies between
    `peak` and `unshared` beside the rest; ``currentAllocatedSize`` of the device tells.

    Attributes:
        variables: weights, optimizer slots, moving statistics.
        constants: numbers in the graph.
        ports: buffers of feeds and results of one run; each further one under way adds as much.
        peak: most that intermediate values take at a time, each freed after its last use, new
            values of variables at the end of the run, where they are assigned.
        unshared: what they take if none is freed.
    """

    variables: int
    constants: int
    ports: int
    peak: int
    unshared: int

    @property
    def total(self) -> int:
        """Everything, with intermediate values freed after their last use."""
        return self.variables + self.constants + self.ports + self.peak

    def __str__(self) -> str:
        parts = (
            ("variables", self.variables),
            ("constants", self.constants),
            ("feeds and results", self.ports),
            ("intermediate values", self.peak),
        )
        listed = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in parts)
        return (
            f"planned {self.total / 1e6:.1f} MB: {listed} "
            f"({self.unshared / 1e6:.1f} MB if none is freed)"
        )


def plan_memory(program: Program) -> MemoryPlan:
    """The memory plan of a program.

    Args:
        program: after all passes.
    """
    operations = program.operations()
    owner = _owners(operations)
    values = [t for op in operations for t in op.outputs if owner[t] is t and not _is_given(op)]
    given = (op.output for op in operations if op.type == "constant")
    constants = [t for t in given if not is_empty(t)]
    targets = {owner[t] for t in program.targets}
    peak = _peak(operations, owner, {owner[t] for t in program.results()})
    return MemoryPlan(
        variables=_bytes(program.variables.values()),
        constants=_bytes(t for t in constants if not is_uniform(t.operation.attributes["value"])),
        ports=_bytes({*program.feeds.values(), *targets}),
        peak=peak,
        unshared=_bytes(values),
    )


def _peak(operations: list[Operation], owner: dict[Tensor, Tensor], kept: set[Tensor]) -> int:
    last: dict[Tensor, Operation] = {}
    for operation in operations:
        for tensor in operation.inputs:
            last[owner[tensor]] = operation
    held = most = 0
    for operation in operations:
        if _is_given(operation):
            continue
        held += _bytes(t for t in operation.outputs if owner[t] is t)
        most = max(most, held)
        ended = {owner[t] for t in (*operation.inputs, *operation.outputs)}
        held -= _bytes(
            t
            for t in ended
            if last.get(t, operation) is operation and t not in kept and not _is_given(t.operation)
        )
    return most


def _owners(operations: list[Operation]) -> dict[Tensor, Tensor]:
    """Whose memory each tensor lies in."""
    owner: dict[Tensor, Tensor] = {}
    for operation in operations:
        for tensor in operation.outputs:
            view = operation.type in _VIEWS and not _is_given(operation.inputs[0].operation)
            owner[tensor] = owner[operation.inputs[0]] if view else tensor
    return owner


def _is_given(operation: Operation) -> bool:
    return operation.type in ("placeholder", "variable", "constant")


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(prod(extents(t)) * t.dtype.size for t in tensors)
