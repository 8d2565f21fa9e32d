"""What is computed once and kept between runs.

Whatever is made of constants and of variables that a program leaves as they are is the same in
every run: a weight times a normalisation's scale, weights in a kernel's layout, Winograd's
transform of them. A prediction is full of it. Its launches are *prepared*: they run before the
first run, and again after a variable they read was written, by another program or from outside
(`CpuState.written`).

What would be larger than what it is made of is left where it is used: reading it would take longer
than making it, and it would be memory for nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from stepgraph.backends.cpu.plan import At, Buffer, KernelStep, Scaled, Step
from stepgraph.compiler.program import Program
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import element_count

# How many times as large as what they read the results of a launch may be, and bytes that are
# always allowed: layouts fill panels up, Winograd's transform makes sixteen numbers of nine.
GROWTH, SLACK = 4, 1 << 16


def fixed_operations(program: Program) -> set[Operation]:
    """Operations that give the same in every run until a variable is written from elsewhere."""
    name_of = {tensor: name for name, tensor in program.variables.items()}
    fixed: set[Operation] = set()
    for op in program.operations():
        if op.type == "variable":
            known = name_of.get(op.output) not in program.updates
        elif op.type == "constant":
            known = True
        else:
            known = _computed_once(op, fixed)
        if known:
            fixed.add(op)
    return fixed


def _computed_once(op: Operation, fixed: Collection[Operation]) -> bool:
    plain = op.definition.pure and not op.regions and op.inputs
    if not plain or any(t.operation not in fixed for t in op.inputs):
        return False
    largest = max(element_count(t.shape) or 0 for t in op.inputs)
    return all((element_count(t.shape) or 0) <= largest for t in op.outputs)


def split(
    steps: Sequence[Step], updated: Collection[str], kept: Sequence[Buffer]
) -> tuple[list[Step], list[Step], list[Buffer]]:
    """Parts steps into prepared ones and those of every run.

    Args:
        steps: in order.
        updated: names of the variables that these steps write.
        kept: buffers that are wanted at the end.

    Returns:
        Prepared steps, the others, and what they and the end read of the prepared ones' results.
    """
    writers: dict[Buffer, list[Step]] = {}
    for step in steps:
        for root in _roots(step.writes):
            writers.setdefault(root, []).append(step)

    def same(root: Buffer) -> bool:
        """Whether memory holds the same in every run, as far as is known."""
        if root.kind == "state":
            return root.name not in updated
        made = writers.get(root, [])
        return root.kind == "constant" or (bool(made) and all(s in chosen for s in made))

    def suits(step: Step) -> bool:
        written, read = _roots(step.writes), _roots(reads_of(step))
        size = sum(root.nbytes for root in written)
        if size > GROWTH * sum(root.nbytes for root in read) + SLACK:
            return False
        arena = all(root.kind == "arena" and same(root) for root in written)
        return arena and all(same(root) for root in read)

    chosen = {step for step in steps if step.writes}
    while left := {step for step in chosen if not suits(step)}:
        chosen -= left
    prepared, others = ([s for s in steps if (s in chosen) == on] for on in (True, False))
    made = {root for step in prepared for root in _roots(step.writes)}
    wanted = {root: None for step in others for root in _roots(reads_of(step)) if root in made}
    wanted |= {b.root: None for b in kept if b.root in made}
    return prepared, others, list(wanted)


def reads_of(step: Step) -> list[Buffer]:
    """What a step reads, numbers fetched from memory included."""
    fetched: list[Buffer] = []
    if isinstance(step, KernelStep):
        written = _roots(step.writes)
        for value in step.arguments.values():
            if not isinstance(value, At | Scaled):
                continue
            if isinstance(value, Scaled) or value.buffer.root not in written:
                fetched.append(value.buffer)
    return [*step.reads, *fetched]


def variables_of(steps: Sequence[Step]) -> set[str]:
    """Names of the variables that steps read."""
    roots = {root for step in steps for root in _roots(reads_of(step))}
    return {root.name for root in roots if root.kind == "state"}


def _roots(buffers: Sequence[Buffer]) -> dict[Buffer, None]:
    return {buffer.root: None for buffer in buffers}
