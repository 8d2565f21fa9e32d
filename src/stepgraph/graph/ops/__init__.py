"""The vocabulary: one file per op family, and the one table made of them."""

from __future__ import annotations

from types import ModuleType

from stepgraph.graph.definition import OpDefinition
from stepgraph.graph.ops import (
    activation,
    arithmetic,
    attention,
    broadcasting,
    control_flow,
    convolution,
    convolution_transpose,
    depthwise_convolution,
    dropout,
    gather,
    gather_along_axis,
    gather_nd,
    joining,
    like,
    loss,
    matrix_multiplication,
    memory,
    normalization,
    one_hot,
    optimizer,
    padding,
    pooling,
    random,
    reduction,
    resize,
    scatter_nd,
    slice_update,
    slicing,
    tensor_shape,
    top_k,
)

FAMILIES: tuple[ModuleType, ...] = (
    memory,
    like,
    activation,
    tensor_shape,
    convolution,
    matrix_multiplication,
    arithmetic,
    reduction,
    slicing,
    slice_update,
    joining,
    padding,
    normalization,
    control_flow,
    loss,
    optimizer,
    pooling,
    gather,
    scatter_nd,
    depthwise_convolution,
    convolution_transpose,
    random,
    dropout,
    one_hot,
    top_k,
    resize,
    broadcasting,
    gather_nd,
    gather_along_axis,
    attention,
)


def _table() -> dict[str, OpDefinition]:
    table: dict[str, OpDefinition] = {}
    for family in FAMILIES:
        for definition in family.DEFINITIONS:
            if definition.name in table:
                raise RuntimeError(f"op {definition.name!r} is defined twice")
            table[definition.name] = definition
    return table


OPS: dict[str, OpDefinition] = _table()


def family_of(definition: OpDefinition) -> str:
    """The name of the family that an op belongs to, such as ``"activation"``."""
    for family in FAMILIES:
        if definition in family.DEFINITIONS:
            return family.__name__.rsplit(".", 1)[-1]
    raise KeyError(definition.name)
