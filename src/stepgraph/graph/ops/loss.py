"""Losses (MPSGraphLossOps): cross entropy from logits as an op, other losses built of ops."""

from __future__ import annotations

import math

from stepgraph.errors import ShapeError, describe
from stepgraph.graph.core import GraphCore
from stepgraph.graph.ops.cross_entropy import (
    SOFTMAX_CROSS_ENTROPY,
    SOFTMAX_CROSS_ENTROPY_GRADIENT,
    checked_reduction,
    log_sum_exp,
    reduced,
)
from stepgraph.graph.ops.gather import wide
from stepgraph.graph.tensor import Tensor, TensorLike

DEFINITIONS = (SOFTMAX_CROSS_ENTROPY, SOFTMAX_CROSS_ENTROPY_GRADIENT)


class LossOps(GraphCore):
    """Losses."""

    def softmax_cross_entropy(
        self,
        source: Tensor,
        labels: TensorLike,
        axis: int = -1,
        reduction: str = "none",
        name: str | None = None,
    ) -> Tensor:
        """``-sum(labels * log(softmax(source)))`` along an axis, safe from overflow.

        Args:
            source: logits, float, of rank 1 or more.
            labels: a probability for each class, of the shape of `source`; they need not sum to 1.
            axis: the axis of the classes; negative counts from the end.
            reduction: ``"none"`` gives a loss for each distribution, without `axis`; ``"sum"`` and
                ``"mean"`` a scalar over them.
            name: label in printed graphs and errors; made unique when taken.

        Returns:
            Tensor of the dtype of `source`. A class of probability 0 adds nothing even where its
            logit is -inf; a NaN among the logits makes the loss NaN.

        Raises:
            ShapeError: the shapes differ, or `axis` is outside the rank.
            DTypeError: `source` or `labels` is not floating point.
            GraphError: `reduction` is unknown.

        Source: MPSGraph
        ``softMaxCrossEntropyWithSourceTensor:labelsTensor:axis:reductionType:name:``;
        Keras ``CategoricalCrossentropy(from_logits=True)``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> logits = graph.constant([[2.0, 0.0], [0.0, 2.0]])
            >>> loss = graph.softmax_cross_entropy(logits, [[1.0, 0.0], [1.0, 0.0]])
            >>> graph.run(targets=[loss], device="reference")[0].round(3)
            array([0.127, 2.127], dtype=float32)
        """
        definition = SOFTMAX_CROSS_ENTROPY
        source, labels = self._pair(source, labels)
        attributes = {
            "axis": self._axis(definition, source, axis),
            "reduction": checked_reduction(definition.name, reduction),
        }
        return self._one(definition, (source, labels), attributes, name=name)

    def softmax_cross_entropy_gradient(
        self,
        incoming: Tensor,
        source: Tensor,
        labels: Tensor,
        axis: int = -1,
        reduction: str = "none",
        name: str | None = None,
    ) -> Tensor:
        """The gradient of `softmax_cross_entropy` for its logits; can be differentiated again.

        Args:
            incoming: gradient of the loss, of its shape.
            source: the logits.
            labels: the labels.
            axis: as for the loss.
            reduction: as for the loss.
            name: label.

        Source: MPSGraph ``softMaxCrossEntropyGradientWithIncomingGradientTensor:...:name:``.
        """
        definition = SOFTMAX_CROSS_ENTROPY_GRADIENT
        attributes = {
            "axis": self._axis(definition, source, axis),
            "reduction": checked_reduction(definition.name, reduction),
        }
        return self._one(definition, (incoming, source, labels), attributes, name=name)

    def sparse_softmax_cross_entropy(
        self,
        source: Tensor,
        labels: TensorLike,
        axis: int = -1,
        reduction: str = "none",
        name: str | None = None,
    ) -> Tensor:
        """`softmax_cross_entropy` for labels that are class numbers.

        Args:
            source: logits, float; the size of `axis` must be known.
            labels: integers of the shape of `source` without `axis`.
            axis: the axis of the classes; negative counts from the end.
            reduction: ``"none"``, ``"sum"`` or ``"mean"``.
            name: label.

        Returns:
            Tensor of the dtype of `source`. A label below 0, or of a class that `source` does not
            have, makes its loss NaN (and with it the sum and the mean), on every device: no
            number would be right. It adds nothing to the gradient.

        Raises:
            ShapeError: the number of classes is not known, or the shapes do not fit.
            DTypeError: `labels` are no integers.
            GraphError: `reduction` is unknown.

        Source: Keras ``SparseCategoricalCrossentropy(from_logits=True)``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> logits = graph.constant([[2.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
            >>> loss = graph.sparse_softmax_cross_entropy(logits, [0, 0, 2])
            >>> graph.run(targets=[loss], device="reference")[0].round(3)
            array([0.127, 2.127,   nan], dtype=float32)
        """
        graph = self._graph
        axis = self._axis(SOFTMAX_CROSS_ENTROPY, source, axis)
        with graph.name_scope(name or "sparse_softmax_cross_entropy"):
            spread, fault = self._spread(
                "sparse_softmax_cross_entropy", source, labels, axis, reduction
            )
            return graph.softmax_cross_entropy(source, spread, axis, reduction) + fault

    def sparse_cross_entropy(
        self,
        probabilities: Tensor,
        labels: TensorLike,
        axis: int = -1,
        reduction: str = "none",
        epsilon: float = 1e-7,
        name: str | None = None,
    ) -> Tensor:
        """`cross_entropy` for labels that are class numbers.

        Args:
            probabilities: float; the size of `axis` must be known.
            labels: integers of the shape of `probabilities` without `axis`; one that is no class
                makes its loss NaN, as in `sparse_softmax_cross_entropy`.
            axis: the axis of the classes; negative counts from the end.
            reduction: ``"none"``, ``"sum"`` or ``"mean"``.
            epsilon: how near to 0 and 1 a probability may be.
            name: label.

        Returns:
            Tensor of the dtype of `probabilities`.

        Raises:
            ShapeError: the number of classes is not known, or the shapes do not fit.
            DTypeError: `labels` are no integers.
            GraphError: `reduction` is unknown.

        Source: Keras ``SparseCategoricalCrossentropy(from_logits=False)``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> loss = graph.sparse_cross_entropy(graph.constant([[0.5, 0.5]] * 2), [1, 2])
            >>> graph.run(targets=[loss], device="reference")[0].round(4)
            array([0.6931,    nan], dtype=float32)
        """
        graph = self._graph
        axis = self._axis(SOFTMAX_CROSS_ENTROPY, probabilities, axis)
        with graph.name_scope(name or "sparse_cross_entropy"):
            spread, fault = self._spread(
                "sparse_cross_entropy", probabilities, labels, axis, reduction
            )
            return graph.cross_entropy(probabilities, spread, axis, reduction, epsilon) + fault

    def _spread(
        self, what: str, source: Tensor, labels: TensorLike, axis: int, reduction: str
    ) -> tuple[Tensor, Tensor]:
        """Class numbers as distributions, and what to add to the loss: 0, or NaN for no class."""
        graph = self._graph
        checked_reduction(what, reduction)
        labels = self.as_tensor(labels)
        depth = source.shape[axis]
        if depth is None:
            raise ShapeError(
                describe(
                    what,
                    "the number of classes is not known",
                    got={"source": f"'{source.name}' {source.spec}"},
                    expected="a tensor whose axis of classes has a size",
                    fix=f"give the placeholder behind it its size along axis {axis}",
                    created_at=self._here(),
                )
            )
        spread = graph.one_hot(labels, depth, axis=axis, dtype=source.dtype)
        numbers = wide(graph, labels)
        known = graph.logical_and(numbers >= 0, numbers < depth)
        zero, nan = (self.as_tensor(value, source.dtype) for value in (0.0, math.nan))
        fault = graph.select(known, zero, nan)
        if reduction != "none":
            fault = graph.reduction_sum(fault, keep_dims=False)
        return spread, fault

    def log_softmax(self, x: Tensor, axis: int = -1, name: str | None = None) -> Tensor:
        """The logarithm of `softmax`, computed so that nothing overflows or rounds to log(0).

        Args:
            x: float tensor of rank 1 or more.
            axis: the axis to normalise over.
            name: label.

        Source: Keras ``log_softmax``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.log_softmax(graph.constant([0.0, 500.0]))
            >>> graph.run(targets=[y], device="reference")[0]
            array([-500.,    0.], dtype=float32)
        """
        graph = self._graph
        with graph.name_scope(name or "log_softmax"):
            shifted, log_sum = log_sum_exp(graph, x, self._axis(SOFTMAX_CROSS_ENTROPY, x, axis))
            return shifted - log_sum

    def binary_cross_entropy_from_logits(
        self,
        source: Tensor,
        labels: TensorLike,
        reduction: str = "none",
        name: str | None = None,
    ) -> Tensor:
        """``-(y * log(p) + (1 - y) * log(1 - p))`` for ``p = sigmoid(source)``, element by element.

        Computed as ``softplus(source) - source * y``, so that nothing overflows.

        Args:
            source: logits, float tensor of any shape.
            labels: the probability of "yes" for each, of a shape that broadcasts.
            reduction: ``"none"``, or ``"sum"`` or ``"mean"`` over all elements.
            name: label.

        Source: Keras ``BinaryCrossentropy(from_logits=True)``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> logits = graph.constant([0.0, 100.0])
            >>> loss = graph.binary_cross_entropy_from_logits(logits, [1.0, 0.0])
            >>> graph.run(targets=[loss], device="reference")[0].round(4)
            array([  0.6931, 100.    ], dtype=float32)
        """
        graph = self._graph
        checked_reduction("binary_cross_entropy_from_logits", reduction)
        with graph.name_scope(name or "binary_cross_entropy_from_logits"):
            return reduced(graph, graph.softplus(source) - source * labels, reduction)

    def cross_entropy(
        self,
        probabilities: Tensor,
        labels: TensorLike,
        axis: int = -1,
        reduction: str = "none",
        epsilon: float = 1e-7,
        name: str | None = None,
    ) -> Tensor:
        """``-sum(labels * log(probabilities))`` along an axis.

        The probabilities are scaled to sum to 1 and held between `epsilon` and ``1 - epsilon``.
        From logits, `softmax_cross_entropy` is faster and exact.

        Args:
            probabilities: float, of rank 1 or more.
            labels: a probability for each class, of the same shape.
            axis: the axis of the classes.
            reduction: ``"none"``, ``"sum"`` or ``"mean"``.
            epsilon: how near to 0 and 1 a probability may be.
            name: label.

        Source: Keras ``CategoricalCrossentropy(from_logits=False)``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> loss = graph.cross_entropy(graph.constant([[0.5, 0.5]]), [[1.0, 0.0]])
            >>> graph.run(targets=[loss], device="reference")[0].round(4)
            array([0.6931], dtype=float32)
        """
        graph = self._graph
        checked_reduction("cross_entropy", reduction)
        axis = self._axis(SOFTMAX_CROSS_ENTROPY, probabilities, axis)
        with graph.name_scope(name or "cross_entropy"):
            scaled = probabilities / graph.reduction_sum(probabilities, axes=(axis,))
            held = graph.clamp(scaled, epsilon, 1.0 - epsilon)
            terms = graph.logarithm(held) * labels
            losses = -graph.reduction_sum(terms, axes=(axis,), keep_dims=False)
            return reduced(graph, losses, reduction)

    def binary_cross_entropy(
        self,
        probabilities: Tensor,
        labels: TensorLike,
        reduction: str = "none",
        epsilon: float = 1e-7,
        name: str | None = None,
    ) -> Tensor:
        """``-(y * log(p) + (1 - y) * log(1 - p))``, element by element.

        Args:
            probabilities: float tensor of any shape, held between `epsilon` and ``1 - epsilon``.
            labels: the probability of "yes" for each, of a shape that broadcasts.
            reduction: ``"none"``, or ``"sum"`` or ``"mean"`` over all elements.
            epsilon: how near to 0 and 1 a probability may be.
            name: label.

        Source: Keras ``BinaryCrossentropy(from_logits=False)``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> y = graph.binary_cross_entropy(graph.constant([0.5, 1.0]), [1.0, 1.0])
            >>> graph.run(targets=[y], device="reference")[0].round(4)
            array([0.6931, 0.    ], dtype=float32)
        """
        graph = self._graph
        checked_reduction("binary_cross_entropy", reduction)
        with graph.name_scope(name or "binary_cross_entropy"):
            p, y = self._pair(probabilities, labels)
            p = graph.clamp(p, epsilon, 1.0 - epsilon)
            losses = -(y * graph.logarithm(p) + (1.0 - y) * graph.logarithm(1.0 - p))
            return reduced(graph, losses, reduction)
