"""What a lowering is: a function that sends messages, and the limits of what it can be used for.

A limit is data with a reason. The same record words the error of whoever runs into it, skips the
test that would, and stands in the printed table of what the device supports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from stepgraph.backends.mps.enums import DATA_TYPES
from stepgraph.backends.mps.messages import Handle
from stepgraph.backends.mps.system import Version
from stepgraph.graph.operation import Operation

if TYPE_CHECKING:
    from stepgraph.backends.mps.builder import Builder

# Gets the handles of the operation's inputs; returns that of its output, or a list of several.
# A tensor of rank 0 is one of shape (1,) here: MPSGraph takes rank 0 at some places only.
Lower = Callable[["Builder", Operation, Sequence[Handle]], "Handle | list[Handle]"]


@dataclass(frozen=True)
class Limit:
    """Something a device, or a lowering, cannot do.

    Attributes:
        what: what it covers, as ``"inputs float32, float16 only"``, for the support table.
        reason: why.
        refuses: whether an operation runs into it on a system of that version.
        source: who says so: the SDK's header, a project that measured it.
        fix: the way out, for the error.
    """

    what: str
    reason: str
    refuses: Callable[[Operation, Version], bool]
    source: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Lowering:
    """How an op is said in messages to an MPSGraph.

    Attributes:
        lower: sends them.
        limits: what it cannot do.
        takes_empty: whether `lower` copes with inputs of no elements, which come as None: there is
            no such thing on the GPU. Otherwise an operation of which only some inputs are empty is
            refused; one whose outputs or inputs all are, is never lowered.
        note: what is special about it, for the support table; such as the quirk it goes around.
    """

    lower: Lower
    limits: tuple[Limit, ...] = ()
    takes_empty: bool = False
    note: str = ""

    def limit(self, operation: Operation, version: Version) -> Limit | None:
        """The first limit an operation runs into, the device's included; None for none."""
        for limit in (*DEVICE_LIMITS, *self.limits):
            if limit.refuses(operation, version):
                return limit
        return None


def only_dtypes(*names: str, reason: str, source: str = "", fix: str = "") -> Limit:
    """Inputs of these dtypes only."""

    def refuses(operation: Operation, version: Version) -> bool:
        return any(t.dtype.name not in names for t in operation.inputs)

    return Limit(f"inputs {', '.join(names)} only", reason, refuses, source, fix)


def rank_at_most(rank: int, reason: str, source: str = "", fix: str = "") -> Limit:
    """Inputs and outputs of at most this rank."""

    def refuses(operation: Operation, version: Version) -> bool:
        return any(t.rank > rank for t in (*operation.inputs, *operation.outputs))

    return Limit(f"rank {rank} at most", reason, refuses, source, fix)


def when(
    what: str,
    refuses: Callable[[Operation], bool],
    *,
    reason: str,
    source: str = "",
    fix: str = "",
) -> Limit:
    """Refuses what a function of the operation says."""
    return Limit(what, reason, lambda operation, version: refuses(operation), source, fix)


def not_large_before(
    extent: int, major: int, minor: int, *, reason: str, source: str = "", fix: str = ""
) -> Limit:
    """No axis longer than an extent on systems older than a version of iOS."""
    first = Version(major, minor)

    def refuses(operation: Operation, version: Version) -> bool:
        tensors = (*operation.inputs, *operation.outputs)
        return version < first and any((s or 0) > extent for t in tensors for s in t.shape)

    return Limit(f"axes up to {extent} before {first}", reason, refuses, source, fix)


def _too_large(operation: Operation) -> bool:
    return any(prod(s or 0 for s in t.shape) >= 2**31 for t in operation.outputs)


# What no operation can do.
DEVICE_LIMITS: tuple[Limit, ...] = (
    Limit(
        f"dtypes {', '.join(DATA_TYPES)}",
        "the GPU computes in no other",
        lambda operation, version: any(
            t.dtype.name not in DATA_TYPES for t in (*operation.inputs, *operation.outputs)
        ),
        "MPSDataType",
        'cast it, as in graph.cast(x, "float32"), or use device="cpu"',
    ),
    rank_at_most(16, "MPSNDArray has at most 16 dimensions", "MPSNDArray.h"),
    when(
        "fewer than 2^31 elements",
        _too_large,
        reason="MPSNDArray counts elements in 31 bits",
        source="pytorch/pytorch 84039",
        fix="use a smaller batch",
    ),
)
