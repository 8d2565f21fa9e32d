"""Files: what they hold, what is refused, and that a crash leaves the old one."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepgraph import layers, losses, metrics, models, optimizers, schedules, utils
from stepgraph.errors import CheckpointError
from stepgraph.graph.tensor import Tensor
from stepgraph.layers import Dense, Input
from stepgraph.models import Sequential, tensor_file


def small(name: str = "dense", units: int = 2) -> Sequential:
    return Sequential(
        [Input((3,)), Dense(units, name=name), layers.BatchNormalization(name="norm")]
    )


def test_the_format_is_safetensors(tmp_path: Path, rng: np.random.Generator) -> None:
    oracle = pytest.importorskip("safetensors.numpy")
    arrays = {
        "a/b": rng.standard_normal((2, 3)).astype("float32"),
        "scalar": np.array(7, np.int64),
        "empty": np.zeros((0, 4), "float64"),
        "bits": np.array([True, False]),
        "half": rng.standard_normal(5).astype("float16"),
    }
    path = tmp_path / "sub" / "x.safetensors"
    tensor_file.write(path, arrays, {"key": "value"})
    for found in (oracle.load_file(path), tensor_file.read(path)[0]):
        assert set(found) == set(arrays)
        for name, value in arrays.items():
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)
    assert tensor_file.read(path)[1]["key"] == "value"
    oracle.save_file(arrays, tmp_path / "theirs")
    assert set(tensor_file.read(tmp_path / "theirs")[0]) == set(arrays)
    assert os.listdir(path.parent) == ["x.safetensors"]


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    tensor_file.write(path, {"a": np.arange(4.0), "b": np.arange(3)}, {})
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])

    def with_header(change: dict[str, Any]) -> bytes:
        text = json.dumps({**header, **change}).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + length :]

    a = header["a"]
    bad = [
        b"",
        data[:5],
        data[:-1],
        data + b"\0",
        struct.pack("<Q", 2**62) + data[8:],
        struct.pack("<Q", length) + b"[" * length + data[8 + length :],
        with_header({"a": {**a, "shape": [5]}}),
        with_header({"a": {**a, "shape": [-4]}}),
        with_header({"a": {**a, "dtype": "F99"}}),
        with_header({"a": {**a, "data_offsets": [8, 40]}}),
        with_header({"a": 3}),
    ]
    for content in bad:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="use an older checkpoint or another copy"):
            tensor_file.read(path)
    with pytest.raises(CheckpointError, match="No such file"):
        tensor_file.read(tmp_path / "none")


def test_a_crash_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    path = tmp_path / "m"
    model.save_weights(path)
    before = path.read_bytes()

    def broken(handle: int) -> None:
        raise OSError("disk full")

    model.set_weights([w + 1 for w in model.get_weights()])
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(CheckpointError, match="disk full"):
        model.save_weights(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m"]


def test_weights_there_and_back(tmp_path: Path) -> None:
    model, other = small(), small()
    model.save_weights(tmp_path / "w")
    other.load_weights(tmp_path / "w")
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(CheckpointError, match="exists"):
        model.save_weights(tmp_path / "w", overwrite=False)


def test_counted_names_do_not_matter(tmp_path: Path) -> None:
    """A second model of one process has other numbers in its names."""
    made = [Sequential([Input((3,)), Dense(3), Dense(3)]) for _ in range(2)]
    assert [p for p, _ in made[0].named_weights()] != [p for p, _ in made[1].named_weights()]
    made[0].save_weights(tmp_path / "w")
    made[1].load_weights(tmp_path / "w")
    for a, b in zip(made[0].get_weights(), made[1].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_misfits_are_listed_and_change_nothing(tmp_path: Path) -> None:
    small().save_weights(tmp_path / "w")
    other = small("head", units=4)
    before = other.get_weights()
    with pytest.raises(
        CheckpointError,
        match=r"(?s)head/kernel: missing in the file.*dense/kernel: not in the model"
        r".*norm/gamma: \(2,\) in the file, \(4,\) in the model",
    ):
        other.load_weights(tmp_path / "w")
    for a, b in zip(before, other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    wider = small(units=4)
    wider.load_weights(tmp_path / "w", skip_mismatch=True)
    partly = Sequential([Input((3,)), Dense(2, name="dense"), Dense(5, name="new")])
    partly.load_weights(tmp_path / "w", skip_mismatch=True)
    np.testing.assert_array_equal(
        partly.get_weights()[0], tensor_file.read(tmp_path / "w")[0]["dense/kernel"]
    )


@utils.register_keras_serializable()
class Doubled(layers.Layer):
    def call(self, graph: Any, inputs: Any, training: bool = False) -> Any:
        return inputs * 2.0


def half_error(y_true: Tensor, y_pred: Tensor) -> Tensor:
    return y_true.graph.mean(abs(y_true - y_pred) * 0.5, (-1,), keep_dims=False)


def test_everything_comes_back(tmp_path: Path, rng: np.random.Generator) -> None:
    x = Input((3,), name="x")
    a = Dense(2, activation="softmax", name="a")(Doubled()(x))
    b = Dense(1, name="b", trainable=False)(x)
    model = models.Model(x, [a, b], name="net")
    optimizer = optimizers.AdamW(
        schedules.CosineDecay(0.1, 100), weight_decay=0.1, global_clipnorm=1.0
    )
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(
        optimizer=optimizer,
        loss={"a": losses.CategoricalCrossentropy(label_smoothing=0.1), "b": half_error},
        loss_weights=[1.0, 0.5],
        metrics={"a": ["acc", metrics.TopKCategoricalAccuracy(k=1)]},
        device="reference",
        nonfinite="warn",
    )
    data = rng.standard_normal((8, 3)).astype("float32")
    labels = [np.eye(2)[rng.integers(0, 2, 8)], np.zeros((8, 1))]
    for _ in range(3):
        model.train_on_batch(data, labels)
    model.save(tmp_path / "net.sg")
    again = models.load_model(tmp_path / "net.sg", custom_objects={"half_error": half_error})
    assert again.get_config() == model.get_config()
    assert again.optimizer.get_config() == optimizer.get_config()
    assert again.optimizer.iterations == again.steps_trained == 3
    assert len(again.trainable_weights) == 2
    for _ in range(2):
        one = model.train_on_batch(data, labels, return_dict=True)
        two = again.train_on_batch(data, labels, return_dict=True)
        assert one == two
    for p, q in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(p, q)
    bare = models.load_model(
        tmp_path / "net.sg", custom_objects={"half_error": half_error}, compile=False
    )
    assert bare.optimizer is None
    with pytest.raises(ValueError, match=r"(?s)no loss 'half_error'.*register_keras"):
        models.load_model(tmp_path / "net.sg")


def test_a_set_rate_is_kept(tmp_path: Path) -> None:
    model = small()
    model.compile(optimizer=optimizers.SGD(0.5), loss="mse", device="reference")
    model.train_on_batch(np.zeros((2, 3)), np.zeros((2, 2)))
    model.optimizer.learning_rate = 0.25
    model.save(tmp_path / "m")
    assert models.load_model(tmp_path / "m").optimizer.learning_rate == 0.25


def test_files_that_are_no_models(tmp_path: Path) -> None:
    model = small()
    model.save_weights(tmp_path / "w")
    with pytest.raises(CheckpointError, match="holds weights but no model"):
        models.load_model(tmp_path / "w")
    tensor_file.write(tmp_path / "n", {}, {"stepgraph": json.dumps({"format": 99})})
    with pytest.raises(CheckpointError, match="has format 99"):
        models.load_model(tmp_path / "n")
    model.save(tmp_path / "m")
    arrays, metadata = tensor_file.read(tmp_path / "m")
    arrays.pop("dense/kernel")
    tensor_file.write(tmp_path / "m", arrays, metadata)
    with pytest.raises(CheckpointError, match="dense/kernel: missing in the file"):
        models.load_model(tmp_path / "m")
