"""Reductions, cumulative sums, softmax."""

from __future__ import annotations

import stepgraph as sg
from tests.ops.onnx_import import Node, rule

REDUCTIONS = {
    "ReduceMax": "reduction_maximum",
    "ReduceMean": "mean",
    "ReduceMin": "reduction_minimum",
    "ReduceProd": "reduction_product",
    "ReduceSum": "reduction_sum",
}
# Node type to (what is done before the sum, what after).
OF_SUMS = {
    "ReduceL1": ("absolute", None),
    "ReduceL2": ("square", "square_root"),
    "ReduceLogSum": (None, "logarithm"),
    "ReduceSumSquare": ("square", None),
}


def axes_of(n: Node) -> list[int] | None:
    """The axes to reduce; None for all, an empty list for none."""
    axes = n.numbers(1, "axes")
    if not axes:
        return [] if n.attribute("noop_with_empty_axes", 0) else None
    return axes


@rule(*REDUCTIONS)
def reduce(n: Node) -> sg.Tensor:
    builder = REDUCTIONS[n.type]
    if n[0].dtype.is_bool:
        builder = {"ReduceMax": "reduction_or", "ReduceMin": "reduction_and"}[n.type]
    return getattr(n.graph, builder)(n[0], axes_of(n), bool(n.attribute("keepdims", 1)))


@rule(*OF_SUMS)
def reduce_sum_of(n: Node) -> sg.Tensor:
    before, after = OF_SUMS[n.type]
    x = getattr(n.graph, before)(n[0]) if before else n[0]
    total = n.graph.reduction_sum(x, axes_of(n), bool(n.attribute("keepdims", 1)))
    return getattr(n.graph, after)(total) if after else total


@rule("ReduceLogSumExp")
def log_sum_exp(n: Node) -> sg.Tensor:
    axes, keep = axes_of(n), bool(n.attribute("keepdims", 1))
    total = n.graph.reduction_sum(n.graph.exponent(n[0]), axes, keep)
    return n.graph.logarithm(total)


@rule("ArgMax", "ArgMin")
def arg_reduce(n: Node) -> sg.Tensor:
    g, x, axis = n.graph, n[0], n.attribute("axis", 0)
    best = g.reduction_arg_maximum if n.type == "ArgMax" else g.reduction_arg_minimum
    keep = bool(n.attribute("keepdims", 1))
    if n.attribute("select_last_index", 0):
        size = x.shape[axis]
        assert size is not None
        return g.cast(size - 1 - best(g.reverse(x, axis), axis, keep), "int64")
    return g.cast(best(x, axis, keep), "int64")


@rule("CumSum")
def cumulative_sum(n: Node) -> sg.Tensor:
    axis = n.static(1)
    assert axis is not None
    exclusive, reverse = bool(n.attribute("exclusive", 0)), bool(n.attribute("reverse", 0))
    return n.graph.cumulative_sum(n[0], int(axis.item()), exclusive, reverse)


def normalised_axis(n: Node) -> int:
    """The axis of softmax and its kin; before version 13 everything behind it was flattened."""
    assert n.importer.opset >= 13
    return int(n.attribute("axis", -1))


@rule("Softmax")
def softmax(n: Node) -> sg.Tensor:
    return n.graph.softmax(n[0], normalised_axis(n))


@rule("LogSoftmax")
def log_softmax(n: Node) -> sg.Tensor:
    return n.graph.log_softmax(n[0], normalised_axis(n))


@rule("Hardmax")
def hardmax(n: Node) -> sg.Tensor:
    axis = normalised_axis(n)
    size = n[0].shape[axis]
    assert size is not None
    best = n.graph.reduction_arg_maximum(n[0], axis, keep_dims=False)
    return n.graph.one_hot(best, size, axis % n[0].rank, n[0].dtype)
