"""Input, Dense, Embedding and other basic layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepgraph import activations, initializers, regularizers
from stepgraph.errors import ShapeError, describe
from stepgraph.graph.dtypes import as_dtype
from stepgraph.graph.shapes import as_shape
from stepgraph.graph.tensor import Tensor
from stepgraph.layers.base import Layer
from stepgraph.layers.layer_graph import LayerGraph
from stepgraph.layers.symbolic import KerasTensor, Node
from stepgraph.utils import unique_name


class InputLayer(Layer):
    """Where data enters a network; made by `Input`.

    Args:
        shape: of one sample.
        batch_size: of a batch; None for any.
        dtype: element type.
        name: under which `fit` takes it in a dictionary.
    """

    def __init__(
        self,
        shape: Sequence[int | None] | int | None = None,
        batch_size: int | None = None,
        dtype: str = "float32",
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name or unique_name("input"), dtype=dtype, **kwargs)
        if self.first_shape is not None:
            batch_size, shape = self.first_shape[0], self.first_shape[1:]
            self.first_shape = None
        if shape is None:
            raise ShapeError(
                describe("Input", "no shape was given", expected="Input(shape=(height, width, 3))")
            )
        self.shape = as_shape(shape, "Input")
        self.batch_size = batch_size
        self.built = True
        node = Node(self, [], True, {})
        node.outputs = [KerasTensor((batch_size, *self.shape), self.dtype, node, 0)]
        self.nodes.append(node)

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The placeholder itself."""
        return inputs


def Input(
    shape: Sequence[int | None] | int | None = None,
    batch_size: int | None = None,
    name: str | None = None,
    dtype: str = "float32",
    batch_shape: Sequence[int | None] | None = None,
) -> KerasTensor:
    """The start of a network in functional style.

    Args:
        shape: of one sample, such as ``(32, 32, 3)``.
        batch_size: only shown and checked by layers; any batch may be fed.
        name: under which `fit` takes it in a dictionary.
        dtype: element type.
        batch_shape: shape with the batch, instead of the two.

    Returns:
        A `KerasTensor` of shape ``(batch_size, *shape)``.

    Source: Keras ``Input``.

    Example:
        >>> Input((32, 32, 3), batch_size=64, name="images")
        <KerasTensor 'images' float32 (64, 32, 32, 3)>
    """
    if batch_shape is not None:
        batch_size, shape = batch_shape[0], tuple(batch_shape[1:])
    return InputLayer(shape, batch_size, as_dtype(dtype).name, name).nodes[0].outputs[0]


class Dense(Layer):
    """``activation(x @ kernel + bias)`` on the last axis.

    Args:
        units: size of the output's last axis.
        activation: name or function; None for none.
        use_bias: whether to add a bias.
        kernel_initializer: of the kernel, shape ``(inputs, units)``.
        bias_initializer: of the bias, shape ``(units,)``.
        kernel_regularizer: penalty on the kernel.
        bias_regularizer: penalty on the bias.
        **kwargs: of every `Layer`.

    Source: Keras ``Dense``.
    """

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = int(units)
        if self.units <= 0:
            raise ValueError(describe(self._what, f"units={units!r}", expected="1 or more"))
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)

    def build(self, input_shape: Any) -> None:
        """Makes kernel and bias."""
        if len(input_shape) < 2:
            raise ShapeError(
                describe(
                    self._what,
                    f"needs an input of rank 2 or more, got {tuple(input_shape)}",
                    expected="(batch, ..., features)",
                )
            )
        inputs = self.fix_size(-1, input_shape[-1], "last size")
        self.kernel = self.add_weight(
            "kernel",
            (inputs, self.units),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                "bias", (self.units,), self.bias_initializer, regularizer=self.bias_regularizer
            )

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """``(batch, ..., features)`` to ``(batch, ..., units)``."""
        y = graph.matrix_multiplication(inputs, graph.weight(self.kernel))
        if self.use_bias:
            y = y + graph.weight(self.bias)
        return self.activation(y)


class Embedding(Layer):
    """Rows of a table, looked up by number.

    Args:
        input_dim: rows of the table; inputs are below it.
        output_dim: size of a row.
        embeddings_initializer: of the table.
        embeddings_regularizer: penalty on the table.
        **kwargs: of every `Layer`.

    Source: Keras ``Embedding``. Inputs are integers; declare ``Input(..., dtype="int32")``, or they
    are cast.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        # Here `input_dim` is the table's size, not the shorthand for an input shape.
        super().__init__(**kwargs)
        self.input_dim = int(input_dim)
        self.output_dim = int(output_dim)
        self.embeddings_initializer = initializers.get(embeddings_initializer)
        self.embeddings_regularizer = regularizers.get(embeddings_regularizer)

    def build(self, input_shape: Any) -> None:
        """Makes the table."""
        self.embeddings = self.add_weight(
            "embeddings",
            (self.input_dim, self.output_dim),
            self.embeddings_initializer,
            regularizer=self.embeddings_regularizer,
        )

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """``(batch, ...)`` numbers to ``(batch, ..., output_dim)``."""
        indices = inputs if inputs.dtype.is_integer else graph.cast(inputs, "int32")
        return graph.gather(graph.weight(self.embeddings), indices, axis=0)


class PositionEmbedding(Layer):
    """A learnt row for each position, for adding to a sequence.

    Args:
        sequence_length: the longest sequence.
        initializer: of the table, shape ``(sequence_length, features)``.
        **kwargs: of every `Layer`.

    Source: KerasHub ``PositionEmbedding``.
    """

    input_rank = 3

    def __init__(
        self, sequence_length: int, initializer: Any = "glorot_uniform", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.sequence_length = int(sequence_length)
        self.initializer = initializers.get(initializer)

    def build(self, input_shape: Any) -> None:
        """Makes the table."""
        features = self.fix_size(-1, input_shape[-1], "last size")
        self.position_embeddings = self.add_weight(
            "embeddings", (self.sequence_length, features), self.initializer
        )

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The rows of the positions, of the input's shape."""
        table: Tensor = graph.weight(self.position_embeddings)
        steps = inputs.shape[1]
        if steps is None or steps > self.sequence_length:
            raise ShapeError(
                describe(
                    self._what,
                    f"the input has {steps} steps, the table {self.sequence_length}",
                    fix="give the number of steps in Input(shape=...), and a table as long",
                )
            )
        if steps < self.sequence_length:
            table = graph.slice(table, 0, 0, steps)
        return graph.broadcast_like(table, inputs)


class Identity(Layer):
    """The input itself."""

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The input."""
        return inputs


class Rescaling(Layer):
    """``x * scale + offset``, such as ``Rescaling(1 / 255)`` for pixels.

    Source: Keras ``Rescaling``.
    """

    def __init__(self, scale: Any, offset: Any = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = scale
        self.offset = offset

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The scaled input."""
        x = inputs if inputs.dtype.is_float else graph.cast(inputs, self.dtype)
        return x * _values(self.scale) + _values(self.offset)


def _values(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
