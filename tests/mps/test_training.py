"""Networks trained on the strict double: every feature of the front as on the CPU."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stepgraph import layers, models, optimizers, utils
from stepgraph.applications import APPLICATIONS
from stepgraph.backends.mps.device import use
from stepgraph.errors import NumericsError
from tests.mps.double import Double

TRUTH = "reference:float64"
# Name: (picture, batch, rate). A rate that moves the loss, where that can be followed at all.
SETTINGS = {
    "mlp": ((12, 12, 1), 8, 0.05),
    "lenet5": ((16, 16, 1), 8, 0.05),
    "cnn": ((16, 16, 1), 8, 0.05),
    "vit": ((8, 8, 3), 4, 0.01),
    "resnet18": ((16, 16, 3), 4, 1e-3),
    "mobilenet_v2": ((32, 32, 3), 8, 1e-5),
    # Normalised over few values each, its last stage has huge gradients.
    "resnet50": ((32, 32, 3), 4, 1e-10),
}
LARGE = ("resnet50", "resnet18", "mobilenet_v2")
NAMES = [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in APPLICATIONS]
STEPS = 4


@pytest.fixture
def mps():
    """The double behind the device."""
    double = Double()
    with use(double):
        yield double


def trained(name: str, device: str):
    """Losses of a few steps on one batch, and how the weights changed."""
    shape, batch, rate = SETTINGS[name]
    utils.set_random_seed(3)
    model = APPLICATIONS[name].builder(input_shape=shape, classes=5)
    model.compile(optimizers.SGD(rate), "sparse_categorical_crossentropy", device=device)
    rng = np.random.default_rng(1)
    x, y = rng.random((batch, *shape), "float32"), rng.integers(0, 5, batch)
    before = [w.astype("float64") for w in model.get_weights()]
    losses = [model.train_on_batch(x, y)]
    first = [w - b for w, b in zip(model.get_weights(), before, strict=True)]
    losses += [model.train_on_batch(x, y) for _ in range(STEPS - 1)]
    return np.array(losses, "float64").reshape(STEPS, -1)[:, 0], first


def distance(changes, wanted) -> float:
    """Of all weights' changes together, relative."""
    gap = sum(float(np.sum((a - b) ** 2)) for a, b in zip(changes, wanted, strict=True))
    return (gap / sum(float(np.sum(b**2)) for b in wanted)) ** 0.5


@pytest.mark.parametrize("name", NAMES)
def test_training_follows_the_truth_as_closely_as_on_the_cpu(name, mps):
    wanted, changes = trained(name, TRUTH)
    cpu, cpu_changes = trained(name, "cpu")
    got, got_changes = trained(name, "mps")
    # A loss is one number, near the truth by chance too, and MobileNetV2's errors grow tenfold in
    # a few steps: its losses tell of mistakes, its first step's gradients of accuracy.
    factor = 20 if name == "mobilenet_v2" else 5
    room = factor * np.maximum.accumulate(np.abs(cpu - wanted)) + 1e-5 * np.abs(wanted)
    assert (np.abs(got - wanted) <= room).all(), (got, cpu, wanted)
    assert np.ptp(wanted) > 1e-6, "nothing was learnt"
    room = 5 * distance(cpu_changes, changes) + 1e-4
    assert distance(got_changes, changes) <= room


# -- the front's features ------------------------------------------------------------------------


def small(device: str, optimizer="sgd", seed: int = 5):
    """Every kind of state: weights, moving statistics, dropout, an optimizer's slots."""
    utils.set_random_seed(seed)
    model = models.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(4, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(2, padding="same"),
            layers.Dropout(0.2),
            layers.Flatten(),
            layers.Dense(5, activation="softmax"),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", ["accuracy"], device=device)
    return model


def data(count: int = 37, seed: int = 1):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 5, count)
    return (rng.random((count, 8, 8, 1)) + y[:, None, None, None] / 5).astype("float32"), y


OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(0.05),
    "momentum": lambda: optimizers.SGD(0.05, momentum=0.9),
    "nesterov": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "adam": lambda: optimizers.Adam(0.01),
    "amsgrad": lambda: optimizers.Adam(0.01, amsgrad=True),
    "adamw": lambda: optimizers.AdamW(0.01, weight_decay=0.01),
    "rmsprop": lambda: optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "clipped": lambda: optimizers.SGD(0.5, global_clipnorm=0.5),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_the_same_way(name, mps):
    x, y = data()

    def weights(device):
        model = small(device, OPTIMIZERS[name]())
        for _ in range(5):
            model.train_on_batch(x, y)
        return model.get_weights()

    for got, wanted in zip(weights("mps"), weights("cpu"), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)


def test_fit_evaluate_predict(mps):
    """Shuffling, a last batch of another size, validation, dropout: the same history."""
    x, y = data()

    def lived(device):
        model = small(device, "adam")
        history = model.fit(x, y, batch_size=8, epochs=2, validation_split=0.2, verbose=0).history
        return history, model.evaluate(x, y, batch_size=16, verbose=0), model.predict(x, verbose=0)

    got, wanted = lived("mps"), lived("cpu")
    assert got[0].keys() == wanted[0].keys()
    for key, values in wanted[0].items():
        np.testing.assert_allclose(got[0][key], values, rtol=1e-4, err_msg=key)
    np.testing.assert_allclose(got[1], wanted[1], rtol=1e-4)
    np.testing.assert_allclose(got[2], wanted[2], atol=1e-5)


def test_training_and_evaluation_see_the_same_weights(mps):
    x, y = data()
    model = small("mps")
    before = model.evaluate(x, y, verbose=0)[0]
    for _ in range(20):
        model.train_on_batch(x, y)
    assert model.evaluate(x, y, verbose=0)[0] < before


@pytest.mark.parametrize(("first", "second"), [("cpu", "mps"), ("mps", "cpu"), ("mps", "mps")])
def test_a_checkpoint_resumes_on_another_device(first, second, mps, tmp_path):
    """Weights, moving statistics, the optimizer's slots and the dropout's step come along."""
    x, y = data()
    straight = small("cpu", "adam")
    for _ in range(6):
        straight.train_on_batch(x, y)
    model = small(first, "adam")
    for _ in range(3):
        model.train_on_batch(x, y)
    model.save(tmp_path / "model.safetensors")
    resumed = models.load_model(tmp_path / "model.safetensors", device=second)
    for _ in range(3):
        resumed.train_on_batch(x, y)
    for got, wanted in zip(resumed.get_weights(), straight.get_weights(), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-5)


def test_a_loss_that_is_not_finite_is_reported(mps):
    x, y = data()
    model = small("mps")
    x[3] = np.nan
    with pytest.raises(NumericsError, match="loss"):
        model.train_on_batch(x, y)


def test_a_run_goes_on_on_another_device(mps, tmp_path, monkeypatch):
    """`stepgraph train --resume --device`, both ways, against a run that stayed on the CPU."""
    pytest.importorskip("click", reason="the command line")
    pytest.importorskip("rich", reason="the command line")
    from stepgraph.cli import main

    monkeypatch.chdir(tmp_path)
    job = "--model mlp --image-size 8 --channels 1 --batch-size 128 --optimizer adam"
    job = [*job.split(), "--schedule", "constant"]

    def run(*arguments):
        assert main([str(a) for a in arguments]) == 0

    def losses(folder):
        lines = (tmp_path / folder / "metrics.jsonl").read_text("utf-8").splitlines()
        return [row["loss"] for row in map(json.loads, lines) if "loss" in row]

    run("train", *job, "--steps", 9, "--run-dir", "straight", "--device", "cpu")
    run("train", *job, "--steps", 3, "--run-dir", "moved", "--device", "cpu")
    run("train", "--resume", "--steps", 6, "--run-dir", "moved", "--device", "mps")
    run("train", "--resume", "--steps", 9, "--run-dir", "moved", "--device", "cpu")
    assert mps.sent["assignVariable:withValueOfTensor:name:"]
    wanted, got = losses("straight"), losses("moved")
    assert len(wanted) > 1
    np.testing.assert_allclose(got[-1], wanted[-1], rtol=1e-4)
