"""Reshapes that move nothing, and copies of what does move."""

from __future__ import annotations

from stepgraph.backends.cpu.layouts import PANELS, ROWS
from stepgraph.backends.cpu.lower import Lowering
from stepgraph.backends.cpu.registry import lowers
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import known_shape


@lowers("reshape", "expand_dims", "squeeze", "flatten_2d", "identity", "stop_gradient")
def _lower_view(ctx: Lowering, op: Operation) -> bool:
    """The same memory under another shape; panels stay panels while the channels stay."""
    source = op.inputs[0]
    old, new = known_shape(source.shape), known_shape(op.output.shape)
    same_channels = bool(old) and bool(new) and old[-1] == new[-1]
    layout = PANELS if same_channels and ctx.has(source, PANELS) else ROWS
    buffer = ctx.value(source, layout)
    ctx.alias(op.output, buffer)
    return True
