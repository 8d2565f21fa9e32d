"""Slices, gathers, scatters, one-hot, top-k. ONNX's indices may count from the end."""

from __future__ import annotations

import stepgraph as sg
from tests.ops.onnx_import import Node, rule
from tests.ops.onnx_nodes.shapes import known

MODES = {"none": "set", "add": "add", "mul": "mul", "max": "max", "min": "min"}


def counted(n: Node, indices: sg.Tensor, size: int | sg.Tensor) -> sg.Tensor:
    """Indices that count from the front."""
    if indices.dtype.kind == "uint":
        return indices
    return n.graph.select(indices < 0, indices + size, indices)


def counted_tuples(n: Node, indices: sg.Tensor, sizes: list[int]) -> sg.Tensor:
    """The same for tuples of indices on the last axis."""
    depth = known(indices)[-1]
    return counted(n, indices, n.graph.constant(sizes[:depth], dtype=indices.dtype))


@rule("Slice")
def slices(n: Node) -> sg.Tensor:
    starts, ends = n.numbers(1, "starts"), n.numbers(2, "ends")
    assert starts is not None
    assert ends is not None
    axes = n.numbers(3, "axes") or list(range(len(starts)))
    steps = n.numbers(4) or [1] * len(starts)
    key = [slice(None)] * n[0].rank
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = known(n[0])[axis]
        # An end before the first element, walking backwards, is what Python writes as None.
        stop = None if step < 0 and end < -size else end
        key[axis] = slice(start, stop, step)
    return n[0][tuple(key)]


@rule("Gather")
def gather(n: Node) -> sg.Tensor:
    axis = n.attribute("axis", 0)
    return n.graph.gather(n[0], counted(n, n[1], known(n[0])[axis]), axis)


@rule("GatherElements")
def gather_elements(n: Node) -> sg.Tensor:
    axis = n.attribute("axis", 0)
    return n.graph.gather_along_axis(n[0], counted(n, n[1], known(n[0])[axis]), axis)


@rule("GatherND")
def gather_nd(n: Node) -> sg.Tensor:
    batch = n.attribute("batch_dims", 0)
    return n.graph.gather_nd(n[0], counted_tuples(n, n[1], known(n[0])[batch:]), batch)


@rule("ScatterElements", "Scatter")
def scatter_elements(n: Node) -> sg.Tensor:
    data, axis = n[0], n.attribute("axis", 0) % n[0].rank
    indices = counted(n, n[1], known(data)[axis])
    mode = MODES[n.attribute("reduction", "none")]
    return n.graph.scatter_along_axis(data, n[2], indices, axis, mode)


@rule("ScatterND")
def scatter_nd(n: Node) -> sg.Tensor:
    indices = counted_tuples(n, n[1], known(n[0]))
    mode = MODES[n.attribute("reduction", "none")]
    return n.graph.scatter_nd(n[2], indices, data=n[0], mode=mode)


@rule("OneHot")
def one_hot(n: Node) -> sg.Tensor:
    depth, values = n.static(1), n.static(2)
    assert depth is not None
    assert values is not None
    count = int(depth.item())
    indices = n.graph.cast(n[0], "int64") if n[0].dtype.is_float else n[0]
    off, on = values.tolist()
    where = counted(n, indices, count)
    return n.graph.one_hot(where, count, n.attribute("axis", -1), n[2].dtype, on, off)


@rule("TopK")
def top_k(n: Node) -> list[sg.Tensor]:
    count = n.numbers(1)
    assert count is not None
    axis, g = n.attribute("axis", -1), n.graph
    if n.attribute("largest", 1):
        values, places = g.top_k(n[0], count[0], axis)
        return [values, g.cast(places, "int64")]
    order = g.arg_sort(n[0], axis)
    axis %= n[0].rank
    places = g.slice(order, axis, 0, count[0])
    return [g.gather_along_axis(n[0], places, axis), g.cast(places, "int64")]
