"""What a model is trained for: losses and metrics of its outputs, and how batches add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepgraph import losses, metrics
from stepgraph.errors import GraphError, describe
from stepgraph.graph.shapes import Shape
from stepgraph.graph.tensor import Tensor
from stepgraph.layers import KerasTensor, LayerGraph, Weight
from stepgraph.losses import Loss
from stepgraph.metrics import Metric


class Output:
    """One output of a model with its loss and metrics.

    Attributes:
        name: of its layer.
        shape: with the batch.
        loss: None for an output that is not trained.
        weight: of its loss in the sum.
        metrics: without sample weights.
        weighted_metrics: with them.
    """

    def __init__(self, tensor: KerasTensor, name: str, loss: Loss | None, weight: float) -> None:
        self.name = name
        self.shape: Shape = (None, *tensor.shape[1:])
        self.dtype = tensor.dtype
        self.loss = loss
        self.weight = weight
        self.metrics: list[Metric] = []
        self.weighted_metrics: list[Metric] = []

    @property
    def sparse(self) -> bool:
        """Whether labels are class numbers."""
        return self.loss is not None and self.loss.sparse

    @property
    def label_shape(self) -> Shape:
        """Shape of its labels, with the batch."""
        return self.shape[:-1] if self.sparse else self.shape

    @property
    def label_dtype(self) -> str:
        """Element type of its labels."""
        return "int32" if self.sparse else self.dtype


class Objective:
    """Losses and metrics of all outputs.

    Args:
        outputs: of the model.
        names: of the outputs.
        loss: one for all outputs, or a list or dictionary of them.
        loss_weights: likewise.
        metrics: a list for all outputs, or a list or dictionary of lists.
        weighted_metrics: likewise, with sample weights.
    """

    def __init__(
        self,
        outputs: Sequence[KerasTensor],
        names: Sequence[str],
        loss: Any,
        loss_weights: Any,
        metrics: Any,
        weighted_metrics: Any,
    ) -> None:
        found = [losses.get(item) for item in _per_output("loss", loss, names)]
        weights = _per_output("loss_weights", loss_weights, names)
        self.outputs = [
            Output(tensor, name, one, 1.0 if weight is None else float(weight))
            for tensor, name, one, weight in zip(outputs, names, found, weights, strict=True)
        ]
        for output in self.outputs:
            if output.loss is not None and output.loss.reduction == "none":
                raise GraphError(
                    describe(
                        "compile",
                        f"the loss of output '{output.name}' has reduction 'none'",
                        expected="one number to make small",
                        fix="reduction='sum_over_batch_size' or 'sum'",
                    )
                )
        self._add_metrics("metrics", metrics, weighted=False)
        self._add_metrics("weighted_metrics", weighted_metrics, weighted=True)
        self.trained = [output for output in self.outputs if output.loss is not None]
        self._several = len(self.outputs) > 1
        self._name_metrics()
        self.reset()

    def _add_metrics(self, what: str, given: Any, weighted: bool) -> None:
        names = [output.name for output in self.outputs]
        for output, group in zip(self.outputs, _groups(what, given, names), strict=True):
            size = output.shape[-1] if output.shape else None
            made = [_metrics().for_output(item, size, output.sparse) for item in group]
            (output.weighted_metrics if weighted else output.metrics).extend(made)

    def _name_metrics(self) -> None:
        self.named: list[tuple[str, Metric]] = []
        taken: set[str] = set()
        for output in self.outputs:
            for metric in (*output.metrics, *output.weighted_metrics):
                stem = f"{output.name}_{metric.name}" if self._several else metric.name
                name, count = stem, 0
                while name in taken:
                    count += 1
                    name = f"{stem}_{count}"
                taken.add(name)
                self.named.append((name, metric))

    @property
    def metrics_names(self) -> list[str]:
        """Keys of a batch's log, in the order of `logs`."""
        own = [f"{output.name}_loss" for output in self.trained] if self._several else []
        return ["loss", *own, *[name for name, _ in self.named]]

    def build(
        self,
        graph: LayerGraph,
        labels: Sequence[Tensor | None],
        predictions: Sequence[Tensor],
        weights: Sequence[Tensor | None],
        regularized: Sequence[Weight],
    ) -> list[Tensor]:
        """Adds loss and metrics to a graph.

        Args:
            graph: where to.
            labels: one per output; None where there is no loss.
            predictions: one per output.
            weights: of samples, one per output; None for none.
            regularized: weights that may have a penalty.

        Returns:
            The total loss; with several outputs the loss of each; then each metric's numbers.
        """
        parts: list[Tensor] = []
        numbers: list[Tensor] = []
        total: Tensor | None = None
        rows = zip(self.outputs, labels, predictions, weights, strict=True)
        for output, label, prediction, weight in rows:
            if output.loss is None or label is None:
                continue
            value = output.loss(label, prediction, weight)
            parts.append(value)
            value = value if output.weight == 1.0 else value * output.weight
            total = value if total is None else total + value
            for metric in output.metrics:
                numbers += metric.compute(label, prediction, None)
            for metric in output.weighted_metrics:
                numbers += metric.compute(label, prediction, weight)
        for regularized_weight in regularized:
            if regularized_weight.regularizer is not None:
                penalty = regularized_weight.regularizer(graph.weight(regularized_weight))
                total = penalty if total is None else total + penalty
        if total is None:
            raise GraphError(describe("compile", "there is no loss", fix="give compile(loss=...)"))
        if total.shape:
            raise GraphError(
                describe("compile", f"the loss has shape {total.shape}", expected="one number")
            )
        return [total, *(parts if self._several else []), *numbers]

    # -- adding up ------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forgets the batches."""
        self._sums = [0.0] * (1 + (len(self.trained) if self._several else 0))
        self.samples = 0
        for _, metric in self.named:
            metric.reset_state()

    def add(self, results: Sequence[NDArray[Any]], samples: int) -> None:
        """Adds a batch: what a run of `build`'s tensors returned, and how many samples it had."""
        sums = self._sums
        for i in range(len(sums)):
            sums[i] += float(results[i]) * samples
        self.samples += samples
        position = len(sums)
        for _, metric in self.named:
            metric.add(results[position : position + metric.parts])
            position += metric.parts

    def logs(self) -> dict[str, float]:
        """Loss and metrics of the batches so far."""
        count = self.samples or 1
        values = [total / count for total in self._sums]
        values += [metric.result() for _, metric in self.named]
        return dict(zip(self.metrics_names, values, strict=True))


def class_weights(
    labels: NDArray[Any], sparse: bool, table: Mapping[int, float]
) -> NDArray[np.float32]:
    """The weight of each sample by its class; classes that are not listed weigh 1.

    Example:
        >>> class_weights(np.array([0, 2]), True, {2: 5.0})
        array([1., 5.], dtype=float32)
    """
    if sparse or labels.ndim == 1:
        numbers = labels
    else:
        numbers = labels[..., 0] if labels.shape[-1] == 1 else labels.argmax(-1)
    found = np.ones(numbers.shape, np.float32)
    for number, weight in table.items():
        found[numbers == int(number)] = weight
    return found


def _metrics() -> Any:
    # `metrics` is an argument's name above.
    return metrics


def _per_output(what: str, given: Any, names: Sequence[str]) -> list[Any]:
    """One entry per output, from one for all, a list, or a dictionary by name."""
    if isinstance(given, Mapping) and "class_name" not in given:
        unknown = set(given) - set(names)
        if unknown:
            raise GraphError(
                describe(
                    "compile",
                    f"{what} names outputs that there are not: {sorted(unknown)}",
                    got={"outputs": ", ".join(names)},
                )
            )
        return [given.get(name) for name in names]
    if isinstance(given, list | tuple):
        if len(given) != len(names):
            raise GraphError(
                describe(
                    "compile",
                    f"{what} has {len(given)} entries for {len(names)} outputs",
                    got={"outputs": ", ".join(names)},
                )
            )
        return list(given)
    return [given] * len(names)


def _groups(what: str, given: Any, names: Sequence[str]) -> list[list[Any]]:
    """A list of metrics per output."""
    if given is None:
        return [[] for _ in names]
    if isinstance(given, Mapping):
        return [_listed(item) for item in _per_output(what, given, names)]
    items = _listed(given)
    if len(names) > 1 and len(items) == len(names) and any(isinstance(i, list) for i in items):
        return [_listed(item) for item in items]
    # An object holds one output's totals; only names can be used for several.
    if len(names) > 1 and any(isinstance(item, Metric) for item in items):
        raise GraphError(
            describe(
                "compile",
                f"{what}: one metric object cannot serve {len(names)} outputs",
                fix="give a dictionary from output name to metrics",
            )
        )
    return [items for _ in names]


def _listed(item: Any) -> list[Any]:
    if item is None:
        return []
    return list(item) if isinstance(item, list | tuple) else [item]
