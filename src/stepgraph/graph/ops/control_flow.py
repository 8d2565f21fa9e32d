"""Control flow (MPSGraphControlFlowOps): if_, for_loop, while_loop and control_dependency.

The bodies are built once, when the graph is built, into blocks of their own ("regions"); what they
read from outside becomes inputs of the operation. Gradient rules are in `control_flow_gradients`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from stepgraph.errors import GraphError, describe
from stepgraph.graph.core import GraphCore
from stepgraph.graph.definition import OpDefinition
from stepgraph.graph.dtypes import int32
from stepgraph.graph.lifting import assigned_variables
from stepgraph.graph.operation import Block, Operation
from stepgraph.graph.ops.control_flow_gradients import for_gradient, if_gradient, while_gradient
from stepgraph.graph.ops.control_flow_inference import (
    for_infer,
    for_misuses,
    if_infer,
    if_misuses,
    while_infer,
    while_misuses,
)
from stepgraph.graph.shapes import Spec
from stepgraph.graph.tensor import Tensor, TensorLike, Variable

# What a block may return: a tensor or several, or nothing but effects.
BlockResult: TypeAlias = (
    "TensorLike | Operation | Sequence[TensorLike] | Sequence[Operation] | None"
)


IF = OpDefinition(
    "if",
    inputs=("predicate", "captured*"),
    infer=if_infer,
    reference=None,
    gradient=if_gradient,
    has_regions=True,
    region_names=("then", "else"),
    mpsgraph="ifWithPredicateTensor:thenBlock:elseBlock:name:",
    misuses=if_misuses,
)
FOR = OpDefinition(
    "for",
    inputs=("iterations", "input*"),
    infer=for_infer,
    reference=None,
    gradient=for_gradient,
    has_regions=True,
    region_names=("body",),
    mpsgraph="forLoopWithNumberOfIterations:initialBodyArguments:body:name:",
    misuses=for_misuses,
)
WHILE = OpDefinition(
    "while",
    inputs=("input*",),
    infer=while_infer,
    reference=None,
    gradient=while_gradient,
    has_regions=True,
    region_names=("before", "after"),
    mpsgraph="whileWithInitialInputs:before:after:name:",
    misuses=while_misuses,
)

DEFINITIONS = (IF, FOR, WHILE)


class ControlFlowOps(GraphCore):
    """Branches, loops and order."""

    def control_dependency(
        self,
        operations: Sequence[Operation | Tensor],
        block: Callable[[], Any],
        name: str | None = None,
    ) -> Any:
        """Orders what `block` builds after some operations.

        A variable used in the block stands for the value that the latest assign to it among (or
        before) `operations` gives it; see `assign`.

        Args:
            operations: what must have happened before; a tensor stands for the operation that
                makes it.
            block: builds operations; called at once.
            name: prefix of the names of operations built in the block.

        Returns:
            What `block` returns; a variable among it as its value behind the operations.

        Raises:
            GraphError: an operation is of another graph, or stands in a block that is closed.

        Source: MPSGraph ``controlDependencyWithOperations:dependentBlock:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> count = graph.variable(1.0)
            >>> doubled = graph.assign(count, count * 2.0)
            >>> y = graph.control_dependency([doubled], lambda: count + 0.5)
            >>> [float(v) for v in graph.run(targets=[count, y], device="reference")]
            [1.0, 2.5]
        """
        before = []
        for item in operations:
            operation = item.operation if isinstance(item, Tensor) else item
            self._check_order(operation)
            before.append(operation)
        scopes = list(self._scopes)
        if name is not None:
            self._scopes.append(name)
        try:
            with self._ordered_after(tuple(dict.fromkeys((*self._control, *before)))):
                made = block()
                if isinstance(made, Variable):
                    return self._graph.read(made)
                if type(made) in (list, tuple):
                    return type(made)(
                        self._graph.read(t) if isinstance(t, Variable) else t for t in made
                    )
                return made
        finally:
            self._scopes[:] = scopes

    def _check_order(self, operation: object) -> None:
        if not isinstance(operation, Operation):
            raise GraphError(
                describe(
                    "control_dependency",
                    f"{operation!r} is no operation",
                    expected="what graph.assign or graph.if_ returned, or a tensor",
                    created_at=self._here(),
                )
            )
        if operation.graph is not self:
            raise GraphError(
                describe(
                    "control_dependency",
                    f"{operation!r} belongs to another graph",
                    fix="order operations of one graph only",
                    created_at=self._here(),
                )
            )
        if not operation.block.encloses(self._current):
            raise GraphError(
                describe(
                    "control_dependency",
                    f"{operation!r} stands inside a control-flow block that is closed",
                    fix="depend on what if_ / for_loop / while_loop returned",
                    created_at=operation.created_at,
                )
            )

    def if_(
        self,
        predicate: TensorLike,
        then: Callable[[], BlockResult],
        else_: Callable[[], BlockResult] | None = None,
        name: str | None = None,
    ) -> Any:
        """Runs one of two blocks.

        A predicate known when the graph is built or compiled costs nothing: only its branch is
        left. A single bool that a run is fed counts as known: each of its values has its own
        program.

        Args:
            predicate: bool (or integer) with one element. With a Python bool only that branch is
                built.
            then: builds what happens when it is true: returns a tensor, a list or tuple of
                tensors, or None or operations where only effects (assigns) matter.
            else_: builds what happens otherwise, returning as many tensors of the same shapes and
                dtypes; may be left out when only effects matter.
            name: label in printed graphs and errors.

        Returns:
            What the branches return, tensors of the branch that ran in their place; an `Operation`
            where they only have effects, to be named among a run's operations or in a control
            dependency.

        Raises:
            GraphError: one block returns tensors and the other none.
            ShapeError, DTypeError: the predicate has several elements or is no truth value; the
                blocks' results differ.

        Source: MPSGraph ``ifWithPredicateTensor:thenBlock:elseBlock:name:``.

        Example:
            >>> import numpy as np
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x, flag = graph.placeholder((2,)), graph.placeholder((), "bool")
            >>> y = graph.if_(flag, lambda: graph.relu(x), lambda: graph.negative(x))
            >>> feeds = {x: np.array([1, -2], "float32"), flag: False}
            >>> graph.run(feeds, [y], device="reference")[0]
            array([-1.,  2.], dtype=float32)
        """
        if isinstance(predicate, bool | np.bool_):
            return self._static_if(then if predicate else else_, name)
        made: list[Any] = []

        def region(block: Callable[[], BlockResult] | None) -> Block:
            def body(_: list[Tensor]) -> list[Tensor]:
                result = block() if block is not None else None
                made.append(result)
                return self._results(IF, result)

            return self._region((), body)

        tensor = self.as_tensor(predicate)
        regions = (region(then), region(else_))
        kinds = [_kind(result) for result in made]
        if kinds[0] != kinds[1]:
            raise GraphError(
                describe(
                    name or "if_",
                    f"returns {kinds[0]} when true and {kinds[1]} otherwise",
                    expected="the same from both blocks",
                    fix="return the tensors from both blocks, or from none",
                    created_at=self._here(),
                )
            )
        operation = self._add_with_regions(IF, (tensor,), {}, regions, name=name)
        return _mirror(made[0], operation)

    def _static_if(self, block: Callable[[], BlockResult] | None, name: str | None) -> Any:
        start = len(self._current.operations)
        result = block() if block is not None else None
        tensors = self._results(IF, result)
        if tensors:
            return _mirror(result, tensors)
        # Only effects: one operation that stands for all of them.
        effects = tuple(op for op in self._current.operations[start:] if assigned_variables(op))
        with self._ordered_after((*self._control, *effects)):
            nothing = (self._region((), lambda _: []), self._region((), lambda _: []))
            return self._add_with_regions(
                IF, (self.as_tensor(True),), {}, nothing, name=name or "effects"
            )

    def for_loop(
        self,
        iterations: int | Tensor,
        initial: TensorLike | Sequence[TensorLike],
        body: Callable[..., BlockResult],
        lower_bound: int = 0,
        step: int = 1,
        maximum_iterations: int | None = None,
        name: str | None = None,
    ) -> Any:
        """Repeats a block, handing values from each trip to the next.

        An assign in the body takes effect trip by trip: in the next trip the variable stands for
        the value assigned.

        Args:
            iterations: how many trips; an int, or an integer tensor with one element. None are
                made when it is negative.
            initial: values carried into the first trip: a tensor, or a list or tuple of them (may
                be empty).
            body: ``body(index, *carried)`` builds a trip and returns the carried values of the
                next one (in a list or tuple when there are several; nothing when there are none).
                `index` is an int32 scalar.
            lower_bound: the first trip's index.
            step: what the index grows by.
            maximum_iterations: upper bound of a tensor `iterations`, also enforced; needed for
                gradients, which keep the values of every trip.
            name: label in printed graphs and errors.

        Returns:
            The carried values after the last trip: a tensor if `initial` is one, otherwise a list;
            the `Operation` when nothing is carried.

        Raises:
            GraphError: a count that is negative or no whole number.
            ShapeError, DTypeError: the body's results do not fit the carried values.

        Source: MPSGraph ``forLoopWithNumberOfIterations:initialBodyArguments:body:name:`` and
        ``forLoopWithLowerBound:upperBound:step:initialBodyArguments:body:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.for_loop(3, graph.constant(2.0), lambda i, x: x * x)
            >>> float(graph.run(targets=[y], device="reference")[0])
            256.0
        """
        maximum = self._maximum("for_loop", maximum_iterations)
        if not isinstance(iterations, Tensor):
            count = self._whole("for_loop", "iterations", iterations)
            if count < 0:
                raise GraphError(
                    describe("for_loop", f"{count} iterations", created_at=self._here())
                )
            maximum = count if maximum is None else maximum
            iterations = self.as_tensor(min(count, maximum), int32)
        carried, single = self._carried(FOR, initial)
        index = Spec((), int32)
        region = self._region(
            [index, *(t.spec for t in carried)], lambda args: self._results(FOR, body(*args))
        )
        operation = self._add_with_regions(
            FOR,
            (iterations, *carried),
            {
                "lower_bound": self._whole("for_loop", "lower_bound", lower_bound),
                "step": self._whole("for_loop", "step", step),
                "maximum_iterations": maximum,
            },
            (region,),
            name=name,
        )
        return _loop_results(operation, single)

    def while_loop(
        self,
        initial: TensorLike | Sequence[TensorLike],
        before: Callable[..., TensorLike],
        after: Callable[..., BlockResult],
        maximum_iterations: int | None = None,
        name: str | None = None,
    ) -> Any:
        """Repeats a block as long as a predicate holds.

        Args:
            initial: values carried into the first trip: a tensor, or a list or tuple of them.
            before: ``before(*carried)`` builds the predicate, bool (or integer) with one element,
                evaluated before each trip. It must not assign variables.
            after: ``after(*carried)`` builds a trip and returns the carried values of the next one.
            maximum_iterations: stops after so many trips at the latest; needed for gradients,
                which keep the values of every trip.
            name: label in printed graphs and errors.

        Returns:
            The carried values when the predicate is false for the first time, as for `for_loop`.

        Raises:
            GraphError: `before` assigns a variable.
            ShapeError, DTypeError: the predicate or the results of `after` do not fit.

        Source: MPSGraph ``whileWithInitialInputs:before:after:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.while_loop(
            ...     graph.constant(1.0), lambda x: x < 100.0, lambda x: x * 3.0
            ... )
            >>> float(graph.run(targets=[y], device="reference")[0])
            243.0
        """
        maximum = self._maximum("while_loop", maximum_iterations)
        carried, single = self._carried(WHILE, initial)
        specs = [t.spec for t in carried]

        def condition(arguments: list[Tensor]) -> list[Tensor]:
            return [self._operand(WHILE, self.as_tensor(before(*arguments)))]

        test = self._region(specs, condition)
        for operation in test.operations:
            for variable in assigned_variables(operation):
                raise GraphError(
                    describe(
                        "while_loop",
                        f"`before` assigns variable '{variable.name}'",
                        fix="assign it in `after`",
                        created_at=operation.created_at,
                    )
                )
        region = self._region(specs, lambda args: self._results(WHILE, after(*args)))
        made = self._add_with_regions(
            WHILE, carried, {"maximum_iterations": maximum}, (test, region), name=name
        )
        return _loop_results(made, single)

    # -- what blocks return --------------------------------------------------------------------

    def _results(self, definition: OpDefinition, result: BlockResult) -> list[Tensor]:
        """A block's tensors; a variable among them as its value where the block ends."""
        if _kind(result) == "nothing":
            return []
        items = result if isinstance(result, list | tuple) else [result]
        found = []
        for item in items:
            if isinstance(item, Operation):
                raise GraphError(
                    describe(
                        definition.name,
                        f"a block returns {item!r} among tensors",
                        expected="tensors, or operations alone",
                        created_at=self._here(),
                    )
                )
            found.append(self._operand(definition, self.as_tensor(item)))  # type: ignore[arg-type]
        return found

    def _carried(
        self, definition: OpDefinition, initial: TensorLike | Sequence[TensorLike]
    ) -> tuple[list[Tensor], bool]:
        """The values carried into a loop, and whether they are a single one."""
        single = not isinstance(initial, list | tuple)
        items: Sequence[Any] = [initial] if single else initial  # type: ignore[assignment]
        return [self._operand(definition, self.as_tensor(item)) for item in items], single

    def _maximum(self, what: str, value: int | None) -> int | None:
        if value is None:
            return None
        maximum = self._whole(what, "maximum_iterations", value)
        if maximum < 0:
            raise GraphError(
                describe(what, f"maximum_iterations={maximum}", created_at=self._here())
            )
        return maximum

    def _whole(self, what: str, label: str, value: object) -> int:
        """A whole number that must be known when the graph is built."""
        try:
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            raise GraphError(
                describe(
                    what,
                    f"{label}={value!r}",
                    expected="a whole number, known when the graph is built",
                    created_at=self._here(),
                )
            ) from None


def _kind(result: BlockResult) -> str:
    """What a block returned, in words that a message can use."""
    if result is None or isinstance(result, Operation):
        return "nothing"
    if isinstance(result, list | tuple):
        if all(isinstance(item, Operation) for item in result):
            return "nothing"
        return f"{len(result)} tensors in a {type(result).__name__}"
    return "a tensor"


def _mirror(result: BlockResult, made: Operation | Sequence[Tensor]) -> Any:
    """Tensors in the form in which a block returned its own."""
    kind = _kind(result)
    if kind == "nothing":
        return made
    tensors = made.outputs if isinstance(made, Operation) else made
    if kind == "a tensor":
        return tensors[0]
    return tuple(tensors) if isinstance(result, tuple) else list(tensors)


def _loop_results(operation: Operation, single: bool) -> Any:
    if single:
        return operation.outputs[0]
    return list(operation.outputs) if operation.outputs else operation
