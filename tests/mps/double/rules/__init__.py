"""What each of MPSGraph's selectors builds: shapes, data types, numbers; one table a family.

Written from the SDK's facts and what is known of the framework's behaviour, apart from
stepgraph's own definitions, which these rules are there to contradict.
"""

from __future__ import annotations

from typing import Any

from . import activation, arithmetic, memory, reduction

FAMILIES = {
    "activation": activation.RULES,
    "arithmetic": arithmetic.RULES,
    "memory": memory.RULES,
    "reduction": reduction.RULES,
}
RULES: dict[str, Any] = {
    selector: rule for family in FAMILIES.values() for selector, rule in family.items()
}
