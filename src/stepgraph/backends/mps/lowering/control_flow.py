"""Control flow (MPSGraphControlFlowOps).

Regions of a compiled program change no state. So both branches of an `if` can be computed and one
result selected, which is what is known to be safe; a branch with a loop in it is a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stepgraph.backends.mps.lowering.emitter import Emitter, Value, known
from stepgraph.backends.mps.lowering.table import Lowering
from stepgraph.backends.mps.messages import Block, Handle, List, numbers
from stepgraph.graph.dtypes import int32
from stepgraph.graph.operation import Block as Region
from stepgraph.graph.operation import Operation
from stepgraph.graph.tensor import Tensor

if TYPE_CHECKING:
    from stepgraph.backends.mps.builder import Builder

_TENSORS = "NSArray<MPSGraphTensor>"
Handles = Sequence["Handle | None"]


def _present(tensors: Sequence[Tensor]) -> list[int]:
    """Positions of those that have elements."""
    return [i for i, t in enumerate(tensors) if 0 not in t.shape]


def _spread(found: Sequence[Handle], where: Sequence[int], length: int) -> list[Handle]:
    """Handles at their positions; None elsewhere."""
    made: list[Handle] = [None] * length
    for position, handle in zip(where, found, strict=True):
        made[position] = handle
    return made


def _value(handle: Handle, tensor: Tensor) -> Value:
    return Value(handle, known(tensor.shape), tensor.dtype)


def _has_loop(region: Region) -> bool:
    return any(
        op.type in ("for", "while") or any(map(_has_loop, op.regions)) for op in region.operations
    )


def _truth(e: Emitter, x: Value) -> Value:
    """A predicate as bool of one element."""
    single = e.reshape(x, (1,))
    if x.dtype.is_bool:
        return single
    return e.compare("notEqual", single, e.constant(0, x.dtype))


def _if(b: Builder, operation: Operation, inputs: Sequence[Handle]) -> list[Handle]:
    e, outputs = Emitter(b), operation.outputs
    where = _present(outputs)
    if not where:
        return [None] * len(outputs)
    predicate = _truth(e, _value(inputs[0], operation.inputs[0]))
    then, other = operation.regions
    if _has_loop(then) or _has_loop(other):
        return _spread(_branches(e, operation, predicate, where), where, len(outputs))
    found = [b.region(region, ()) for region in (then, other)]
    chosen = [
        e.select(predicate, *(_value(side[i], outputs[i]) for side in found)).handle for i in where
    ]
    return _spread(chosen, where, len(outputs))


def _branches(
    e: Emitter, operation: Operation, predicate: Value, where: Sequence[int]
) -> list[Handle]:
    def block(region: Region) -> Block:
        def function() -> List:
            with e.b.scope():
                made = e.b.region(region, ())
                # Tensors of its own: one from outside may not be handed back.
                own = (e.identity(_value(made[i], operation.outputs[i])) for i in where)
                return List(tuple(v.handle for v in own))

        return Block(_TENSORS, (), function)

    then, other = (block(region) for region in operation.regions)
    selector = "ifWithPredicateTensor:thenBlock:elseBlock:name:"
    return e.b.send_many(len(where), selector, predicate.handle, then, other)


def _for(b: Builder, operation: Operation, inputs: Sequence[Handle]) -> list[Handle]:
    e, attributes = Emitter(b), operation.attributes
    (body,), outputs = operation.regions, operation.outputs
    where = _present(outputs)
    if not where:
        return [None] * len(outputs)
    carried = [_carried(e, inputs[1 + i], operation.inputs[1 + i]) for i in where]
    trips = _trips(e, operation, inputs[0])

    def function(index: Handle, arguments: Handle) -> List:
        with b.scope():
            trip = e.reshape(Value(index, (), int32), (1,))
            if attributes["step"] != 1:
                trip = e.multiply(trip, e.constant(attributes["step"], int32))
            if attributes["lower_bound"]:
                trip = e.add(trip, e.constant(attributes["lower_bound"], int32))
            given = _spread(b.unpack(arguments, len(where)), where, len(outputs))
            made = b.region(body, [trip.handle, *given])
            return List(tuple(made[i] for i in where))

    found = b.send_many(
        len(where),
        "forLoopWithNumberOfIterations:initialBodyArguments:body:name:",
        trips.handle,
        List(tuple(carried)),
        Block(_TENSORS, ("MPSGraphTensor", _TENSORS), function),
    )
    return _spread(found, where, len(outputs))


def _carried(e: Emitter, given: Handle, tensor: Tensor) -> Handle:
    """A value that a loop starts with: a literal zero of floats ends the process."""
    if tensor.operation.type != "constant" or not tensor.dtype.is_float:
        return given
    value = tensor.operation.attributes["value"]
    if value.any():
        return given
    whole = e.constant(np.broadcast_to(np.int32(0), known(tensor.shape)))
    return e.cast_plainly(whole, tensor.dtype).handle


def _trips(e: Emitter, operation: Operation, given: Handle) -> Value:
    """The number of iterations, from 0 to the maximum."""
    source, maximum = operation.inputs[0], operation.attributes["maximum_iterations"]
    if source.operation.type == "constant":
        fixed = int(np.reshape(source.operation.attributes["value"], -1)[0])
        most = fixed if maximum is None else min(fixed, maximum)
        return e.constant(max(most, 0), int32)
    trips = e.cast(e.reshape(_value(given, source), (1,)), int32)
    trips = e.binary("maximum", trips, e.constant(0, int32))
    if maximum is not None:
        trips = e.binary("minimum", trips, e.constant(maximum, int32))
    return trips


def _while(b: Builder, operation: Operation, inputs: Sequence[Handle]) -> list[Handle]:
    e, outputs = Emitter(b), operation.outputs
    before, after = operation.regions
    where, maximum = _present(outputs), operation.attributes["maximum_iterations"]
    # The number of trips so far is carried along, if only for its sake.
    given_values = (_carried(e, inputs[i], operation.inputs[i]) for i in where)
    start = [e.constant(0, int32).handle, *given_values]

    def given(arguments: Handle) -> tuple[Value, list[Handle]]:
        trip, *rest = b.unpack(arguments, len(start))
        return Value(trip, (1,), int32), _spread(rest, where, len(outputs))

    def ask(arguments: Handle, results: Handle) -> Handle:
        with b.scope():
            trip, carried = given(arguments)
            predicate = before.results[0]
            goes_on = _truth(e, _value(b.region(before, carried)[0], predicate))
            if maximum is not None:
                more = e.compare("lessThan", trip, e.constant(maximum, int32))
                goes_on = e.both(goes_on, more)
            for handle in (trip.handle, *(carried[i] for i in where)):
                b.bridge.send(results, "addObject:", handle)
            return _scalar(e, goes_on).handle

    def go(arguments: Handle) -> List:
        with b.scope():
            trip, carried = given(arguments)
            made = b.region(after, carried)
            count = e.add(trip, e.constant(1, int32))
            return List((count.handle, *(made[i] for i in where)))

    found = b.send_many(
        len(start),
        "whileWithInitialInputs:before:after:name:",
        List(tuple(start)),
        Block("MPSGraphTensor", (_TENSORS, "NSMutableArray<MPSGraphTensor>"), ask),
        Block(_TENSORS, (_TENSORS,), go),
    )
    return _spread(found[1:], where, len(outputs))


def _scalar(e: Emitter, x: Value) -> Value:
    """One element without axes, which only the predicate of a loop must be."""
    selector = "sliceTensor:starts:ends:strides:startMask:endMask:squeezeMask:name:"
    zero, one = numbers([0]), numbers([1])
    return e.send(selector, x, zero, one, one, 0, 0, 1, shape=(), dtype=x.dtype)


LOWERINGS: dict[str, Lowering] = {
    "if": Lowering(
        _if,
        takes_empty=True,
        note="fixed predicates cost nothing; else both branches and a select, or blocks where a "
        "branch holds a loop",
    ),
    "for": Lowering(_for, takes_empty=True),
    "while": Lowering(_while, takes_empty=True),
}

DECOMPOSED: dict[str, str] = {}
