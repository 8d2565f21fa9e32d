"""Compiling and running a model: `compile`, `fit`, `evaluate`, `predict` and single batches."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stepgraph import optimizers
from stepgraph.callbacks import Callback, CallbackList, History, ProgressLogger
from stepgraph.errors import DataError, GraphError, NumericsError, describe
from stepgraph.layers import KerasTensor, Layer
from stepgraph.models.data import (
    ArraySource,
    Batch,
    Preparer,
    Source,
    endless,
    hold_out,
    make_source,
)
from stepgraph.models.objective import Objective
from stepgraph.models.runtime import Runtime
from stepgraph.utils import next_seed

if TYPE_CHECKING:
    from stepgraph.models.network import Network

_NONFINITE = ("error", "warn", "ignore")


class Trainer(Layer):
    """What a model does with data. `Model` and `Sequential` add what a model is."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = next_seed()
        self.stop_training = False
        self.history: History | None = None
        self.optimizer: Any = None
        self.steps_trained = 0
        self._compiled: dict[str, Any] | None = None
        self._runtime: Runtime | None = None
        self._preparers: dict[Any, Preparer] = {}

    if TYPE_CHECKING:

        @property
        def network(self) -> Network:
            """The calls of layers from inputs to outputs."""

        def ensure_network(self, x: Any) -> None:
            """Builds a model whose input shape comes from the data."""

        def is_ready(self) -> bool:
            """Whether the input shape is known."""

        @property
        def output_names(self) -> list[str]:
            """Names of the outputs."""

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        metrics: Any = None,
        loss_weights: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool | None = None,
        steps_per_execution: int = 1,
        jit_compile: bool | None = None,
        device: str = "cpu",
        threads: int | None = None,
        nonfinite: str = "error",
    ) -> None:
        """Makes ready for training: builds forward pass, loss, gradients and updates as one graph.

        Args:
            optimizer: name or object.
            loss: name, object or function of ``(y_true, y_pred)``; a list or dictionary of them
                for several outputs.
            metrics: list of names, objects or functions; ``"acc"`` and ``"accuracy"`` become what
                suits the labels.
            loss_weights: factors of the losses of several outputs.
            weighted_metrics: metrics that see sample weights.
            run_eagerly: taken for Keras's sake; a step is always one compiled graph.
            steps_per_execution: likewise.
            jit_compile: likewise.
            device: where to run; see ``stepgraph.devices()``.
            threads: how many; the device's choice without it.
            nonfinite: what to do when a loss is NaN or infinite: ``"error"``, ``"warn"`` or
                ``"ignore"``.

        Raises:
            GraphError, ShapeError: the pieces do not fit together.
            UnsupportedError: there is no such device.
        """
        del run_eagerly, steps_per_execution, jit_compile
        if nonfinite not in _NONFINITE:
            raise ValueError(
                describe("compile", f"nonfinite={nonfinite!r}", expected=", ".join(_NONFINITE))
            )
        self.optimizer = optimizers.get(optimizer)
        self._compiled = {
            "loss": loss,
            "metrics": metrics,
            "loss_weights": loss_weights,
            "weighted_metrics": weighted_metrics,
            "device": device,
            "threads": threads,
            "nonfinite": nonfinite,
        }
        self.reset_runtime()
        if self.is_ready():
            self._trainable_runtime()

    # -- fit -----------------------------------------------------------------------------------

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: float | None = None,
        validation_steps: float | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
        **kwargs: Any,
    ) -> History:
        """Trains for some epochs.

        The last, smaller batch of an epoch is trained on too. The order of samples is a function
        of the model's seed and the steps trained, so that a saved and loaded model goes on as if it
        had never stopped.

        Args:
            x: arrays; or an iterator, generator, or object with length and items, of batches
                ``(x, y)`` or ``(x, y, sample_weight)``.
            y: labels, if `x` is arrays.
            batch_size: samples per step, for arrays; 32 without it.
            epochs: number of the epoch to stop before, counted from 0.
            verbose: 0 silent, 1 a line that moves, 2 one line per epoch.
            callbacks: a list of `stepgraph.callbacks`.
            validation_split: part of the arrays' end that is kept for validation.
            validation_data: ``(x, y)``, ``(x, y, sample_weight)`` or a source of batches.
            shuffle: another order of arrays (or a sequence's batches) each epoch.
            class_weight: class number to weight of its samples.
            sample_weight: one weight per sample.
            initial_epoch: number of the first epoch.
            steps_per_epoch: steps that make an epoch, rounded up; a pass over the data without it.
            validation_steps: batches of a validation; all without it.
            validation_batch_size: samples per validation batch.
            validation_freq: validate each so many epochs.
            **kwargs: `max_queue_size`, `workers` and `use_multiprocessing`, for Keras's sake.

        Returns:
            The `History`, whose ``history`` maps names to a value per epoch.

        Raises:
            NumericsError: a loss became NaN or infinite (see `compile`).
            DataError, FeedError: the data does not fit the model.
        """
        unknown = set(kwargs) - {"max_queue_size", "workers", "use_multiprocessing"}
        if unknown:
            raise TypeError(describe("fit", f"unexpected argument '{sorted(unknown)[0]}'"))
        self.ensure_network(_first_array(x))
        runtime = self._trainable_runtime()
        prepare = self._preparer(class_weight)
        source = make_source(
            prepare, x, y, sample_weight, batch_size=batch_size, shuffle=shuffle, seed=self.seed
        )
        held: Source | None = None
        if validation_split:
            if not isinstance(source, ArraySource):
                raise DataError(describe("fit", "validation_split needs arrays"))
            source.batch, rest = hold_out(source.batch, validation_split)
            held = ArraySource(rest, validation_batch_size or batch_size or 32)
        elif validation_data is not None:
            held = self._validation(validation_data, validation_batch_size or batch_size)
        steps = _steps(steps_per_epoch) or source.steps
        level = 1 if verbose == "auto" else int(verbose)
        params = {"epochs": epochs, "steps": steps, "verbose": level}
        watch = _callbacks(callbacks, self, params)
        self.stop_training = False
        self.history = watch.history
        passes = endless(source, initial_epoch, lambda: self.steps_trained)
        watch.on_train_begin()
        logs: dict[str, float] = {}
        try:
            for epoch in range(initial_epoch, epochs):
                watch.on_epoch_begin(epoch)
                if steps_per_epoch is None and not getattr(source, "once", False):
                    batches, limit = source.batches(epoch, self.steps_trained), None
                else:
                    batches, limit = passes, _steps(steps_per_epoch)
                done = self._train_epoch(runtime, batches, limit, watch)
                if not done:
                    if epoch == initial_epoch:
                        raise DataError(describe("fit", "the data gave no batch"))
                    warnings.warn(
                        f"fit: the data ended before epoch {epoch + 1} of {epochs}; "
                        "give a source that can be read again, or repeat it",
                        stacklevel=2,
                    )
                    break
                logs = runtime.objective.logs() if runtime.objective else {}
                if held is not None and (epoch + 1) % validation_freq == 0:
                    found = self._test(held, _steps(validation_steps), watch)
                    logs.update({f"val_{name}": value for name, value in found.items()})
                watch.on_epoch_end(epoch, logs)
                if self.stop_training:
                    break
        finally:
            # A data set's prefetching thread must not outlive an error.
            passes.close()
        watch.on_train_end(logs)
        return watch.history

    def _train_epoch(
        self, runtime: Runtime, batches: Iterator[Batch], steps: int | None, watch: CallbackList
    ) -> int:
        """Trains on batches until the epoch's steps are made; returns how many were."""
        objective = runtime.objective
        assert objective is not None
        objective.reset()
        done = 0
        while steps is None or done < steps:
            batch = next(batches, None)
            if batch is None:
                if steps is not None and done:
                    warnings.warn(
                        f"fit: the data ended after {done} of {steps} steps of an epoch",
                        stacklevel=3,
                    )
                break
            watch.on_train_batch_begin(done)
            objective.add(self._train_step(runtime, batch), batch.size)
            if watch.wants_batches:
                watch.on_train_batch_end(done, objective.logs())
            done += 1
            if self.stop_training:
                break
        return done

    def _train_step(self, runtime: Runtime, batch: Batch) -> list[NDArray[Any]]:
        """One step; raises when its loss is not finite."""
        runtime.acquire()
        step = runtime.step("train", tuple([w is not None for w in batch.w]))
        results = step.run([*batch.x, *batch.y, *[w for w in batch.w if w is not None]])
        self.steps_trained += 1
        if not math.isfinite(results[0]):
            self._nonfinite(float(results[0]))
        return results

    def _nonfinite(self, loss: float) -> None:
        assert self._compiled is not None
        what = describe(
            f"model '{self.name}'",
            f"the loss is {loss} in step {self.steps_trained - 1} (counted from 0)",
            got={"learning rate": self.optimizer.current_rate()},
            fix="a smaller learning rate, global_clipnorm=1.0 in the optimizer, or a look at the "
            "data; compile(nonfinite='warn') goes on",
        )
        if self._compiled["nonfinite"] == "error":
            raise NumericsError(what)
        if self._compiled["nonfinite"] == "warn":
            warnings.warn(what, RuntimeWarning, stacklevel=4)

    # -- evaluate and predict ------------------------------------------------------------------

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        sample_weight: Any = None,
        steps: float | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Loss and metrics without training.

        Args:
            x: as for `fit`.
            y: as for `fit`.
            batch_size: samples per run, for arrays; 32 without it.
            sample_weight: one weight per sample.
            verbose: 1 writes a line at the end.
            steps: batches to use; all without it.
            callbacks: a list of `stepgraph.callbacks`.
            return_dict: whether to return a dictionary by name.
            **kwargs: as for `fit`.

        Returns:
            The loss, or a list of loss and metrics in the order of `metrics_names`.
        """
        del kwargs
        self.ensure_network(_first_array(x))
        self._trainable_runtime()
        source = make_source(self._preparer(), x, y, sample_weight, batch_size=batch_size)
        level = 1 if verbose == "auto" else int(verbose)
        watch = _callbacks(callbacks, self, {"verbose": level, "steps": source.steps}, test=True)
        return _returned(self._test(source, _steps(steps), watch), return_dict)

    def _validation(self, data: Any, batch_size: int | None) -> Source:
        prepare = self._preparer()
        if isinstance(data, tuple | list) and 2 <= len(data) <= 3:
            return make_source(prepare, *data, batch_size=batch_size)
        return make_source(prepare, data, batch_size=batch_size)

    def _test(self, source: Source, steps: int | None, watch: CallbackList) -> dict[str, float]:
        runtime = self._trainable_runtime()
        objective = runtime.objective
        assert objective is not None
        # Validation happens between two epochs, whose figures have been taken already.
        objective.reset()
        watch.on_test_begin()
        for number, batch in enumerate(source.batches(0, 0)):
            if steps is not None and number >= steps:
                break
            watch.on_test_batch_begin(number)
            objective.add(self._test_step(runtime, batch), batch.size)
            if watch.wants_test_batches:
                watch.on_test_batch_end(number, objective.logs())
        if not objective.samples:
            raise DataError(describe("evaluate", "the data gave no batch"))
        logs = objective.logs()
        watch.on_test_end(logs)
        return logs

    def _test_step(self, runtime: Runtime, batch: Batch) -> list[NDArray[Any]]:
        runtime.acquire()
        step = runtime.step("test", tuple([w is not None for w in batch.w]))
        return step.run([*batch.x, *batch.y, *[w for w in batch.w if w is not None]])

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: int | str = 0,
        steps: float | None = None,
        callbacks: Any = None,
        **kwargs: Any,
    ) -> Any:
        """The outputs for some data.

        Args:
            x: as for `fit`; labels in batches are ignored.
            batch_size: samples per run, for arrays; 32 without it.
            verbose: taken for Keras's sake.
            steps: batches to use; all without it.
            callbacks: a list of `stepgraph.callbacks`.
            **kwargs: as for `fit`.

        Returns:
            An array of shape ``(samples, ...)``, or a list of one per output.
        """
        del kwargs
        self.ensure_network(_first_array(x))
        runtime = self._any_runtime()
        source = make_source(self._inputs_only(), x, batch_size=batch_size)
        limit = _steps(steps)
        watch = _callbacks(callbacks, self, {"verbose": 0, "steps": source.steps}, test=True)
        watch.call("on_predict_begin")
        step, found = runtime.step("predict"), []
        runtime.acquire()
        for number, batch in enumerate(source.batches(0, 0)):
            if limit is not None and number >= limit:
                break
            watch.call("on_predict_batch_begin", number)
            found.append(step.run(batch.x))
            watch.call("on_predict_batch_end", number, {"outputs": found[-1]})
        watch.call("on_predict_end")
        if not found:
            raise DataError(describe("predict", "the data gave no batch"))
        outputs = [np.concatenate(parts) for parts in zip(*found, strict=True)]
        return outputs[0] if self._single_output else outputs

    # -- single batches --------------------------------------------------------------------------

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        reset_metrics: bool = True,
        return_dict: bool = False,
    ) -> Any:
        """One training step.

        Args:
            x: inputs, as for `fit`, of one batch.
            y: labels.
            sample_weight: one weight per sample.
            class_weight: class number to weight of its samples.
            reset_metrics: whether the figures returned are of this batch alone.
            return_dict: whether to return a dictionary by name.

        Returns:
            The loss before the update, or a list of loss and metrics.
        """
        runtime = self._runtime
        if runtime is None or runtime.objective is None:
            self.ensure_network(_first_array(x))
            runtime = self._trainable_runtime()
        batch = self._preparer(class_weight)(x, y, sample_weight)
        results = self._train_step(runtime, batch)
        return self._figures(runtime, results, batch, reset_metrics, return_dict)

    def test_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        reset_metrics: bool = True,
        return_dict: bool = False,
    ) -> Any:
        """Loss and metrics of one batch without training; see `train_on_batch`."""
        self.ensure_network(_first_array(x))
        runtime = self._trainable_runtime()
        batch = self._preparer()(x, y, sample_weight)
        results = self._test_step(runtime, batch)
        return self._figures(runtime, results, batch, reset_metrics, return_dict)

    def _figures(
        self,
        runtime: Runtime,
        results: Sequence[NDArray[Any]],
        batch: Batch,
        reset: bool,
        return_dict: bool,
    ) -> Any:
        objective = runtime.objective
        assert objective is not None
        if reset:
            objective.reset()
        objective.add(results, batch.size)
        return _returned(objective.logs(), return_dict)

    def predict_on_batch(self, x: Any) -> Any:
        """The outputs for one batch."""
        self.ensure_network(_first_array(x))
        runtime = self._any_runtime()
        runtime.acquire()
        outputs = runtime.step("predict").run(self._inputs_only()(x).x)
        return outputs[0] if self._single_output else outputs

    def reset_metrics(self) -> None:
        """Forgets the batches that metrics have seen."""
        if self._runtime is not None and self._runtime.objective is not None:
            self._runtime.objective.reset()

    @property
    def metrics_names(self) -> list[str]:
        """Names of what `evaluate` and `train_on_batch` return."""
        objective = self._trainable_runtime().objective
        return objective.metrics_names if objective else []

    # -- the runtime -----------------------------------------------------------------------------

    @property
    def runtime(self) -> Runtime:
        """The graph and device that the model runs on now."""
        return self._any_runtime()

    def reset_runtime(self) -> None:
        """Lets go of the graph; the next use builds one from the weights as they are."""
        self._runtime = None
        self._preparers = {}

    def _any_runtime(self) -> Runtime:
        if self._runtime is None:
            if self._compiled is not None:
                return self._trainable_runtime()
            self._runtime = Runtime(self, "cpu", {})  # type: ignore[arg-type]
        return self._runtime

    def _trainable_runtime(self) -> Runtime:
        runtime = self._runtime
        if runtime is not None and runtime.objective is not None:
            return runtime
        settings = self._compiled
        if settings is None:
            raise GraphError(
                describe(
                    f"model '{self.name}'",
                    "is not compiled",
                    fix="model.compile(optimizer=..., loss=...) first",
                )
            )
        objective = Objective(
            self.network.outputs,
            self.output_names,
            settings["loss"],
            settings["loss_weights"],
            settings["metrics"],
            settings["weighted_metrics"],
        )
        options = {} if settings["threads"] is None else {"threads": settings["threads"]}
        self._preparers = {}
        self._runtime = Runtime(
            self,  # type: ignore[arg-type]
            settings["device"],
            options,
            objective,
            self.optimizer,
        )
        return self._runtime

    def _preparer(self, class_weight: Mapping[int, float] | None = None) -> Preparer:
        found = None if class_weight else self._preparers.get("training")
        if found is None:
            objective = self._trainable_runtime().objective
            found = Preparer(self.network.inputs, objective, class_weight)
            if not class_weight:
                self._preparers["training"] = found
        return found

    def _inputs_only(self) -> Preparer:
        found = self._preparers.get("inputs")
        if found is None:
            found = self._preparers["inputs"] = Preparer(self.network.inputs)
        return found

    @property
    def _single_output(self) -> bool:
        return len(self.network.outputs) == 1


def _steps(given: float | None) -> int | None:
    """Keras takes a fraction of a step as one more."""
    if given is None:
        return None
    if given <= 0:
        raise DataError(describe("fit", f"{given} steps", expected="more than 0"))
    return math.ceil(given)


def _returned(logs: dict[str, float], return_dict: bool) -> Any:
    if return_dict:
        return logs
    values = list(logs.values())
    return values[0] if len(values) == 1 else values


def _first_array(x: Any) -> Any:
    """What a model without an input shape can learn it from, without using up an iterator."""
    if isinstance(x, np.ndarray) or hasattr(x, "shape"):
        return x
    if isinstance(x, list | tuple) and x:
        return x[0] if isinstance(x[0], np.ndarray) else np.asarray(x)
    if hasattr(x, "__getitem__") and hasattr(x, "__len__") and not isinstance(x, Mapping):
        item = x[0]
        return item[0] if isinstance(item, tuple) else item
    return None


def _callbacks(
    given: Any, model: Trainer, params: dict[str, Any], test: bool = False
) -> CallbackList:
    if isinstance(given, CallbackList):
        return given
    items: list[Callback] = (
        list(given) if isinstance(given, list | tuple) else [given] if given else []
    )
    if params["verbose"] and not any(isinstance(item, ProgressLogger) for item in items):
        items.append(ProgressLogger(evaluating=test))
    return CallbackList(items, model, params)


__all__ = ["KerasTensor", "Trainer"]
