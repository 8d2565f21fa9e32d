"""How every op is said to MPSGraph: one table per family, named as in `graph.ops`."""

from __future__ import annotations

from types import ModuleType

from stepgraph.backends.mps.lowering import (
    activation,
    arithmetic,
    broadcasting,
    control_flow,
    convolution,
    decomposed,
    depthwise_convolution,
    gather,
    joining,
    matrix_multiplication,
    normalization,
    optimizer,
    padding,
    pooling,
    reduction,
    scatter_nd,
    slice_update,
    slicing,
    tensor_shape,
    top_k,
)
from stepgraph.backends.mps.lowering.table import Lowering

FAMILIES: tuple[ModuleType, ...] = (
    activation,
    arithmetic,
    broadcasting,
    control_flow,
    convolution,
    depthwise_convolution,
    gather,
    joining,
    matrix_multiplication,
    normalization,
    optimizer,
    padding,
    pooling,
    reduction,
    scatter_nd,
    slice_update,
    slicing,
    tensor_shape,
    top_k,
)

# What the builder makes itself, and what becomes of it.
BUILT_IN: dict[str, str] = {
    "placeholder": "placeholderWithShape:dataType:name:",
    "variable": "variableWithData:shape:dataType:name:, read once by readVariable:name:",
    "constant": "constantWithData:shape:dataType: or constantWithScalar:shape:dataType:",
    "read": "the variable's value at the start, or the tensor assigned",
    "assign": "assignVariable:withValueOfTensor:name:",
    "parameter": "the argument of a block",
}


def _lowerings() -> dict[str, Lowering]:
    table: dict[str, Lowering] = {}
    for family in FAMILIES:
        for name, lowering in family.LOWERINGS.items():
            if name in table:
                raise RuntimeError(f"op {name!r} has two lowerings")
            table[name] = lowering
    return table


def _decomposed() -> dict[str, str]:
    table = dict(decomposed.DECOMPOSED)
    for family in FAMILIES:
        table.update(family.DECOMPOSED)
    return table


LOWERINGS: dict[str, Lowering] = _lowerings()
# Ops without a lowering, which the compiler spells out in others, and why.
DECOMPOSED: dict[str, str] = _decomposed()
