"""What a verification found, as data, as text, as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stepgraph.graph.definition import Array


@dataclass(frozen=True)
class Comparison:
    """A tensor from a device beside the float64 one.

    Attributes:
        error: largest distance; infinite where one is finite and the other is not.
        tolerance: allowed at that element.
        index: of the element that is worst in units of its tolerance; None for empty tensors.
        got: the device's value there.
        expected: the float64 value there.
        outside: number of elements beyond their tolerance.
        size: number of elements.
        fault: what is wrong besides values (shape, dtype); empty if nothing.
    """

    error: float
    tolerance: float
    index: tuple[int, ...] | None = None
    got: float = 0.0
    expected: float = 0.0
    outside: int = 0
    size: int = 0
    fault: str = ""

    @property
    def agrees(self) -> bool:
        """Whether every element is within its tolerance."""
        return not self.outside and not self.fault

    @property
    def ratio(self) -> float:
        """Error in units of the tolerance."""
        if self.fault:
            return math.inf
        if self.tolerance:
            return self.error / self.tolerance
        return math.inf if self.error else 0.0


@dataclass(frozen=True)
class OperationCheck:
    """One operation on a device, judged on the inputs that it had there.

    Attributes:
        number: its place in the program, from 0.
        name: of the operation.
        op: its op.
        created_at: the user's line that asked for it.
        inputs: names, dtypes and shapes.
        outputs: dtypes and shapes.
        rule: of its tolerance; see `stepgraph.verification.conditions`.
        comparison: of its worst output.
    """

    number: int
    name: str
    op: str
    created_at: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    rule: str
    comparison: Comparison


@dataclass(frozen=True)
class QuantityCheck:
    """What a whole step leaves: the loss, a gradient, what became of a variable.

    Attributes:
        step: from 0.
        kind: "result", "gradient", "weight", "moving statistic", "optimizer state" or "variable".
        name: of the variable or result.
        comparison: by its norm: `error` and `tolerance` are lengths of vectors.
        magnitude: length of what is expected: of a variable its change.
    """

    step: int
    kind: str
    name: str
    comparison: Comparison
    magnitude: float

    @property
    def decisive(self) -> bool:
        """Whether the tolerance is less than what is expected: else rounding alone decides it."""
        return self.comparison.tolerance <= 0.5 * self.magnitude or not self.magnitude


@dataclass
class Report:
    """What `verify` found.

    Attributes:
        subject: what was run.
        device: where.
        operations: in the program's order.
        quantities: of the whole steps.
        reproduction: the file that repeats the first divergence; None if there is none.
    """

    subject: str
    device: str
    operations: list[OperationCheck] = field(default_factory=list)
    quantities: list[QuantityCheck] = field(default_factory=list)
    reproduction: Path | None = None

    @property
    def diverging(self) -> list[OperationCheck]:
        """Operations beyond their tolerance, in the program's order."""
        return [check for check in self.operations if not check.comparison.agrees]

    @property
    def first(self) -> OperationCheck | None:
        """The first operation that diverges."""
        return next(iter(self.diverging), None)

    @property
    def diverging_quantities(self) -> list[QuantityCheck]:
        """What whole steps left that is beyond its tolerance."""
        return [check for check in self.quantities if not check.comparison.agrees]

    @property
    def agrees(self) -> bool:
        """Whether nothing diverges."""
        return not self.diverging and not self.diverging_quantities

    def worst_by_op(self) -> list[OperationCheck]:
        """For each op the check that came nearest to its tolerance or went furthest beyond."""
        worst: dict[str, OperationCheck] = {}
        for check in self.operations:
            present = worst.get(check.op)
            if present is None or check.comparison.ratio > present.comparison.ratio:
                worst[check.op] = check
        return sorted(worst.values(), key=lambda check: -check.comparison.ratio)

    def worst_by_kind(self) -> list[QuantityCheck]:
        """For each step and kind of quantity the one nearest to its tolerance or beyond."""
        worst: dict[tuple[int, str], QuantityCheck] = {}
        for check in self.quantities:
            present = worst.get((check.step, check.kind))
            if present is None or check.comparison.ratio > present.comparison.ratio:
                worst[check.step, check.kind] = check
        return list(worst.values())

    def __str__(self) -> str:
        """A few lines: the verdict, and the first divergence in full."""
        lines = [f"{self.subject} on {self.device}: {self.verdict()}"]
        if self.first is not None:
            lines += ["", *describe_check(self.first)]
        lines += [f"  {quantity_line(check)}" for check in self.diverging_quantities[:8]]
        if self.reproduction is not None:
            lines += ["", f"reproduction: python {self.reproduction}"]
        return "\n".join(lines)

    def verdict(self) -> str:
        """One sentence."""
        parts = []
        if self.operations:
            parts.append(_tally(len(self.operations), len(self.diverging), "operation"))
        if self.quantities:
            steps = 1 + max(check.step for check in self.quantities)
            where = f" in {steps} whole step{'s' if steps > 1 else ''}"
            bad = len(self.diverging_quantities)
            parts.append(_tally(len(self.quantities), bad, "figure") + where)
            vague = sum(not check.decisive for check in self.quantities)
            if vague:
                parts.append(
                    f"{vague} of them say little, because rounding alone moves them by their own "
                    "size (a larger batch may help)"
                )
        if self.diverging_quantities and self.operations and not self.diverging:
            parts.append(
                "since each operation agrees, the fault lies in how the device joins them "
                "(fusion, order, memory shared by two values)"
            )
        return "; ".join(parts) or "nothing was compared"

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON: numbers that are not finite become strings."""
        found: dict[str, Any] = {
            "subject": self.subject,
            "device": self.device,
            "agrees": self.agrees,
            "first": None if self.first is None else asdict(self.first),
            "operations": [asdict(check) for check in self.operations],
            "quantities": [asdict(check) for check in self.quantities],
            "reproduction": None if self.reproduction is None else str(self.reproduction),
        }
        plain: dict[str, Any] = _plain(found)
        return plain


def describe_check(check: OperationCheck) -> list[str]:
    """An operation's check in full, for people."""
    c = check.comparison
    lines = [f"operation {check.number}: {check.op} '{check.name}'"]
    lines += [f"  input   {text}" for text in check.inputs]
    lines += [f"  output  {text}" for text in check.outputs]
    lines.append(f"  created at  {check.created_at}")
    if c.fault:
        lines.append(f"  {c.fault}")
        return lines
    lines.append(f"  error {c.error:.3g}, tolerance {c.tolerance:.3g} ({check.rule}): {times(c)}")
    if c.index is not None:
        where = ", ".join(map(str, c.index))
        lines.append(f"  worst at [{where}]: {c.got:.9g}, float64 gives {c.expected:.9g}")
    lines.append(f"  {c.outside} of {c.size} elements are outside")
    return lines


def quantity_line(check: QuantityCheck) -> str:
    """A whole step's figure in one line."""
    c = check.comparison
    text = c.fault or f"off by {c.error:.3g}, tolerance {c.tolerance:.3g} ({times(c)})"
    return f"step {check.step}: {check.kind} '{check.name}' {text}"


def times(comparison: Comparison) -> str:
    """How often the error holds the tolerance.

    Example:
        >>> times(Comparison(3e-3, 1e-6)), times(Comparison(1.0, 0.0))
        ('3e+03 times as much', 'must be exact')
    """
    if math.isinf(comparison.ratio):
        return "must be exact" if not comparison.tolerance else "not finite"
    return f"{comparison.ratio:.2g} times as much"


def spec_text(name: str, array: Array) -> str:
    """A tensor in a report."""
    shape = ", ".join(map(str, array.shape))
    return f"{array.dtype.name} ({shape})" + (f" '{name}'" if name else "")


def _tally(count: int, bad: int, what: str) -> str:
    """How many agree.

    Example:
        >>> _tally(1, 0, "figure"), _tally(3, 0, "figure"), _tally(3, 1, "figure")
        ('1 figure agrees', 'all 3 figures agree', '1 of 3 figures diverges')
    """
    if bad:
        return f"{bad} of {count} {what}{'s' if count > 1 else ''} diverge{'' if bad > 1 else 's'}"
    return f"1 {what} agrees" if count == 1 else f"all {count} {what}s agree"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
