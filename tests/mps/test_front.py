"""Everything that the front offers, on the GPU's double: fit, evaluate, files, other devices."""

from __future__ import annotations

import numpy as np
import pytest

import stepgraph as sg
from stepgraph import layers
from stepgraph.backends.mps.device import use
from stepgraph.models import Sequential, load_model
from tests.mps.double import Double


@pytest.fixture
def double():
    made = Double()
    with use(made):
        yield made
    made.raise_failures()


def pictures(count=20):
    rng = np.random.default_rng(3)
    y = rng.integers(0, 3, count)
    x = rng.random((count, 8, 8, 2), dtype=np.float32) * 0.3 + y[:, None, None, None] / 3
    return x.astype("float32"), y


def model(device, optimizer="adam"):
    sg.utils.clear_session()
    sg.utils.set_random_seed(5)
    made = Sequential(
        [
            layers.Input((8, 8, 2)),
            layers.Conv2D(6, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Dropout(0.3),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    loss = sg.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"], device=device)
    return made


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_fit_evaluate_and_predict_agree_with_the_processor(double):
    """Random numbers, moving statistics, a short last batch, validation."""
    x, y = pictures()
    found = {}
    for device in ("cpu", "mps"):
        made = model(device)
        history = made.fit(x, y, batch_size=8, epochs=2, validation_data=(x[:6], y[:6]), verbose=0)
        scores, outputs = made.evaluate(x, y, verbose=0), made.predict(x[:5], verbose=0)
        found[device] = (history.history, scores, outputs)
    here, there = found["mps"], found["cpu"]
    for name, values in there[0].items():
        close(here[0][name], values)
    close(here[1], there[1])
    close(here[2], there[2])


@pytest.mark.parametrize(("first", "second"), [("mps", "cpu"), ("cpu", "mps"), ("mps", "mps")])
def test_what_one_device_saved_another_goes_on_with(double, tmp_path, first, second):
    x, y = pictures(16)
    whole = model("cpu")
    losses = [whole.train_on_batch(x, y)[0] for _ in range(4)]
    started = model(first)
    mine = [started.train_on_batch(x, y)[0] for _ in range(2)]
    started.save(tmp_path / "half.safetensors")
    resumed = load_model(tmp_path / "half.safetensors", device=second)
    mine += [resumed.train_on_batch(x, y)[0] for _ in range(2)]
    close(mine, losses)
    for a, b in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        close(a, b)


def test_weights_and_rates_are_set_between_steps(double):
    x, y = pictures(8)
    made = model("mps", sg.optimizers.SGD(0.1))
    made.train_on_batch(x, y)
    before = [w.copy() for w in made.get_weights()]
    made.optimizer.learning_rate = 0.0
    made.train_on_batch(x, y)
    after = made.get_weights()
    close(after[0], before[0])
    made.set_weights([np.zeros_like(w) for w in after])
    assert not made.predict(x, verbose=0).any()


def test_a_loss_that_breaks_is_reported(double):
    x, y = pictures(8)
    made = model("mps")
    x[0, 0, 0, 0] = np.nan
    with pytest.raises(sg.errors.NumericsError, match="step"):
        made.fit(x, y, batch_size=8, epochs=1, verbose=0)
