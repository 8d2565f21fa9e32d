"""The network of a run on its device: steps, predictions, and its whole state as arrays."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepgraph.checkpoints import Array, ArraySpec, check_arrays, specs_of
from stepgraph.errors import CheckpointError, GraphError, describe, nearest
from stepgraph.runs.config import RunConfig
from stepgraph.runs.defaults import OPTIMIZERS, SCHEDULES

WEIGHTS = "weights/"
OPTIMIZER = "optimizer/"
RANDOM_STEP = "random_step"


class Learner:
    """A compiled network.

    Args:
        config: what to build; the same configuration builds the same network with the same initial
            weights and random numbers, on every machine.

    Raises:
        CheckpointError: no such model or model option.
    """

    def __init__(self, config: RunConfig) -> None:
        from stepgraph import optimizers, utils

        utils.clear_session()
        utils.set_random_seed(config.seed)
        self.model = build_model(
            config.model, config.image_shape, len(config.class_names), config.model_options
        )
        choice = OPTIMIZERS[config.optimizer]
        rate = SCHEDULES[config.schedule][1](config.learning_rate, config.schedule_steps)
        arguments: dict[str, Any] = {"learning_rate": rate}
        if config.momentum is not None:
            arguments["momentum"] = config.momentum
        if config.weight_decay is not None:
            arguments["weight_decay"] = config.weight_decay
        if config.clip_norm is not None:
            arguments["global_clipnorm"] = config.clip_norm
        made = getattr(optimizers, choice.keras_name)(**arguments)
        self.model.compile(
            optimizer=made,
            loss="categorical_crossentropy",
            metrics=["accuracy"],
            device=config.device,
            threads=config.threads,
        )
        self.config = config

    @property
    def parameters(self) -> int:
        """Number of elements of all weights."""
        return int(self.model.count_params())

    @property
    def defers(self) -> bool:
        """Whether `step` takes pictures that are not written yet, and writes them itself."""
        return bool(self.model.runtime.defers)

    def step(self, x: Any, y: Array) -> tuple[float, float]:
        """Trains on a batch.

        Args:
            x: float32 ``(B, H, W, C)``, or what `Batches.deferred` gives for it.
            y: one-hot float32 ``(B, classes)``.

        Returns:
            Loss and accuracy on this batch, before its update.
        """
        found = self.model.train_on_batch(x, y, return_dict=True)
        return float(found["loss"]), float(found["accuracy"])

    def planned_bytes(self) -> int:
        """Bytes of intermediate values that the device planned for a step."""
        return int(self.model.runtime.step("train", (False,)).executable.planned_bytes())

    def predict(self, x: Array) -> NDArray[np.float32]:
        """Probabilities ``(B, classes)`` of pictures ``(B, H, W, C)``."""
        return np.asarray(self.model.predict_on_batch(x), np.float32)

    def classify(self, pictures: Array) -> NDArray[np.float32]:
        """Probabilities ``(B, classes)`` of uint8 pictures ``(B, H, W, C)`` as files hold them."""
        x = pictures.astype(np.float32) / np.float32(255)
        normalize = self.config.normalization
        if normalize is not None:
            x -= np.asarray(normalize.mean, np.float32)
            x /= np.asarray(normalize.std, np.float32)
        return self.predict(x)

    def arrays(self) -> dict[str, Array]:
        """Copies of everything that training changes, by name."""
        from stepgraph.models.saving import weight_arrays

        found = {WEIGHTS + path: value for path, value in weight_arrays(self.model).items()}
        for name, value in self.model.optimizer.state().items():
            found[OPTIMIZER + name] = np.asarray(value)
        counter = self._random_step()
        if counter is not None:
            found[RANDOM_STEP] = self._graph.get_value(counter, self.config.device)
        return found

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Takes up the state that `arrays` gave.

        Raises:
            CheckpointError: names, shapes or dtypes differ.
        """
        from stepgraph.models.saving import set_weight_arrays

        check_arrays(f"load {self.config.model}", self.specs())(specs_of(arrays))
        set_weight_arrays(self.model, _part(arrays, WEIGHTS), f"load {self.config.model}")
        self.model.optimizer.set_state(_part(arrays, OPTIMIZER))
        counter = self._random_step()
        if counter is not None:
            self._graph.set_value(counter, arrays[RANDOM_STEP], self.config.device)

    def specs(self) -> dict[str, ArraySpec]:
        """Names, shapes and dtypes of `arrays`."""
        return specs_of(self.arrays())

    @property
    def _graph(self) -> Any:
        return self.model.runtime.graph

    def _random_step(self) -> Any:
        return self.model.runtime.random_step()


def build_model(name: str, image_shape: list[int], classes: int, options: Mapping[str, Any]) -> Any:
    """A network of `stepgraph.applications`.

    Args:
        name: in `APPLICATIONS`.
        image_shape: height, width, channels.
        classes: number of classes.
        options: further arguments of its builder.

    Raises:
        CheckpointError: it takes no such options.
        GraphError: it cannot be built for these pictures.
    """
    from stepgraph.applications import APPLICATIONS

    builder = APPLICATIONS[canonical_model(name)].builder
    parameters = inspect.signature(builder).parameters
    unknown = [option for option in options if option not in parameters]
    if unknown:
        known = [p for p in parameters if p not in ("input_shape", "classes")]
        raise CheckpointError(
            describe(
                f"model {name}", f"takes no option '{unknown[0]}'", fix=nearest(unknown[0], known)
            )
        )
    try:
        return builder(input_shape=tuple(image_shape), classes=classes, **options)
    except (TypeError, ValueError) as error:
        raise GraphError(
            describe(
                f"model {name}",
                f"cannot be built\n  {error}",
                got={
                    "pictures": "x".join(map(str, image_shape)),
                    **{option: repr(value) for option, value in options.items()},
                },
            )
        ) from error


def canonical_model(name: str) -> str:
    """The name as `APPLICATIONS` has it, whatever its capitals and hyphens.

    Raises:
        CheckpointError: there is none.
    """
    from stepgraph.applications import APPLICATIONS

    plain: dict[str, str] = {_plain(known): known for known in APPLICATIONS}
    found = plain.get(_plain(name))
    if found is None:
        raise CheckpointError(
            describe("model", f"there is none called '{name}'", fix=nearest(name, APPLICATIONS))
        )
    return found


def _part(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
