"""From the user's graph to a program: prune, settle sizes and dtypes, settle state.

After this every size is known, nothing depends on control edges, each variable is read at its start
and written once at its end: an ordered read has become the assigned tensor itself. Backends need not
order reads and assigns, which vendors' frameworks do not do reliably.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stepgraph.compiler.program import Program
from stepgraph.errors import GraphError, describe
from stepgraph.graph.copying import copy_region
from stepgraph.graph.dtypes import DType, float32
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.memory import PLACEHOLDER, VARIABLE, _assign_before
from stepgraph.graph.shapes import Shape
from stepgraph.graph.tensor import Tensor, Variable


def capture(
    graph: Graph,
    feeds: Mapping[Tensor, Shape],
    targets: Sequence[Tensor],
    operations: Sequence[Operation],
    float_dtype: DType | None = None,
) -> Program:
    """Copies what targets and operations need into a program of known sizes.

    Args:
        graph: the user's graph; not changed.
        feeds: placeholders with their full shapes.
        targets: tensors to return.
        operations: operations that must happen.
        float_dtype: computes every float32 tensor in this dtype instead (the float64 oracle).

    Raises:
        GraphError: two assigns to one variable are not ordered.
        ShapeError: with the sizes known, an operation does not fit.
    """
    return _Capture(graph, feeds, float_dtype).run(targets, operations)


class _Capture:
    def __init__(
        self, source: Graph, feeds: Mapping[Tensor, Shape], float_dtype: DType | None
    ) -> None:
        self.source = source
        self.feeds = feeds
        self.float_dtype = float_dtype
        self.program = Program(Graph(source.name))
        self.mapping: dict[Tensor, Tensor] = {}
        self.assigned: dict[Operation, Tensor] = {}

    def run(self, targets: Sequence[Tensor], operations: Sequence[Operation]) -> Program:
        live = live_operations(targets, operations)
        _refuse_unordered(live)
        for operation in live:
            if operation.block is self.source.block:
                outputs = self.visit(operation, self.mapping)
                assert outputs is not None
                self.mapping.update(zip(operation.outputs, outputs, strict=True))
        program = self.program
        program.feeds = {t.name: self.mapping[t] for t in self.feeds if t in self.mapping}
        program.targets = [self.mapping[t] for t in targets]
        return program

    def visit(self, operation: Operation, mapping: dict[Tensor, Tensor]) -> Sequence[Tensor]:
        """The counterpart of one operation, in the current block of the program's graph."""
        graph = self.program.graph
        kind = operation.type
        with graph._created_at(operation.created_at):
            if kind == "placeholder":
                shape = self.feeds[operation.output]
                attributes = {"shape": shape, "dtype": self.dtype(operation.output.dtype)}
                return graph._add(PLACEHOLDER, (), attributes, name=operation.name).outputs
            if kind == "variable":
                attributes = {
                    "shape": operation.output.shape,
                    "dtype": self.dtype(operation.output.dtype),
                }
                tensor = graph._add(VARIABLE, (), attributes, name=operation.name).output
                self.program.variables[operation.output.name] = tensor
                return (tensor,)
            if kind == "assign":
                variable, value = operation.inputs
                self.assigned[operation] = mapping[value]
                self.program.updates[variable.name] = mapping[value]
                return ()
            if kind == "read":
                before = operation.control_inputs
                return (self.assigned[before[0]] if before else mapping[operation.inputs[0]],)
            return self.copy(operation, mapping)

    def copy(self, operation: Operation, mapping: dict[Tensor, Tensor]) -> Sequence[Tensor]:
        graph, definition = self.program.graph, operation.definition
        attributes = {k: self.attribute(v) for k, v in operation.attributes.items()}
        if definition.shape_only and definition.decompose:
            inputs = [mapping[t] for t in operation.inputs]
            made = definition.decompose(graph, *inputs, **attributes)
            return (made,) if isinstance(made, Tensor) else made
        explicit = attributes.get("explicit", len(operation.inputs))
        inputs = [mapping[t] for t in operation.inputs[:explicit]]
        if not operation.regions:
            return graph._add(definition, inputs, attributes, name=operation.name).outputs
        regions = tuple(copy_region(graph, r, mapping, self.visit) for r in operation.regions)
        return graph._add_with_regions(
            definition, inputs, attributes, regions, name=operation.name
        ).outputs

    def dtype(self, dtype: DType) -> DType:
        return self.float_dtype if self.float_dtype and dtype == float32 else dtype

    def attribute(self, value: Any) -> Any:
        if isinstance(value, DType):
            return self.dtype(value)
        if isinstance(value, np.ndarray) and self.float_dtype and value.dtype == np.float32:
            flat = value.strides == (0,) * value.ndim and value.size
            if flat:
                return np.broadcast_to(value.flat[0].astype(self.float_dtype.numpy), value.shape)
            return value.astype(self.float_dtype.numpy)
        return value


def live_operations(
    targets: Sequence[Tensor], operations: Sequence[Operation]
) -> list[Operation]:
    """What targets and operations need: inputs, control inputs, and all inside their regions."""
    live: set[Operation] = set()
    stack = [*(t.operation for t in targets), *operations]
    while stack:
        operation = stack.pop()
        if operation in live:
            continue
        live.add(operation)
        stack.extend(t.operation for t in operation.inputs)
        stack.extend(operation.control_inputs)
        for region in operation.regions:
            stack.extend(region.operations)
    return sorted(live, key=lambda op: op.serial)


def _refuse_unordered(live: Sequence[Operation]) -> None:
    """Two assigns to one variable in one run need an order, or the result is luck."""
    last: dict[Tensor, Operation] = {}
    for operation in live:
        if operation.type != "assign":
            continue
        variable = operation.inputs[0]
        assert isinstance(variable, Variable)
        before = last.get(variable)
        ordered = before is None or _assign_before(variable, operation.control_inputs) is not None
        if not ordered and before is not None and before.block is operation.block:
            raise GraphError(
                describe(
                    "compile",
                    f"two unordered assigns to variable '{variable.name}' in one run",
                    got={
                        before.name: f"created at {before.created_at}",
                        operation.name: f"created at {operation.created_at}",
                    },
                    fix="leave one out, or order them: graph.control_dependency([first], lambda: ...)",
                )
            )
        last[variable] = operation
