"""A run that draws random numbers leaves the graph's step one further for the next."""

from __future__ import annotations

from collections.abc import Iterator

from stepgraph.compiler.program import Program
from stepgraph.graph.operation import Operation


def advance_random_step(program: Program, name: str | None) -> Program:
    """Adds the update of the random step where an operation still draws from it.

    To be run once conditionals on fixed values are gone: an evaluation whose dropout was cut away
    must not change what training draws next.

    Args:
        program: changed in place.
        name: of the graph's `random_step`; None where it has none.
    """
    if name is None or name in program.updates or name not in program.variables:
        return program
    step = program.variables[name]
    drawn = any(
        "stream" in operation.attributes and any(t is step for t in operation.inputs)
        for operation in _with_regions(program.operations())
    )
    if drawn:
        program.updates[name] = program.graph.addition(step, 1)
    return program


def _with_regions(operations: list[Operation]) -> Iterator[Operation]:
    for operation in operations:
        yield operation
        for region in operation.regions:
            yield from _with_regions(region.operations)
