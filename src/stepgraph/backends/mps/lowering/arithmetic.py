"""Arithmetic (MPSGraphArithmeticOps): one selector each, NumPy's broadcasting."""

from __future__ import annotations

from collections.abc import Sequence

from stepgraph.backends.mps.builder import Builder
from stepgraph.backends.mps.lowering.table import Lower, Lowering
from stepgraph.backends.mps.messages import Handle
from stepgraph.graph.operation import Operation


def _binary(stem: str) -> Lower:
    selector = f"{stem}WithPrimaryTensor:secondaryTensor:name:"

    def lower(b: Builder, operation: Operation, inputs: Sequence[Handle]) -> Handle:
        primary, secondary = inputs
        return b.send(selector, primary, secondary)

    return lower


def _unary(stem: str) -> Lower:
    selector = f"{stem}WithTensor:name:"

    def lower(b: Builder, operation: Operation, inputs: Sequence[Handle]) -> Handle:
        return b.send(selector, inputs[0])

    return lower


LOWERINGS: dict[str, Lowering] = {
    "addition": Lowering(_binary("addition")),
    "subtraction": Lowering(_binary("subtraction")),
    "multiplication": Lowering(_binary("multiplication")),
    "division": Lowering(_binary("division")),
    "negative": Lowering(_unary("negative")),
    "exponent": Lowering(_unary("exponent")),
}
