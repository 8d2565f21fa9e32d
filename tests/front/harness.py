"""What the tests of layers share: running one by itself, and the checks each must pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stepgraph.layers import Input, Layer, LayerGraph, deserialize, serialize
from stepgraph.models import Model

Array = np.ndarray[Any, Any]


def exact(rng: np.random.Generator, shape: Sequence[int], scale: float = 1.0) -> Array:
    """Random float64 values that float32 holds exactly."""
    return (rng.standard_normal(tuple(shape)) * scale).astype(np.float32).astype(np.float64)


def built(layer: Layer, shapes: Sequence[Sequence[int]], rng: np.random.Generator) -> Layer:
    """The layer with random weights, positive where it keeps variances."""
    first = [tuple(shape) for shape in shapes]
    layer.ensure_built(first[0] if len(first) == 1 else first)
    values = []
    for weight in layer.weights:
        value = exact(rng, weight.shape, 0.5)
        values.append(np.abs(value) + 0.5 if "variance" in weight.name else value)
    layer.set_weights(values)
    return layer


def run_layer(
    layer: Layer,
    inputs: Sequence[Array],
    cotangent: Array | None = None,
    training: bool = False,
    **arguments: Any,
) -> tuple[Array, list[Array], list[Array], list[Array]]:
    """A built layer on the float64 reference.

    Returns:
        The output; gradients with respect to the inputs, and to the trainable weights; and all
        weights after the run.
    """
    device = "reference:float64"
    graph = LayerGraph("layer")
    for path, weight in layer.named_weights():
        graph.bound[weight] = graph.variable(weight.numpy(), name=path)
    tensors = [
        graph.placeholder((None, *a.shape[1:]), "float32" if a.dtype.kind == "f" else a.dtype.name)
        for a in inputs
    ]
    single = len(tensors) == 1
    out = layer.call(graph, tensors[0] if single else tensors, training=training, **arguments)
    out = out[0] if isinstance(out, list) else out
    targets = [out]
    floats = [t for t in tensors if t.dtype.is_float]
    trained = [graph.bound[w] for w in layer.trainable_weights]
    if cotangent is not None:
        incoming = graph.placeholder((None, *cotangent.shape[1:]))
        grads = graph.gradients(of=out, with_=[*floats, *trained], incoming=incoming)
        targets += [grads[t] for t in (*floats, *trained)]
        feeds = {**dict(zip(tensors, inputs, strict=True)), incoming: cotangent}
    else:
        feeds = dict(zip(tensors, inputs, strict=True))
    results = graph.compile(list(feeds), targets, device=device).run(feeds)
    after = [graph.get_value(graph.bound[w], device) for w in layer.weights]
    n = len(floats) if cotangent is not None else 0
    return results[0], results[1 : 1 + n], results[1 + n :], after


def check_layer(
    make: Callable[[], Layer],
    shapes: Sequence[Sequence[int]],
    *,
    weights: Sequence[Sequence[int]] = (),
    output: Sequence[int] | None = None,
    dtype: str = "float32",
) -> None:
    """Config there and back, weights, symbolic against real shapes, two batch sizes, one step.

    Args:
        make: makes the layer.
        shapes: of one sample of each input.
        weights: shapes of its weights.
        output: shape of one sample of the output.
        dtype: of the inputs.
    """
    layer = make()
    config = serialize(layer)
    again = deserialize(config)
    assert serialize(again) == config
    inputs = [Input(shape, dtype=dtype) for shape in shapes]
    made = layer(inputs[0] if len(inputs) == 1 else inputs)
    assert [w.shape for w in layer.weights] == [tuple(shape) for shape in weights]
    assert layer.count_params() == sum(w.size for w in layer.weights)
    if output is not None:
        assert made.shape == (None, *output)
    assert (
        again.compute_output_shape(
            [(None, *shape) for shape in shapes] if len(shapes) > 1 else (None, *shapes[0])
        )
        == made.shape
    )

    model = Model(inputs=inputs, outputs=made)
    model.compile(optimizer="sgd", loss="mse", device="reference")
    rng = np.random.default_rng(0)
    for batch in (3, 2):
        data = [
            rng.integers(0, 4, (batch, *shape)).astype(dtype)
            if dtype != "float32"
            else rng.standard_normal((batch, *shape)).astype(dtype)
            for shape in shapes
        ]
        predicted = model.predict_on_batch(data if len(data) > 1 else data[0])
        assert predicted.shape == (batch, *made.shape[1:])
        before = model.get_weights()
        loss = model.train_on_batch(data if len(data) > 1 else data[0], predicted + 1.0)
        assert np.isfinite(loss)
        if layer.trainable_weights:
            assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
