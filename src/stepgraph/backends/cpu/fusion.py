"""Which operations run together in one loop.

An operation is *mapped* (elementwise), *reduced* (a sum over some axes) or *heavy* (a kernel or
NumPy of its own). Mapped and reduced operations over one full shape that stand at the same stage,
that is, with equally many heavy operations or reductions before them, cannot depend on each other
through anything outside their group; those that share data become one group, one loop nest.

What is cheap to compute again is not stored: small operands (a channel's scale) are computed inside
each nest that uses them, and a full-size value is computed again when the nest reads what it is
made of anyway. So a normalisation's output is not kept for its gradient, however it was spelled.
A dear value takes the place of the only large one it is made of, where nothing else is made of that
later: a GELU's slope is kept instead of what the GELU read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from stepgraph.backends.cpu.kernels.scalar_ops import C_FUNCTIONS
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import element_count, known_shape
from stepgraph.graph.tensor import Tensor

# A value this many times smaller than the nest that uses it is computed anew there.
SMALL = 4
# Operations that may be computed again to save storing a full-size value.
DEPTH = 12
# Operations that take longer than reading a value that is not in the cache.
DEAR = frozenset(
    ("exponent", "erf", "gelu", "logarithm", "sigmoid", "silu", "softplus", "tanh", "power")
)


@dataclass(eq=False)
class Group:
    """Operations run by one loop nest, or one heavy operation.

    Attributes:
        operations: in order.
        shape: the full shape of a nest; None for a heavy operation.
        axes: the axes its reductions sum over.
        stored: tensors it must store.
        updates: name of a variable to the tensor that becomes its value here, in place.
    """

    operations: list[Operation]
    shape: tuple[int, ...] | None = None
    axes: tuple[int, ...] | None = None
    stored: list[Tensor] = field(default_factory=list)
    updates: dict[str, Tensor] = field(default_factory=dict)

    @property
    def is_heavy(self) -> bool:
        """Whether it is one operation with a kernel of its own."""
        return self.shape is None


def count(tensor: Tensor) -> int:
    """Elements of a tensor."""
    return element_count(tensor.shape) or 0


def read_by(op: Operation) -> list[Tensor]:
    """The inputs whose numbers an operation reads: not those that only lend their shape."""
    skipped = op.definition.shape_only
    return [t for k, t in enumerate(op.inputs) if k not in skipped]


class Fusion:
    """Groups a program's operations."""

    def __init__(
        self,
        operations: Sequence[Operation],
        kind: Callable[[Operation], str],
        kept: Sequence[Tensor],
        enabled: bool = True,
        absorbed: Mapping[Operation, Operation] | None = None,
        fixed: Collection[Operation] = (),
        keep_dear: bool = True,
    ) -> None:
        """Groups them.

        Args:
            operations: in order.
            kind: ``map``, ``reduce``, ``heavy`` or ``source`` (no work: feeds, variables,
                constants).
            kept: tensors that must be stored: targets and new values of variables.
            enabled: without it each operation is a group of its own.
            absorbed: operations that become part of a heavy one.
            fixed: operations that are computed once and kept (see `prepared`): they form groups
                of their own, and what others read of them is stored.
            keep_dear: whether dear values are stored in place of what they are made of.
        """
        self.fixed = set(fixed)
        self.absorbed = dict(absorbed or {})
        self.kind = {op: kind(op) for op in operations}
        self.operations = [op for op in operations if self.kind[op] != "source"]
        self.consumers: dict[Tensor, list[Operation]] = {}
        for op in operations:
            for tensor in dict.fromkeys(read_by(op)):
                self.consumers.setdefault(tensor, []).append(op)
        self.kept = set(kept)
        self.enabled = enabled
        self.keep_dear = keep_dear
        self.group_of: dict[Operation, Group] = {}
        self.groups = self._group()
        self._settle_stored()

    # -- forming groups ------------------------------------------------------------------------

    def _full_shape(self, op: Operation) -> tuple[int, ...]:
        tensor = op.inputs[0] if self.kind[op] == "reduce" else op.output
        return known_shape(tensor.shape)

    def _stages(self) -> dict[Operation, int]:
        made: dict[Tensor, int] = {}
        stages: dict[Operation, int] = {}
        for op in self.operations:
            stage = max((made.get(t, 0) for t in op.inputs), default=0)
            stages[op] = stage
            after = stage if self.kind[op] == "map" else stage + 1
            for tensor in op.outputs:
                made[tensor] = after
        return stages

    def _group(self) -> list[Group]:
        stages = self._stages()
        parent: dict[Operation, Operation] = {op: op for op in self.operations}

        def find(op: Operation) -> Operation:
            while parent[op] is not op:
                parent[op] = parent[parent[op]]
                op = parent[op]
            return op

        for op, heavy in self.absorbed.items():
            parent[op] = heavy
        light = [
            op
            for op in self.operations
            if self.kind[op] in ("map", "reduce") and op not in self.absorbed
        ]
        if self.enabled:
            readers: dict[tuple[int, bool, tuple[int, ...], Tensor], Operation] = {}
            for op in light:
                shape = self._full_shape(op)
                size = element_count(shape) or 0
                for tensor in op.inputs:
                    if count(tensor) != size:
                        continue
                    fixed = op in self.fixed
                    key = (stages[op], fixed, shape, tensor)
                    if key in readers:
                        parent[find(op)] = find(readers[key])
                    readers.setdefault(key, op)
                    maker = tensor.operation
                    if (
                        self.kind.get(maker) == "map"
                        and maker not in self.absorbed
                        and stages[maker] == stages[op]
                        and (maker in self.fixed) == fixed
                        and self._full_shape(maker) == shape
                    ):
                        parent[find(op)] = find(maker)
        members: dict[Operation, list[Operation]] = {}
        for op in self.operations:
            members.setdefault(find(op), []).append(op)
        groups: list[Group] = []
        for ops in members.values():
            groups += self._split(ops)
        for group in groups:
            for op in group.operations:
                self.group_of[op] = group
        return groups

    def _split(self, ops: list[Operation]) -> list[Group]:
        """One nest sums over one set of axes: reductions over others get nests of their own."""
        if self.kind[ops[0]] == "heavy":
            return [Group(ops)]
        shape = self._full_shape(ops[0])
        main = Group([], shape)
        others: dict[tuple[int, ...], Group] = {}
        for op in ops:
            if self.kind[op] == "map":
                main.operations.append(op)
                continue
            axes = tuple(op.attributes["axes"])
            if main.axes in (None, axes):
                main.axes = axes
                main.operations.append(op)
            else:
                others.setdefault(axes, Group([], shape, axes)).operations.append(op)
        return [main, *others.values()]

    # -- what is stored ------------------------------------------------------------------------

    def _settle_stored(self) -> None:
        """Decides for each mapped value that leaves its group: stored, or computed again."""
        stored: set[Tensor] = set()
        for op in self.operations:
            for tensor in op.outputs:
                readers = self.consumers.get(tensor, ())
                heavy = any(self.kind[c] == "heavy" for c in readers)
                apart = self.kind[op] != "map" or op in self.absorbed
                once = op in self.fixed and any(c not in self.fixed for c in readers)
                if apart or heavy or once or tensor in self.kept:
                    stored.add(tensor)
        self.stored = stored
        if self.enabled and self.keep_dear:
            stored |= self._dear()
        for group in self.groups:
            if group.is_heavy:
                continue
            for tensor in self._needed(group):
                if tensor not in stored and not self._again(group, tensor):
                    stored.add(tensor)
        for group in self.groups:
            made = [t for op in group.operations for t in op.outputs if t in stored]
            group.stored = [t for t in made if self.consumers.get(t) or t in self.kept]

    def _needed(self, group: Group) -> list[Tensor]:
        """Mapped values of other groups that this one uses."""
        inside = set(group.operations)
        found: dict[Tensor, None] = {}
        for op in group.operations:
            for tensor in op.inputs:
                maker = tensor.operation
                if maker not in inside and self.kind.get(maker) == "map":
                    found.setdefault(tensor)
        return list(found)

    def _dear(self) -> set[Tensor]:
        """Dear values that later groups need, each of the only value that it leaves unread."""
        needed: dict[Tensor, set[Tensor]] = {}
        for group in self.groups:
            for tensor in [] if group.is_heavy else self._needed(group):
                for leaf in self._large_leaves(tensor):
                    needed.setdefault(leaf, set()).add(tensor)
        found = set()
        for leaf, tensors in needed.items():
            tensor = min(tensors, key=lambda t: t.operation.serial)
            group = self.group_of[tensor.operation]
            replaced = (
                len(tensors) == 1
                and self._large_leaves(tensor) == {leaf}
                and self.kind[leaf.operation] != "source"
                and leaf not in self.kept
                and all(self.group_of[op] is group for op in self.consumers[leaf])
            )
            made_by, _ = self._behind(tensor) or ((), ())
            if replaced and any(op.type in DEAR for op in made_by):
                found.add(tensor)
        return found

    def _large_leaves(self, tensor: Tensor) -> set[Tensor]:
        return {t for t in self.leaves(tensor) or () if count(t) * SMALL > count(tensor)}

    def _again(self, group: Group, tensor: Tensor) -> bool:
        """Whether a nest computes a value of another group anew instead of reading it."""
        if not self.enabled:
            return False
        size = element_count(group.shape or ()) or 0
        leaves = self.leaves(tensor)
        if leaves is None:
            return False
        if count(tensor) * SMALL <= size:
            return not self._slow(tensor)
        full = {t for t in leaves if count(t) * SMALL > size}
        inside = set(group.operations)
        read = {
            t
            for op in group.operations
            for t in op.inputs
            if t is not tensor and t.operation not in inside and count(t) * SMALL > size
        }
        return full <= read or len(full) <= 1

    def _slow(self, tensor: Tensor) -> bool:
        """Whether computing a value anew calls the C library: `adam`'s powers of its betas."""
        stack = [tensor]
        while stack:
            at = stack.pop()
            if self.kind.get(at.operation) == "map" and at not in self.stored:
                if at.operation.type in C_FUNCTIONS:
                    return True
                stack.extend(at.operation.inputs)
        return False

    def leaves(self, tensor: Tensor) -> set[Tensor] | None:
        """Stored values a mapped value is made of; None if that takes too many operations."""
        behind = self._behind(tensor)
        return None if behind is None else behind[1]

    def _behind(self, tensor: Tensor) -> tuple[list[Operation], set[Tensor]] | None:
        """The operations that make a mapped value of stored ones, and those."""
        operations: list[Operation] = []
        found: set[Tensor] = set()
        seen: set[Tensor] = set()
        stack = [tensor]
        while stack:
            at = stack.pop()
            if at in seen:
                continue
            seen.add(at)
            if at is not tensor and (self.kind.get(at.operation) != "map" or at in self.stored):
                found.add(at)
                continue
            operations.append(at.operation)
            if len(operations) > DEPTH:
                return None
            stack.extend(at.operation.inputs)
        return operations, found

    def expression(self, group: Group) -> tuple[list[Operation], list[Tensor]]:
        """Everything a nest computes, in order, and the stored tensors it reads."""
        stack = [t for op in group.operations for t in op.inputs]
        computed = set(group.operations)
        inputs: dict[Tensor, None] = {}
        while stack:
            tensor = stack.pop()
            maker = tensor.operation
            if maker in computed:
                continue
            if self.kind.get(maker) == "map" and tensor not in self.stored:
                computed.add(maker)
                stack.extend(maker.inputs)
            else:
                inputs.setdefault(tensor)
        return sorted(computed, key=lambda op: op.serial), list(inputs)
