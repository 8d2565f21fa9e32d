"""Callbacks that steer training."""

from __future__ import annotations

import inspect
import math
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

from stepgraph.callbacks.base import Callback, Logs
from stepgraph.errors import describe


class _Watch(Callback):
    """What callbacks share that compare a figure from epoch to epoch."""

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        super().__init__()
        if mode not in ("auto", "min", "max"):
            raise ValueError(
                describe(type(self).__name__, f"mode={mode!r}", expected="'auto', 'min' or 'max'")
            )
        self.monitor = monitor
        self.mode = mode
        self.min_delta = abs(min_delta)
        self.best = self.worst()

    @property
    def rising(self) -> bool:
        """Whether larger is better; by the figure's name, if not told."""
        if self.mode != "auto":
            return self.mode == "max"
        name = self.monitor.removeprefix("val_")
        ends = ("acc", "accuracy", "auc", "precision", "recall", "cosine_similarity")
        return name.endswith(ends) or name.startswith("fmeasure")

    def worst(self) -> float:
        """What every figure is better than."""
        return -math.inf if self.rising else math.inf

    def better(self, value: float, than: float) -> bool:
        """Whether a figure is better by more than `min_delta`."""
        return value - self.min_delta > than if self.rising else value + self.min_delta < than

    def figure(self, logs: Logs | None) -> float | None:
        """The figure watched; None, with a warning, where there is none."""
        value = (logs or {}).get(self.monitor)
        if value is None:
            warnings.warn(
                f"{type(self).__name__} watches '{self.monitor}', which is not there; there are: "
                f"{', '.join(logs or {})}",
                stacklevel=2,
            )
        return value


class EarlyStopping(_Watch):
    """Stops when a figure has not got better for some epochs.

    Args:
        monitor: name of the figure.
        min_delta: smaller changes do not count.
        patience: epochs to wait.
        verbose: 1 says so.
        mode: ``"min"``, ``"max"``, or ``"auto"`` by the name.
        baseline: a figure that must be reached first.
        restore_best_weights: whether to go back to the best epoch's weights at the end.
        start_from_epoch: epochs before the watch begins.

    Source: Keras ``EarlyStopping``.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience = patience
        self.verbose = verbose
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best_weights: Any = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Forgets an earlier training."""
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best, self.best_weights = self.worst(), None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Compares."""
        value = self.figure(logs)
        if value is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if self.better(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self.better(value, self.baseline):
                self.wait = 0
            return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Goes back to the best weights, if asked to."""
        if self.stopped_epoch and self.verbose:
            sys.stdout.write(f"Epoch {self.stopped_epoch + 1}: early stopping\n")
        if self.restore_best_weights and self.best_weights is not None:
            self.model.set_weights(self.best_weights)


class ReduceLROnPlateau(_Watch):
    """Lowers the learning rate when a figure has not got better for some epochs.

    Args:
        monitor: name of the figure.
        factor: of the rate.
        patience: epochs to wait.
        verbose: 1 says so.
        mode: ``"min"``, ``"max"``, or ``"auto"`` by the name.
        min_delta: smaller changes do not count.
        cooldown: epochs after a change before waiting begins again.
        min_lr: the rate is never lower.

    Source: Keras ``ReduceLROnPlateau``.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        if factor >= 1:
            raise ValueError(describe("ReduceLROnPlateau", f"factor={factor}", expected="below 1"))
        self.factor = factor
        self.patience = patience
        self.verbose = verbose
        self.cooldown = cooldown
        self.min_lr = min_lr
        self.wait = self.cooldown_counter = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Forgets an earlier training."""
        self.best, self.wait, self.cooldown_counter = self.worst(), 0, 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Compares, and sets the rate."""
        if logs is not None:
            logs["learning_rate"] = self.model.optimizer.current_rate()
        value = self.figure(logs)
        if value is None:
            return
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self.better(value, self.best):
            self.best, self.wait = value, 0
            return
        if self.cooldown_counter > 0:
            return
        self.wait += 1
        if self.wait >= self.patience:
            old = float(self.model.optimizer.learning_rate)
            if old > self.min_lr:
                new = max(old * self.factor, self.min_lr)
                self.model.optimizer.learning_rate = new
                self.cooldown_counter, self.wait = self.cooldown, 0
                if self.verbose:
                    sys.stdout.write(f"Epoch {epoch + 1}: learning rate {new:.4g}\n")


class ModelCheckpoint(_Watch):
    """Saves the model after epochs, or after every so many steps.

    Args:
        filepath: name of the file; ``{epoch:02d}`` and names of figures are filled in.
        monitor: figure that decides what is best.
        verbose: 1 says so.
        save_best_only: keep only what is better than before.
        save_weights_only: weights alone, without architecture and training state.
        mode: ``"min"``, ``"max"``, or ``"auto"`` by the name.
        save_freq: ``"epoch"``, or a number of steps.
        initial_value_threshold: figure that the first save has to beat.

    Source: Keras ``ModelCheckpoint``.
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode)
        if save_freq != "epoch" and not isinstance(save_freq, int):
            raise ValueError(
                describe("ModelCheckpoint", f"save_freq={save_freq!r}", expected="'epoch' or steps")
            )
        self.filepath = os.fspath(filepath)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.save_freq = save_freq
        if initial_value_threshold is not None:
            self.best = initial_value_threshold
        self._epoch = self._steps = 0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Notes the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Saves after every so many steps."""
        self._steps += 1
        if isinstance(self.save_freq, int) and self._steps % self.save_freq == 0:
            self._save(self._epoch, batch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Saves after the epoch."""
        if self.save_freq == "epoch":
            self._save(epoch, None, logs)

    def _save(self, epoch: int, batch: int | None, logs: Logs | None) -> None:
        if self.save_best_only:
            value = self.figure(logs)
            if value is None or not self.better(value, self.best):
                return
            self.best = value
        known = {**(logs or {}), "epoch": epoch + 1, "batch": 0 if batch is None else batch + 1}
        try:
            path = self.filepath.format(**known)
        except KeyError as error:
            raise KeyError(
                describe(
                    "ModelCheckpoint",
                    f"the file's name asks for {error}, which is not there",
                    got={"names": ", ".join(known)},
                )
            ) from None
        if self.save_weights_only:
            self.model.save_weights(path)
        else:
            self.model.save(path)
        if self.verbose:
            sys.stdout.write(f"Epoch {epoch + 1}: saved {path}\n")


class LearningRateScheduler(Callback):
    """Sets the learning rate before each epoch.

    Args:
        schedule: function of the epoch, or of the epoch and the present rate.
        verbose: 1 says so.

    Source: Keras ``LearningRateScheduler``.
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        super().__init__()
        self.schedule = schedule
        self.verbose = verbose

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Sets the rate."""
        rate = float(self.model.optimizer.learning_rate)
        takes = len(inspect.signature(self.schedule).parameters)
        new = float(self.schedule(epoch, rate) if takes > 1 else self.schedule(epoch))
        self.model.optimizer.learning_rate = new
        if self.verbose:
            sys.stdout.write(f"Epoch {epoch + 1}: learning rate {new:.4g}\n")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Adds the rate to the figures."""
        if logs is not None:
            logs["learning_rate"] = self.model.optimizer.current_rate()


class TerminateOnNaN(Callback):
    """Stops when the loss is NaN or infinite; for ``compile(nonfinite="ignore")``.

    Source: Keras ``TerminateOnNaN``.
    """

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Looks at the loss."""
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            sys.stdout.write(f"Step {batch}: the loss is {loss}, training ends\n")
            self.model.stop_training = True


class LambdaCallback(Callback):
    """Functions as hooks: ``LambdaCallback(on_epoch_end=lambda epoch, logs: ...)``.

    Source: Keras ``LambdaCallback``.
    """

    def __init__(self, **hooks: Callable[..., Any] | None) -> None:
        super().__init__()
        for name, function in hooks.items():
            if not name.startswith("on_") or not hasattr(Callback, name):
                raise TypeError(describe("LambdaCallback", f"there is no hook '{name}'"))
            if function is not None:
                setattr(self, name, function)
