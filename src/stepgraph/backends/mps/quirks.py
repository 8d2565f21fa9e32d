"""Known faults of the framework: where, what goes wrong, the way around, who says so."""

from __future__ import annotations

from dataclasses import dataclass

from stepgraph.backends.mps.system import Version


@dataclass(frozen=True)
class Quirk:
    """A fault of the framework.

    Attributes:
        name: of the switch that a lowering asks for.
        ops: where it shows.
        what: what goes wrong.
        around: what is done instead.
        source: who says so.
        first: the first system that has it; None for all so far.
        fixed: the first system that has it no more; None for none so far.
    """

    name: str
    ops: str
    what: str
    around: str
    source: str
    first: Version | None = None
    fixed: Version | None = None

    def applies(self, version: Version) -> bool:
        """Whether a system of that version has it."""
        if self.first is not None and version < self.first:
            return False
        return self.fixed is None or version < self.fixed


QUIRKS: dict[str, Quirk] = {
    quirk.name: quirk
    for quirk in (
        Quirk(
            "reciprocal_square_root_missing",
            "reciprocal_square_root",
            "the selector reciprocalSquareRoot does not exist yet",
            "reverseSquareRoot, which newer systems deprecate",
            "@nativescript/types-ios 9.1.2",
            fixed=Version(18),
        ),
        Quirk(
            "slice_update_missing",
            "slice_update",
            "the selector sliceUpdate does not exist yet",
            "the update is padded to the size of the data and selected by a mask",
            "MPSGraphTensorShapeOps, iOS 18",
            fixed=Version(18),
        ),
        Quirk(
            "matmul_long_inner",
            "matrix_multiplication",
            "products over more than 32768 elements are wrong on M1 and M2",
            "a sum of shorter products",
            "pytorch/pytorch 177116",
        ),
        Quirk(
            "attention_miscompiled",
            "matrix_multiplication of a softmax",
            "softmax(Q K^T) V of 3 matrices and more is miscompiled on M1 Pro",
            "the transposed product, transposed back",
            "measured by ChanLumerico/lucid",
            first=Version(26),
        ),
    )
}
