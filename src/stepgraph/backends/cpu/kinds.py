"""How each operation is computed: in a fused loop, as a reduction, or by a kernel of its own."""

from __future__ import annotations

from stepgraph.backends.cpu.fusion import count
from stepgraph.backends.cpu.kernels.scalar_ops import emitter
from stepgraph.backends.cpu.nest_steps import REDUCTIONS
from stepgraph.backends.cpu.nests import supported_axes
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import known_shape

SOURCES = ("placeholder", "variable", "constant", "parameter")


def same_memory(op: Operation) -> bool:
    """A reshape that only adds or removes leading axes of size 1."""
    if op.type not in ("reshape", "expand_dims", "squeeze"):
        return False
    a, b = (list(known_shape(t.shape)) for t in (op.inputs[0], op.output))
    while a and a[0] == 1:
        a.pop(0)
    while b and b[0] == 1:
        b.pop(0)
    return a == b


def kind_of(op: Operation) -> str:
    """``map``, ``reduce``, ``heavy`` or ``source``; see `fusion`."""
    if op.type in SOURCES:
        return "source"
    if any(count(t) == 0 for t in (*op.inputs, *op.outputs)):
        return "heavy"
    if op.type == "broadcast" and op.output.dtype.name in ("float32", "int32", "int64", "bool"):
        return "map"
    if same_memory(op) and op.output.dtype.name in ("float32", "int32", "int64", "bool"):
        return "map"
    if op.type in REDUCTIONS:
        tensor = op.inputs[0]
        good = tensor.dtype.name == "float32" and count(tensor) > 0
        return (
            "reduce"
            if good and supported_axes(known_shape(tensor.shape), op.attributes["axes"])
            else "heavy"
        )
    dtypes = tuple(t.dtype.name for t in op.inputs)
    plain = len(op.outputs) == 1 and op.output.dtype.name in ("float32", "int32", "int64", "bool")
    if plain and op.definition.elementwise and emitter(op.type, dtypes) is not None:
        return "map"
    return "heavy"
