"""Callbacks: when they are told what, and what those that come with the package do."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepgraph import callbacks, layers, models, optimizers
from stepgraph.callbacks import Callback
from stepgraph.layers import Dense, Input
from stepgraph.models import Sequential


def model(rate: float = 0.125) -> Sequential:
    made = Sequential([Input((1,)), Dense(1, use_bias=False, kernel_initializer="ones")])
    made.compile(optimizer=optimizers.SGD(rate), loss="mse", device="reference")
    return made


X, Y = np.ones((4, 1), "float32"), np.zeros((4, 1), "float32")


def fit(made: Sequential, *watch: Any, **settings: Any) -> Any:
    given = {"epochs": 3, "batch_size": 2, "verbose": 0, **settings}
    return made.fit(X, Y, callbacks=list(watch), **given)


class Figures(Callback):
    """Puts chosen figures into the logs, for those told after it."""

    def __init__(self, **figures: list[float]) -> None:
        super().__init__()
        self.figures = figures

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None
        for name, values in self.figures.items():
            logs[name] = values[epoch]


def test_hooks_in_order() -> None:
    told: list[str] = []

    class Tell(Callback):
        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            if not name.startswith("on_"):
                return found

            def tell(*arguments: Any) -> Any:
                told.append(name)
                return found(*arguments)

            return tell

    class Subclass(Tell):
        pass

    for hook in [
        h
        for h in vars(Callback)
        if (h.startswith("on_") and "_batch_" in h) or h.endswith(("begin", "end"))
    ]:
        if hook not in ("on_batch_begin", "on_batch_end"):
            setattr(Subclass, hook, lambda self, *a: None)
    made = model()
    fit(made, Subclass(), epochs=1, validation_data=(X, Y), validation_batch_size=4)
    assert told == [
        "on_train_begin",
        "on_epoch_begin",
        *["on_train_batch_begin", "on_train_batch_end"] * 2,
        "on_test_begin",
        "on_test_batch_begin",
        "on_test_batch_end",
        "on_test_end",
        "on_epoch_end",
        "on_train_end",
    ]
    told.clear()
    made.predict(X, callbacks=[Subclass()])
    assert told == [
        "on_predict_begin",
        "on_predict_batch_begin",
        "on_predict_batch_end",
        "on_predict_end",
    ]


def test_early_stopping() -> None:
    values = Figures(val_loss=[3.0, 2.0, 2.5, 2.4, 1.0])
    stop = callbacks.EarlyStopping(patience=2, restore_best_weights=True)
    made, seen = model(), []
    keep = callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(made.get_weights())
    )
    history = fit(made, values, stop, keep, epochs=5)
    assert history.epoch == [0, 1, 2, 3]
    assert stop.stopped_epoch == 3
    np.testing.assert_array_equal(made.get_weights()[0], seen[1][0])
    rising = Figures(val_acc=[0.5, 0.4, 0.3])
    assert fit(model(), rising, callbacks.EarlyStopping("val_acc")).epoch == [0, 1]
    with pytest.warns(
        UserWarning, match=r"watches 'val_loss', which is not there; there are: loss"
    ):
        fit(model(), callbacks.EarlyStopping(), epochs=1)


def test_plateau() -> None:
    values = Figures(val_loss=[3.0, 3.0, 3.0, 3.0, 2.0])
    made = model(1.0)
    plateau = callbacks.ReduceLROnPlateau(factor=0.5, patience=1, cooldown=2, min_lr=0.3)
    history = fit(made, values, plateau, epochs=5)
    np.testing.assert_allclose(history.history["learning_rate"], [1.0, 1.0, 0.5, 0.5, 0.3], 1e-6)


def test_scheduler_sets_the_rate() -> None:
    made = model()
    history = fit(made, callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2), epochs=2)
    np.testing.assert_allclose(history.history["learning_rate"], [0.0625, 0.03125])
    assert made.get_weights()[0] == pytest.approx((1 - 0.125) ** 2 * (1 - 0.0625) ** 2)


def test_checkpoints(tmp_path: Path) -> None:
    values = Figures(val_loss=[3.0, 2.0, 2.5])
    made = model()
    fit(
        made,
        values,
        callbacks.ModelCheckpoint(tmp_path / "best", save_best_only=True),
        callbacks.ModelCheckpoint(
            str(tmp_path / "{epoch:02d}-{val_loss:.1f}"), save_weights_only=True
        ),
        callbacks.ModelCheckpoint(tmp_path / "step{batch}", save_freq=4),
    )
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["01-3.0", "02-2.0", "03-2.5", "best", "step2"]
    best = models.load_model(tmp_path / "best")
    second = model()
    second.load_weights(tmp_path / "02-2.0")
    np.testing.assert_array_equal(best.get_weights()[0], second.get_weights()[0])
    assert best.optimizer.iterations == 4
    with pytest.raises(KeyError, match="asks for 'acc'"):
        fit(model(), callbacks.ModelCheckpoint(str(tmp_path / "{acc}")))


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    history = fit(model(), callbacks.CSVLogger(path), epochs=2)
    fit(model(), callbacks.CSVLogger(path, append=True), epochs=1)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "0"]
    assert float(rows[1]["loss"]) == history.history["loss"][1]


def test_a_stop_in_an_epoch_is_a_stop() -> None:
    made = model()
    stop = callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: setattr(made, "stop_training", True)
    )
    assert fit(made, stop).epoch == [0]
    assert made.steps_trained == 1


def test_mistakes() -> None:
    with pytest.raises(TypeError, match="there is no hook 'on_epoch'"):
        callbacks.LambdaCallback(on_epoch=print)
    with pytest.raises(ValueError, match="mode='up'"):
        callbacks.EarlyStopping(mode="up")
    assert layers.Dense(1).name.startswith("dense")
