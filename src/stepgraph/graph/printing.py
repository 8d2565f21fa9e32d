"""Graphs as text: one operation a line, and Graphviz's language."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from stepgraph.graph.operation import Block, Operation
from stepgraph.graph.shapes import format_shape

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph
    from stepgraph.graph.tensor import Tensor

# Attributes that only inference needs, or that the line shows anyway.
_HIDDEN = {"explicit", "dtype", "shape"}


def to_text(graph: Graph) -> str:
    """One line per operation: outputs, op, inputs and attributes.

    Example:
        >>> import stepgraph as sg
        >>> graph = sg.Graph("tiny")
        >>> x = graph.placeholder((None, 2), name="x")
        >>> _ = graph.softmax(x, name="y")
        >>> print(graph)
        graph tiny: 2 operations, 0 variables
          x: float32 (?, 2) = placeholder()
          y: float32 (?, 2) = softmax(x, axis=1)
    """
    count = sum(1 for _ in _all(graph.block))
    head = f"graph {graph.name}: {count} operations, {len(graph.variables)} variables"
    return "\n".join([head, *_lines(graph.block, "  ")])


def _all(block: Block) -> Iterator[Operation]:
    for operation in block.operations:
        yield operation
        for region in operation.regions:
            yield from _all(region)


def _lines(block: Block, indent: str) -> Iterator[str]:
    for operation in block.operations:
        if operation.type != "parameter":
            yield from lines(operation, indent)


def lines(operation: Operation, indent: str = "") -> Iterator[str]:
    """One operation, its regions indented below it."""
    yield indent + line(operation)
    for label, region in zip(operation.definition.region_names, operation.regions, strict=True):
        parameters = ", ".join(_typed(p) for p in region.parameters)
        yield f"{indent}  {label}({parameters}):" if parameters else f"{indent}  {label}:"
        yield from _lines(region, indent + "    ")
        results = ", ".join(r.name for r in region.results)
        yield f"{indent}    return {results}".rstrip()


def _typed(tensor: Tensor) -> str:
    return f"{tensor.name}: {tensor.dtype} {format_shape(tensor.shape)}"


def line(operation: Operation) -> str:
    """One operation as it stands in a printed graph."""
    made = ", ".join(_typed(t) for t in operation.outputs)
    explicit = operation.attributes.get("explicit")
    inputs = operation.inputs if explicit is None else operation.inputs[:explicit]
    settings = [f"{k}={_value(v)}" for k, v in operation.attributes.items() if k not in _HIDDEN]
    text = f"{operation.type}({', '.join([t.name for t in inputs] + settings)})"
    after = (
        f" after {', '.join(o.name for o in operation.control_inputs)}"
        if operation.control_inputs
        else ""
    )
    return f"{made} = {text}{after}" if made else f"{operation.name}: {text}{after}"


def _value(value: Any) -> str:
    if isinstance(value, np.ndarray):
        if value.ndim == 0:
            return repr(value.item())
        return f"array{format_shape(value.shape)}"
    if isinstance(value, float):
        return f"{value:g}"
    return repr(value)


def to_dot(graph: Graph) -> str:
    """The graph in Graphviz's language; see `Graph.to_dot`."""
    quoted = _quote(graph.name)
    text = [f"digraph {quoted} {{", "  rankdir=TB; node [shape=box, fontname=Helvetica];"]
    for operation in _all(graph.block):
        shape = ", ".join(f"{t.dtype} {format_shape(t.shape)}" for t in operation.outputs)
        label = _quote("\\n".join(filter(None, [operation.name, operation.type, shape])))
        style = {"placeholder": ", style=rounded", "variable": ", style=filled"}.get(
            operation.type, ""
        )
        text.append(f"  {_quote(operation.name)} [label={label}{style}];")
        for tensor in operation.inputs:
            text.append(f"  {_quote(tensor.operation.name)} -> {_quote(operation.name)};")
        for region in operation.regions:
            for tensor in region.results:
                text.append(
                    f"  {_quote(tensor.operation.name)} -> {_quote(operation.name)} [style=dotted];"
                )
        for before in operation.control_inputs:
            text.append(f"  {_quote(before.name)} -> {_quote(operation.name)} [style=dashed];")
    return "\n".join([*text, "}"])


def _quote(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'
