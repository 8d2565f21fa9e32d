"""MPSGraphControlFlowOps: blocks run once, while the graph is built; what they make stays in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.mps.double import dtypes, running
from tests.mps.double.errors import Refused
from tests.mps.double.graph import Builder, Scope
from tests.mps.double.objects import Object

_MOST_ROUNDS = 1_000_000


def _array(b: Builder, items: Sequence[Object], class_name: str = "NSArray") -> Object:
    for t in items:
        b.heap.autorelease(t, "a block's argument")
    o = Object(class_name, items=list(items))
    b.heap.hold(o, *items)
    return b.heap.autorelease(o, "a block's argument")


def _arguments(b: Builder, like: Sequence[Object]) -> list[Object]:
    return [b.operation([], [(t.shape, t.dtype)], None, kind="argument").outputs[0] for t in like]


def _inside(b: Builder, tensors: Sequence[Object]) -> list[Object]:
    """A block's results: visible in it, of this graph."""
    for t in tensors:
        b.take(t, "a block's result")
        b.need(not getattr(t, "unsettled", False), f"{t}: reshape it first")
    return list(tensors)


def _alike(b: Builder, these: Sequence[Object], those: Sequence[Object], what: str) -> None:
    b.need(len(these) == len(those), f"{what}: {len(these)} tensors and {len(those)}")
    for x, y in zip(these, those, strict=True):
        b.need(x.shape == y.shape, f"{what}: shapes {x.shape} and {y.shape}")
        b.need(x.dtype == y.dtype, f"{what}: data types differ")


def _loop_operation(
    b: Builder,
    inputs: list[Object],
    outputs: Sequence[Object],
    regions: Sequence[Scope],
    results: Sequence[Object],
    compute: Any,
) -> list[Object]:
    """The operation that stands for regions; what they take from outside comes with it."""
    captures = [t for r in regions for t in b.captured(r)]
    captures += [t for t in results if all(t.scope is not r for r in regions)]
    specs = [(t.shape, t.dtype) for t in outputs]
    op = b.operation(inputs, specs, compute, kind="region", regions=list(regions))
    op.captures = list({t.serial: t for t in captures}.values())
    return list(op.outputs)


def _execute(run: Any, scope: Scope, results: Sequence[Object]) -> list[np.ndarray]:
    run.execute(running.order([t.operation for t in results], inside=scope))
    return [run.values[t.serial] for t in results]


def _one_element(b: Builder, t: Object, what: str, allowed: Sequence[int]) -> None:
    b.need(int(np.prod(t.shape, dtype=np.int64)) == 1, f"{what} of {t.shape}: not one element")
    b.dtype(t, allowed, what)


def if_(b: Builder, predicate: Object, then: Any, otherwise: Any) -> list[Object]:
    _one_element(b, predicate, "predicate", (dtypes.BOOL, dtypes.INT32))
    b.need(otherwise is not None, "no else block: both must return the same tensors")
    regions, results = [], []
    for block in (then, otherwise):
        with b.region() as scope:
            results.append(_inside(b, b.call(block)))
        regions.append(scope)
    b.need(results[0], "the blocks return nothing")
    _alike(b, results[0], results[1], "the two blocks")

    def compute(run: Any, value: np.ndarray) -> list[np.ndarray]:
        taken = 0 if value.reshape(())[()] else 1
        return _execute(run, regions[taken], results[taken])

    return _loop_operation(b, [predicate], results[0], regions, results[0] + results[1], compute)


def while_(b: Builder, initial: Sequence[Object], before: Any, after: Any) -> list[Object]:
    b.need(initial, "a loop without inputs")
    for t in initial:
        if t.operation.kind == "constant" and t.dtype in dtypes.FLOATS:
            b.need(t.operation.value.any(), "a loop that begins with a constant 0.0 aborts")
    with b.region() as first:
        arguments = _arguments(b, initial)
        mutable = _array(b, [], "NSMutableArray")
        predicate = b.call(before, _array(b, arguments), mutable)
        passed = _inside(b, list(mutable.items))
        _inside(b, [predicate])
        b.need(predicate.shape == (), f"the predicate has shape {predicate.shape}, not rank 0")
        b.dtype(predicate, (dtypes.BOOL,), "predicate")
        b.need(passed, "the before block filled in no results")
    with b.region() as second:
        inner = _arguments(b, passed)
        following = _inside(b, b.call(after, _array(b, inner)))
    _alike(b, following, initial, "what the after block returns and the loop's inputs")

    def compute(run: Any, *values: np.ndarray) -> list[np.ndarray]:
        current = list(values)
        for _ in range(_MOST_ROUNDS):
            run.values.update(zip((t.serial for t in arguments), current, strict=True))
            go_on, *results = _execute(run, first, [predicate, *passed])
            if not go_on:
                return results
            run.values.update(zip((t.serial for t in inner), results, strict=True))
            current = _execute(run, second, following)
        raise Refused("a loop that does not end")

    return _loop_operation(
        b, list(initial), passed, [first, second], [predicate, *passed, *following], compute
    )


def for_(
    b: Builder, lower: Object | None, upper: Object, step: Object | None, initial: Any, body: Any
) -> list[Object]:
    b.need(initial, "a loop without body arguments crashes")
    bounds = [t for t in (lower, upper, step) if t is not None]
    for t in bounds:
        _one_element(b, t, "a bound", (dtypes.INT32, dtypes.INT64))
    kind = b.same_dtype(*bounds)
    with b.region() as scope:
        index = b.operation([], [((1,), kind)], None, kind="argument").outputs[0]
        # One element, but whether of rank 0 or 1 nothing says.
        index.unsettled = True
        b.heap.autorelease(index, "a block's argument")
        arguments = _arguments(b, initial)
        following = _inside(b, b.call(body, index, _array(b, arguments)))
    _alike(b, following, initial, "what the body returns and its arguments")

    def compute(run: Any, *values: np.ndarray) -> list[np.ndarray]:
        numbers = [int(v.reshape(())[()]) for v in values[: len(bounds)]]
        start, stop, by = numbers if len(numbers) == 3 else (0, numbers[0], 1)
        if by <= 0:
            raise Refused(f"a step of {by} must be positive")
        current = list(values[len(bounds) :])
        for i in range(start, stop, by):
            run.values[index.serial] = np.array([i], dtypes.numpy(kind))
            run.values.update(zip((t.serial for t in arguments), current, strict=True))
            current = _execute(run, scope, following)
        return current

    return _loop_operation(b, [*bounds, *initial], following, [scope], following, compute)


def control_dependency(b: Builder, operations: Sequence[Object], block: Any) -> list[Object]:
    """What the block makes runs after the operations, and keeps them from being pruned."""
    b.need(operations, "no operations to depend on")
    for o in operations:
        b.need(o.graph is b.graph, f"{o} is another graph's")
        b.need(b.state.scope.sees(o.scope), f"{o} was made in a block")
    b.state.control.append(list(operations))
    try:
        with b.inside_block():
            result = b.call(block)
    finally:
        b.state.control.pop()
    return _inside(b, result)


RULES: dict[str, Any] = {
    "ifWithPredicateTensor:thenBlock:elseBlock:name:": if_,
    "whileWithInitialInputs:before:after:name:": while_,
    "forLoopWithLowerBound:upperBound:step:initialBodyArguments:body:name:": for_,
    "forLoopWithNumberOfIterations:initialBodyArguments:body:name:": (
        lambda b, count, initial, body: for_(b, None, count, None, initial, body)
    ),
    "controlDependencyWithOperations:dependentBlock:name:": control_dependency,
}
