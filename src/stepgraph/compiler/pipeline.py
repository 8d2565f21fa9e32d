"""The order of the passes, each of which can be switched off by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from stepgraph.compiler.capture import capture
from stepgraph.compiler.collapse import collapse
from stepgraph.compiler.common import merge_common
from stepgraph.compiler.decompose import decompose
from stepgraph.compiler.fold import fold
from stepgraph.compiler.program import Program
from stepgraph.compiler.prune import prune
from stepgraph.compiler.random_step import advance_random_step
from stepgraph.compiler.simplify import simplify
from stepgraph.compiler.specialise import specialise
from stepgraph.errors import GraphError, describe, nearest
from stepgraph.graph.definition import Array, OpDefinition
from stepgraph.graph.dtypes import DType
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import Shape
from stepgraph.graph.tensor import Tensor

Pass = Callable[[Program], Program]

# Passes every device gets, in order. Each leaves an equivalent program.
PASSES: dict[str, Pass] = {
    "prune": prune,
    "fold": fold,
    "collapse": collapse,
    "simplify": simplify,
    "merge_common": merge_common,
}


def compile_program(
    graph: Graph,
    feeds: Mapping[Tensor, Shape],
    targets: Sequence[Tensor],
    operations: Sequence[Operation],
    *,
    values: Mapping[str, Array] | None = None,
    supports: Callable[[OpDefinition], bool] = lambda definition: True,
    float_dtype: DType | None = None,
    passes: Mapping[str, Pass] = PASSES,
    disable: Collection[str] = (),
) -> Program:
    """Runs every pass that is not switched off.

    Args:
        graph: the user's graph; not changed.
        feeds: placeholders with their full shapes.
        targets: tensors to return.
        operations: operations that must happen.
        values: feeds whose values are fixed, by name.
        supports: which ops the device lowers itself; others are decomposed.
        float_dtype: computes float32 tensors in this dtype instead.
        passes: the passes and their order.
        disable: names of passes to leave out.

    Raises:
        GraphError: a name in `disable` is no pass.
    """
    for name in disable:
        if name not in passes:
            raise GraphError(describe("disable", f"no pass '{name}'", fix=nearest(name, passes)))
    program = capture(graph, feeds, targets, operations, float_dtype)
    program = specialise(program, values or {})
    step = graph._random_step
    program = advance_random_step(program, step.name if step is not None else None)
    program = decompose(program, supports)
    for name, run in passes.items():
        if name not in disable:
            program = run(program)
    return program
