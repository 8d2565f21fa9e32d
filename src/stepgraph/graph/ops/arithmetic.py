"""Arithmetic (MPSGraphArithmeticOps): every op that works element by element on plain numbers.

One family in three files: of one number, of two, and what deals in truth values and bits.
"""

from __future__ import annotations

from stepgraph.graph.definition import OpDefinition
from stepgraph.graph.ops import arithmetic_binary, arithmetic_logic, arithmetic_unary
from stepgraph.graph.ops.arithmetic_binary import BinaryOps
from stepgraph.graph.ops.arithmetic_logic import LogicOps
from stepgraph.graph.ops.arithmetic_unary import UnaryOps

DEFINITIONS: tuple[OpDefinition, ...] = (
    *arithmetic_unary.DEFINITIONS,
    *arithmetic_binary.DEFINITIONS,
    *arithmetic_logic.DEFINITIONS,
)


class ArithmeticOps(UnaryOps, BinaryOps, LogicOps):
    """Arithmetic, comparisons and logic, element by element."""
