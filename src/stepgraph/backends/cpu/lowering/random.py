"""Random numbers and dropout."""

from __future__ import annotations

from math import prod
from typing import Any

from stepgraph.backends.cpu.kernels.random import RandomSpec, build_random
from stepgraph.backends.cpu.layouts import LANES, PANELS, ROWS, Layout
from stepgraph.backends.cpu.lower import Lowering
from stepgraph.backends.cpu.plan import At, Buffer, KernelSource, KernelStep
from stepgraph.backends.cpu.registry import lowers
from stepgraph.graph.dtypes import float32
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.random import dropout_threshold
from stepgraph.graph.shapes import known_shape
from stepgraph.graph.tensor import Tensor

# Vectors of 16 that one task draws.
VECTORS = 256


@lowers("random_bits", "random_uniform", "random_normal")
def _lower(ctx: Lowering, op: Operation) -> bool:
    kind = op.type.removeprefix("random_")
    if kind != "bits" and op.output.dtype != float32:
        return False
    a = op.attributes
    settings: dict[str, Any] = {}
    if kind == "uniform":
        settings = {"a": a["maximum"] - a["minimum"], "b": a["minimum"]}
    if kind == "normal":
        settings = {"a": a["standard_deviation"], "b": a["mean"]}
    return _draw(ctx, op, kind, op.inputs[0], ROWS, settings, None)


@lowers("dropout")
def _lower_dropout(ctx: Lowering, op: Operation) -> bool:
    x, step = op.inputs
    shape = known_shape(x.shape)
    if x.dtype != float32 or not prod(shape):
        return False
    # In panels of fewer channels a vector's numbers are no neighbours of the next row's.
    panels = bool(shape) and shape[-1] % LANES == 0 and ctx.has(x, PANELS)
    layout = PANELS if panels else ROWS
    rate = op.attributes["rate"]
    settings = {"a": 1 / (1 - rate), "b": 0.0, "threshold": dropout_threshold(rate)}
    return _draw(ctx, op, "dropout", step, layout, settings, ctx.value(x, layout))


def _draw(
    ctx: Lowering,
    op: Operation,
    kind: str,
    step: Tensor,
    layout: Layout,
    settings: dict[str, Any],
    source: Buffer | None,
) -> bool:
    shape = known_shape(op.output.shape)
    size = prod(shape)
    if not size or step.dtype.name not in ("int32", "int64"):
        return False
    panels = shape[-1] // LANES if layout is PANELS else 1
    rows = size // shape[-1] if layout is PANELS else -(-size // LANES)
    count = ctx.value(step, ROWS)
    target = ctx.output(op.output, layout)
    spec = RandomSpec(kind, step.dtype.name)
    blocks = -(-rows // VECTORS)
    seed = op.attributes["seed"]
    arguments: dict[str, Any] = {
        "step": At(count),
        "seed": seed - 2**64 if seed >> 63 else seed,
        "stream": op.attributes["stream"],
        "count": rows * LANES if layout is PANELS else size,
        "rows": rows,
        "apart": shape[-1] if layout is PANELS else LANES,
        "block": VECTORS,
        "blocks": blocks,
        "y": At(target),
        **settings,
    }
    if source is not None:
        arguments["x"] = At(source)
    ctx.add(
        KernelStep(
            name=op.type,
            reads=[count, *([source] if source else [])],
            writes=[target],
            aliases=(source,) if source else (),
            source=KernelSource(("random", spec), lambda: build_random(spec)),
            kernel="draw",
            arguments=arguments,
            tasks=panels * blocks,
        )
    )
    return True
