"""A model that has been compiled: its runtime, single steps, and batches given one by one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stepgraph import optimizers
from stepgraph.errors import GraphError, NumericsError, describe
from stepgraph.layers import Layer
from stepgraph.models.data import Batch, Preparer
from stepgraph.models.objective import Objective
from stepgraph.models.runtime import Runtime
from stepgraph.utils import next_seed

if TYPE_CHECKING:
    from stepgraph.models.network import Network

_NONFINITE = ("error", "warn", "ignore")


class CompiledModel(Layer):
    """What a model does with one batch; `Trainer` adds whole data sets."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = next_seed()
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

    # -- steps ---------------------------------------------------------------------------------

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

    def _test_step(self, runtime: Runtime, batch: Batch) -> list[NDArray[Any]]:
        runtime.acquire()
        step = runtime.step("test", tuple([w is not None for w in batch.w]))
        return step.run([*batch.x, *batch.y, *[w for w in batch.w if w is not None]])

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
            self.ensure_network(first_array(x))
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
        self.ensure_network(first_array(x))
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
        return returned(objective.logs(), return_dict)

    def predict_on_batch(self, x: Any) -> Any:
        """The outputs for one batch."""
        self.ensure_network(first_array(x))
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


def returned(logs: dict[str, float], return_dict: bool) -> Any:
    """Figures as Keras returns them: a number, a list, or a dictionary."""
    if return_dict:
        return logs
    values = list(logs.values())
    return values[0] if len(values) == 1 else values


def first_array(x: Any) -> Any:
    """What a model without an input shape can learn it from, without using up an iterator."""
    if isinstance(x, np.ndarray) or hasattr(x, "shape"):
        return x
    if isinstance(x, list | tuple) and x:
        return x[0] if isinstance(x[0], np.ndarray) else np.asarray(x)
    if hasattr(x, "__getitem__") and hasattr(x, "__len__") and not isinstance(x, Mapping):
        item = x[0]
        return item[0] if isinstance(item, tuple) else item
    return None
