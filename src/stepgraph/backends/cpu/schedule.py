"""The order in which groups run, and which of them may write variables in place."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence

from stepgraph.backends.cpu.fusion import Fusion, Group, count, read_by
from stepgraph.backends.cpu.registry import UPDATING
from stepgraph.compiler.program import Program
from stepgraph.graph.operation import Operation
from stepgraph.graph.tensor import Tensor

Before = dict[Group, set[Group]]


def descents_in_gradients(
    program: Program, operations: Sequence[Operation]
) -> dict[Operation, Operation]:
    """Steps of gradient descent that the kernel of the weight gradient can take itself.

    That is so where nothing else wants the gradient, and the result becomes the variable's value.
    """
    uses = Counter(id(t) for op in operations for t in read_by(op))
    uses.update(id(t) for t in program.results())
    found: dict[Operation, Operation] = {}
    for name, tensor in program.updates.items():
        update = tensor.operation
        if update.type != "stochastic_gradient_descent":
            continue
        rate, values, gradient = update.inputs
        maker = gradient.operation
        alone = uses[id(gradient)] == 1 and uses[id(tensor)] == 1
        own = program.variables.get(name) is values and count(rate) == 1
        if alone and own and maker.type in UPDATING and UPDATING[maker.type].fits(maker):
            found[update] = maker
    return found


def schedule(
    program: Program, fusion: Fusion, in_place: bool
) -> tuple[list[Group], dict[Tensor, str]]:
    """Orders the groups.

    Data decides first; then the program's order, except that what only updates a variable runs as
    soon as it may, so that gradients do not pile up.

    Args:
        program: whose groups.
        fusion: the groups.
        in_place: whether variables may be written before the end of the run.

    Returns:
        The groups in order, and the variable's name for each tensor that is written over one.
    """
    # What others compute again where they need it is no work, and nothing to wait for.
    groups = [g for g in fusion.groups if g.is_heavy or g.stored or g.axes is not None]
    reads = {g: _reads(fusion, g) for g in groups}
    before: Before = {g: set() for g in groups}
    for g, tensors in reads.items():
        for tensor in tensors:
            maker = fusion.group_of.get(tensor.operation)
            if maker is not None and maker is not g:
                before[g].add(maker)
    written = _plan_updates(program, fusion, reads, before) if in_place else {}
    return _topological(groups, before, _early(groups, before)), written


def _early(groups: Sequence[Group], before: Before) -> set[Group]:
    """What updates variables, and nests that nothing else waits for: norms of gradients."""
    after: dict[Group, list[Group]] = {g: [] for g in groups}
    for g in groups:
        for b in before[g]:
            after[b].append(g)
    early = {g for g in groups if g.updates}
    stack = list(early)
    while stack:
        for g in before[stack.pop()]:
            if g not in early and not g.is_heavy and all(a in early for a in after[g]):
                early.add(g)
                stack.append(g)
    return early


def _reads(fusion: Fusion, group: Group) -> list[Tensor]:
    if not group.is_heavy:
        return fusion.expression(group)[1]
    inside = set(group.operations)
    read = [t for op in group.operations for t in read_by(op)]
    return [t for t in read if t.operation not in inside]


def _plan_updates(
    program: Program, fusion: Fusion, reads: Mapping[Group, Sequence[Tensor]], before: Before
) -> dict[Tensor, str]:
    """Lets a group write a variable in place when every other reader can come first."""
    readers: dict[Tensor, list[Group]] = {}
    for g, tensors in reads.items():
        for tensor in tensors:
            readers.setdefault(tensor, []).append(g)
    targets = set(program.targets)
    uses = Counter(id(t) for t in program.updates.values())
    written: dict[Tensor, str] = {}
    for name, tensor in program.updates.items():
        group = fusion.group_of.get(tensor.operation)
        if group is None or uses[id(tensor)] > 1:
            continue
        variable = program.variables.get(name)
        if variable is not None:
            if variable in targets:
                continue
            known = readers.get(variable, [])
            others = [g for g in known if g is not group]
            # A kernel of its own may read a place again after writing it; a nest never does, and
            # a gradient that takes its own step is made for it.
            rereads = group in known and group.is_heavy and len(group.operations) == 1
            if rereads or any(_depends(g, group, before) for g in others):
                continue
            before[group].update(others)
        group.updates[name] = tensor
        written[tensor] = name
    return written


def _depends(group: Group, on: Group, before: Before) -> bool:
    seen: set[Group] = set()
    stack = [group]
    while stack:
        at = stack.pop()
        if at is on:
            return True
        if at not in seen:
            seen.add(at)
            stack.extend(before[at])
    return False


def _topological(groups: Sequence[Group], before: Before, early: set[Group]) -> list[Group]:
    after: dict[Group, list[Group]] = {g: [] for g in groups}
    missing = {g: len(before[g]) for g in groups}
    for g in groups:
        for b in before[g]:
            after[b].append(g)
    rank = {
        g: (-1 if g in early else max(op.serial for op in g.operations), i)
        for i, g in enumerate(groups)
    }
    by_rank = {rank[g]: g for g in groups}
    ready = [rank[g] for g in groups if not missing[g]]
    heapq.heapify(ready)
    ordered: list[Group] = []
    while ready:
        g = by_rank[heapq.heappop(ready)]
        ordered.append(g)
        for a in after[g]:
            missing[a] -= 1
            if not missing[a]:
                heapq.heappush(ready, rank[a])
    assert len(ordered) == len(groups), "groups depend on each other in a circle"
    return ordered
