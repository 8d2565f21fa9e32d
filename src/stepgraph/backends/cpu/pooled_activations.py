"""ReLU gradients pass a max-pooling: a map a window's size smaller is masked and summed.

Behind `max_pooling_2d(relu(z))`, each gradient of a pooled number lands where its window's maximum
stands, and stays there if that is positive. The pooled number *is* that maximum, so

    relu_gradient(max_pooling_2d_gradient(g, r), z)
        = max_pooling_2d_gradient(relu_gradient(g, max_pooling_2d(r)), r)      with r = relu(z)

number by number, and the bias's gradient, a sum over all positions, is the sum over all windows: a
2 x 2 pooling leaves a quarter to read, and the large map is written once instead of twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from stepgraph.compiler.program import Program
from stepgraph.compiler.rules import Rules, apply_rules, made_by
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Operation
from stepgraph.graph.tensor import Tensor


def pooled_activations(program: Program) -> Program:
    """Applies `RULES` until none fits any more, unless a pooling's gradient is itself a result.

    It would be computed twice then, and one that is wrong would make two results wrong.
    """
    if any(made_by(tensor, "max_pooling_2d_gradient") for tensor in program.results()):
        return program
    return apply_rules(program, RULES)


def _masked_before(graph: Graph, op: Operation, inputs: Sequence[Tensor]) -> Tensor | None:
    """A ReLU's gradient behind a max-pooling's."""
    pooling = made_by(inputs[0], "max_pooling_2d_gradient")
    if pooling is None:
        return None
    incoming, rectified = pooling.inputs
    activation = made_by(rectified, "relu")
    if activation is None or not (inputs[1] is rectified or inputs[1] is activation.inputs[0]):
        return None
    pooled = graph.max_pooling_2d(rectified, **pooling.attributes)
    masked = graph.relu_gradient(incoming, pooled)
    return graph.max_pooling_2d_gradient(masked, rectified, **pooling.attributes)


def _summed_before(graph: Graph, op: Operation, inputs: Sequence[Tensor]) -> Tensor | None:
    """The sum over all positions of what a max-pooling's gradient scatters."""
    pooling = made_by(inputs[0], "max_pooling_2d_gradient")
    if pooling is None or pooling.attributes["data_layout"] != "NHWC":
        return None
    axes, keep = op.attributes["axes"], op.attributes["keep_dims"]
    if tuple(axes) != (0, 1, 2):
        return None
    # Every window sees a pixel (the op refuses larger padding), so no gradient is lost.
    return graph.reduction_sum(pooling.inputs[0], axes=axes, keep_dims=keep)


RULES: Rules = {"relu_gradient": (_masked_before,), "reduction_sum": (_summed_before,)}
