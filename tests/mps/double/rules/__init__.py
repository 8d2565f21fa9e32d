"""What each of MPSGraph's selectors builds: shapes, data types, numbers; one table a family.

Written from the SDK's facts and what is known of the framework's behaviour, apart from
stepgraph's own definitions, which these rules are there to contradict.
"""

from __future__ import annotations

from typing import Any

from . import (
    activation,
    arithmetic,
    control_flow,
    convolution,
    indexing,
    loss,
    memory,
    normalization,
    optimizer,
    pooling,
    random,
    reduction,
    resize,
    shapes,
    slices,
)

FAMILIES = {
    "activation": activation.RULES,
    "arithmetic": arithmetic.RULES,
    "control_flow": control_flow.RULES,
    "convolution": convolution.RULES,
    "indexing": indexing.RULES,
    "loss": loss.RULES,
    "memory": memory.RULES,
    "normalization": normalization.RULES,
    "optimizer": optimizer.RULES,
    "pooling": pooling.RULES,
    "random": random.RULES,
    "reduction": reduction.RULES,
    "resize": resize.RULES,
    "shapes": shapes.RULES,
    "slices": slices.RULES,
}
RULES: dict[str, Any] = {
    selector: rule for family in FAMILIES.values() for selector, rule in family.items()
}
