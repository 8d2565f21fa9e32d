"""Attention with several heads that lie side by side, as one op and one gradient.

For query rows i and key rows j of one head, with ``S = scale * Q K^T`` and P its softmax over j::

    Y  = P V
    dV = P^T dY
    dS = P * (dY V^T - rowsum(P * dY V^T))
    dQ = scale * dS K,  dK = scale * dS^T Q

The gradient computes P anew: two products of six, for which no (batch, heads, steps, steps) array
is kept between the passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from stepgraph.errors import DTypeError
from stepgraph.graph.core import GraphCore
from stepgraph.graph.definition import (
    Array,
    Gradients,
    Grads,
    Misuse,
    OpDefinition,
    Sample,
    arrived,
    require_float,
    require_rank,
    require_same_dtype,
    require_shape,
)
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import Spec, bad_shape
from stepgraph.graph.tensor import Tensor

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph


def _infer(query: Spec, key: Spec, value: Spec, *, heads: int, scale: float) -> Spec:
    require_float(query, key, value)
    require_same_dtype(query, key, value)
    if heads < 1:
        raise bad_shape(f"there are {heads} heads", expected="1 or more")
    for spec, what in ((query, "the query"), (key, "the key"), (value, "the value")):
        require_rank(spec, 3, what)
        if spec.shape[2] is not None and spec.shape[2] % heads:
            raise bad_shape(
                f"{what} has {spec.shape[2]} features for {heads} heads",
                expected="as many features for each head",
            )
    require_shape(key.shape[2:], query.shape[2:], "the key's features", "the query's")
    require_shape(value.shape[:2], key.shape[:2], "the value's batch and steps", "the key's")
    require_shape(key.shape[:1], query.shape[:1], "the key's batch", "the query's")
    batch, steps, _ = query.shape
    return Spec((batch, steps, value.shape[2]), query.dtype)


def _split(x: Array, heads: int) -> Array:
    batch, steps, features = x.shape
    return x.reshape(batch, steps, heads, features // heads).transpose(0, 2, 1, 3)


def _joined(x: Array) -> Array:
    batch, heads, steps, size = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, steps, heads * size)


def _weights(q: Array, k: Array, scale: float) -> Array:
    scores = np.matmul(q * np.asarray(scale, q.dtype), k.swapaxes(-1, -2))
    peak = np.max(scores, axis=-1, keepdims=True, initial=-np.inf)
    powers = np.exp(scores - peak)
    return np.asarray(powers / np.sum(powers, axis=-1, keepdims=True))


def _reference(query: Array, key: Array, value: Array, *, heads: int, scale: float) -> Array:
    q, k, v = (_split(x, heads) for x in (query, key, value))
    return _joined(np.matmul(_weights(q, k, scale), v))


def _gradient_reference(
    incoming: Array, query: Array, key: Array, value: Array, *, heads: int, scale: float
) -> tuple[Array, ...]:
    dy, q, k, v = (_split(x, heads) for x in (incoming, query, key, value))
    p = _weights(q, k, scale)
    dp = np.matmul(dy, v.swapaxes(-1, -2))
    ds = p * (dp - np.sum(p * dp, axis=-1, keepdims=True)) * np.asarray(scale, p.dtype)
    found = (np.matmul(ds, k), np.matmul(ds.swapaxes(-1, -2), q), np.matmul(p.swapaxes(-1, -2), dy))
    return tuple(_joined(x) for x in found)


def _heads(graph: Graph, x: Tensor, heads: int) -> Tensor:
    """``(batch, steps, features)`` to ``(batch, heads, steps, size)``."""
    shape = tuple(-1 if size is None else size for size in x.shape)
    apart = graph.reshape(x, (*shape[:2], heads, shape[2] // heads))
    return graph.permute(apart, (0, 2, 1, 3))


def _side_by_side(graph: Graph, x: Tensor) -> Tensor:
    batch, heads, steps, size = (-1 if size is None else size for size in x.shape)
    return graph.reshape(graph.permute(x, (0, 2, 1, 3)), (batch, steps, heads * size))


def _attention(graph: Graph, q: Tensor, k: Tensor, scale: float) -> Tensor:
    scores = graph.matrix_multiplication(q * scale, k, transpose_secondary=True)
    return graph.softmax(scores, -1)


def _decompose(
    graph: Graph, query: Tensor, key: Tensor, value: Tensor, *, heads: int, scale: float
) -> Tensor:
    q, k, v = (_heads(graph, x, heads) for x in (query, key, value))
    return _side_by_side(graph, graph.matrix_multiplication(_attention(graph, q, k, scale), v))


def _gradient_decompose(
    graph: Graph,
    incoming: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    heads: int,
    scale: float,
) -> tuple[Tensor, ...]:
    dy, q, k, v = (_heads(graph, x, heads) for x in (incoming, query, key, value))
    p = _attention(graph, q, k, scale)
    dp = graph.matrix_multiplication(dy, v, transpose_secondary=True)
    ds = p * (dp - graph.reduction_sum(p * dp, axes=(-1,))) * scale
    found = (
        graph.matrix_multiplication(ds, k),
        graph.matrix_multiplication(ds, q, transpose_primary=True),
        graph.matrix_multiplication(p, dy, transpose_primary=True),
    )
    return tuple(_side_by_side(graph, x) for x in found)


def _gradient(op: Operation, grads: Grads) -> Gradients:
    definition = MULTI_HEAD_ATTENTION_GRADIENT
    return op.graph._add(definition, (arrived(grads), *op.inputs), dict(op.attributes)).outputs


def _gradient_gradient(op: Operation, grads: Grads) -> Gradients:
    """From the simpler ops, on copies of the inputs: one may be made from another."""
    from stepgraph.graph.autodiff import pullback

    graph = op.graph
    own = [graph.identity(x) for x in op.inputs]
    made = _gradient_decompose(graph, *own, **op.attributes)
    seeds = [(y, grad) for y, grad in zip(made, grads, strict=True) if grad is not None]
    found = pullback(graph, seeds, own)
    return [found.get(x) for x in own]


def _gradient_infer(
    incoming: Spec, query: Spec, key: Spec, value: Spec, *, heads: int, scale: float
) -> tuple[Spec, ...]:
    made = _infer(query, key, value, heads=heads, scale=scale)
    require_same_dtype(incoming, query)
    require_shape(incoming.shape, made.shape, "the incoming gradient", "the attention")
    return query, key, value


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    def draw(*shape: int) -> Array:
        return rng.standard_normal(shape).astype("float32")

    for steps, others, heads, size, value_size, label in (
        (5, 5, 2, 4, 4, "two heads"),
        (4, 6, 1, 3, 5, "other steps, other sizes"),
        (20, 18, 2, 16, 32, "whole panels, odd steps"),
        (1, 1, 3, 2, 2, "one step"),
    ):
        query, key = draw(2, steps, heads * size), draw(2, others, heads * size)
        value = draw(2, others, heads * value_size)
        yield Sample((query, key, value), {"heads": heads}, label=label)
    x = draw(1, 3, 4)
    yield Sample((x, x + 1, x - 1), {"heads": 2, "scale": 0.3}, label="scale")
    yield Sample((40 * x, 40 * x, x), {"heads": 1}, differentiable=(2,), label="large scores")
    yield Sample((x[:0], x[:0], x[:0]), {"heads": 1}, label="empty")


def _gradient_samples(rng: np.random.Generator) -> Iterator[Sample]:
    for sample in _samples(rng):
        query, _, value = sample.inputs
        incoming = rng.standard_normal((*query.shape[:2], value.shape[2])).astype("float32")
        positions = (0,) if sample.differentiable else None
        settings = sample.arguments
        yield Sample((incoming, *sample.inputs), settings, positions, label=sample.label)


def _misuses() -> Iterator[Misuse]:
    def attention(graph: Graph, *shapes: tuple[int, ...]) -> Tensor:
        q, k, v = (graph.placeholder(shape) for shape in shapes)
        return graph.multi_head_attention(q, k, v, heads=2)

    def alike(graph: Graph, dtype: str, heads: int) -> Tensor:
        x = graph.placeholder((1, 2, 2), dtype)
        return graph.multi_head_attention(x, x, x, heads)

    yield Misuse(lambda g: attention(g, (2, 4), (2, 4), (2, 4)), "the query has rank 2")
    yield Misuse(lambda g: attention(g, (2, 4, 5), (2, 4, 5), (2, 4, 4)), "5 features for 2 heads")
    yield Misuse(lambda g: attention(g, (2, 4, 8), (2, 4, 6), (2, 4, 4)), "the key's features")
    yield Misuse(lambda g: attention(g, (2, 4, 8), (2, 3, 8), (2, 4, 4)), "batch and steps")
    yield Misuse(lambda g: alike(g, "int32", 1), "needs floating point", DTypeError)
    yield Misuse(lambda g: alike(g, "float32", 0), "0 heads")


def _gradient_misuses() -> Iterator[Misuse]:
    def other(graph: Graph) -> object:
        x = graph.placeholder((1, 2, 2))
        return graph.multi_head_attention_gradient(graph.placeholder((1, 3, 2)), x, x, x, 1)

    yield Misuse(other, "the incoming gradient")


MULTI_HEAD_ATTENTION = OpDefinition(
    "multi_head_attention",
    inputs=("query", "key", "value"),
    infer=_infer,
    reference=_reference,
    gradient=_gradient,
    decompose=_decompose,
    samples=_samples,
    misuses=_misuses,
)
MULTI_HEAD_ATTENTION_GRADIENT = OpDefinition(
    "multi_head_attention_gradient",
    inputs=("incoming", "query", "key", "value"),
    infer=_gradient_infer,
    reference=_gradient_reference,
    gradient=_gradient_gradient,
    decompose=_gradient_decompose,
    samples=_gradient_samples,
    misuses=_gradient_misuses,
)

DEFINITIONS = (MULTI_HEAD_ATTENTION, MULTI_HEAD_ATTENTION_GRADIENT)


class AttentionOps(GraphCore):
    """Attention."""

    def multi_head_attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        heads: int,
        scale: float | None = None,
        name: str | None = None,
    ) -> Tensor:
        """Scaled dot-product attention of several heads, whose features lie side by side.

        Each head takes its share of the features: ``softmax(scale * q @ k.T) @ v`` over the steps.

        Args:
            query: float tensor (batch, steps, heads * size).
            key: float tensor (batch, other steps, heads * size).
            value: float tensor (batch, other steps, heads * value size).
            heads: how many.
            scale: multiplies the scores; ``1 / sqrt(size)`` without it.
            name: label in printed graphs and errors.

        Returns:
            Tensor (batch, steps, heads * value size).

        Raises:
            ShapeError: a rank is not 3, the features do not divide, or shapes do not fit.
            DTypeError: an operand is not floating point, or they differ in dtype.

        Source: Vaswani et al. 2017 (arXiv:1706.03762); MPSGraph has one head's part as
        ``scaledDotProductAttentionWithQueryTensor:keyTensor:valueTensor:scale:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([[[1.0, 0.0], [0.0, 1.0]]])
            >>> y = graph.multi_head_attention(x, x, x, heads=2)
            >>> graph.run(targets=[y], device="reference")[0].round(2)
            array([[[0.73, 0.5 ],
                    [0.5 , 0.73]]], dtype=float32)
        """
        attributes = self._attention_settings(query, heads, scale)
        return self._one(MULTI_HEAD_ATTENTION, (query, key, value), attributes, name=name)

    def multi_head_attention_gradient(
        self,
        incoming: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        heads: int,
        scale: float | None = None,
        name: str | None = None,
    ) -> tuple[Tensor, ...]:
        """The gradients of `multi_head_attention` for its inputs; can be differentiated again.

        Args:
            incoming: gradient of the result.
            query: as given to it, as all that follows.
            key: the same.
            value: the same.
            heads: the same.
            scale: the same.
            name: label in printed graphs and errors.

        Returns:
            Gradients for query, key and value.

        Raises:
            ShapeError: as there, or `incoming` has another shape than the result.
            DTypeError: as there.
        """
        attributes = self._attention_settings(query, heads, scale)
        inputs = (incoming, query, key, value)
        return self._add(MULTI_HEAD_ATTENTION_GRADIENT, inputs, attributes, name=name).outputs

    def _attention_settings(
        self, query: Tensor, heads: int, scale: float | None
    ) -> dict[str, int | float]:
        if scale is None:
            features = query.shape[-1] if query.rank == 3 else None
            scale = 1.0 / math.sqrt(max(features or 1, 1) / max(heads, 1))
        return {"heads": int(heads), "scale": float(scale)}
