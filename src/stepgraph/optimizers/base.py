"""What every optimizer is (``keras.optimizers.Optimizer``)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepgraph import schedules
from stepgraph.configs import Configurable, plain
from stepgraph.errors import describe
from stepgraph.graph.graph import Graph
from stepgraph.graph.operation import Operation
from stepgraph.graph.tensor import Tensor, Variable


class Optimizer(Configurable):
    """How weights follow from gradients; its operations are part of the training step's graph.

    Its state (the number of steps, the learning rate, moments) are variables of that graph, so the
    rate can be set between steps without compiling anew.

    Args:
        learning_rate: a number, or a schedule of `stepgraph.schedules`.
        weight_decay: the part of each weight, times the learning rate, that every step takes off
            before its update; None for none.
        clipnorm: largest norm of each gradient by itself.
        clipvalue: largest magnitude of each gradient's elements.
        global_clipnorm: largest norm of all gradients together.
        name: label.

    Source: Keras ``Optimizer``.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        name: str | None = None,
    ) -> None:
        given = [c for c in (clipnorm, clipvalue, global_clipnorm) if c is not None]
        if len(given) > 1 or any(c <= 0 for c in given):
            raise ValueError(
                describe(
                    type(self).__name__,
                    f"clipnorm={clipnorm}, clipvalue={clipvalue}, "
                    f"global_clipnorm={global_clipnorm}",
                    expected="one of them at most, above 0",
                )
            )
        self._rate = schedules.get(learning_rate)
        self.weight_decay = weight_decay
        self.clipnorm = clipnorm
        self.clipvalue = clipvalue
        self.global_clipnorm = global_clipnorm
        self.name = name or type(self).__name__
        self._excluded: list[str] = []
        self._graph: Graph | None = None
        self._device = ""
        self._variables: dict[str, Variable] = {}
        self._owners: dict[str, object] = {}
        # Values of the state that wait for the next `build`.
        self._waiting: dict[str, NDArray[Any]] = {}

    # -- for subclasses ------------------------------------------------------------------------

    def slots(self) -> Sequence[str]:
        """Names of the arrays kept for each weight."""
        return ()

    def update(
        self,
        graph: Graph,
        weight: Tensor,
        gradient: Tensor,
        slots: dict[str, Variable],
        rate: Tensor,
        step: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One weight's step.

        Args:
            graph: where to build.
            weight: its value, weight decay done.
            gradient: of its shape, clipped.
            slots: its arrays, by name.
            rate: learning rate, shape ``()``.
            step: number of this step from 1, a float of shape ``()``.

        Returns:
            The new value, and the new value of each slot.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update()")

    # -- building ------------------------------------------------------------------------------

    def build(
        self,
        graph: Graph,
        weights: Iterable[tuple[str, Variable]],
        device: str,
        owners: Mapping[str, object] | None = None,
    ) -> None:
        """Makes the state's variables in a graph.

        Args:
            graph: where to.
            weights: path and variable of each trainable weight.
            device: where the graph will run.
            owners: path to whatever a weight is; state that an earlier graph held for the same
                owners is carried over, so that compiling anew goes on with the same moments.
        """
        weights, owners = list(weights), dict(owners or {})
        same = {path for path, owner in owners.items() if self._owners.get(path) is owner}
        self._owners = owners
        kept = {
            name: value
            for name, value in (self.state() if same else {}).items()
            if name.partition("/")[2] in same or name in ("iterations", "learning_rate")
        }
        kept |= self._waiting
        self._graph, self._device, self._variables = graph, device, {}
        self._waiting = {}
        self._make("iterations", np.zeros((), np.int64))
        if isinstance(self._rate, float):
            self._make("learning_rate", np.asarray(self._rate, np.float32))
        for path, weight in weights:
            for slot in self.slots():
                zero = np.zeros((), weight.initial.dtype)
                self._make(f"{slot}/{path}", zero, weight.initial.shape)
        if isinstance(self._rate, float):
            # Not through float32, for devices that compute in float64.
            self._write("learning_rate", np.float64(self._rate))
        self.set_state({name: kept[name] for name in kept if name in self._variables})

    def _make(self, name: str, value: NDArray[Any], shape: tuple[int, ...] = ()) -> None:
        assert self._graph is not None
        self._variables[name] = self._graph.variable(value, shape, name=f"optimizer/{name}")

    def apply(
        self, graph: Graph, triples: Sequence[tuple[str, Variable, Tensor]]
    ) -> list[Operation]:
        """Adds the step to the graph.

        Args:
            graph: that of `build`.
            triples: path, variable and gradient of each weight.

        Returns:
            The assigns, to be among a run's operations.
        """
        iterations = self._variables["iterations"]
        count = graph.cast(iterations, "float32")
        if isinstance(self._rate, float):
            rate: Tensor = self._variables["learning_rate"]
        else:
            rate = self._rate(count)
        step = count + 1.0
        gradients = self._clipped(graph, [gradient for _, _, gradient in triples])
        operations = [graph.assign(iterations, iterations + 1)]
        for (path, variable, _), gradient in zip(triples, gradients, strict=True):
            weight: Tensor = variable
            if self.weight_decay and not any(part in path for part in self._excluded):
                weight = weight - weight * (rate * self.weight_decay)
            slots = {slot: self._variables[f"{slot}/{path}"] for slot in self.slots()}
            new, new_slots = self.update(graph, weight, gradient, slots, rate, step)
            operations.append(graph.assign(variable, new))
            operations += [graph.assign(slots[slot], new_slots[slot]) for slot in slots]
        return operations

    def _clipped(self, graph: Graph, gradients: list[Tensor]) -> list[Tensor]:
        if self.clipvalue is not None:
            limit = float(self.clipvalue)
            return [graph.clamp(g, -limit, limit) for g in gradients]
        if self.clipnorm is not None:
            return [g * _scale(graph, _square_sum(graph, g), self.clipnorm) for g in gradients]
        if self.global_clipnorm is not None and gradients:
            total = _square_sum(graph, gradients[0])
            for gradient in gradients[1:]:
                total = total + _square_sum(graph, gradient)
            factor = _scale(graph, total, self.global_clipnorm)
            return [g * factor for g in gradients]
        return gradients

    def exclude_from_weight_decay(
        self, var_list: Iterable[Any] | None = None, var_names: Iterable[str] | None = None
    ) -> None:
        """Spares weights the decay; before the first step.

        Args:
            var_list: weights, taken by name.
            var_names: parts of paths, such as ``"bias"`` or ``"batch_normalization"``.
        """
        self._excluded += [w.name for w in var_list or ()]
        self._excluded += list(var_names or ())

    # -- state ---------------------------------------------------------------------------------

    @property
    def learning_rate(self) -> Any:
        """The rate of the next step; set it to a number at any time. With a schedule, that."""
        if isinstance(self._rate, float) and "learning_rate" in self._variables:
            return float(self._read("learning_rate"))
        return self._rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        new = schedules.get(float(value) if np.ndim(value) == 0 and _number(value) else value)
        if self._graph is not None and type(new) is not type(self._rate):
            raise ValueError(
                describe(
                    f"{self.name}: learning_rate",
                    "a number and a schedule cannot replace each other once the step is built",
                    fix="compile the model again with a new optimizer",
                )
            )
        self._rate = new
        if isinstance(new, float) and "learning_rate" in self._variables:
            self._write("learning_rate", np.float64(new))

    lr = learning_rate

    def current_rate(self) -> float:
        """The rate of the next step as a number, with a schedule too."""
        if isinstance(self._rate, float):
            return float(self.learning_rate)
        return float(self._rate(float(self.iterations)))

    @property
    def iterations(self) -> int:
        """Number of steps made."""
        if "iterations" in self._variables:
            return int(self._read("iterations"))
        return int(self._waiting.get("iterations", np.zeros((), np.int64)))

    def state(self) -> dict[str, NDArray[Any]]:
        """Copies of all arrays, by name."""
        return {name: self._read(name) for name in self._variables}

    def set_state(self, values: dict[str, NDArray[Any]]) -> None:
        """Gives arrays their values; before `build` they wait for it."""
        for name, value in values.items():
            if name in self._variables:
                self._write(name, value)
                if name == "learning_rate" and isinstance(self._rate, float):
                    self._rate = float(value)
            else:
                self._waiting[name] = np.asarray(value)

    @property
    def variables(self) -> dict[str, Variable]:
        """The state's variables, by name."""
        return dict(self._variables)

    def _read(self, name: str) -> NDArray[Any]:
        assert self._graph is not None
        return self._graph.get_value(self._variables[name], self._device)

    def _write(self, name: str, value: Any) -> None:
        assert self._graph is not None
        self._graph.set_value(self._variables[name], value, self._device)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as plain values."""
        self_rate = {"learning_rate": plain(self.learning_rate)}
        names = [n for n in self._config_names() if n != "learning_rate"]
        return {**self_rate, **{name: plain(getattr(self, name)) for name in names}}

    def _config_names(self) -> list[str]:
        from stepgraph.configs import constructor_arguments

        return [name for name in constructor_arguments(type(self)) if hasattr(self, name)]


def _square_sum(graph: Graph, x: Tensor) -> Tensor:
    return graph.reduction_sum(graph.square(x), keep_dims=False)


def _scale(graph: Graph, square: Tensor, limit: float) -> Tensor:
    """What a gradient is multiplied with so that its norm is at most `limit`."""
    if not math.isfinite(limit):
        raise ValueError(describe("clipping", f"the limit is {limit}"))
    return float(limit) / graph.maximum(graph.square_root(square), float(limit))


def _number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
