"""Variables in the shapes that the program computes with.

An attention's kernel is a variable (features, heads, size) that every product reads as a matrix.
Kept in its own shape, each step would copy it for the product, and its gradient for the update.
Here the program's variable becomes the matrix, and whatever updates it elementwise (with the slots
of its optimizer) becomes as flat: no element moves, since a reshape of row-major elements is free.
`CpuState` gives and takes values in the variable's own shape all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from stepgraph.compiler.program import Program, Rewriter
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.memory import VARIABLE
from stepgraph.graph.shapes import known_shape
from stepgraph.graph.tensor import Tensor

RESHAPES = ("reshape", "expand_dims", "squeeze", "flatten_2d")
Shape = tuple[int, ...]


def settle_shapes(program: Program, known: Mapping[str, Shape], search: bool = True) -> Program:
    """Gives variables that are reshaped and updated the one shape they are used in.

    Args:
        program: what to rewrite; not changed.
        known: shapes other than their own that variables have already, through programs before.
        search: without it no other variable changes its shape.

    Returns:
        An equal program.
    """
    found = _Search(program, known, search)
    return _rewrite(program, found) if found.shapes else program


class _Search:
    """Which variables change their shape, and which elementwise operations with them.

    Attributes:
        shapes: variable to its new shape.
        operations: elementwise operation, or sum over all, to the new shape of what it works on.
    """

    def __init__(self, program: Program, known: Mapping[str, Shape], search: bool) -> None:
        self.program = program
        self.shapes: dict[str, Shape] = {}
        self.operations: dict[Operation, Shape] = {}
        self._name_of = {t: n for n, t in program.variables.items()}
        self._known = known
        operations = program.operations()
        self._consumers: dict[Tensor, list[Operation]] = {}
        for op in operations:
            for tensor in dict.fromkeys(op.inputs):
                self._consumers.setdefault(tensor, []).append(op)
        forced = {n: known[n] for n in program.variables if n in known}
        if not search or any(op.regions for op in operations):
            # What a region captures is not among its inputs: it gets what it is written for.
            self.shapes = forced
            return
        for name, tensor in program.variables.items():
            shape = forced.get(name) or self._used_as(tensor)
            if shape is not None and name not in self.shapes:
                self._follow(name, shape)

    def _used_as(self, tensor: Tensor) -> Shape | None:
        """The one shape that a variable is reshaped to."""
        found = {
            known_shape(op.output.shape)
            for op in self._consumers.get(tensor, ())
            if op.type in RESHAPES
        }
        own = known_shape(tensor.shape)
        if len(found) != 1 or found == {own} or 0 in own:
            return None
        return found.pop()

    def _follow(self, name: str, shape: Shape) -> None:
        """Takes in a variable and all that is elementwise around it."""
        own = known_shape(self.program.variables[name].shape)
        names: dict[str, None] = {name: None}
        joined: dict[Operation, None] = {}
        stack: list[Tensor] = [self.program.variables[name]]
        seen: set[Tensor] = set()
        while stack:
            tensor = stack.pop()
            if tensor in seen:
                continue
            seen.add(tensor)
            maker = tensor.operation
            if tensor in self._name_of:
                other = self._name_of[tensor]
                if self._known.get(other, shape) != shape:
                    continue
                names[other] = None
                if other in self.program.updates:
                    stack.append(self.program.updates[other])
            elif self._elementwise(maker, own):
                joined[maker] = None
                stack += [t for t in maker.inputs if known_shape(t.shape) == own]
            elif maker.type not in RESHAPES:
                continue
            for op in self._consumers.get(tensor, ()):
                if self._elementwise(op, own):
                    stack.append(op.output)
                elif op.type == "reduction_sum" and len(op.attributes["axes"]) == len(own):
                    joined[op] = None
        self.shapes |= dict.fromkeys(names, shape)
        self.operations |= dict.fromkeys(joined, shape)

    def _elementwise(self, op: Operation, own: Shape) -> bool:
        if not op.definition.elementwise or len(op.outputs) != 1 or op.regions:
            return False
        if known_shape(op.output.shape) != own or op in self.operations:
            return False
        return all(
            known_shape(t.shape) == own or prod(known_shape(t.shape)) == 1 for t in op.inputs
        )


def _rewrite(program: Program, search: _Search) -> Program:
    rewriting = _Rewriting(program, search)
    made = rewriting.rewriter.run(rewriting.visit)
    for tensor, name in rewriting.name_of.items():
        if name in made.variables:
            made.variables[name] = rewriting.flat[tensor]
    for name, tensor in program.updates.items():
        if name in search.shapes and name in made.updates:
            made.updates[name] = rewriting.reshaped(tensor, search.shapes[name])
    return made


class _Rewriting:
    """Builds the new program.

    Attributes:
        rewriter: copies the old one.
        flat: tensors of the old program to those of another shape that stand for them.
        name_of: the variables that change their shape.
    """

    def __init__(self, program: Program, search: _Search) -> None:
        self.rewriter = Rewriter(program)
        self.flat: dict[Tensor, Tensor] = {}
        self.name_of = {t: n for n, t in program.variables.items() if n in search.shapes}
        self._search = search

    def reshaped(self, tensor: Tensor, shape: Shape) -> Tensor:
        """The counterpart of a tensor of the old program, in a new shape."""
        if tensor in self.flat and known_shape(self.flat[tensor].shape) == shape:
            return self.flat[tensor]
        graph, mapping = self.rewriter.graph, self.rewriter.mapping
        source = tensor.operation
        made = mapping[tensor]
        if source.type in RESHAPES and source.inputs[0] in mapping:
            made = mapping[source.inputs[0]]
        return made if known_shape(made.shape) == shape else graph.reshape(made, shape)

    def visit(self, _: Rewriter, op: Operation) -> list[Tensor] | None:
        """What stands for an operation: a reshape to its old shape, of what is in `flat`."""
        graph: Graph = self.rewriter.graph
        flat, own = self.flat, known_shape(op.output.shape) if len(op.outputs) == 1 else ()
        if op.type == "variable" and op.output in self.name_of:
            attributes = {**op.attributes, "shape": self._search.shapes[self.name_of[op.output]]}
            flat[op.output] = graph._add(VARIABLE, (), attributes, name=op.name).output
            return [graph.reshape(flat[op.output], own)]
        if op in self._search.operations:
            return [self._reshaped_operation(op, own)]
        if op.type in RESHAPES and op.inputs[0] in flat:
            made = flat[op.inputs[0]]
            return [made if known_shape(made.shape) == own else graph.reshape(made, own)]
        return None

    def _reshaped_operation(self, op: Operation, own: Shape) -> Tensor:
        graph, shape = self.rewriter.graph, self._search.operations[op]
        if op.type == "reduction_sum":
            total = graph.reduction_sum(self.reshaped(op.inputs[0], shape), keep_dims=False)
            return graph.reshape(total, own) if own else total

        def operand(tensor: Tensor) -> Tensor:
            if known_shape(tensor.shape) == own:
                return self.reshaped(tensor, shape)
            made = self.rewriter.mapping[tensor]
            return graph.reshape(made, ()) if made.rank else made

        inputs = tuple(operand(t) for t in op.inputs)
        self.flat[op.output] = graph._one(op.definition, inputs, op.attributes, name=op.name)
        return graph.reshape(self.flat[op.output], own)
