"""The networks of `stepgraph.applications` beside the same networks in Keras.

    pip install 'stepgraph[keras]'
    python benchmarks/keras_parity.py [--models resnet50,vit] [--batch 16] [--device cpu]

Each model is built once more from Keras's layers of the same names with the same settings, which
shows that the settings mean the same. Keras's initial weights are carried over by `get_weights` and
`set_weights`, which shows that their order is the same. Both train one step on the same batch; both
predict, with moving statistics that are the batch's own, so that predictions are not all alike.
Shown are the largest difference of predictions, the relative difference of the first loss, and the
difference of all moving statistics after the step, as a norm relative to that of their change; 1e-4
is wanted. (Of few pictures the last statistics are so uncertain that float32 alone differs by more;
hence 64.)
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

import numpy as np
from networks import batches, build
from tables import show

from stepgraph import optimizers
from stepgraph.applications import APPLICATIONS
from stepgraph.layers import InputLayer, MultiHeadAttention
from stepgraph.models import Model

RATE, WANTED = 0.01, 1e-4


def import_keras() -> Any:
    """Keras with its TensorFlow backend, or the way to get it."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    try:
        import keras
        import tensorflow  # noqa: F401 (Keras imports without it, and fails later)
    except ImportError as error:
        sys.exit(
            f"keras_parity: {error}\n"
            "  Keras with TensorFlow is needed for this comparison alone:\n"
            "  pip install 'stepgraph[keras]'   (about 500 MB)"
        )
    return keras


def position_embedding(keras: Any) -> type:
    """The one layer here that Keras keeps in another package (KerasHub)."""

    class PositionEmbedding(keras.layers.Layer):
        def __init__(self, sequence_length, initializer="glorot_uniform", **kwargs):
            super().__init__(**kwargs)
            self.length = sequence_length
            self.initializer = keras.initializers.get(initializer)

        def build(self, shape):
            self.table = self.add_weight(
                shape=(self.length, shape[-1]), initializer=self.initializer, name="embeddings"
            )

        def call(self, x):
            return keras.ops.zeros_like(x) + self.table

    return PositionEmbedding


def translated(model: Model, keras: Any) -> Any:
    """The model, built call by call from Keras's layers."""
    own = {"PositionEmbedding": position_embedding(keras)}
    made: dict[int, Any] = {}
    layers: dict[str, Any] = {}
    for node in model.network.nodes:
        layer = node.layer
        if isinstance(layer, InputLayer):
            tensor = node.outputs[0]
            made[id(tensor)] = keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=layer.name)
            continue
        if layer.name not in layers:
            kind = type(layer).__name__
            cls = own.get(kind) or getattr(keras.layers, kind)
            layers[layer.name] = cls.from_config(layer.get_config())
        inputs = [made[id(tensor)] for tensor in node.inputs]
        call = layers[layer.name]
        if isinstance(layer, MultiHeadAttention):
            query, value, key = inputs
            output = call(query, value, key=key, **node.arguments)
        else:
            output = call(inputs[0] if node.single else inputs, **node.arguments)
        made[id(node.outputs[0])] = output
    inputs = [made[id(tensor)] for tensor in model.inputs]
    outputs = [made[id(tensor)] for tensor in model.outputs]
    return keras.Model(inputs, outputs[0] if len(outputs) == 1 else outputs, name=model.name)


def settle(model: Any, x: np.ndarray, keras: Any) -> None:
    """Gives the moving statistics of a Keras model the values of a batch."""
    norms = [a for a in model.layers if isinstance(a, keras.layers.BatchNormalization)]
    kept = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(x, training=True)
    for layer, momentum in zip(norms, kept, strict=True):
        layer.momentum = momentum


def norm(arrays: list[np.ndarray]) -> float:
    """The Euclidean norm of all elements of all arrays."""
    return float(np.sqrt(sum(np.sum(np.square(a, dtype=np.float64)) for a in arrays)))


def compare(name: str, keras: Any, batch: int, device: str, seed: int) -> list[float | None]:
    """Differences: predictions, first loss, moving statistics after a step."""
    ours = build(name, seed)
    keras.utils.set_random_seed(seed)
    theirs = translated(ours, keras)
    # Keras 3 calls a depthwise kernel just that.
    names = [path.split("/")[-1].replace("depthwise_", "") for path, _ in ours.named_weights()]
    if [weight.name for weight in theirs.weights] != names:
        raise AssertionError(f"{name}: the weights' order differs from Keras's")
    ((x, y),) = batches(ours, batch, 1, seed)
    initial = theirs.get_weights()
    settle(theirs, x, keras)
    ours.set_weights(theirs.get_weights())
    predictions = float(np.max(np.abs(ours.predict_on_batch(x) - theirs.predict_on_batch(x))))

    loss = "categorical_crossentropy"
    ours.compile(optimizers.SGD(RATE), loss, device=device)
    theirs.compile(keras.optimizers.SGD(RATE), loss)
    for model in (ours, theirs):
        model.set_weights(initial)
    first = [float(np.ravel(model.train_on_batch(x, y))[0]) for model in (ours, theirs)]
    moving = [number for number, name in enumerate(names) if name.startswith("moving")]
    a, b = ours.get_weights(), theirs.get_weights()
    # A norm over all: among them are means that are zero but for rounding.
    moved = norm([b[i] - initial[i] for i in moving])
    statistics = norm([a[i] - b[i] for i in moving]) / moved if moving else None
    return [predictions, abs(first[0] - first[1]) / abs(first[1]), statistics]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=",".join(APPLICATIONS), help="names, with commas")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    keras = import_keras()
    rows, failed = [], False
    for name in options.models.split(","):
        found = compare(name, keras, options.batch, options.device, options.seed)
        failed |= any(value is not None and not value <= WANTED for value in found)
        rows.append([name, *("-" if value is None else f"{value:.1e}" for value in found)])
        print(*rows[-1], flush=True)
    show(
        f"Keras {keras.__version__}: differences, batch {options.batch}, {options.device}",
        ["network", "predictions", "first loss", "moving statistics"],
        rows,
    )
    sys.exit(f"some differ by more than {WANTED:g}" if failed else 0)


if __name__ == "__main__":
    main()
