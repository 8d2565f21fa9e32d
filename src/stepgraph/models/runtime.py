"""A model in one graph on one device: training, evaluation and prediction share variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stepgraph.backends.base import get_device
from stepgraph.graph.operation import Operation
from stepgraph.graph.tensor import Tensor, Variable
from stepgraph.layers import LayerGraph, Weight
from stepgraph.models.objective import Objective
from stepgraph.optimizers import Optimizer

if TYPE_CHECKING:
    from stepgraph.backends.executable import Executable
    from stepgraph.models.model import Model

# The graph's own variable that random operations count steps with.
RANDOM_STEP = "random_step"


@dataclass
class Step:
    """An executable with the placeholders it is fed, in order."""

    executable: Executable
    feeds: list[Tensor]

    def run(self, values: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Runs once on arrays that fit the placeholders."""
        return self.executable.run(dict(zip(self.feeds, values, strict=True)))


class Runtime:
    """The home of a model's weights while a device works on them.

    Args:
        model: built.
        device: name of the device.
        options: for compiling.
        objective: what to train for; None for prediction alone.
        optimizer: how; None likewise.
    """

    def __init__(
        self,
        model: Model,
        device: str,
        options: Mapping[str, Any],
        objective: Objective | None = None,
        optimizer: Optimizer | None = None,
    ) -> None:
        self.device = device
        self.options = dict(options)
        self.objective = objective
        self.optimizer = optimizer
        self.network = model.network
        self.graph = graph = LayerGraph(model.name)
        self.variables: dict[Weight, Variable] = {}
        self.paths: dict[Weight, str] = {}
        self._trained = list(model.trainable_weights)
        self._moves = -1
        self._outputs: dict[bool, list[Tensor]] = {}
        self._steps: dict[Any, Step] = {}
        self._weights: dict[int, Tensor] = {}
        # Path of a trained weight to its gradient in the newest training step.
        self.gradients: dict[str, Tensor] = {}
        for path, weight in model.named_weights():
            if weight not in self.variables:
                # Values are written by `acquire`, so that the graph keeps no second copy of them.
                variable = graph.variable(0, weight.shape, weight.dtype, path)
                self.variables[weight] = graph.bound[weight] = variable
                self.paths[weight] = path
        self.inputs = [
            graph.placeholder((None, *t.shape[1:]), t.dtype, name=t.name)
            for t in self.network.inputs
        ]
        self.labels: list[Tensor | None] = []
        self.acquire()
        if objective is not None:
            self._build_training(objective)

    @property
    def defers(self) -> bool:
        """Whether the device takes batches that are not written yet."""
        return get_device(self.device)[0].defers

    # -- weights -------------------------------------------------------------------------------

    def acquire(self) -> None:
        """Fetches weights that other models have worked on since."""
        if self._moves == Weight.moves:
            return
        for weight in self.variables:
            if weight.home is not self:
                value = weight.numpy()
                weight.move(self)
                self.write_weight(weight, value)
        self._moves = Weight.moves

    def read_weight(self, weight: Weight) -> NDArray[Any]:
        """A copy of a weight's value."""
        return self.graph.get_value(self.variables[weight], self.device)

    def write_weight(self, weight: Weight, value: NDArray[Any]) -> None:
        """Gives a weight a value."""
        self.graph.set_value(self.variables[weight], value, self.device)

    def random_step(self) -> Variable | None:
        """The counter of random operations, if there are any."""
        return self.graph.variables.get(RANDOM_STEP)

    # -- building ------------------------------------------------------------------------------

    def outputs(self, training: bool) -> list[Tensor]:
        """The network's outputs, built at the first call for either mode."""
        if training not in self._outputs:
            graph = self.graph
            # The moving statistics of one mode are not ordered after those of the other.
            graph.updated.clear()
            if training:
                made = self.network.build(graph, self.inputs, training=True)
            else:
                with graph.name_scope("inference"):
                    made = self.network.build(graph, self.inputs, training=False)
            self._outputs[training] = made
        return self._outputs[training]

    def _build_training(self, objective: Objective) -> None:
        """Everything that can go wrong goes wrong here, at compile, not in the first step."""
        graph = self.graph
        for output in objective.outputs:
            if output.loss is None:
                self.labels.append(None)
                continue
            label = graph.placeholder(
                output.label_shape, output.label_dtype, name=f"{output.name}_labels"
            )
            self.labels.append(label)
        if self.optimizer is not None:
            named = [(self.paths[w], self.variables[w]) for w in self._trained]
            owners = {self.paths[weight]: weight for weight in self._trained}
            self.optimizer.build(graph, named, self.device, owners)
        self.step("train", (False,) * len(objective.outputs))

    def step(self, kind: str, weighted: tuple[bool, ...] = ()) -> Step:
        """The executable for ``"train"``, ``"test"`` or ``"predict"``.

        Args:
            kind: which.
            weighted: for each output whether samples have weights.
        """
        found = self._steps.get((kind, weighted))
        if found is None:
            found = self._steps[kind, weighted] = self._make(kind, weighted)
        return found

    def _make(self, kind: str, weighted: tuple[bool, ...]) -> Step:
        predictions = self.outputs(training=kind == "train")
        if kind == "predict":
            return self._compile(self.inputs, predictions)
        assert self.objective is not None
        graph, objective = self.graph, self.objective
        weights = [self._sample_weight(i) if on else None for i, on in enumerate(weighted)]
        regularized = [weight for weight in self.variables if weight in self._trained]
        with graph.name_scope("objective"):
            results = objective.build(graph, self.labels, predictions, weights, regularized)
        operations = self._updates(results[0]) if kind == "train" else []
        labels = [label for label in self.labels if label is not None]
        used = [weight for weight in weights if weight is not None]
        return self._compile([*self.inputs, *labels, *used], results, operations)

    def _updates(self, loss: Tensor) -> list[Operation]:
        """Gradients and the optimizer's step."""
        graph, optimizer = self.graph, self.optimizer
        assert optimizer is not None
        weights = [self.variables[weight] for weight in self._trained]
        # A weight that the loss does not depend on keeps its value, as if its gradient were zero.
        grads = graph.gradients(of=loss, with_=weights, unconnected="zero") if weights else {}
        triples = [
            (self.paths[w], self.variables[w], grads[self.variables[w]]) for w in self._trained
        ]
        self.gradients = {path: gradient for path, _, gradient in triples}
        with graph.name_scope("update"):
            return optimizer.apply(graph, triples)

    def _sample_weight(self, index: int) -> Tensor:
        """The placeholder of samples' weights of an output."""
        if index not in self._weights:
            assert self.objective is not None
            name = f"{self.objective.outputs[index].name}_sample_weight"
            self._weights[index] = self.graph.placeholder((None,), name=name)
        return self._weights[index]

    def _compile(
        self,
        feeds: list[Tensor],
        targets: list[Tensor],
        operations: Sequence[Operation] = (),
    ) -> Step:
        executable = self.graph.compile(
            feeds, targets, operations, device=self.device, **self.options
        )
        return Step(executable, feeds)


def as_weight(values: Any) -> NDArray[np.float32]:
    """Weights of samples as a run takes them."""
    return np.ascontiguousarray(values, np.float32).reshape(-1)
