"""Brings operations into the forms that kernels exist for, by rules on the program.

Data in NCHW and weights in OIHW are permuted at the border, convolutions in groups become one per
group, channel multipliers become more channels, sums over scattered axes become sums over one run
after the other. What is left is lowered op by op.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from stepgraph.backends.cpu.layouts import LANES
from stepgraph.backends.cpu.lowering.attention import NAMES as ATTENTION
from stepgraph.backends.cpu.lowering.attention import attention_of
from stepgraph.backends.cpu.nests import supported_axes
from stepgraph.compiler.program import Program
from stepgraph.compiler.rules import Rules, apply_rules
from stepgraph.graph.dtypes import float16, float32
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import known_shape
from stepgraph.graph.tensor import Tensor

Inputs = Sequence[Tensor]

TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
TO_HWIO, TO_OIHW = (2, 3, 1, 0), (3, 2, 0, 1)

# What the inputs and the output of an op are: data, weights, or either one's shape alone.
ROLES: dict[str, tuple[str, ...]] = {
    "convolution_2d": ("data", "weights", "data"),
    "convolution_2d_data_gradient": ("data", "weights", "like data", "data"),
    "convolution_2d_weights_gradient": ("data", "data", "like weights", "weights"),
    "depthwise_convolution_2d": ("data", "weights", "data"),
    "depthwise_convolution_2d_data_gradient": ("data", "weights", "like data", "data"),
    "depthwise_convolution_2d_weights_gradient": ("data", "data", "like weights", "weights"),
    "max_pooling_2d": ("data", "data"),
    "max_pooling_2d_gradient": ("data", "data", "data"),
    "max_pooling_2d_at_maximum": ("data", "data", "data"),
    "avg_pooling_2d": ("data", "data"),
    "avg_pooling_2d_gradient": ("data", "like data", "data"),
}
CONVOLUTIONS = tuple(name for name in ROLES if name.startswith("convolution"))
DEPTHWISE = tuple(name for name in ROLES if name.startswith("depthwise"))
REDUCTIONS = (
    *("reduction_sum", "reduction_product", "reduction_maximum", "reduction_minimum"),
    *("reduction_and", "reduction_or"),
)


def normal_forms(program: Program) -> Program:
    """Applies `RULES` until none fits any more."""
    return apply_rules(program, RULES)


def _again(graph: Graph, op: Operation, inputs: Inputs, **changed: Any) -> Tensor:
    """The same op with other inputs and settings."""
    made: Tensor = graph._one(op.definition, tuple(inputs), {**op.attributes, **changed})
    return made


def _shape_alone(graph: Graph, tensor: Tensor, order: Sequence[int] | None = None) -> Tensor:
    """A constant that lends its shape, so that nothing is computed or kept for that."""
    shape = known_shape(tensor.shape)
    shape = tuple(shape[a] for a in order) if order else shape
    return graph.constant(0, shape=shape, dtype=tensor.dtype)


def _like(graph: Graph, op: Operation, inputs: Inputs) -> Tensor | None:
    """Gradients that read a tensor for its shape."""
    roles = ROLES[op.type]
    found = [
        _shape_alone(graph, t) if role.startswith("like") and t.operation.type != "constant" else t
        for t, role in zip(inputs, roles, strict=False)
    ]
    if all(a is b for a, b in zip(found, inputs, strict=True)):
        return None
    return _again(graph, op, found)


def _channels_last(graph: Graph, op: Operation, inputs: Inputs) -> Tensor | None:
    """NCHW data and OIHW weights: permuted, computed in NHWC and HWIO, permuted back."""
    a = op.attributes
    data, weights = a["data_layout"] == "NCHW", a.get("weights_layout") == "OIHW"
    if not data and not weights:
        return None
    forth = {"data": TO_NHWC if data else None, "weights": TO_HWIO if weights else None}
    back = {"data": TO_NCHW if data else None, "weights": TO_OIHW if weights else None}
    *roles, result = ROLES[op.type]
    moved: list[Tensor] = []
    for tensor, role in zip(inputs, roles, strict=False):
        order = forth[role.split()[-1]]
        if order is None:
            moved.append(tensor)
        elif role.startswith("like"):
            moved.append(_shape_alone(graph, tensor, order))
        else:
            moved.append(graph.permute(tensor, order))
    changed = {"data_layout": "NHWC"}
    if "weights_layout" in a:
        changed["weights_layout"] = "HWIO"
    made = _again(graph, op, moved, **changed)
    order = back[result]
    return graph.permute(made, order) if order else made


def _in_groups(graph: Graph, op: Operation, inputs: Inputs) -> Tensor | None:
    """One convolution per group; a depthwise one where each group has a single channel."""
    a = op.attributes
    groups = a["groups"]
    if groups == 1 or (a["data_layout"], a["weights_layout"]) != ("NHWC", "HWIO"):
        return None
    *roles, result = ROLES[op.type]
    weights = op.output if result == "weights" else inputs[1]
    if known_shape(weights.shape)[2] == 1:
        return _as_depthwise(graph, op, inputs)

    def part(tensor: Tensor, k: int, role: str) -> Tensor:
        # Data are cut along the channels, weights along their outputs.
        size = known_shape(tensor.shape)[3] // groups
        cut = graph.slice(tensor, 3, k * size, size)
        return _shape_alone(graph, cut) if role.startswith("like") else cut

    made = []
    for k in range(groups):
        parts = [part(t, k, role) for t, role in zip(inputs, roles, strict=False)]
        made.append(_again(graph, op, parts, groups=1))
    return graph.concat(made, 3)


def _as_depthwise(graph: Graph, op: Operation, inputs: Inputs) -> Tensor:
    a = {k: v for k, v in op.attributes.items() if k not in ("groups", "output_size")}
    groups = op.attributes["groups"]
    name = f"depthwise_{op.type}"
    *_, result = ROLES[op.type]
    given = list(inputs)
    at = {"convolution_2d": 1, "convolution_2d_data_gradient": 1}.get(op.type, 2)
    kh, kw, _, out = known_shape(inputs[at].shape)
    given[at] = graph.reshape(inputs[at], (kh, kw, groups, out // groups))
    if op.type.endswith("data_gradient") and len(given) == 2:
        given.append(_shape_alone(graph, op.output))
    made: Tensor = getattr(graph, name)(*given, **a)
    return graph.reshape(made, known_shape(op.output.shape)) if result == "weights" else made


def _multiplied(graph: Graph, op: Operation, inputs: Inputs) -> Tensor | None:
    """A channel multiplier: the source's channels repeated, so that each has one output."""
    a = op.attributes
    if (a["data_layout"], a["weights_layout"]) != ("NHWC", "HWIO"):
        return None
    at = 2 if op.type.endswith("weights_gradient") else 1
    kh, kw, channels, times = known_shape(inputs[at].shape)
    if times == 1 or 0 in (channels, times):
        return None
    wide = (kh, kw, channels * times, 1)

    def repeated(x: Tensor) -> Tensor:
        *lead, _ = known_shape(x.shape)
        spread = graph.broadcast(graph.expand_dims(x, (4,)), (*lead, channels, times))
        return graph.reshape(spread, (*lead, channels * times))

    if op.type.endswith("weights_gradient"):
        like = graph.constant(0, shape=wide, dtype=inputs[2].dtype)
        made = _again(graph, op, (inputs[0], repeated(inputs[1]), like))
        return graph.reshape(made, known_shape(op.output.shape))
    weights = graph.reshape(inputs[1], wide)
    if not op.type.endswith("data_gradient"):
        return _again(graph, op, (repeated(inputs[0]), weights))
    *lead, _ = known_shape(op.output.shape)
    like = graph.constant(0, shape=(*lead, channels * times), dtype=inputs[0].dtype)
    made = _again(graph, op, (inputs[0], weights, like))
    apart = graph.reshape(made, (*lead, channels, times))
    return graph.reduction_sum(apart, axes=(4,), keep_dims=False)


def _run_by_run(graph: Graph, op: Operation, inputs: Inputs) -> Tensor | None:
    """Reductions over axes that no kernel takes at once."""
    (x,), (axes, keep) = inputs, (op.attributes["axes"], op.attributes["keep_dims"])
    shape = known_shape(x.shape)
    rank = len(shape)
    if 0 in shape or not axes or x.dtype == float16:
        return None
    if x.dtype == float32 and op.type not in ("reduction_and", "reduction_or"):
        if supported_axes(shape, axes) or len(axes) == 1:
            return None
        if len(axes) == rank and rank in (2, 4) and shape[-1] >= LANES:
            # Output channels last: gradients of weights are summed as they lie.
            part = _again(graph, op, inputs, axes=axes[:-1], keep_dims=False)
            whole: Tensor = graph._one(op.definition, (part,), {"axes": (0,), "keep_dims": False})
            return graph.expand_dims(whole, axes) if keep else whole
        first = axes[-1] if axes[-1] == rank - 1 else _last_run(axes)[0]
    else:
        first = _last_run(axes)[0]
        if first == axes[0]:
            return None
    now = tuple(a for a in axes if a >= first)
    part = _again(graph, op, inputs, axes=now, keep_dims=False)
    rest = tuple(a for a in axes if a < first)
    made: Tensor = graph._one(op.definition, (part,), {"axes": rest, "keep_dims": keep})
    return graph.expand_dims(made, now) if keep else made


def _whole_batches(graph: Graph, op: Operation, inputs: Inputs) -> Tensor | None:
    """Products whose sides have different batches: both get the result's."""
    shapes = [known_shape(t.shape) for t in inputs]
    batch = known_shape(op.output.shape)[:-2]
    if all(prod(shape[:-2]) in (1, prod(batch)) for shape in shapes) or 0 in batch:
        return None
    spread = [
        graph.broadcast(t, (*batch, *shape[-2:])) for t, shape in zip(inputs, shapes, strict=True)
    ]
    return _again(graph, op, spread)


def _last_run(axes: Sequence[int]) -> list[int]:
    run = [axes[-1]]
    for axis in reversed(axes[:-1]):
        if axis != run[0] - 1:
            break
        run.insert(0, axis)
    return run


def _spelled_out(graph: Graph, op: Operation, inputs: Inputs) -> Tensor | None:
    """Ops whose parts have kernels, or fuse with what stands around them."""
    if op.output.dtype == float16 or op.definition.decompose is None:
        return None
    made = op.definition.decompose(graph, *inputs, **op.attributes)
    assert isinstance(made, Tensor)
    return made


def _attention_in_parts(
    graph: Graph, op: Operation, inputs: Inputs
) -> Tensor | tuple[Tensor, ...] | None:
    """Attention whose heads do not fill panels."""
    if attention_of(op) is not None:
        return None
    assert op.definition.decompose is not None
    made: Tensor | tuple[Tensor, ...] = op.definition.decompose(graph, *inputs, **op.attributes)
    return made


def _repeating_pad(graph: Graph, op: Operation, inputs: Inputs) -> Tensor | None:
    return None if op.attributes["mode"] == "constant" else _spelled_out(graph, op, inputs)


SPELLED_OUT = (
    *("one_hot", "convolution_transpose_2d"),
    *("resize_nearest", "resize_bilinear", "pad_gradient", "gather_gradient"),
)

RULES: Rules = {
    **dict.fromkeys(ROLES, (_channels_last, _like)),
    **dict.fromkeys(CONVOLUTIONS, (_channels_last, _in_groups, _like)),
    **dict.fromkeys(DEPTHWISE, (_channels_last, _multiplied, _like)),
    **dict.fromkeys(REDUCTIONS, (_run_by_run,)),
    **dict.fromkeys(SPELLED_OUT, (_spelled_out,)),
    **dict.fromkeys(ATTENTION, (_attention_in_parts,)),
    "pad": (_repeating_pad,),
    "matrix_multiplication": (_whole_batches,),
}
