"""Arithmetic (MPSGraphArithmeticOps): every op that works element by element on plain numbers.

One family in several files, by what the ops are for; `arithmetic_common` is what they share.
"""

from __future__ import annotations

from stepgraph.graph.definition import OpDefinition
from stepgraph.graph.ops import (
    arithmetic_binary,
    arithmetic_comparison,
    arithmetic_exponential,
    arithmetic_logic,
    arithmetic_rounding,
    arithmetic_trigonometry,
)
from stepgraph.graph.ops.arithmetic_binary import BinaryOps
from stepgraph.graph.ops.arithmetic_comparison import ComparisonOps
from stepgraph.graph.ops.arithmetic_exponential import ExponentialOps
from stepgraph.graph.ops.arithmetic_logic import LogicOps
from stepgraph.graph.ops.arithmetic_rounding import RoundingOps
from stepgraph.graph.ops.arithmetic_trigonometry import TrigonometryOps

DEFINITIONS: tuple[OpDefinition, ...] = (
    *arithmetic_binary.DEFINITIONS,
    *arithmetic_exponential.DEFINITIONS,
    *arithmetic_rounding.DEFINITIONS,
    *arithmetic_trigonometry.DEFINITIONS,
    *arithmetic_comparison.DEFINITIONS,
    *arithmetic_logic.DEFINITIONS,
)


class ArithmeticOps(
    BinaryOps, ExponentialOps, RoundingOps, TrigonometryOps, ComparisonOps, LogicOps
):
    """Arithmetic, comparisons and logic, element by element."""
