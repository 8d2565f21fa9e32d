"""Reductions and running sums (MPSGraphReductionOps, MPSGraphCumulativeOps).

MPSGraph keeps reduced axes with size 1.
"""

from __future__ import annotations

from stepgraph.backends.mps.lowering.emitter import (
    Emitter,
    Rule,
    Value,
    count,
    known,
    lowering,
)
from stepgraph.backends.mps.lowering.table import Lowering
from stepgraph.graph.dtypes import DTYPES, float32, int32
from stepgraph.graph.operation import Operation


def _reduce(stem: str) -> Rule:
    def rule(e: Emitter, operation: Operation, x: Value) -> Value:
        axes = operation.attributes["axes"]
        made = e.reduce(stem, x, axes) if axes else e.identity(x)
        return e.reshape(made, known(operation.output.shape))

    return rule


def extreme(e: Emitter, stem: str, x: Value, axes: tuple[int, ...]) -> Value:
    """The maximum or minimum along axes, which stay; NaN if any is."""
    if x.dtype.is_float:
        return e.reduce(f"{stem}PropagateNaN", x, axes)
    return e.unordered(e.reduce(stem, e.ordered(x), axes), x.dtype)


def _extreme(stem: str) -> Rule:
    def rule(e: Emitter, operation: Operation, x: Value) -> Value:
        axes = operation.attributes["axes"]
        made = extreme(e, stem, x, axes) if axes else e.identity(x)
        return e.reshape(made, known(operation.output.shape))

    return rule


def _place(e: Emitter, stem: str, x: Value, axis: int) -> Value:
    shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    return e.send(f"{stem}WithTensor:axis:name:", x, axis, shape=shape, dtype=int32)


def _arg(stem: str) -> Rule:
    def rule(e: Emitter, operation: Operation, x: Value) -> Value:
        axis, shape = operation.attributes["axis"], known(operation.output.shape)
        place = _place(e, stem, e.ordered(x), axis)
        if x.dtype.is_float:
            # The framework skips NaN; the first of them is wanted where there is one.
            nans = e.cast_plainly(e.is_nan(x), float32)
            any_nan = e.compare(
                "greaterThan", e.reduce("reductionMaximum", nans, (axis,)), e.constant(0.0, float32)
            )
            first = _place(e, "reductionArgMaximum", nans, axis)
            place = e.select(any_nan, first, place)
        return e.reshape(place, shape)

    return rule


def _cumulative_sum(e: Emitter, operation: Operation, x: Value) -> Value:
    axis, shape = operation.attributes["axis"], x.shape
    dtype = x.dtype
    if dtype.kind == "uint":
        # Sums wrap around alike with a sign and without.
        x = e.reinterpret(x, DTYPES[f"int{8 * dtype.size}"])
    if x.rank > 4:
        # The axis must be one of the last four.
        x = e.reshape(x, (count(shape[:axis]), shape[axis], count(shape[axis + 1 :])))
        axis = 1
    made = e.send(
        "cumulativeSumWithTensor:axis:exclusive:reverse:name:",
        x,
        axis,
        operation.attributes["exclusive"],
        operation.attributes["reverse"],
        shape=x.shape,
        dtype=x.dtype,
    )
    return e.reinterpret(e.reshape(made, shape), dtype)


LOWERINGS: dict[str, Lowering] = {
    "reduction_sum": lowering(_reduce("reductionSum")),
    "reduction_product": lowering(_reduce("reductionProduct")),
    "reduction_maximum": lowering(_extreme("reductionMaximum")),
    "reduction_minimum": lowering(_extreme("reductionMinimum")),
    "reduction_and": lowering(_reduce("reductionAnd")),
    "reduction_or": lowering(_reduce("reductionOr")),
    "reduction_arg_maximum": lowering(_arg("reductionArgMaximum"), note="NaN is looked for first"),
    "reduction_arg_minimum": lowering(_arg("reductionArgMinimum"), note="NaN is looked for first"),
    "cumulative_sum": lowering(_cumulative_sum),
}

DECOMPOSED: dict[str, str] = {}
