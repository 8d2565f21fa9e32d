"""Cross entropy from logits: what the op and its gradient op are. Their builders are in `loss`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from stepgraph.errors import DTypeError, GraphError, describe
from stepgraph.graph.core import _caller
from stepgraph.graph.definition import (
    Array,
    Gradients,
    Grads,
    Misuse,
    OpDefinition,
    Sample,
    arrived,
    require_float,
    require_same_dtype,
    require_shape,
)
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import (
    Shape,
    Spec,
    bad_shape,
    format_shape,
    normalize_axis,
    same_shape,
)
from stepgraph.graph.tensor import Tensor

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph

REDUCTIONS = ("none", "sum", "mean")


def checked_reduction(what: str, reduction: str) -> str:
    """Refuses a reduction that is none of `REDUCTIONS`."""
    if reduction not in REDUCTIONS:
        raise GraphError(
            describe(
                what,
                f"no reduction {reduction!r}",
                expected="'none', 'sum' or 'mean'",
                created_at=_caller(),
            )
        )
    return reduction


def _merged(a: Shape, b: Shape) -> Shape:
    return tuple(y if x is None else x for x, y in zip(a, b, strict=True))


def _pair_infer(source: Spec, labels: Spec, axis: int) -> Shape:
    """The shape that logits and labels share."""
    require_float(source, labels)
    require_same_dtype(source, labels)
    if not same_shape(source.shape, labels.shape):
        raise bad_shape(
            f"the logits have shape {format_shape(source.shape)}, "
            f"the labels {format_shape(labels.shape)}",
            expected="equal shapes: a probability for each class",
            fix="use graph.sparse_softmax_cross_entropy for labels that are class numbers",
        )
    normalize_axis(axis, source.rank)
    return _merged(source.shape, labels.shape)


def _without(shape: Shape, axis: int, reduction: str) -> Shape:
    return (*shape[:axis], *shape[axis + 1 :]) if reduction == "none" else ()


def _cross_entropy_infer(source: Spec, labels: Spec, *, axis: int, reduction: str) -> Spec:
    return Spec(_without(_pair_infer(source, labels, axis), axis, reduction), source.dtype)


def _shifted(source: Array, axis: int) -> Array:
    # `initial` gives the maximum of no class at all a value.
    result: Array = source - np.max(source, axis=axis, keepdims=True, initial=-np.inf)
    return result


def _cross_entropy_reference(source: Array, labels: Array, *, axis: int, reduction: str) -> Array:
    shifted = _shifted(source, axis)
    log_sum = np.log(np.sum(np.exp(shifted), axis=axis))
    # A class of probability 0 counts for nothing, also where its logit is -inf.
    terms = np.where(labels == 0, 0, labels * shifted)
    losses = log_sum * np.sum(labels, axis=axis) - np.sum(terms, axis=axis)
    if reduction == "sum":
        losses = np.sum(losses)
    if reduction == "mean":
        losses = np.sum(losses) / np.asarray(losses.size, source.dtype)
    return np.asarray(losses, source.dtype)


def log_sum_exp(graph: Graph, source: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Logits less their maximum, and the logarithm of the sum of their exponentials."""
    # The result does not depend on what is subtracted, so no gradient need flow through it.
    peak = graph.stop_gradient(graph.reduction_maximum(source, axes=(axis,)))
    shifted = source - peak
    return shifted, graph.logarithm(graph.reduction_sum(graph.exponent(shifted), axes=(axis,)))


def _others(x: Tensor, axis: int) -> tuple[int, ...]:
    return tuple(i for i in range(x.rank) if i != axis)


def reduced(graph: Graph, losses: Tensor, reduction: str) -> Tensor:
    """None, sum or mean over all elements."""
    if reduction == "none":
        return losses
    total = graph.reduction_sum(losses, keep_dims=False)
    return total if reduction == "sum" else total / graph.element_count(losses, dtype=losses.dtype)


def _cross_entropy_decompose(
    graph: Graph, source: Tensor, labels: Tensor, *, axis: int, reduction: str
) -> Tensor:
    shifted, log_sum = log_sum_exp(graph, source, axis)
    # log_sum stands outside the select: a NaN in it must reach the loss.
    terms = graph.select(graph.equal(labels, 0.0), 0.0, labels * shifted)
    total = log_sum * graph.reduction_sum(labels, axes=(axis,))
    losses = total - graph.reduction_sum(terms, axes=(axis,))
    return reduced(graph, graph.squeeze(losses, (axis,)), reduction)


def _per_logit(graph: Graph, incoming: Tensor, like: Tensor, axis: int, reduction: str) -> Tensor:
    """The gradient of the loss as it arrives at every logit; broadcasts against them."""
    if reduction == "none":
        return graph.expand_dims(incoming, (axis,))
    if reduction == "sum":
        return incoming
    return incoming / graph.element_count(like, _others(like, axis), dtype=incoming.dtype)


def _cross_entropy_gradient(op: Operation, grads: Grads) -> Gradients:
    g, grad = op.graph, arrived(grads)
    source, labels = op.inputs
    axis, reduction = op.attributes["axis"], op.attributes["reduction"]
    shifted, log_sum = log_sum_exp(g, source, axis)
    by_labels = (log_sum - shifted) * _per_logit(g, grad, source, axis, reduction)
    return [g.softmax_cross_entropy_gradient(grad, source, labels, axis, reduction), by_labels]


# -- its gradient op -----------------------------------------------------------------------------


def _gradient_infer(
    incoming: Spec, source: Spec, labels: Spec, *, axis: int, reduction: str
) -> Spec:
    shape = _pair_infer(source, labels, axis)
    require_same_dtype(incoming, source)
    wanted = _without(shape, axis, reduction)
    require_shape(incoming.shape, wanted, "the gradient", "the loss")
    return Spec(shape, source.dtype)


def _gradient_reference(
    incoming: Array, source: Array, labels: Array, *, axis: int, reduction: str
) -> Array:
    total = np.sum(labels, axis=axis, keepdims=True)
    scale = np.expand_dims(incoming, axis) if reduction == "none" else incoming
    if reduction == "mean":
        count = np.prod([d for i, d in enumerate(source.shape) if i != axis])
        scale = scale / np.asarray(count, source.dtype)
    powers = np.exp(_shifted(source, axis))
    found = (powers / np.sum(powers, axis=axis, keepdims=True) * total - labels) * scale
    return np.asarray(found, source.dtype)


def _gradient_decompose(
    graph: Graph, incoming: Tensor, source: Tensor, labels: Tensor, *, axis: int, reduction: str
) -> Tensor:
    total = graph.reduction_sum(labels, axes=(axis,))
    scale = _per_logit(graph, incoming, source, axis, reduction)
    return (graph.softmax(source, axis) * total - labels) * scale


def _gradient_gradient(op: Operation, grads: Grads) -> Gradients:
    # With s the scaled incoming gradient, p the softmax and t the sum of the labels, the output is
    # s * (p * t - labels).
    g, c = op.graph, arrived(grads)
    incoming, source, labels = op.inputs
    axis, reduction = op.attributes["axis"], op.attributes["reduction"]
    p = g.softmax(source, axis)
    t = g.reduction_sum(labels, axes=(axis,))
    s = _per_logit(g, incoming, source, axis, reduction)
    mean_c = g.reduction_sum(c * p, axes=(axis,))
    by_scale = g.reduction_sum(c * (p * t - labels), axes=(axis,), keep_dims=False)
    if reduction == "sum":
        by_scale = g.reduction_sum(by_scale, keep_dims=False)
    if reduction == "mean":
        by_scale = reduced(g, by_scale, "mean")
    return [by_scale, s * t * p * (c - mean_c), s * (mean_c - c)]


# -- samples -------------------------------------------------------------------------------------


def _distributions(rng: np.random.Generator, shape: tuple[int, ...], axis: int = -1) -> Array:
    raw = rng.uniform(0.1, 1.0, shape)
    return np.asarray(raw / raw.sum(axis=axis, keepdims=True), "float32")


def _cross_entropy_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((4, 5)).astype("float32")
    for reduction in REDUCTIONS:
        setting = {"axis": -1, "reduction": reduction}
        yield Sample((x, _distributions(rng, (4, 5))), setting, label=reduction)
    one_hot = np.eye(5, dtype="float32")[[0, 3, 3, 1]]
    yield Sample((x, one_hot), {"axis": 1, "reduction": "mean"}, label="one-hot")
    x = rng.standard_normal((2, 3, 4)).astype("float32")
    labels = _distributions(rng, (2, 3, 4), 1)
    for reduction in ("none", "mean"):
        setting = {"axis": 1, "reduction": reduction}
        yield Sample((x, labels), setting, label=f"middle axis {reduction}")
    setting = {"axis": 0, "reduction": "none"}
    yield Sample((x[0, 0], labels[0, :, 0].repeat(2)[:4]), setting, label="rank 1")
    yield Sample((x, 3 * labels), {"axis": -1, "reduction": "sum"}, label="labels sum to another")
    yield Sample((x[:0], labels[:0]), {"axis": 1, "reduction": "none"}, label="empty")
    # Far apart: exponentials overflow unless the maximum is subtracted first.
    x, setting = np.array([[1000.0, 0.0, -1000.0], [-1e4, -1e4, -1e4]], "float32"), {"axis": 1}
    yield Sample(
        (x, _distributions(rng, (2, 3))), setting, differentiable=(0,), label="large logits"
    )
    masked = np.array([[0.5, -np.inf, 1.0], [0.0, np.nan, 0.0]], "float32")
    labels = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], "float32")
    yield Sample((masked, labels), setting, differentiable=(), label="special values")


def _gradient_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for sample in _cross_entropy_samples(rng):
        source, labels = sample.inputs
        axis = sample.arguments["axis"] % source.ndim
        shape = _without(source.shape, axis, sample.arguments.get("reduction", "none"))
        incoming = np.asarray(rng.standard_normal(shape), "float32")  # type: ignore[arg-type]
        positions = () if sample.differentiable == () else None
        yield Sample((incoming, source, labels), sample.arguments, positions, label=sample.label)


def _cross_entropy_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.softmax_cross_entropy(g.placeholder((8, 10)), g.placeholder((8,))),
        r"logits have shape \(8, 10\), the labels \(8,\)",
    )
    yield Misuse(
        lambda g: g.softmax_cross_entropy(g.placeholder((8, 10)), g.placeholder((8, 10), "int32")),
        "needs floating point",
        DTypeError,
    )
    yield Misuse(
        lambda g: g.softmax_cross_entropy(g.placeholder((8, 3)), g.placeholder((8, 3)), axis=2),
        "axis 2 is outside",
    )
    yield Misuse(
        lambda g: g.softmax_cross_entropy(
            g.placeholder((8, 3)),
            g.placeholder((8, 3)),
            reduction="average",
        ),
        "'none', 'sum' or 'mean'",
        GraphError,
    )


def _gradient_misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.softmax_cross_entropy_gradient(
            g.placeholder((3,)), g.placeholder((8, 3)), g.placeholder((8, 3))
        ),
        r"that of the loss \(8,\)",
    )


SOFTMAX_CROSS_ENTROPY = OpDefinition(
    "softmax_cross_entropy",
    inputs=("source", "labels"),
    infer=_cross_entropy_infer,
    reference=_cross_entropy_reference,
    gradient=_cross_entropy_gradient,
    decompose=_cross_entropy_decompose,
    mpsgraph="softMaxCrossEntropyWithSourceTensor:labelsTensor:axis:reductionType:name:",
    samples=_cross_entropy_samples,
    misuses=_cross_entropy_misuses,
)
SOFTMAX_CROSS_ENTROPY_GRADIENT = OpDefinition(
    "softmax_cross_entropy_gradient",
    inputs=("incoming", "source", "labels"),
    infer=_gradient_infer,
    reference=_gradient_reference,
    gradient=_gradient_gradient,
    decompose=_gradient_decompose,
    mpsgraph="softMaxCrossEntropyGradientWithIncomingGradientTensor:sourceTensor:labelsTensor:axis:reductionType:name:",
    samples=_gradient_samples,
    misuses=_gradient_misuses,
)
