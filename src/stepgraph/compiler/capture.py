"""From the user's graph to a program: prune, settle sizes and dtypes, settle state.

After this every size is known, nothing depends on control edges, each variable is read at its start
and written once at its end: an ordered read has become the assigned tensor itself, an assign inside
control flow one more of its results. Backends need not order reads and assigns, which vendors'
frameworks do not do reliably.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stepgraph.compiler.program import Program
from stepgraph.errors import GraphError, describe
from stepgraph.graph.dtypes import DType, float32
from stepgraph.graph.graph import Graph
from stepgraph.graph.lifting import Lifter, assigned_variables
from stepgraph.graph.operation import Block, Operation
from stepgraph.graph.ops.memory import PLACEHOLDER, VARIABLE
from stepgraph.graph.shapes import Shape
from stepgraph.graph.tensor import Tensor


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
        self.lifter = Lifter(self.program.graph, self.copy)

    def run(self, targets: Sequence[Tensor], operations: Sequence[Operation]) -> Program:
        live = live_operations(targets, operations)
        _refuse_unordered(live)
        for operation in live:
            if operation.block is self.source.block:
                outputs = self.visit(operation, self.mapping)
                assert outputs is not None
                self.mapping.update(zip(operation.outputs, outputs, strict=True))
        program = self.program
        program.updates = {v.name: t for v, t in self.lifter.present.items()}
        program.feeds = {t.name: self.mapping[t] for t in self.feeds if t in self.mapping}
        program.targets = [self.mapping[t] for t in targets]
        return program

    def visit(self, operation: Operation, mapping: dict[Tensor, Tensor]) -> Sequence[Tensor]:
        """The counterpart of one operation of the graph's own block."""
        graph = self.program.graph
        with graph._created_at(operation.created_at):
            if operation.type == "placeholder":
                shape = self.feeds[operation.output]
                attributes = {"shape": shape, "dtype": self.dtype(operation.output.dtype)}
                return graph._add(PLACEHOLDER, (), attributes, name=operation.name).outputs
            if operation.type == "variable":
                attributes = {
                    "shape": operation.output.shape,
                    "dtype": self.dtype(operation.output.dtype),
                }
                tensor = graph._add(VARIABLE, (), attributes, name=operation.name).output
                self.program.variables[operation.output.name] = tensor
                return (tensor,)
        return self.lifter.visit(operation, mapping)

    def copy(self, operation: Operation, mapping: dict[Tensor, Tensor]) -> Sequence[Tensor]:
        """The counterpart of an operation without regions, in the program's current block."""
        graph, definition = self.program.graph, operation.definition
        attributes = {k: self.attribute(v) for k, v in operation.attributes.items()}
        inputs = [mapping[t] for t in operation.inputs]
        with graph._created_at(operation.created_at):
            if definition.shape_only and definition.decompose:
                made = definition.decompose(graph, *inputs, **attributes)
                return (made,) if isinstance(made, Tensor) else made
            return graph._add(definition, inputs, attributes, name=operation.name).outputs

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


def live_operations(targets: Sequence[Tensor], operations: Sequence[Operation]) -> list[Operation]:
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
    """Two assigns to one variable in one run need an order, or the result is luck.

    Control flow counts as an assign to every variable assigned inside; its blocks are looked at by
    themselves, so that one assign in each branch is fine.
    """
    last: dict[tuple[Block, Tensor], Operation] = {}
    for operation in live:
        for variable in assigned_variables(operation):
            before = last.get((operation.block, variable))
            if before is not None and not _is_ordered(before, operation, variable):
                first, second = _assign_in(before, variable), _assign_in(operation, variable)
                raise GraphError(
                    describe(
                        "compile",
                        f"two unordered assigns to variable '{variable.name}' in one run",
                        got={
                            first.name: f"created at {first.created_at}",
                            second.name: f"created at {second.created_at}",
                        },
                        fix="leave one out, or order them: "
                        "graph.control_dependency([first], lambda: ...)",
                    )
                )
            last[operation.block, variable] = operation


def _is_ordered(before: Operation, after: Operation, variable: Tensor) -> bool:
    """Whether every assign in `after` follows one in `before`."""
    goals = {before, *_assigns(before, variable)}
    if goals & _ancestors(after):
        return True
    inner = _assigns(after, variable)
    return after not in inner and all(goals & _ancestors(assign) for assign in inner)


def _ancestors(operation: Operation) -> set[Operation]:
    """What must have happened before an operation."""
    found: set[Operation] = set()
    stack = [*operation.control_inputs, *(t.operation for t in operation.inputs)]
    while stack:
        current = stack.pop()
        if current not in found:
            found.add(current)
            stack.extend(current.control_inputs)
            stack.extend(t.operation for t in current.inputs)
    return found


def _assigns(operation: Operation, variable: Tensor) -> list[Operation]:
    if operation.type == "assign":
        return [operation] if operation.inputs[0] is variable else []
    inner = [op for region in operation.regions for op in region.operations]
    return [assign for op in inner for assign in _assigns(op, variable)]


def _assign_in(operation: Operation, variable: Tensor) -> Operation:
    return _assigns(operation, variable)[0]
