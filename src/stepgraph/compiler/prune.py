"""Results of control flow that nobody reads are no longer computed.

A branch drops them; a loop drops carried values that reach nothing but themselves, such as the
history of a value that a gradient turned out not to need.
"""

from __future__ import annotations

from collections.abc import Sequence

from stepgraph.compiler.program import Program, Rewriter
from stepgraph.graph.operation import Block, Operation
from stepgraph.graph.shapes import known_shape
from stepgraph.graph.tensor import Tensor


def prune(program: Program) -> Program:
    """Removes unread results of branches and loops, those of nested ones included."""
    kept: dict[Operation, list[int]] = {}
    live = set(program.results())
    _mark(program.operations(), live, kept)
    if all(len(indices) == len(operation.outputs) for operation, indices in kept.items()):
        return program

    def visit(rewriter: Rewriter, operation: Operation) -> Sequence[Tensor] | None:
        if live.isdisjoint(operation.outputs):
            return [_unread(rewriter, t) for t in operation.outputs]
        indices = kept.get(operation)
        if indices is None or len(indices) == len(operation.outputs):
            return None
        return _without(rewriter, operation, indices)

    return Rewriter(program).run(visit)


def _mark(
    operations: Sequence[Operation], live: set[Tensor], kept: dict[Operation, list[int]]
) -> None:
    """Adds what the live tensors need to `live`, and to `kept` which results control flow keeps."""
    for operation in reversed(operations):
        if operation.regions:
            _mark_control_flow(operation, live, kept)
        elif not live.isdisjoint(operation.outputs):
            live.update(operation.inputs)


def _mark_control_flow(
    operation: Operation, live: set[Tensor], kept: dict[Operation, list[int]]
) -> None:
    indices = {i for i, t in enumerate(operation.outputs) if t in live}
    bodies, carried = _carried(operation)
    if not indices:
        kept[operation] = []
        return
    while True:
        for region in operation.regions:
            results = region.results
            live.update(results if region not in bodies else (results[i] for i in indices))
            _mark(region.operations, live, kept)
        # What a parameter is needed for is needed in the trip before, too.
        needed = {
            i
            for region in operation.regions
            for i, t in enumerate(region.parameters[len(region.parameters) - carried :])
            if t in live
        }
        if needed <= indices:
            break
        indices |= needed
    kept[operation] = sorted(indices)
    explicit = operation.attributes["explicit"]
    live.update(operation.inputs[: explicit - carried])
    live.update(operation.inputs[explicit - carried + i] for i in indices if carried)


def _carried(operation: Operation) -> tuple[Sequence[Block], int]:
    """The regions whose results are the operation's, and how many values it carries."""
    if operation.type == "if":
        return operation.regions, 0
    return operation.regions[-1:], len(operation.outputs)


def _without(rewriter: Rewriter, operation: Operation, indices: Sequence[int]) -> Sequence[Tensor]:
    """The operation with only some of its results, and something nobody reads for the others."""
    graph = rewriter.graph
    bodies, carried = _carried(operation)
    explicit = operation.attributes["explicit"]
    inputs = [rewriter.mapping[t] for t in operation.inputs[:explicit]]
    leading, initial = inputs[: explicit - carried], inputs[explicit - carried :]
    chosen = [initial[i] for i in indices] if carried else []

    def reduced(region: Block) -> Block:
        first = len(region.parameters) - carried
        wanted = [region.results[i] for i in indices] if region in bodies else region.results

        def body(arguments: list[Tensor]) -> list[Tensor]:
            values = arguments[:first] + [_unread(rewriter, p) for p in region.parameters[first:]]
            for i, argument in zip(indices if carried else (), arguments[first:], strict=True):
                values[first + i] = argument
            return rewriter.inline(region, values, wanted)

        specs = [p.spec for p in region.parameters[:first]] + [t.spec for t in chosen]
        return graph._region(specs, body)

    made = graph._add_with_regions(
        operation.definition,
        [*leading, *chosen],
        operation.attributes,
        tuple(reduced(region) for region in operation.regions),
        name=operation.name,
    )
    outputs = [_unread(rewriter, t) for t in operation.outputs]
    for i, tensor in zip(indices, made.outputs, strict=True):
        outputs[i] = tensor
    return outputs


def _unread(rewriter: Rewriter, tensor: Tensor) -> Tensor:
    """Something of a tensor's shape and dtype, for what is copied although nobody reads it."""
    return rewriter.graph.constant(0, shape=known_shape(tensor.shape), dtype=tensor.dtype)
