"""What every callback is (``keras.callbacks.Callback``), and the list of them that `fit` tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Logs = dict[str, Any]


class Callback:
    """Is told what happens in training; a subclass writes the hooks it wants.

    Attributes:
        model: that is trained.
        params: `epochs`, `steps` and `verbose`.

    Source: Keras ``Callback``.
    """

    def __init__(self) -> None:
        self.model: Any = None
        self.params: dict[str, Any] = {}

    def set_model(self, model: Any) -> None:
        """Keeps the model."""
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Keeps the parameters."""
        self.params = params

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """After the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Before an epoch, counted from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """After an epoch and its validation."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before a step."""

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After a step, with the figures of the epoch so far."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Before an evaluation."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """After an evaluation."""

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before a batch of an evaluation."""

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After a batch of an evaluation."""

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Before a prediction."""

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """After a prediction."""

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before a batch of a prediction."""

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After a batch of a prediction, with its outputs."""

    # Keras's older names for the hooks of a training step.
    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before a step."""

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After a step."""


_HOOKS = [name for name in vars(Callback) if name.startswith("on_")]


class History(Callback):
    """Keeps the figures of each epoch; `fit` returns one.

    Attributes:
        epoch: numbers of the epochs.
        history: name to a value per epoch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.epoch: list[int] = []
        self.history: dict[str, list[float]] = {}

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Adds an epoch."""
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)


class CallbackList:
    """Tells several callbacks, each only of what it listens to.

    Args:
        callbacks: in the order they are told; a `History` is added at the end if there is none.
        model: that is trained.
        params: see `Callback`.
    """

    def __init__(self, callbacks: Sequence[Callback], model: Any, params: dict[str, Any]) -> None:
        items = list(callbacks)
        found = [item for item in items if isinstance(item, History)]
        self.history = found[0] if found else History()
        if not found:
            # After the others, which may add figures.
            items.append(self.history)
        self._listeners: dict[str, list[Any]] = {name: [] for name in _HOOKS}
        for item in items:
            item.set_params(params)
            item.set_model(model)
            for name in _HOOKS:
                method = getattr(item, name, None)
                silent = getattr(type(item), name, None) is getattr(Callback, name)
                if method is not None and (not silent or name in vars(item)):
                    self._listeners[name].append(method)
        for old in ("on_batch_begin", "on_batch_end"):
            self._listeners[f"on_train_{old[3:]}"] += self._listeners[old]
        self.wants_batches = bool(self._listeners["on_train_batch_end"])
        self.wants_test_batches = bool(self._listeners["on_test_batch_end"])

    def call(self, hook: str, *arguments: Any) -> None:
        """Tells all that listen to a hook."""
        for listener in self._listeners[hook]:
            listener(*arguments)

    def on_train_begin(self) -> None:
        """Before the first epoch."""
        self.call("on_train_begin", {})

    def on_train_end(self, logs: Logs) -> None:
        """After the last epoch."""
        self.call("on_train_end", logs)

    def on_epoch_begin(self, epoch: int) -> None:
        """Before an epoch."""
        self.call("on_epoch_begin", epoch, {})

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """After an epoch; what a callback adds to the logs later ones see."""
        self.call("on_epoch_end", epoch, logs)

    def on_train_batch_begin(self, batch: int) -> None:
        """Before a step."""
        for listener in self._listeners["on_train_batch_begin"]:
            listener(batch, {})

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """After a step."""
        self.call("on_train_batch_end", batch, logs)

    def on_test_begin(self) -> None:
        """Before an evaluation."""
        self.call("on_test_begin", {})

    def on_test_end(self, logs: Logs) -> None:
        """After an evaluation."""
        self.call("on_test_end", logs)

    def on_test_batch_begin(self, batch: int) -> None:
        """Before a batch of an evaluation."""
        self.call("on_test_batch_begin", batch, {})

    def on_test_batch_end(self, batch: int, logs: Logs) -> None:
        """After a batch of an evaluation."""
        self.call("on_test_batch_end", batch, logs)
