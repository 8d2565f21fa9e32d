"""Copies operations while turning state into values: no assign, and no read behind one, is left.

An assign inside a branch becomes one more result of its ``if`` (the other branch hands on the value
the variable has by then), an assign inside a loop's body one more carried value. What is left of a
region is a pure function, so that it can be computed again for a gradient, inlined, or run by a
device that knows no order between reads and assigns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from stepgraph.graph.copying import copy_operation
from stepgraph.graph.operation import Block, Operation
from stepgraph.graph.tensor import Tensor

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph

Copy = Callable[[Operation, dict[Tensor, Tensor]], Sequence[Tensor]]


def assigned_variables(operation: Operation) -> list[Tensor]:
    """Variables that an operation assigns, be it an assign or control flow around some."""
    if operation.type == "assign":
        return [operation.inputs[0]]
    inner = [op for region in operation.regions for op in region.operations]
    return list(dict.fromkeys(v for op in inner for v in assigned_variables(op)))


class Lifter:
    """Copies operations in order, keeping track of what each variable holds by then.

    Attributes:
        graph: where the copies go.
        present: a variable of the source to the value it holds behind the assigns copied so far.
    """

    def __init__(self, graph: Graph, copy: Copy) -> None:
        self.graph = graph
        self.present: dict[Tensor, Tensor] = {}
        self._copy = copy
        self._after: dict[tuple[Operation, Tensor], Tensor] = {}
        self._owner: dict[Block, Operation] = {}
        self._loops: list[tuple[Block, Mapping[Tensor, Tensor]]] = []

    def visit(self, operation: Operation, mapping: dict[Tensor, Tensor]) -> Sequence[Tensor]:
        """The counterparts of an operation's outputs, made in the graph's current block."""
        if operation.type == "assign":
            variable, value = operation.inputs
            held = self.stored(mapping.get(value, value))
            self.present[variable] = self._after[operation, variable] = held
            return ()
        if operation.type == "read":
            return (self._read(operation, mapping),)
        if operation.regions:
            return self._control_flow(operation, mapping)
        return self._copy(operation, mapping)

    def stored(self, value: Tensor) -> Tensor:
        """What a read behind an assign of `value` gives."""
        return value

    def start(
        self, variable: Tensor, operation: Operation, mapping: Mapping[Tensor, Tensor]
    ) -> Tensor:
        """What a variable holds before an operation when nothing copied so far assigned it."""
        return mapping.get(variable, variable)

    def read_outside(self, operation: Operation, mapping: Mapping[Tensor, Tensor]) -> Tensor:
        """The value of a read behind an assign that is not among what is copied."""
        raise AssertionError(f"the assign before '{operation.name}' was not copied")

    def run(
        self,
        operation: Operation,
        region: Block,
        arguments: Sequence[Tensor],
        mapping: Mapping[Tensor, Tensor],
        states: Mapping[Tensor, Tensor],
    ) -> list[Tensor]:
        """Copies a region into the graph's current block.

        Args:
            operation: whose region.
            region: which.
            arguments: what its parameters become.
            mapping: counterparts of what it captures.
            states: the variables it assigns, with the value each holds at its start.

        Returns:
            Counterparts of the region's results, then what each of `states` holds at its end.
        """
        self._owner[region] = operation
        local = {**mapping, **dict(zip(region.parameters, arguments, strict=True))}
        outer, self.present = self.present, {**self.present, **states}
        looping = operation.type != "if"
        if looping:
            # Trips follow each other, so that even an unordered read sees what the last one stored.
            local.update(states)
            self._loops.append((region, states))
        try:
            for inner in region.operations:
                if inner.type != "parameter":
                    local.update(zip(inner.outputs, self.visit(inner, local), strict=True))
            results = [local.get(t, t) for t in region.results]
            return results + [self.present[v] for v in states]
        finally:
            self.present = outer
            if looping:
                self._loops.pop()

    def initial(
        self, operation: Operation, mapping: Mapping[Tensor, Tensor]
    ) -> dict[Tensor, Tensor]:
        """The variables that control flow assigns, with what each holds before it."""
        return {
            v: self.present[v] if v in self.present else self.start(v, operation, mapping)
            for v in assigned_variables(operation)
        }

    def _read(self, operation: Operation, mapping: Mapping[Tensor, Tensor]) -> Tensor:
        variable = operation.inputs[0]
        if not operation.control_inputs:
            return mapping.get(variable, variable)
        source: Operation | None = operation.control_inputs[0]
        assert source is not None
        for body, states in reversed(self._loops):
            if variable in states:
                if not body.encloses(source.block):
                    return mapping.get(variable, variable)
                break
        while source is not None and not source.block.encloses(operation.block):
            source = self._owner.get(source.block)
        found = self._after.get((source, variable)) if source else None
        return self.read_outside(operation, mapping) if found is None else found

    def _control_flow(
        self, operation: Operation, mapping: dict[Tensor, Tensor]
    ) -> Sequence[Tensor]:
        states = self.initial(operation, mapping)
        explicit = operation.attributes["explicit"]
        inputs = [mapping.get(t, t) for t in operation.inputs[:explicit]]
        if operation.type != "if":
            inputs += states.values()
        regions = tuple(
            self._region(operation, region, inputs, mapping, states) for region in operation.regions
        )
        with self.graph._created_at(operation.created_at):
            made = self.graph._add_with_regions(
                operation.definition,
                inputs,
                operation.attributes,
                regions,
                name=operation.name.rsplit("/", 1)[-1] if self.graph._scopes else operation.name,
            )
        count = len(operation.outputs)
        for variable, tensor in zip(states, made.outputs[count:], strict=True):
            self.present[variable] = self._after[operation, variable] = tensor
        return made.outputs[:count]

    def _region(
        self,
        operation: Operation,
        region: Block,
        inputs: Sequence[Tensor],
        mapping: Mapping[Tensor, Tensor],
        states: Mapping[Tensor, Tensor],
    ) -> Block:
        specs = []
        if operation.type != "if":
            # The carried values' specs as they are by now: sizes and dtypes may have been settled.
            carried = len(operation.outputs)
            leading = region.parameters[: len(region.parameters) - carried]
            specs = [p.spec for p in leading]
            specs += [t.spec for t in inputs[len(inputs) - carried - len(states) :]]

        def body(arguments: list[Tensor]) -> list[Tensor]:
            count = len(region.parameters)
            local = states
            if operation.type != "if":
                local = dict(zip(states, arguments[count:], strict=True))
            results = self.run(operation, region, arguments[:count], mapping, local)
            is_condition = operation.type == "while" and region is operation.regions[0]
            return results[: len(region.results)] if is_condition else results

        return self.graph._region(specs, body)


class GradientLifter(Lifter):
    """Copies a region of a graph into the same graph, to be computed again for a gradient."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(
            graph, lambda operation, mapping: copy_operation(graph, operation, mapping)
        )

    def stored(self, value: Tensor) -> Tensor:
        """State is not differentiated through."""
        return self.graph.stop_gradient(value) if value.dtype.is_float else value

    def start(
        self, variable: Tensor, operation: Operation, mapping: Mapping[Tensor, Tensor]
    ) -> Tensor:
        """The value behind the last assign ordered before the operation."""
        from stepgraph.graph.ops.memory import _assign_before

        preceding = (*operation.control_inputs, *(t.operation for t in operation.inputs))
        before = _assign_before(variable, preceding)
        if before is None:
            return mapping.get(variable, variable)
        return self._reading(variable, (before, *preceding))

    def read_outside(self, operation: Operation, mapping: Mapping[Tensor, Tensor]) -> Tensor:
        """The same read once more."""
        return self._reading(operation.inputs[0], operation.control_inputs)

    def _reading(self, variable: Tensor, control: tuple[Operation, ...]) -> Tensor:
        from stepgraph.graph.ops.memory import READ

        with self.graph._ordered_after(control):
            return self.graph._one(READ, (variable,))
