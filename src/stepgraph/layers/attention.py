"""Attention."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from stepgraph import initializers
from stepgraph.errors import ShapeError, describe
from stepgraph.graph.shapes import format_shape
from stepgraph.graph.tensor import Tensor
from stepgraph.layers.base import Layer
from stepgraph.layers.layer_graph import LayerGraph
from stepgraph.layers.symbolic import KerasTensor
from stepgraph.utils import next_seed


class _Projection(Layer):
    """A product over the last axis with a kernel of three axes, as Keras's ``EinsumDense``."""

    def __init__(
        self, kernel_shape: tuple[int, ...], bias_shape: tuple[int, ...] | None, inputs: int,
        initializer: Any, bias_initializer: Any, name: str,
    ) -> None:  # fmt: skip
        super().__init__(name=name)
        self.inputs = inputs
        self.kernel = self.add_weight("kernel", kernel_shape, initializer)
        self.bias = (
            None if bias_shape is None else self.add_weight("bias", bias_shape, bias_initializer)
        )
        self.built = True

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """``(batch, steps, inputs)`` to ``(batch, steps, outputs)``, the heads side by side."""
        y = inputs @ graph.reshape(graph.weight(self.kernel), (self.inputs, -1))
        return y if self.bias is None else y + graph.reshape(graph.weight(self.bias), (-1,))


class MultiHeadAttention(Layer):
    """Scaled dot-product attention with several heads, on sequences ``(batch, steps, features)``.

    Args:
        num_heads: number of heads.
        key_dim: size of a head's queries and keys.
        value_dim: size of a head's values; `key_dim` without it.
        dropout: rate of dropout on the attention's weights.
        use_bias: whether the four projections have a bias.
        output_shape: features of the output; those of the query without it.
        kernel_initializer: of the projections.
        bias_initializer: of the biases.
        seed: of the dropout; drawn from the stream of `utils.set_random_seed` without it.
        **kwargs: of every `Layer`.

    The weights are Keras's: query, key, value kernels ``(features, heads, size)`` with biases
    ``(heads, size)``, then the output's kernel ``(heads, size, features)`` and bias.

    Source: Keras ``MultiHeadAttention``; Vaswani et al. 2017.

    Example:
        >>> from stepgraph.layers import Input, MultiHeadAttention
        >>> x = Input((16, 64))
        >>> MultiHeadAttention(4, 16, name="attention")(x, x)
        <KerasTensor 'attention' float32 (?, 16, 64)>
    """

    # A layer's `output_shape` is what its call returned.
    kept_as: Mapping[str, str] = {"output_shape": "output_features"}

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,
        output_shape: int | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = int(num_heads)
        self.key_dim = int(key_dim)
        self.value_dim = int(value_dim or key_dim)
        self.dropout = float(dropout)
        self.use_bias = use_bias
        self.output_features = output_shape
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.seed = next_seed() % 2**31 if seed is None else int(seed)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Uses the layer in a network: ``mha(query, value, key=None, attention_mask=None, ...)``.

        Args:
            inputs: the query ``(batch, steps, features)``, a `KerasTensor`.
            *args: value ``(batch, other steps, features)``, then key and attention mask.
            **kwargs: value, key, attention_mask (``(batch, steps, other steps)``, true or 1 where
                attention is allowed), use_causal_mask, return_attention_scores.

        Returns:
            A `KerasTensor` of the query's shape; with `return_attention_scores` also the weights
            ``(batch, heads, steps, other steps)``.
        """
        given = dict(zip(("value", "key", "attention_mask"), args, strict=False)) | kwargs
        query = given.pop("query", inputs)
        value = given.pop("value", None)
        if isinstance(query, list):
            tensors: list[Any] = query
        elif value is None:
            raise TypeError(
                describe(self._what, "needs a value beside the query", expected="mha(x, x)")
            )
        else:
            key = given.pop("key", None)
            tensors = [query, value, value if key is None else key]
            mask = given.pop("attention_mask", None)
            tensors += [] if mask is None else [mask]
        arguments = {
            name: bool(given.pop(name, False))
            for name in ("use_causal_mask", "return_attention_scores")
        }
        given.pop("training", None)
        if given:
            raise TypeError(describe(self._what, f"unexpected arguments {sorted(given)}"))
        return self._symbolic_call(tensors, {k: v for k, v in arguments.items() if v})

    def _check(self, tensors: Any) -> None:
        for tensor in tensors[:3]:
            if isinstance(tensor, KerasTensor) and (tensor.rank != 3 or None in tensor.shape[1:]):
                raise ShapeError(
                    describe(
                        self._what,
                        f"cannot attend to {format_shape(tensor.shape)}",
                        expected="(batch, steps, features) with known steps and features",
                        fix="Reshape((height * width, channels)) makes a sequence of a picture",
                    )
                )

    def build(self, input_shape: Any) -> None:
        """Makes the four projections."""
        query, value, key = (shape[-1] for shape in input_shape[:3])
        heads, size, out = self.num_heads, self.key_dim, self.output_features or query
        self.query_dense = self._projection("query", query, size)
        self.key_dense = self._projection("key", key, size)
        self.value_dense = self._projection("value", value, self.value_dim)
        self.output_dense = _Projection(
            (heads, self.value_dim, out),
            (out,) if self.use_bias else None,
            heads * self.value_dim,
            self.kernel_initializer,
            self.bias_initializer,
            "attention_output",
        )

    def _projection(self, name: str, inputs: int, size: int) -> _Projection:
        heads = self.num_heads
        return _Projection(
            (inputs, heads, size),
            (heads, size) if self.use_bias else None,
            inputs,
            self.kernel_initializer,
            self.bias_initializer,
            name,
        )

    def call(
        self,
        graph: LayerGraph,
        inputs: Any,
        training: bool = False,
        use_causal_mask: bool = False,
        return_attention_scores: bool = False,
    ) -> Any:
        """Query, value, key and perhaps a mask to the attended values."""
        query, value, key = inputs[:3]
        steps, others = query.shape[1], key.shape[1]
        q = self.query_dense.call(graph, query)
        k = self.key_dense.call(graph, key)
        v = self.value_dense.call(graph, value)
        hides = use_causal_mask or len(inputs) > 3 or (training and self.dropout)
        if not hides and not return_attention_scores:
            # One operation, for which devices have kernels that keep the weights to themselves.
            y = graph.multi_head_attention(q, k, v, self.num_heads)
            return self.output_dense.call(graph, y)
        q, k = (self._heads(graph, x, self.key_dim) for x in (q, k))
        v = self._heads(graph, v, self.value_dim)
        q = q * (1.0 / math.sqrt(self.key_dim))
        scores = graph.matrix_multiplication(q, k, transpose_secondary=True)
        if use_causal_mask:
            hidden = np.triu(np.ones((steps, others), np.float32), 1) * np.float32(-1e9)
            scores = scores + graph.constant(hidden)
        if len(inputs) > 3:
            mask = graph.cast(inputs[3], scores.dtype.name)
            if mask.rank == 3:
                mask = graph.expand_dims(mask, 1)
            scores = scores + (1.0 - mask) * -1e9
        weights = graph.softmax(scores, -1)
        used: Tensor = weights
        if training and self.dropout:
            used = graph.dropout(weights, self.dropout, seed=self.seed)
        y = graph.permute(graph.matrix_multiplication(used, v), (0, 2, 1, 3))
        y = graph.reshape(y, (-1, steps, self.num_heads * self.value_dim))
        y = self.output_dense.call(graph, y)
        return [y, weights] if return_attention_scores else y

    def _heads(self, graph: LayerGraph, x: Tensor, size: int) -> Tensor:
        """``(batch, steps, heads * size)`` to ``(batch, heads, steps, size)``."""
        steps = x.shape[1]
        assert steps is not None
        return graph.permute(graph.reshape(x, (-1, steps, self.num_heads, size)), (0, 2, 1, 3))
