"""Which ops have kernels: tables that the files in `lowering/` fill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stepgraph.graph.operation import Operation

if TYPE_CHECKING:
    from stepgraph.backends.cpu.fusion import Group
    from stepgraph.backends.cpu.layout_choice import Layouts
    from stepgraph.backends.cpu.lower import Lowering

Lowerer = Callable[["Lowering", Operation], bool]
Preference = Callable[["Layouts", Operation], None]

# Op name to what adds its steps. An op without an entry, or whose entry returns False, runs its
# NumPy reference.
LOWERINGS: dict[str, Lowerer] = {}
# Op name to what says which layouts it likes, asked before anything is lowered.
PREFERENCES: dict[str, Preference] = {}


@dataclass(frozen=True)
class Updating:
    """A gradient that can be added to its variable by the kernel that computes it.

    Attributes:
        fits: whether an operation is one.
        lower: adds the step for a group of the gradient and its gradient descent; False declines.
    """

    fits: Callable[[Operation], bool]
    lower: Callable[[Lowering, Group], bool]


UPDATING: dict[str, Updating] = {}


def lowers(*names: str) -> Callable[[Lowerer], Lowerer]:
    """Registers the lowering of ops."""

    def register(function: Lowerer) -> Lowerer:
        for name in names:
            if name in LOWERINGS:
                raise RuntimeError(f"op {name!r} is lowered twice")
            LOWERINGS[name] = function
        return function

    return register


def prefers(*names: str) -> Callable[[Preference], Preference]:
    """Registers what layouts ops like."""

    def register(function: Preference) -> Preference:
        for name in names:
            if name in PREFERENCES:
                raise RuntimeError(f"op {name!r} says twice which layouts it likes")
            PREFERENCES[name] = function
        return function

    return register
