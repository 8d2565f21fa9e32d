"""Attention of several heads: one launch forward, one for its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepgraph.backends.cpu.chains import block_cuts, panel_cuts
from stepgraph.backends.cpu.layout_choice import Layouts
from stepgraph.backends.cpu.layouts import LANES, PANELS
from stepgraph.backends.cpu.lower import Lowering
from stepgraph.backends.cpu.lowering.convolution import native_source
from stepgraph.backends.cpu.native.attention import Attention
from stepgraph.backends.cpu.plan import At, Buffer, Grid, KernelStep
from stepgraph.backends.cpu.registry import lowers, prefers
from stepgraph.graph.dtypes import float32
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import known_shape

NAMES = ("multi_head_attention", "multi_head_attention_gradient")


def attention_of(op: Operation) -> Attention | None:
    """The sizes, if the kernels take them: every head fills its panels."""
    query, _, value = op.inputs[-3:]
    heads = op.attributes["heads"]
    images, queries, features = known_shape(query.shape)
    keys, values = known_shape(value.shape)[1:]
    sizes = Attention(images, heads, queries, keys, features // heads, values // heads)
    whole = not sizes.size % LANES and not sizes.value_size % LANES
    some = min(images, queries, keys, features, values) > 0
    return sizes if whole and some and query.dtype == float32 else None


@prefers(*NAMES)
def _prefer(layouts: Layouts, op: Operation) -> None:
    if attention_of(op) is not None:
        for tensor in (*op.inputs, *op.outputs):
            layouts.of.setdefault(tensor, PANELS)


@lowers(*NAMES)
def _lower(ctx: Lowering, op: Operation) -> bool:
    sizes = attention_of(op)
    if sizes is None:
        return False
    gradient = op.type == NAMES[1]
    read = ("dy", "q", "k", "v") if gradient else ("q", "k", "v")
    written = ("dq", "dk", "dv") if gradient else ("y",)
    reads = [ctx.value(t, PANELS) for t in op.inputs]
    writes = [ctx.output(t, PANELS) for t in op.outputs]
    values, tasks = sizes.arguments(gradient)
    scratch = ctx.scratch((values["scratch_size"] * ctx.threads,), float32, f"{op.name}/scratch")
    arguments: dict[str, Any] = {**values, "scale": op.attributes["scale"], "scratch": At(scratch)}
    for name, buffer in zip((*read, *written), (*reads, *writes), strict=True):
        arguments[name] = At(buffer)
    ctx.add(
        KernelStep(
            name=op.type,
            reads=reads,
            writes=[*writes, scratch],
            source=native_source(),
            kernel="attention_gradient" if gradient else "attention",
            arguments=arguments,
            tasks=tasks,
            flops=sizes.flops(gradient),
            grid=_grid(sizes, writes) if gradient else None,
        )
    )
    return True


def _grid(sizes: Attention, writes: Sequence[Buffer]) -> Grid | None:
    """How the gradient's tasks tile what they write: heads, pictures."""
    if sizes.size != sizes.value_size:
        return None
    width = sizes.size // LANES
    rows = {b: block_cuts(sizes.images * b.shape[1], b.shape[1]) for b in writes}
    return Grid(panel_cuts(sizes.heads * width, width), rows)
