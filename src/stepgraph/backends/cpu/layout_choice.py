"""Which layout each tensor is made in."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from stepgraph.backends.cpu.layouts import ROWS, Layout
from stepgraph.backends.cpu.registry import PREFERENCES
from stepgraph.graph.operation import Operation
from stepgraph.graph.tensor import Tensor


class Layouts:
    """The layout of every tensor, decided before anything is lowered.

    Attributes:
        of: tensor to layout.
        fixed: operations that give the same in every run (see `prepared`).
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        kinds: dict[Operation, str],
        fixed: Collection[Operation] = (),
    ) -> None:
        self.of: dict[Tensor, Layout] = {}
        self.fixed = fixed
        for op in operations:
            if op.type in PREFERENCES:
                PREFERENCES[op.type](self, op)
        for _ in range(2):  # the second turn reaches optimizer slots through what the first decided
            for op in operations:
                if kinds[op] == "map":
                    self._spread(op)
            for op in reversed(operations):
                if kinds[op] == "map":
                    self._spread_back(op, kinds)

    def _spread(self, op: Operation) -> None:
        """Results of elementwise ops, and variables beside them, follow the laid-out operand."""
        same = [t for t in op.inputs if t.shape == op.output.shape]
        chosen = next((self.of[t] for t in [op.output, *same] if t in self.of), None)
        if chosen is None or chosen is ROWS:
            return
        self.of.setdefault(op.output, chosen)
        for tensor in same:
            if tensor.operation.type == "variable":
                self.of.setdefault(tensor, chosen)

    def _spread_back(self, op: Operation, kinds: dict[Operation, str]) -> None:
        """Terms of a laid-out result follow it, and so the slots that an optimizer adds up."""
        chosen = self.of.get(op.output)
        if chosen is None or chosen is ROWS:
            return
        for tensor in op.inputs:
            movable = tensor.operation.type == "variable" or kinds[tensor.operation] == "map"
            if tensor.shape == op.output.shape and movable:
                self.of.setdefault(tensor, chosen)

    def get(self, tensor: Tensor) -> Layout:
        """The layout a tensor is made in."""
        return self.of.get(tensor, ROWS)
