"""Training, evaluation and prediction over whole data sets: `fit`, `evaluate`, `predict`."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext
from typing import Any

import numpy as np

from stepgraph.callbacks import Callback, CallbackList, History, ProgressLogger
from stepgraph.errors import DataError, describe
from stepgraph.models.compiled import CompiledModel, first_array, returned
from stepgraph.models.data import (
    ArraySource,
    Batch,
    Source,
    endless,
    hold_out,
    make_source,
)
from stepgraph.models.runtime import Runtime


class Trainer(CompiledModel):
    """What a model does with data. `Model` and `Sequential` add what a model is."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stop_training = False
        self.history: History | None = None

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
        self.ensure_network(first_array(x))
        runtime = self._trainable_runtime()
        prepare = self._preparer(class_weight)
        source = make_source(
            prepare,
            x,
            y,
            sample_weight,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=self.seed,
            deferred=runtime.defers,
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
                # A data set's prefetching thread must not outlive an error.
                with nullcontext() if batches is passes else closing(batches):
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
        self.ensure_network(first_array(x))
        runtime = self._trainable_runtime()
        source = make_source(
            self._preparer(), x, y, sample_weight, batch_size=batch_size, deferred=runtime.defers
        )
        level = 1 if verbose == "auto" else int(verbose)
        watch = _callbacks(callbacks, self, {"verbose": level, "steps": source.steps}, test=True)
        return returned(self._test(source, _steps(steps), watch), return_dict)

    def _validation(self, data: Any, batch_size: int | None) -> Source:
        given = data if isinstance(data, tuple | list) and 2 <= len(data) <= 3 else (data,)
        deferred = self._trainable_runtime().defers
        return make_source(self._preparer(), *given, batch_size=batch_size, deferred=deferred)

    def _test(self, source: Source, steps: int | None, watch: CallbackList) -> dict[str, float]:
        runtime = self._trainable_runtime()
        objective = runtime.objective
        assert objective is not None
        # Validation happens between two epochs, whose figures have been taken already.
        objective.reset()
        watch.on_test_begin()
        with closing(source.batches(0, 0)) as batches:
            for number, batch in enumerate(itertools.islice(batches, steps)):
                watch.on_test_batch_begin(number)
                objective.add(self._test_step(runtime, batch), batch.size)
                if watch.wants_test_batches:
                    watch.on_test_batch_end(number, objective.logs())
        if not objective.samples:
            raise DataError(describe("evaluate", "the data gave no batch"))
        logs = objective.logs()
        watch.on_test_end(logs)
        return logs

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
        self.ensure_network(first_array(x))
        runtime = self._any_runtime()
        source = make_source(self._inputs_only(), x, batch_size=batch_size, deferred=runtime.defers)
        limit = _steps(steps)
        watch = _callbacks(callbacks, self, {"verbose": 0, "steps": source.steps}, test=True)
        watch.call("on_predict_begin")
        step, found = runtime.step("predict"), []
        runtime.acquire()
        with closing(source.batches(0, 0)) as batches:
            for number, batch in enumerate(itertools.islice(batches, limit)):
                watch.call("on_predict_batch_begin", number)
                found.append(step.run(batch.x))
                watch.call("on_predict_batch_end", number, {"outputs": found[-1]})
        watch.call("on_predict_end")
        if not found:
            raise DataError(describe("predict", "the data gave no batch"))
        outputs = [np.concatenate(parts) for parts in zip(*found, strict=True)]
        return outputs[0] if self._single_output else outputs


def _steps(given: float | None) -> int | None:
    """Keras takes a fraction of a step as one more."""
    if given is None:
        return None
    if given <= 0:
        raise DataError(describe("fit", f"{given} steps", expected="more than 0"))
    return math.ceil(given)


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
