"""Tensors with elements added around them (MPSGraphTensorShapeOps)."""

from __future__ import annotations

import numpy as np

from stepgraph.backends.mps.enums import MPSGraphPaddingMode
from stepgraph.backends.mps.lowering.emitter import Emitter, Value, known, lowering
from stepgraph.backends.mps.lowering.table import Lowering
from stepgraph.backends.mps.messages import numbers
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.padding import pad_sources

_MODES = {
    "reflect": MPSGraphPaddingMode.Reflect,
    "symmetric": MPSGraphPaddingMode.Symmetric,
    "edge": MPSGraphPaddingMode.ClampToEdge,
}


def _pad(e: Emitter, operation: Operation, x: Value | None) -> Value:
    paddings, mode = operation.attributes["paddings"], operation.attributes["mode"]
    value, shape = operation.attributes["value"], known(operation.output.shape)
    if x is None:
        return e.filled(shape, value, operation.output.dtype)
    if not any(before or after for before, after in paddings):
        return x
    before, after = zip(*paddings, strict=True)
    if mode == "constant":
        return e.pad(x, before, after, value)
    room = {"reflect": -1, "symmetric": 0}.get(mode, 2**31)
    if any(max(p) > n + room for p, n in zip(paddings, x.shape, strict=True)):
        return _repeat(e, x, paddings, mode)

    def move(v: Value) -> Value:
        return e.send(
            "padTensor:withPaddingMode:leftPadding:rightPadding:constantValue:name:",
            v,
            int(_MODES[mode]),
            numbers(before),
            numbers(after),
            0.0,
            shape=shape,
            dtype=v.dtype,
        )

    return move(x)


def _repeat(e: Emitter, x: Value, paddings: tuple[tuple[int, int], ...], mode: str) -> Value:
    """Mirrors more often than once, which the framework does not."""
    for axis, (before, after) in enumerate(paddings):
        if before + after:
            line = pad_sources(x.shape[axis], before, after, mode).astype(np.int32)
            x = e.gather(x, e.constant(line), axis)
    return x


LOWERINGS: dict[str, Lowering] = {"pad": lowering(_pad, takes_empty=True)}

DECOMPOSED: dict[str, str] = {
    "pad_gradient": "padGradient cuts off what mirrored elements get: it is scattered back",
}
