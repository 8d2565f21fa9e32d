"""Gradient rules of control flow: branches and bodies are computed again and pulled back.

What a forward pass computed inside a region cannot be seen from outside, so the gradient of a
branch starts with the branch itself. A loop's forward pass runs once more, recording the carried
values before every trip in histories ``[maximum_iterations, *shape]``; a second loop then goes from
the last trip to the first. All of it is ordinary operations, so that it can be differentiated
again.
"""

from __future__ import annotations

from collections.abc import Sequence

from stepgraph.errors import GraphError, describe
from stepgraph.graph.autodiff import pullback
from stepgraph.graph.definition import Gradients, Grads, OpDefinition
from stepgraph.graph.dtypes import int32
from stepgraph.graph.lifting import GradientLifter, assigned_variables
from stepgraph.graph.operation import Block, Operation
from stepgraph.graph.shapes import Spec, is_known, known_shape
from stepgraph.graph.tensor import Tensor

_INDEX = Spec((), int32)


def if_gradient(op: Operation, grads: Grads) -> Gradients:
    """The same conditional around the gradients of its branches."""
    graph = op.graph
    captured = op.inputs[1:]
    wanted = _needed(op, captured)
    blocks: list[Block] = []
    found: list[dict[Tensor, Tensor]] = []
    for region in op.regions:
        block = Block(graph._current)
        with graph._inside(block):
            lifter = GradientLifter(graph)
            results = lifter.run(op, region, (), {}, lifter.initial(op, {}))
            seeds = [(results[i], g) for i, g in enumerate(grads) if g is not None]
            found.append(pullback(graph, seeds, wanted, within=block))
        blocks.append(block)
    connected = [t for t in wanted if any(t in part for part in found)]
    if not connected:
        return [None] * len(op.inputs)
    for block, part in zip(blocks, found, strict=True):
        with graph._inside(block):
            block.results = [part[t] if t in part else graph.zeros_like(t) for t in connected]
    made = graph._add_with_regions(
        op.definition, (op.inputs[0],), {}, tuple(blocks), name=_name(op)
    )
    total = dict(zip(connected, made.outputs, strict=True))
    return [None, *(total.get(t) for t in captured)]


def for_gradient(op: Operation, grads: Grads) -> Gradients:
    """The loop once more with histories, then backwards."""
    graph = op.graph
    maximum = _maximum(op)
    count = op.inputs[0]
    if count.dtype != int32:
        count = graph.cast(count, int32)
    if count.shape != ():
        count = graph.reshape(count, ())
    if count.operation.type != "constant":
        count = graph.minimum(count, maximum)
    values = _start(op)
    buffers = [_buffer(t, maximum) for t in values]
    block = Block(graph._current)
    with graph._inside(block):
        k = graph._parameter(_INDEX)
        carried = [graph._parameter(t.spec) for t in [*values, *buffers]]
        now, recorded = carried[: len(values)], carried[len(values) :]
        block.parameters = [k, *carried]
        block.results = [*_trip(op, k, now), *_record(recorded, now, k)]
    made = _loop(op, op.definition, [count, *values, *buffers], (block,), "recorded")
    return _backward(op, grads, count, made.outputs[len(values) :])


def while_gradient(op: Operation, grads: Grads) -> Gradients:
    """The loop once more, counting its trips and with histories; then backwards that many trips."""
    graph = op.graph
    maximum = _maximum(op)
    values = _start(op)
    start = [graph.as_tensor(0, int32), *values, *(_buffer(t, maximum) for t in values)]

    def parameters(block: Block) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        block.parameters = [graph._parameter(t.spec) for t in start]
        k, carried = block.parameters[0], block.parameters[1:]
        return k, carried[: len(values)], carried[len(values) :]

    before, after = Block(graph._current), Block(graph._current)
    with graph._inside(before):
        _, now, _ = parameters(before)
        before.results = _run(op, op.regions[0], now)[:1]
    with graph._inside(after):
        k, now, recorded = parameters(after)
        after.results = [k + 1, *_trip(op, k, now), *_record(recorded, now, k)]
    made = _loop(op, op.definition, start, (before, after), "recorded")
    return _backward(op, grads, made.outputs[0], made.outputs[1 + len(values) :])


def _backward(op: Operation, grads: Grads, count: Tensor, histories: Sequence[Tensor]) -> Gradients:
    """A loop from the last trip to the first, carrying cotangents and sums for what is captured."""
    from stepgraph.graph.ops.control_flow import FOR

    graph = op.graph
    explicit = op.attributes["explicit"]
    captured = op.inputs[explicit:]
    wanted = _needed(op, captured)
    floats = [i for i, t in enumerate(op.outputs) if t.dtype.is_float]
    block = Block(graph._current)
    with graph._inside(block):
        k = graph._parameter(_INDEX)
        cotangents = [graph._parameter(op.outputs[i].spec) for i in floats]
        trip = count - 1 - k
        values = [graph.gather(history, trip, axis=0) for history in histories]
        results = _trip(op, trip, values)
        seeds = [(results[i], c) for i, c in zip(floats, cotangents, strict=True)]
        found = pullback(graph, seeds, [*(values[i] for i in floats), *wanted], within=block)
        connected = [t for t in wanted if t in found]
        sums = [graph._parameter(t.spec) for t in connected]
        block.parameters = [k, *cotangents, *sums]
        block.results = [
            *(
                found[values[i]] if values[i] in found else graph.zeros_like(values[i])
                for i in floats
            ),
            *(graph.addition(s, found[t]) for s, t in zip(sums, connected, strict=True)),
        ]
    seeds_in = [_or_zeros(grads[i], op.outputs[i]) for i in floats]
    zeros = [graph.zeros_like(t) for t in connected]
    made = _loop(op, FOR, [count, *seeds_in, *zeros], (block,), "gradient")
    ended: dict[int, Tensor] = dict(zip(floats, made.outputs, strict=False))
    total = dict(zip(connected, made.outputs[len(floats) :], strict=True))
    leading = explicit - len(op.outputs)
    return [
        *[None] * leading,
        *(ended.get(i) for i in range(len(op.outputs))),
        *(total.get(t) for t in captured),
    ]


def _start(op: Operation) -> list[Tensor]:
    """What a loop starts with: its carried values, then the variables that it assigns."""
    explicit = op.attributes["explicit"]
    carried = op.inputs[explicit - len(op.outputs) : explicit]
    return [*carried, *GradientLifter(op.graph).initial(op, {}).values()]


def _trip(op: Operation, k: Tensor, values: Sequence[Tensor]) -> list[Tensor]:
    """One trip of a loop, copied into the current block: values before it to values behind it."""
    leading = []
    if op.type == "for":
        step, lower = op.attributes["step"], op.attributes["lower_bound"]
        scaled = k if step == 1 else k * step
        leading = [scaled if lower == 0 else scaled + lower]
    return _run(op, op.regions[-1], values, leading)


def _run(
    op: Operation, region: Block, values: Sequence[Tensor], leading: Sequence[Tensor] = ()
) -> list[Tensor]:
    carried = len(op.outputs)
    states = dict(zip(assigned_variables(op), values[carried:], strict=True))
    return GradientLifter(op.graph).run(op, region, [*leading, *values[:carried]], {}, states)


def _buffer(value: Tensor, maximum: int) -> Tensor:
    """Room for the values of every trip."""
    graph = value.graph
    if is_known(value.shape):
        shape = (maximum, *known_shape(value.shape))
        return graph.constant(0, shape=shape, dtype=value.dtype)
    zeros = graph.expand_dims(graph.zeros_like(value), 0)
    return graph.tile(zeros, (maximum, *[1] * value.rank))


def _record(buffers: Sequence[Tensor], values: Sequence[Tensor], k: Tensor) -> list[Tensor]:
    graph = k.graph
    at = graph.reshape(k, (1,))
    return [
        graph.scatter(buffer, graph.expand_dims(value, 0), at, axis=0, mode="set")
        for buffer, value in zip(buffers, values, strict=True)
    ]


def _loop(
    op: Operation,
    definition: OpDefinition,
    inputs: Sequence[Tensor],
    regions: tuple[Block, ...],
    suffix: str,
) -> Operation:
    attributes = {"maximum_iterations": op.attributes["maximum_iterations"]}
    if definition.name == "for":
        attributes = {"lower_bound": 0, "step": 1, **attributes}
    return op.graph._add_with_regions(
        definition, inputs, attributes, regions, name=_name(op, suffix)
    )


def _maximum(op: Operation) -> int:
    maximum: int | None = op.attributes["maximum_iterations"]
    if maximum is None:
        builder = {"for": "for_loop", "while": "while_loop"}[op.type]
        raise GraphError(
            describe(
                "gradients",
                f"cannot differentiate through '{op.name}' ({op.type}): "
                "nothing bounds its number of trips",
                expected="room for the values of every trip, planned when the graph is compiled",
                fix=f"pass maximum_iterations= to {builder}",
                created_at=op.created_at,
            )
        )
    return maximum


def _needed(op: Operation, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Those float tensors through which a gradient can reach what is asked for."""
    wanted = op.graph.wanted
    reaches: dict[Tensor, bool] = {}

    def visit(start: Tensor) -> bool:
        # Iterative: graphs are deeper than Python's stack.
        stack = [start]
        while stack:
            tensor = stack[-1]
            if tensor in reaches:
                stack.pop()
                continue
            if tensor in wanted:
                reaches[tensor] = True
                continue
            inputs = [t for t in tensor.operation.inputs if t.dtype.is_float]
            pending = [t for t in inputs if t not in reaches]
            if pending:
                stack.extend(pending)
            else:
                reaches[tensor] = any(reaches[t] for t in inputs)
        return reaches[start]

    return [t for t in dict.fromkeys(tensors) if t.dtype.is_float and visit(t)]


def _or_zeros(grad: Tensor | None, like: Tensor) -> Tensor:
    return like.graph.zeros_like(like) if grad is None else grad


def _name(op: Operation, suffix: str = "gradient") -> str:
    return f"{op.name.rsplit('/', 1)[-1]}_{suffix}"
