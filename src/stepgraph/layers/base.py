"""What every layer is (``keras.layers.Layer``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepgraph import initializers, regularizers
from stepgraph.configs import Configurable, constructor_arguments, plain
from stepgraph.errors import GraphError, ShapeError, StepgraphError, describe
from stepgraph.graph.dtypes import as_dtype
from stepgraph.graph.shapes import Shape, format_shape
from stepgraph.graph.tensor import Tensor
from stepgraph.layers.layer_graph import LayerGraph
from stepgraph.layers.symbolic import KerasTensor, Node, flat
from stepgraph.layers.weight import Weight
from stepgraph.utils import snake_case, unique_name

# Arguments that Keras lets the first layer of a Sequential have.
_INPUT_ARGUMENTS = ("input_shape", "batch_input_shape", "input_dim", "batch_size")


class Layer(Configurable):
    """A part of a network: weights, and how outputs follow from inputs.

    A layer of your own stores its settings under the constructor's names, makes its weights in
    `build` and its operations in `call`:

    Example:
        >>> from stepgraph.layers import Input, Layer
        >>> class Scale(Layer):
        ...     def build(self, input_shape):
        ...         self.factor = self.add_weight("factor", input_shape[-1:], "ones")
        ...     def call(self, graph, inputs, training=False):
        ...         return inputs * graph.weight(self.factor)
        >>> Scale(name="scale")(Input((4,)))
        <KerasTensor 'scale' float32 (?, 4)>

    Args:
        name: unique within a model; counted up from the class's name without it.
        trainable: whether training changes its weights.
        dtype: of its weights and outputs.

    Source: Keras ``Layer``.
    """

    # The rank a layer needs; None for any.
    input_rank: int | None = None
    # Constructor arguments that the object keeps under another name.
    kept_as: Mapping[str, str] = {}

    def __init__(
        self,
        name: str | None = None,
        trainable: bool = True,
        dtype: str = "float32",
        **kwargs: Any,
    ) -> None:
        unknown = [key for key in kwargs if key not in _INPUT_ARGUMENTS]
        if unknown:
            raise TypeError(
                describe(
                    type(self).__name__,
                    f"unexpected argument '{unknown[0]}'",
                    expected=", ".join(constructor_arguments(type(self))),
                )
            )
        self.name = name or unique_name(snake_case(type(self).__name__))
        self.trainable = trainable
        self.dtype = as_dtype(dtype).name
        self.built = False
        self.first_shape = _first_shape(kwargs)
        self.nodes: list[Node] = []
        self._own: list[Weight] = []
        self._fixed: dict[int, int] = {}

    # -- for subclasses ------------------------------------------------------------------------

    def build(self, input_shape: Any) -> None:
        """Makes the weights.

        Args:
            input_shape: of the input with the batch, or a list of them if the layer takes several.
        """

    def call(self, graph: LayerGraph, inputs: Any, training: bool = False) -> Any:
        """Adds the layer's operations to a graph.

        Args:
            graph: where to; ``graph.weight(w)`` is the tensor of a weight.
            inputs: a tensor, or a list of them if the layer was called with one.
            training: whether the operations are for a training step.

        Returns:
            A tensor, or a list of them.
        """
        raise NotImplementedError(f"{type(self).__name__} has no call()")

    def add_weight(
        self,
        name: str,
        shape: Sequence[int],
        initializer: Any = "glorot_uniform",
        trainable: bool = True,
        regularizer: Any = None,
        dtype: str | None = None,
    ) -> Weight:
        """Makes a weight of this layer; for `build`."""
        weight = Weight(
            name,
            tuple(int(size) for size in shape),
            initializers.get(initializer),
            dtype or self.dtype,
            trainable,
            regularizers.get(regularizer),
        )
        self._own.append(weight)
        return weight

    def sublayers(self) -> list[Layer]:
        """Layers that are attributes of this one, or in lists of it, in the order of setting."""
        found: list[Layer] = []
        for value in self.__dict__.values():
            if isinstance(value, list | tuple | dict):
                found += [item for item in flat(value) if isinstance(item, Layer)]
            elif isinstance(value, Layer):
                found.append(value)
        return found

    def fix_size(self, axis: int, size: int | None, what: str) -> int:
        """Notes, in `build`, that an axis must keep this size; refuses an unknown one."""
        if size is None:
            raise ShapeError(
                describe(
                    f"layer '{self.name}' ({type(self).__name__})",
                    f"the input's {what} (axis {axis}) must be known to make the weights",
                    fix="give it in Input(shape=...)",
                )
            )
        self._fixed[axis] = size
        return size

    # -- calling -------------------------------------------------------------------------------

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Uses the layer in a network.

        Args:
            inputs: a `KerasTensor`, or a list of them.
            *args: further tensors, for layers that take them.
            **kwargs: further arguments of the call, such as masks.

        Returns:
            A `KerasTensor`, or a list of them.

        Raises:
            ShapeError: the layer cannot take inputs of that shape.
        """
        if args:
            raise TypeError(
                describe(type(self).__name__, "takes one tensor, or a list of them, by position")
            )
        kwargs.pop("training", None)
        return self._symbolic_call(inputs, kwargs)

    def _symbolic_call(self, inputs: Any, arguments: dict[str, Any]) -> Any:
        tensors = flat(inputs)
        for tensor in tensors:
            if not isinstance(tensor, KerasTensor):
                raise GraphError(
                    describe(
                        self._what,
                        f"was called with {type(tensor).__name__}",
                        expected="what Input(...) or another layer returned",
                        fix="to compute with arrays, put the layer in a Model and call predict",
                    )
                )
        single = isinstance(inputs, KerasTensor)
        self._check(tensors)
        shapes = [tensor.shape for tensor in tensors]
        self.ensure_built(shapes[0] if single else shapes)
        node = Node(self, tensors, single, arguments)
        specs, node.several = self._infer(node)
        node.outputs = [
            KerasTensor(shape, dtype, node, i) for i, (shape, dtype) in enumerate(specs)
        ]
        self.nodes.append(node)
        return node.outputs if node.several else node.outputs[0]

    def ensure_built(self, input_shape: Any) -> None:
        """Makes the weights once."""
        if not self.built:
            self.build(input_shape)
            self.built = True

    @property
    def _what(self) -> str:
        return f"layer '{self.name}' ({type(self).__name__})"

    def _check(self, tensors: Sequence[KerasTensor]) -> None:
        for tensor in tensors[:1]:
            shape = tensor.shape
            if self.input_rank is not None and len(shape) != self.input_rank:
                raise ShapeError(
                    describe(
                        self._what,
                        f"needs an input of rank {self.input_rank}, got rank {len(shape)}",
                        got={"input": format_shape(shape)},
                        expected=_RANKS.get(self.input_rank),
                        fix="put Reshape, Flatten or Input(shape=...) right before it",
                    )
                )
            for axis, size in self._fixed.items():
                found = shape[axis] if -len(shape) <= axis < len(shape) else None
                if found is not None and found != size:
                    raise ShapeError(
                        describe(
                            self._what,
                            f"its weights were made for size {size} on axis {axis}, got {found}",
                            got={"input": format_shape(shape)},
                            expected=f"axis {axis} of size {size}",
                            fix="use a new layer, or bring the input to that size",
                        )
                    )

    def _infer(self, node: Node) -> tuple[list[tuple[Shape, str]], bool]:
        """Shapes and dtypes of a call's outputs, by building it into a throw-away graph."""
        graph = LayerGraph(self.name)
        for weight in self.weights:
            # What a layer may assign to has to be a variable.
            graph.bound[weight] = (
                graph.placeholder(weight.shape, weight.dtype)
                if weight.trainable
                else graph.variable(0.0, weight.shape, weight.dtype)
            )
        tensors = [graph.placeholder(t.shape, t.dtype) for t in node.inputs]
        try:
            made = self.build_operations(graph, node, tensors, training=False)
        except StepgraphError as error:
            shapes = ", ".join(format_shape(t.shape) for t in node.inputs)
            raise type(error)(
                describe(self._what, f"cannot take this input\n  {error}", got={"input": shapes})
            ) from error
        several = isinstance(made, list | tuple)
        return [(t.shape, t.dtype.name) for t in flat(made)], several

    def build_operations(
        self, graph: LayerGraph, node: Node, tensors: Sequence[Tensor], training: bool
    ) -> Any:
        """Builds one recorded call."""
        inputs: Any = tensors[0] if node.single else list(tensors)
        with graph.name_scope(self.name):
            return self.call(graph, inputs, training=training, **node.arguments)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The output's shape for an input's shape, both with the batch."""
        several = isinstance(input_shape, list)
        shapes = input_shape if several else [input_shape]
        tensors = [symbolic_input(tuple(s), self.dtype) for s in shapes]
        self.ensure_built(input_shape)
        node = Node(self, tensors, not several, {})
        specs, many = self._infer(node)
        return [shape for shape, _ in specs] if many else specs[0][0]

    # -- weights -------------------------------------------------------------------------------

    def named_weights(self) -> Iterator[tuple[str, Weight]]:
        """Every weight with its path, such as ``conv2d/kernel``, in Keras's order."""
        own = sorted(self._own, key=lambda w: not w.trainable)
        for weight in own:
            yield f"{self.name}/{weight.name}", weight
        for layer in self.sublayers():
            for path, weight in layer.named_weights():
                yield f"{self.name}/{path}", weight

    @property
    def weights(self) -> list[Weight]:
        """All weights, trainable ones first."""
        return list(dict.fromkeys(weight for _, weight in self.named_weights()))

    @property
    def trainable_weights(self) -> list[Weight]:
        """Weights that training changes by gradients."""
        trained = self._trained()
        return [w for w in self.weights if w in trained]

    @property
    def non_trainable_weights(self) -> list[Weight]:
        """The others, such as moving statistics."""
        trained = self._trained()
        return [w for w in self.weights if w not in trained]

    trainable_variables = trainable_weights
    non_trainable_variables = non_trainable_weights
    variables = weights

    def _trained(self) -> set[Weight]:
        if not self.trainable:
            return set()
        found = {w for w in self._own if w.trainable}
        for layer in self.sublayers():
            found |= layer._trained()
        return found

    def get_weights(self) -> list[NDArray[Any]]:
        """Copies of all values, in the order of `weights`."""
        return [weight.numpy() for weight in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Gives every weight a value, in the order of `weights`.

        Raises:
            ShapeError: the number or a shape differs; nothing is changed then.
        """
        own = self.weights
        arrays = [np.asarray(value) for value in weights]
        if [a.shape for a in arrays] != [w.shape for w in own]:
            paths = list(dict(self.named_weights()))
            got = {
                (paths[i] if i < len(paths) else f"value {i}"): (
                    f"expects {own[i].shape if i < len(own) else 'nothing'}, "
                    f"got {arrays[i].shape if i < len(arrays) else 'nothing'}"
                )
                for i in range(max(len(own), len(arrays)))
                if i >= min(len(own), len(arrays)) or own[i].shape != arrays[i].shape
            }
            raise ShapeError(
                describe(
                    f"{self._what}: set_weights",
                    f"{len(own)} weights, {len(arrays)} values given; these do not fit",
                    got=dict(list(got.items())[:10]),
                )
            )
        for weight, value in zip(own, arrays, strict=True):
            weight.assign(value)

    def count_params(self) -> int:
        """Number of elements of all weights."""
        return sum(weight.size for weight in self.weights)

    # -- looking -------------------------------------------------------------------------------

    @property
    def input(self) -> Any:
        """What the layer was first called with."""
        node = self._first_node()
        return node.inputs[0] if node.single else node.inputs

    @property
    def output(self) -> Any:
        """What its first call returned."""
        node = self._first_node()
        return node.outputs if node.several else node.outputs[0]

    @property
    def input_shape(self) -> Any:
        """The shape, or shapes, of `input`."""
        found = self.input
        return [t.shape for t in found] if isinstance(found, list) else found.shape

    @property
    def output_shape(self) -> Any:
        """The shape, or shapes, of `output`."""
        found = self.output
        return [t.shape for t in found] if isinstance(found, list) else found.shape

    def _first_node(self) -> Node:
        if not self.nodes:
            raise GraphError(describe(self._what, "has not been called yet"))
        return self.nodes[0]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain values."""
        config: dict[str, Any] = {}
        for name in constructor_arguments(type(self)):
            kept = self.kept_as.get(name, name)
            if kept in self.__dict__:
                config[name] = plain(self.__dict__[kept])
        if self.first_shape is not None:
            config["batch_input_shape"] = list(self.first_shape)
        return config

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


_RANKS = {
    3: "(batch, steps, channels)",
    4: "(batch, height, width, channels)",
}


def symbolic_input(shape: Shape, dtype: str) -> KerasTensor:
    """A tensor of no layer, for asking a layer about shapes."""
    return KerasTensor(shape, dtype, Node(Layer(name="asked"), [], False, {}), 0)


def _first_shape(kwargs: dict[str, Any]) -> Shape | None:
    """The shape with the batch that a first layer was given, if it was."""
    if kwargs.get("batch_input_shape") is not None:
        return tuple(kwargs["batch_input_shape"])
    inner = kwargs.get("input_shape")
    if inner is None and kwargs.get("input_dim") is not None:
        inner = (kwargs["input_dim"],)
    return None if inner is None else (kwargs.get("batch_size"), *inner)
