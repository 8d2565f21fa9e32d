"""Models whose layers stand in one line (``keras.Sequential``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stepgraph.configs import plain
from stepgraph.errors import GraphError, describe
from stepgraph.graph.shapes import Shape
from stepgraph.layers import Input, InputLayer, KerasTensor, Layer
from stepgraph.models.model import Model
from stepgraph.models.network import Network, trace
from stepgraph.models.trainer import Trainer


class Sequential(Model):
    """A network of layers one after the other.

    The shape of the input comes from an `Input` at the start, from the first layer's `input_shape`,
    from `build`, or from the first data.

    Args:
        layers: the layers.
        name: label.
        **kwargs: `trainable`.

    Source: Keras ``Sequential``.

    Example:
        >>> from stepgraph import layers, models
        >>> model = models.Sequential([layers.Input((8,)), layers.Dense(4, activation="relu")])
        >>> model.add(layers.Dense(2))
        >>> model.output_shape
        (None, 2)
    """

    def __init__(
        self, layers: Sequence[Any] | None = None, name: str | None = None, **kwargs: Any
    ) -> None:
        Trainer.__init__(self, name=name, **kwargs)
        self._stack: list[Layer] = []
        self._start: KerasTensor | None = None
        self._end: Any = None
        self._network = None
        for layer in layers or ():
            self.add(layer)

    def add(self, layer: Any) -> None:
        """Puts a layer, or an `Input`, at the end."""
        if isinstance(layer, KerasTensor) and isinstance(layer.node.layer, InputLayer):
            layer = layer.node.layer
        if not isinstance(layer, Layer):
            raise GraphError(
                describe(
                    f"model '{self.name}'",
                    f"cannot add {type(layer).__name__}",
                    expected="a layer, such as layers.Dense(10)",
                )
            )
        self.reset_runtime()
        self._network = None
        if isinstance(layer, InputLayer):
            if self._stack or self._start is not None:
                raise GraphError(
                    describe(f"model '{self.name}'", "Input must be the first, and only once")
                )
            self._start = self._end = layer.nodes[0].outputs[0]
            return
        if any(layer.name == other.name for other in self._stack):
            raise GraphError(
                describe(
                    f"model '{self.name}'",
                    f"two layers are called '{layer.name}'",
                    fix="give each layer a name of its own, or leave name= out",
                )
            )
        if self._start is None and not self._stack and layer.first_shape is not None:
            self._begin(layer.first_shape, layer.dtype)
        self._stack.append(layer)
        if self._start is not None:
            self._end = layer(self._end)

    def pop(self) -> Layer:
        """Takes the last layer away."""
        if not self._stack:
            raise GraphError(describe(f"model '{self.name}'", "has no layers"))
        self.reset_runtime()
        self._network = None
        last = self._stack.pop()
        if self._start is not None:
            last.nodes.pop()
            end = self._stack[-1].nodes[-1].outputs if self._stack else [self._start]
            self._end = end[0]
        return last

    def build(self, input_shape: Any = None) -> None:
        """Fixes the input's shape.

        Args:
            input_shape: with the batch, such as ``(None, 32, 32, 3)``.
        """
        if self._start is not None or input_shape is None:
            return
        self._begin(tuple(input_shape), "float32")
        for layer in self._stack:
            self._end = layer(self._end)

    def _begin(self, shape: Shape, dtype: str) -> None:
        name = f"{self.name}_input"
        self._start = self._end = Input(shape[1:], shape[0], name=name, dtype=dtype)

    def is_ready(self) -> bool:
        """Whether the input shape is known and there are layers."""
        return self._start is not None and bool(self._stack)

    def ensure_network(self, x: Any) -> None:
        """Learns the input's shape from the first data, if nothing told it."""
        if self._start is not None:
            return
        if x is None:
            raise GraphError(
                describe(
                    f"model '{self.name}'",
                    "does not know the shape of its input",
                    fix="begin with layers.Input(shape=...), or call model.build((None, ...))",
                )
            )
        self.build((None, *np.asarray(x).shape[1:]))

    @property
    def network(self) -> Network:
        """The calls of layers from input to output."""
        if self._network is None:
            if not self.is_ready():
                raise GraphError(
                    describe(
                        f"model '{self.name}'",
                        "has no layers" if not self._stack else "is not built",
                        fix="add layers, and begin with layers.Input(shape=...)",
                    )
                )
            self._structure = (self._start, self._end)
            self._network = trace(self._start, self._end, self.name)
        return self._network

    @property
    def layers(self) -> list[Layer]:
        """The layers in order, without the input."""
        return list(self._stack)

    def sublayers(self) -> list[Layer]:
        """Its layers."""
        return list(self.__dict__.get("_stack", ()))

    def ensure_built(self, input_shape: Any) -> None:
        """Builds the layers for an input's shape, when used as a layer."""
        self.build(input_shape)
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """The layers as plain values."""
        start = self._start
        return {
            "name": self.name,
            "trainable": self.trainable,
            "input": None if start is None else plain(start.node.layer.get_config()),
            "layers": [
                {"class_name": type(layer).__name__, "config": layer.get_config()}
                for layer in self._stack
            ],
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """The model that `get_config` described, with new weights."""
        from stepgraph.models import deserialize_layer

        model = cls(name=config["name"])
        if config.get("input"):
            model.add(InputLayer(**config["input"]))
        for entry in config["layers"]:
            model.add(deserialize_layer(entry))
        model.__dict__["_trainable"] = config.get("trainable", True)
        return model
