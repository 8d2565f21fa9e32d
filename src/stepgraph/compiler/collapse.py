"""Chains of reshapes, permutations, broadcasts and casts become one of them, or none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepgraph.compiler.program import Program
from stepgraph.compiler.rules import Rule, apply_rules, made_by
from stepgraph.graph.dtypes import DType
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import known_shape
from stepgraph.graph.tensor import Tensor


def collapse(program: Program) -> Program:
    """Drops data movement that another undoes or that moves nothing; values stay as they are."""
    return apply_rules(program, RULES)


# Ops that only give the same elements, in the same order, another shape.
_RESHAPES = ("reshape", "expand_dims", "squeeze", "flatten_2d")


def _same_shape(graph: Graph, operation: Operation, inputs: Sequence[Tensor]) -> Tensor | None:
    """For ops that move nothing when the shape stays."""
    return inputs[0] if inputs[0].spec == operation.output.spec else None


def _reshape_of_reshape(
    graph: Graph, operation: Operation, inputs: Sequence[Tensor]
) -> Tensor | None:
    before = made_by(inputs[0], *_RESHAPES)
    if before is None:
        return None
    return graph.reshape(before.inputs[0], known_shape(operation.output.shape))


def _broadcast_of_broadcast(
    graph: Graph, operation: Operation, inputs: Sequence[Tensor]
) -> Tensor | None:
    before = made_by(inputs[0], "broadcast")
    if before is None:
        return None
    return graph.broadcast(before.inputs[0], operation.output.shape)


def _permute_nothing(graph: Graph, operation: Operation, inputs: Sequence[Tensor]) -> Tensor | None:
    """Axes of size 1 may move without any element moving."""
    x, permutation = inputs[0], operation.attributes["permutation"]
    if permutation == tuple(range(x.rank)):
        return x
    moved = [axis for axis in permutation if x.shape[axis] != 1]
    if moved == sorted(moved):
        return graph.reshape(x, known_shape(operation.output.shape))
    return None


def _permute_of_permute(
    graph: Graph, operation: Operation, inputs: Sequence[Tensor]
) -> Tensor | None:
    before = made_by(inputs[0], "permute")
    if before is None:
        return None
    first, second = before.attributes["permutation"], operation.attributes["permutation"]
    return graph.permute(before.inputs[0], [first[axis] for axis in second])


def _reverse_of_reverse(
    graph: Graph, operation: Operation, inputs: Sequence[Tensor]
) -> Tensor | None:
    before = made_by(inputs[0], "reverse")
    if before is None:
        return None
    left = set(before.attributes["axes"]) ^ set(operation.attributes["axes"])
    x = before.inputs[0]
    return graph.reverse(x, sorted(left)) if left else x


def _cast_of_cast(graph: Graph, operation: Operation, inputs: Sequence[Tensor]) -> Tensor | None:
    before = made_by(inputs[0], "cast")
    if before is None or not _lossless(before.inputs[0].dtype, before.output.dtype):
        return None
    x = before.inputs[0]
    return x if x.dtype == operation.output.dtype else graph.cast(x, operation.output.dtype)


def _lossless(source: DType, target: DType) -> bool:
    """Whether every value of one dtype has its own counterpart in the other."""
    # NumPy calls int64 to float64 safe, though large integers are rounded.
    rounded = source.is_integer and source.size == 8 and target.is_float
    return bool(np.can_cast(source.numpy, target.numpy, "safe")) and not rounded


def _whole_slice(graph: Graph, operation: Operation, inputs: Sequence[Tensor]) -> Tensor | None:
    x, strides = inputs[0], operation.attributes["strides"]
    forward = all(s == 1 or d == 1 for s, d in zip(strides, x.shape, strict=True))
    return x if forward and x.shape == operation.output.shape else None


def _single(graph: Graph, operation: Operation, inputs: Sequence[Tensor]) -> Tensor | None:
    return inputs[0] if len(inputs) == 1 else None


def _reduce_nothing(graph: Graph, operation: Operation, inputs: Sequence[Tensor]) -> Tensor | None:
    """The sum, product or extreme of one element is that element."""
    x = inputs[0]
    if any(x.shape[axis] != 1 for axis in operation.attributes["axes"]):
        return None
    shape = known_shape(operation.output.shape)
    reshaped = x if x.shape == shape else graph.reshape(x, shape)
    # A sum starts at 0.0, so that one of -0.0 alone is 0.0.
    from_zero = operation.type in ("reduction_sum", "mean") and x.dtype.is_float
    return graph.addition(reshaped, 0.0) if from_zero else reshaped


def _transposed_operand(
    graph: Graph, operation: Operation, inputs: Sequence[Tensor]
) -> Tensor | None:
    """A product reads its operands transposed at no cost."""
    operands = list(inputs)
    flags = dict(operation.attributes)
    for i, flag in enumerate(("transpose_primary", "transpose_secondary")):
        before = made_by(operands[i], "permute")
        if before is not None:
            *leading, row, column = before.attributes["permutation"]
            count = len(leading)
            if leading == list(range(count)) and (row, column) == (count + 1, count):
                operands[i], flags[flag] = before.inputs[0], not flags[flag]
    if flags == operation.attributes:
        return None
    return graph.matrix_multiplication(operands[0], operands[1], **flags)


_REDUCTION: tuple[Rule, ...] = (_reduce_nothing,)
_RESHAPE: tuple[Rule, ...] = (_same_shape, _reshape_of_reshape)

RULES: dict[str, tuple[Rule, ...]] = {
    **dict.fromkeys(_RESHAPES, _RESHAPE),
    "broadcast": (_same_shape, _broadcast_of_broadcast),
    "permute": (_permute_nothing, _permute_of_permute),
    "reverse": (_reverse_of_reverse,),
    "cast": (_same_shape, _cast_of_cast),
    "concat": (_single,),
    "pad": (_same_shape,),
    "tile": (_same_shape,),
    "slice": (_same_shape,),
    "strided_slice": (_whole_slice,),
    "reduction_sum": _REDUCTION,
    "reduction_product": _REDUCTION,
    "reduction_maximum": _REDUCTION,
    "reduction_minimum": _REDUCTION,
    "mean": _REDUCTION,
    "matrix_multiplication": (_transposed_operand,),
}
