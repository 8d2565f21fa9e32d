"""A graph of one operation alone, and operations added by their op's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepgraph.errors import GraphError, describe, nearest
from stepgraph.graph.copying import copy_operation
from stepgraph.graph.dtypes import as_dtype
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops import OPS
from stepgraph.graph.shapes import Spec
from stepgraph.graph.tensor import Tensor

# A region: shapes and dtypes of its parameters, and what builds its results of them.
Region = tuple[Sequence[tuple[tuple[int, ...], str]], Callable[[list[Tensor]], Sequence[Tensor]]]


@dataclass(frozen=True)
class Single:
    """A graph of one operation.

    Attributes:
        graph: placeholders, constants, the operation.
        feeds: an input of the original operation to the placeholder that stands for it.
        outputs: of the copy.
    """

    graph: Graph
    feeds: dict[Tensor, Tensor]
    outputs: list[Tensor]


def single_graph(operation: Operation) -> Single:
    """Copies an operation into a graph of its own; constants among its inputs stay constants."""
    graph = Graph(operation.name)
    mapping: dict[Tensor, Tensor] = {}
    feeds: dict[Tensor, Tensor] = {}
    with graph._created_at(operation.created_at):
        for number, tensor in enumerate(dict.fromkeys(operation.inputs)):
            if tensor.operation.type == "constant":
                mapping[tensor] = graph.constant(tensor.operation.attributes["value"])
            else:
                feeds[tensor] = mapping[tensor] = graph.placeholder(
                    tensor.shape, tensor.dtype, name=f"input_{number}"
                )
        outputs = list(copy_operation(graph, operation, mapping))
    return Single(graph, feeds, outputs)


def add_operation(
    graph: Graph,
    op: str,
    inputs: Sequence[Tensor],
    attributes: Mapping[str, Any] | None = None,
    regions: Sequence[Region] = (),
) -> list[Tensor]:
    """Adds an operation as compiled programs hold it: by its op's name and settled attributes.

    Builder methods such as `Graph.convolution_2d` settle attributes from friendlier arguments; a
    reproduction must not depend on that.

    Args:
        graph: where to.
        op: name in the op table.
        inputs: its operands; of control flow those that are not captured by its regions.
        attributes: all of them.
        regions: of control flow.

    Returns:
        Its outputs.

    Raises:
        GraphError: there is no such op.
        ShapeError, DTypeError: the inputs do not fit it.

    Example:
        >>> graph = Graph()
        >>> x = graph.placeholder((2, 3))
        >>> [t.shape for t in add_operation(graph, "permute", [x], {"permutation": (1, 0)})]
        [(3, 2)]
    """
    if op not in OPS:
        raise GraphError(describe("add_operation", f"no op '{op}'", fix=nearest(op, OPS)))
    settled = dict(attributes or {})
    if not regions:
        return list(graph._add(OPS[op], list(inputs), settled).outputs)
    settled.pop("explicit", None)
    made = tuple(
        graph._region([Spec(shape, as_dtype(dtype)) for shape, dtype in parameters], body)
        for parameters, body in regions
    )
    return list(graph._add_with_regions(OPS[op], list(inputs), settled, made).outputs)
