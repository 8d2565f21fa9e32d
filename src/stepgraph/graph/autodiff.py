"""Reverse-mode differentiation: the walk. It names no op; the rules stand beside each op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stepgraph.errors import DTypeError, GraphError, ShapeError, describe
from stepgraph.graph.operation import Block, Operation
from stepgraph.graph.shapes import format_shape, same_shape
from stepgraph.graph.tensor import Tensor

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph


def gradients(
    graph: Graph,
    of: Tensor,
    with_: Sequence[Tensor],
    incoming: Tensor | None = None,
    unconnected: str = "error",
) -> dict[Tensor, Tensor]:
    """Adds the gradients of `of` to the graph; see `Graph.gradients`."""
    _check(graph, of, with_, incoming, unconnected)
    # Free of the order around: a rule that reads a variable means the value the forward pass read.
    with graph.name_scope("gradients"), graph._ordered_after(()):
        seed = incoming if incoming is not None else graph.ones_like(of)
        found = pullback(graph, [(of, seed)], with_)
    result: dict[Tensor, Tensor] = {}
    for tensor in with_:
        grad = found.get(tensor)
        if grad is None:
            if unconnected == "error":
                raise GraphError(
                    describe(
                        "gradients",
                        f"'{of.name}' does not depend on '{tensor.name}' "
                        "through differentiable operations",
                        got={"of": repr(of), "with": repr(tensor)},
                        fix="leave it out, or pass unconnected='zero' to get zeros",
                        created_at=graph._here(),
                    )
                )
            grad = graph.zeros_like(tensor)
        result[tensor] = grad
    return result


def _check(
    graph: Graph, of: Tensor, with_: Sequence[Tensor], incoming: Tensor | None, unconnected: str
) -> None:
    if unconnected not in ("error", "zero"):
        raise GraphError(
            describe(
                "gradients",
                f"unconnected={unconnected!r}",
                expected="'error' or 'zero'",
                created_at=graph._here(),
            )
        )
    for tensor in (of, *with_):
        if not isinstance(tensor, Tensor):
            raise GraphError(
                describe(
                    "gradients",
                    f"{type(tensor).__name__} is no tensor",
                    got={"value": tensor},
                    created_at=graph._here(),
                )
            )
        if tensor.graph is not graph:
            raise GraphError(
                describe(
                    "gradients",
                    "a tensor belongs to another graph",
                    got={"tensor": tensor},
                    created_at=graph._here(),
                )
            )
        if not tensor.dtype.is_float:
            raise DTypeError(
                describe(
                    "gradients",
                    f"'{tensor.name}' is {tensor.dtype}; only floating point has gradients",
                    fix="cast it before the operations to be differentiated",
                    created_at=graph._here(),
                )
            )
    if incoming is not None and not same_shape(incoming.shape, of.shape):
        raise ShapeError(
            describe(
                "gradients",
                "the incoming gradient has another shape than the tensor it belongs to",
                got={"of": format_shape(of.shape), "incoming": format_shape(incoming.shape)},
                expected="equal shapes",
                created_at=graph._here(),
            )
        )


def pullback(
    graph: Graph,
    seeds: Sequence[tuple[Tensor, Tensor]],
    with_: Sequence[Tensor],
    within: Block | None = None,
) -> dict[Tensor, Tensor]:
    """Carries cotangents of several tensors back to the tensors wanted.

    Args:
        graph: the graph to build in.
        seeds: tensors with the cotangent of each.
        with_: tensors whose gradients are wanted.
        within: only operations of this block are walked, so that what a region captures counts as
            independent even where one captured tensor depends on another.

    Returns:
        The gradients of those of `with_` that the seeds depend on.
    """
    outer, graph.wanted = graph.wanted, frozenset(with_)
    partial: dict[Tensor, list[Tensor]] = {}
    for tensor, cotangent in seeds:
        partial.setdefault(tensor, []).append(cotangent)
    total: dict[Tensor, Tensor] = {}

    def collect(tensor: Tensor) -> Tensor | None:
        parts = partial.pop(tensor, None)
        if parts is None:
            return total.get(tensor)
        grad = parts[0]
        for part in parts[1:]:
            grad = graph.addition(grad, part)
        if tensor in graph.wanted:
            total[tensor] = grad
        return grad

    try:
        for operation in _between([t for t, _ in seeds], with_, within):
            grads = tuple(collect(output) for output in operation.outputs)
            if all(grad is None for grad in grads):
                continue
            with graph._created_at(operation.created_at):
                for tensor, grad in _apply_rule(graph, operation, grads):
                    partial.setdefault(tensor, []).append(grad)
        for tensor in with_:
            collect(tensor)
    finally:
        graph.wanted = outer
    return total


def _apply_rule(
    graph: Graph, operation: Operation, grads: tuple[Tensor | None, ...]
) -> list[tuple[Tensor, Tensor]]:
    """One operation's contributions, summed back where an operand was broadcast."""
    definition = operation.definition
    if definition.gradient is None:
        if definition.not_differentiable == "discrete":
            return []
        reason = definition.not_differentiable or "it has no gradient rule"
        raise GraphError(
            describe(
                "gradients",
                f"cannot differentiate through '{operation.name}' ({operation.type}): {reason}",
                fix="wrap its input in graph.stop_gradient, or build the value of other operations",
                created_at=operation.created_at,
            )
        )
    found = definition.gradient(operation, grads)
    if len(found) != len(operation.inputs):
        raise GraphError(
            describe(
                definition.name,
                f"its gradient rule gave {len(found)} gradients for {len(operation.inputs)} inputs",
                fix="return one entry per input, None where no gradient flows",
            )
        )
    pairs = []
    for tensor, grad in zip(operation.inputs, found, strict=True):
        if grad is None or not tensor.dtype.is_float:
            continue
        if grad.shape != tensor.shape or _may_be_broadcast(operation, tensor, grad):
            grad = graph.sum_to_like(grad, tensor)
        pairs.append((tensor, grad))
    return pairs


def _may_be_broadcast(operation: Operation, tensor: Tensor, grad: Tensor) -> bool:
    """Whether a size that is not known yet may turn out to be 1 beside a larger one."""
    made = grad.operation
    if any(i < len(made.inputs) and made.inputs[i] is tensor for i in made.definition.shape_only):
        return False  # made to the shape of the tensor
    for other in operation.inputs:
        for back in range(1, min(tensor.rank, other.rank) + 1):
            if tensor.shape[-back] is None and other is not tensor and other.shape[-back] != 1:
                return True
    return False


def _between(
    of: Sequence[Tensor], with_: Sequence[Tensor], within: Block | None
) -> list[Operation]:
    """Operations on a path from a wanted tensor to one of `of`, last first."""
    ancestors: set[Operation] = set()
    stack = [tensor.operation for tensor in of]
    while stack:
        operation = stack.pop()
        if operation in ancestors or (within is not None and operation.block is not within):
            continue
        ancestors.add(operation)
        stack.extend(t.operation for t in operation.inputs if t.dtype.is_float)
    reached: set[Tensor] = set(with_)
    path: list[Operation] = []
    for operation in sorted(ancestors, key=lambda op: op.serial):
        if any(t in reached for t in operation.inputs if t.dtype.is_float):
            path.append(operation)
            reached.update(operation.outputs)
    path.reverse()
    return path
