"""What control flow accepts: inference of `if`, `for` and `while`, and their misuses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from stepgraph.errors import DTypeError, GraphError
from stepgraph.graph.definition import Misuse, bad_dtype
from stepgraph.graph.operation import Block
from stepgraph.graph.shapes import Spec, bad_shape, element_count, format_shape, same_shape


def _check_predicate(predicate: Spec, what: str) -> None:
    if not (predicate.dtype.is_bool or predicate.dtype.is_integer):
        raise bad_dtype(
            f"{what} is {predicate.dtype}", expected="bool", fix="compare it, as in x > 0.0"
        )
    if element_count(predicate.shape) not in (1, None):
        raise bad_shape(
            f"{what} has shape {format_shape(predicate.shape)}",
            expected="one element",
            fix="graph.select chooses element by element; graph.reduction_and makes one of many",
        )


def if_infer(
    predicate: Spec, *captured: Spec, explicit: int, regions: tuple[Block, Block]
) -> tuple[Spec, ...]:
    """Results that both branches give."""
    _check_predicate(predicate, "the predicate")
    then, other = ([t.spec for t in region.results] for region in regions)
    if len(then) != len(other):
        raise bad_shape(
            f"the branch taken when true returns {len(then)} tensors, the other {len(other)}",
            expected="as many from both",
        )
    found = []
    for i, (a, b) in enumerate(zip(then, other, strict=True)):
        if a.dtype != b.dtype:
            raise bad_dtype(
                f"result {i} is {a.dtype} when true and {b.dtype} otherwise",
                expected="one dtype from both branches",
                fix="cast one of them with graph.cast",
            )
        if not same_shape(a.shape, b.shape):
            raise bad_shape(
                f"result {i} has shape {format_shape(a.shape)} when true "
                f"and {format_shape(b.shape)} otherwise",
                expected="one shape from both branches",
            )
        shape = tuple(n if n is not None else m for n, m in zip(a.shape, b.shape, strict=True))
        found.append(Spec(shape, a.dtype))
    return tuple(found)


def _check_carried(initial: Sequence[Spec], body: Block) -> tuple[Spec, ...]:
    results = [t.spec for t in body.results]
    if len(results) != len(initial):
        raise bad_shape(
            f"the body returns {len(results)} values for {len(initial)} carried ones",
            expected="the carried values of the next trip, in their order",
        )
    for i, (before, after) in enumerate(zip(initial, results, strict=True)):
        if before.dtype != after.dtype:
            raise bad_dtype(
                f"carried value {i} starts as {before.dtype} and the body makes it {after.dtype}",
                expected="one dtype in all trips",
                fix="cast it in the body, or give the initial value that dtype",
            )
        if not same_shape(before.shape, after.shape):
            raise bad_shape(
                f"carried value {i} starts with shape {format_shape(before.shape)} "
                f"and the body gives it {format_shape(after.shape)}",
                expected="one shape in all trips",
            )
    return tuple(initial)


def for_infer(
    iterations: Spec, *inputs: Spec, explicit: int, regions: tuple[Block], **_: Any
) -> tuple[Spec, ...]:
    """The carried values."""
    if not iterations.dtype.is_integer:
        raise bad_dtype(f"the number of iterations is {iterations.dtype}", expected="int32")
    if element_count(iterations.shape) not in (1, None):
        raise bad_shape(
            f"the number of iterations has shape {format_shape(iterations.shape)}",
            expected="one element",
        )
    return _check_carried(inputs[: explicit - 1], regions[0])


def while_infer(
    *inputs: Spec, explicit: int, regions: tuple[Block, Block], **_: Any
) -> tuple[Spec, ...]:
    """The carried values."""
    (predicate,) = (t.spec for t in regions[0].results)
    _check_predicate(predicate, "what `before` returns")
    return _check_carried(inputs[:explicit], regions[1])


# -- misuses -------------------------------------------------------------------------------------


def if_misuses() -> Iterator[Misuse]:
    """Predicates and branches that are refused."""
    yield Misuse(
        lambda g: g.if_(
            g.placeholder((2,), "bool"), lambda: g.constant(1.0), lambda: g.constant(2.0)
        ),
        "the predicate has shape",
    )
    yield Misuse(
        lambda g: g.if_(g.placeholder(()), lambda: g.constant(1.0), lambda: g.constant(2.0)),
        "the predicate is float32",
        DTypeError,
    )
    yield Misuse(
        lambda g: g.if_(g.placeholder((), "bool"), lambda: g.constant(1.0), lambda: g.constant(2)),
        "result 0 is float32 when true and int32 otherwise",
        DTypeError,
    )
    yield Misuse(
        lambda g: g.if_(
            g.placeholder((), "bool"), lambda: g.constant(1.0), lambda: g.constant([1.0, 2.0])
        ),
        r"result 0 has shape \(\) when true and \(2,\) otherwise",
    )
    yield Misuse(
        lambda g: g.if_(g.placeholder((), "bool"), lambda: g.constant(1.0)),
        "returns a tensor when true and nothing otherwise",
        GraphError,
    )


def for_misuses() -> Iterator[Misuse]:
    """Counts and bodies that are refused."""
    yield Misuse(
        lambda g: g.for_loop(3, g.constant([1.0]), lambda i, x: g.constant([1.0, 2.0])),
        r"carried value 0 starts with shape \(1,\) and the body gives it \(2,\)",
    )
    yield Misuse(
        lambda g: g.for_loop(3, g.constant(1.0), lambda i, x: i),
        "starts as float32 and the body makes it int32",
        DTypeError,
    )
    yield Misuse(
        lambda g: g.for_loop(g.placeholder(()), g.constant(1.0), lambda i, x: x),
        "number of iterations is float32",
        DTypeError,
    )
    yield Misuse(
        lambda g: g.for_loop(-1, g.constant(1.0), lambda i, x: x), "-1 iterations", GraphError
    )


def while_misuses() -> Iterator[Misuse]:
    """Predicates and bodies that are refused."""
    yield Misuse(
        lambda g: g.while_loop(g.constant(1.0), lambda x: x, lambda x: x),
        "what `before` returns is float32",
        DTypeError,
    )
    yield Misuse(
        lambda g: g.while_loop(
            [g.constant(1.0), g.constant(2.0)], lambda x, y: g.constant(True), lambda x, y: [x]
        ),
        "the body returns 1 values for 2 carried ones",
    )
