"""Copying operations into a graph, with other inputs: the base of every rewrite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from stepgraph.graph.operation import Block, Operation
from stepgraph.graph.tensor import Tensor

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph

Mapping = dict[Tensor, Tensor]
Visitor = Callable[[Operation, Mapping], "Sequence[Tensor] | None"]


def copy_operation(
    graph: Graph, operation: Operation, mapping: Mapping, visit: Visitor | None = None
) -> Sequence[Tensor]:
    """Copies one operation (regions included) into the current block of `graph`.

    Args:
        graph: where to.
        operation: what.
        mapping: tensors of the source to their counterparts; those missing stand for themselves,
            which is right for what a block captures when it is copied within its own graph.
        visit: may replace operations inside the regions.

    Returns:
        The copy's outputs.
    """
    explicit = operation.attributes.get("explicit", len(operation.inputs))
    inputs = [mapping.get(t, t) for t in operation.inputs[:explicit]]
    name = operation.name.rsplit("/", 1)[-1] if graph._scopes else operation.name
    if not operation.regions:
        return graph._add_copy(operation, inputs, name).outputs
    with graph._created_at(operation.created_at):
        regions = tuple(copy_region(graph, region, mapping, visit) for region in operation.regions)
        return graph._add_with_regions(
            operation.definition, inputs, operation.attributes, regions, name=name
        ).outputs


def copy_region(
    graph: Graph, region: Block, mapping: Mapping, visit: Visitor | None = None
) -> Block:
    """Copies a region, to be used by a copy of its operation."""
    specs = [p.spec for p in region.parameters]
    return graph._region(specs, lambda args: inline(graph, region, args, mapping, visit))


def inline(
    graph: Graph,
    region: Block,
    arguments: Sequence[Tensor],
    mapping: Mapping | None = None,
    visit: Visitor | None = None,
    results: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Copies what a region's results need into the current block of `graph`.

    The region must be free of effects.

    Args:
        graph: where to.
        region: whose operations.
        arguments: what its parameters become.
        mapping: counterparts of what it captures.
        visit: ``visit(operation, mapping)`` may return replacements for the outputs.
        results: what is wanted of the region; its results without it.

    Returns:
        The counterparts of the results.
    """
    local = dict(mapping or {})
    local.update(zip(region.parameters, arguments, strict=True))
    for operation in needed(region, results):
        outputs = visit(operation, local) if visit else None
        if outputs is None:
            outputs = copy_operation(graph, operation, local, visit)
        local.update(zip(operation.outputs, outputs, strict=True))
    return [local.get(t, t) for t in (region.results if results is None else results)]


def needed(region: Block, results: Sequence[Tensor] | None = None) -> list[Operation]:
    """The operations that a region's results, or some of its tensors, need; in order."""
    live: set[Operation] = set()
    stack = [t.operation for t in (region.results if results is None else results)]
    while stack:
        operation = stack.pop()
        if operation.block is region and operation not in live:
            live.add(operation)
            stack.extend(t.operation for t in operation.inputs)
    return [op for op in region.operations if op in live and op.type != "parameter"]
