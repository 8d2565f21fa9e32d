"""Models of the functional style (``keras.Model``)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from stepgraph.configs import plain
from stepgraph.errors import GraphError, describe, nearest
from stepgraph.graph.tensor import Tensor
from stepgraph.layers import KerasTensor, Layer, LayerGraph, Weight
from stepgraph.layers.symbolic import flat
from stepgraph.models.network import Network, trace
from stepgraph.models.trainer import Trainer


class Model(Trainer):
    """A network between inputs and outputs, which can be trained.

    It is also a layer: calling it on a `KerasTensor` uses it, with its weights, in another network.

    Args:
        inputs: what `Input` returned, or a list of those.
        outputs: what layers returned, or a list of those.
        name: label.
        **kwargs: `trainable`.

    Source: Keras ``Model``.

    Example:
        >>> import numpy as np
        >>> from stepgraph import layers, models, utils
        >>> utils.set_random_seed(1)
        >>> x = layers.Input((4,))
        >>> y = layers.Dense(3, activation="softmax")(x)
        >>> model = models.Model(inputs=x, outputs=y, name="tiny")
        >>> model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy", metrics=["acc"])
        >>> data = np.eye(4, dtype="float32")
        >>> history = model.fit(data, [0, 1, 2, 0], epochs=2, verbose=0)
        >>> sorted(history.history)
        ['acc', 'loss']
    """

    def __init__(
        self, inputs: Any = None, outputs: Any = None, name: str | None = None, **kwargs: Any
    ) -> None:
        if inputs is None or outputs is None:
            raise GraphError(
                describe(
                    "Model",
                    "needs inputs and outputs",
                    expected="Model(inputs=x, outputs=y), with x from Input(...)",
                    fix="networks written as a subclass are not offered; a layer can be",
                )
            )
        super().__init__(name=name, **kwargs)
        self._structure = (inputs, outputs)
        self._network: Network | None = trace(inputs, outputs, self.name)
        self.built = True

    # -- what it is ------------------------------------------------------------------------------

    @property
    def network(self) -> Network:
        """The calls of layers from inputs to outputs."""
        assert self._network is not None
        return self._network

    def is_ready(self) -> bool:
        """Whether the input shape is known: always, here."""
        return True

    def ensure_network(self, x: Any) -> None:
        """Nothing: the shape is known."""

    @property
    def layers(self) -> list[Layer]:
        """All layers, inputs included, in the order of their weights."""
        return list(self.network.layers)

    @property
    def inputs(self) -> list[KerasTensor]:
        """The inputs."""
        return list(self.network.inputs)

    @property
    def outputs(self) -> list[KerasTensor]:
        """The outputs."""
        return list(self.network.outputs)

    @property
    def input(self) -> Any:
        """The input, or a list of them."""
        return self.inputs[0] if len(self.inputs) == 1 else self.inputs

    @property
    def output(self) -> Any:
        """The output, or a list of them."""
        return self.outputs[0] if len(self.outputs) == 1 else self.outputs

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs, the keys of data in dictionaries."""
        return [tensor.name for tensor in self.inputs]

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs' layers, the keys of losses, metrics and labels."""
        names: list[str] = []
        for tensor in self.outputs:
            stem = tensor.name
            count = sum(name == stem or name.startswith(f"{stem}_out") for name in names)
            names.append(f"{stem}_out{count}" if count else stem)
        return names

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """A layer by name or position.

        Raises:
            ValueError: there is none.
        """
        if index is not None:
            if not -len(self.layers) <= index < len(self.layers):
                raise ValueError(
                    describe("get_layer", f"no layer {index}", got={"layers": len(self.layers)})
                )
            return self.layers[index]
        for layer in self.layers:
            if layer.name == name:
                return layer
        known = [layer.name for layer in self.layers]
        raise ValueError(describe("get_layer", f"no layer '{name}'", fix=nearest(str(name), known)))

    # -- as a layer ------------------------------------------------------------------------------

    def sublayers(self) -> list[Layer]:
        """Its layers."""
        # Asked for while the base class is still being made, too.
        return self.layers if self.__dict__.get("_network") is not None else []

    def named_weights(self) -> Iterator[tuple[str, Weight]]:
        """Every weight with its path, layer by layer, those of models inside under their names."""
        for layer in self.sublayers():
            prefix = f"{layer.name}/" if isinstance(layer, Model) else ""
            for path, weight in layer.named_weights():
                yield f"{prefix}{path}", weight

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights; setting it sets it for all layers."""
        return bool(self.__dict__.get("_trainable", True))

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self.__dict__["_trainable"] = value
        for layer in self.sublayers():
            layer.trainable = value

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """The network's operations in another graph."""
        tensors: list[Tensor] = flat(inputs)
        if len(tensors) != len(self.inputs):
            raise GraphError(
                describe(
                    self._what,
                    f"takes {len(self.inputs)} inputs, got {len(tensors)}",
                )
            )
        made = self.network.build(graph, tensors, training and self.trainable)
        return made[0] if len(made) == 1 and not isinstance(self._structure[1], list) else made

    # -- looking and saving ----------------------------------------------------------------------

    def summary(
        self,
        line_length: int | None = None,
        positions: Any = None,
        print_fn: Callable[[str], Any] | None = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
    ) -> None:
        """Writes a table of layers, shapes and parameters.

        Args:
            line_length: width in characters.
            positions: taken for Keras's sake.
            print_fn: gets each line; standard output without it.
            expand_nested: whether to list the layers of models inside.
            show_trainable: whether to say which layers are trained.
        """
        del positions
        from stepgraph.models.summary import summary

        summary(self, line_length, print_fn, expand_nested, show_trainable)

    def save(self, filepath: str | os.PathLike[str], overwrite: bool = True, **kwargs: Any) -> None:
        """Writes everything needed to go on into one file; `load_model` reads it.

        Architecture, weights, what `compile` was given, the optimizer's state and the seeds, as
        safetensors. The file appears complete or not at all.

        Args:
            filepath: name of the file.
            overwrite: whether an existing file may be replaced.
            **kwargs: `include_optimizer=False` leaves the training state out.

        Raises:
            CheckpointError: the file exists and may not be replaced.
        """
        from stepgraph.models.saving import save_model

        save_model(self, filepath, overwrite=overwrite, **kwargs)

    def save_weights(self, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
        """Writes the weights alone, as safetensors, under their paths."""
        from stepgraph.models.saving import save_weights

        save_weights(self, filepath, overwrite=overwrite)

    def load_weights(
        self, filepath: str | os.PathLike[str], skip_mismatch: bool = False, **kwargs: Any
    ) -> None:
        """Reads what `save_weights` or `save` wrote.

        Args:
            filepath: name of the file.
            skip_mismatch: leave weights that do not fit as they are, instead of refusing the file.
            **kwargs: `by_name`, for Keras's sake: weights always go by their paths.

        Raises:
            CheckpointError: names or shapes differ; the message lists them and nothing is changed.
        """
        from stepgraph.models.saving import load_weights

        load_weights(self, filepath, skip_mismatch=skip_mismatch)

    def to_json(self, **kwargs: Any) -> str:
        """The architecture as JSON; `models.model_from_json` reads it."""
        import json

        return json.dumps(
            {"class_name": type(self).__name__, "config": self.get_config()}, **kwargs
        )

    def get_config(self) -> dict[str, Any]:
        """The layers and how they are called, as plain values."""
        layers = [
            {"class_name": type(layer).__name__, "config": layer.get_config()}
            for layer in self.network.layers
        ]
        number = {id(node): i for i, node in enumerate(self.network.nodes)}
        calls = [
            {
                "layer": node.layer.name,
                "inputs": [[number[id(t.node)], t.index] for t in node.inputs],
                "single": node.single,
                "arguments": plain(node.arguments),
            }
            for node in self.network.nodes
        ]
        inputs, outputs = self._structure
        return {
            "name": self.name,
            "trainable": self.trainable,
            "layers": layers,
            "calls": calls,
            "inputs": _places(inputs, number),
            "outputs": _places(outputs, number),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """The network that `get_config` described, with new weights."""
        from stepgraph.models import deserialize_layer

        layers: dict[str, Layer] = {}
        for entry in config["layers"]:
            layer = deserialize_layer(entry)
            layers[layer.name] = layer
        made: list[list[KerasTensor]] = []
        for entry in config["calls"]:
            layer = layers[entry["layer"]]
            if not entry["inputs"]:
                made.append(layer.nodes[0].outputs)
                continue
            tensors = [made[node][index] for node, index in entry["inputs"]]
            inputs = tensors[0] if entry["single"] else tensors
            made.append(flat(layer._symbolic_call(inputs, dict(entry["arguments"]))))
        ends = [_replaced(config[key], made) for key in ("inputs", "outputs")]
        model = cls(inputs=ends[0], outputs=ends[1], name=config["name"])
        # Not through the property, which would reach into the layers.
        model.__dict__["_trainable"] = config.get("trainable", True)
        return model


def _places(value: Any, number: Mapping[int, int]) -> Any:
    if isinstance(value, list | tuple):
        return [_places(item, number) for item in value]
    if isinstance(value, Mapping):
        return {key: _places(item, number) for key, item in value.items()}
    return {"call": number[id(value.node)], "output": value.index}


def _replaced(value: Any, made: list[list[KerasTensor]]) -> Any:
    if isinstance(value, list):
        return [_replaced(item, made) for item in value]
    if set(value) == {"call", "output"}:
        return made[value["call"]][value["output"]]
    return {key: _replaced(item, made) for key, item in value.items()}
