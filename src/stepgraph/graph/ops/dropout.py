"""Dropout (MPSGraphDropoutOps): random elements set to zero, by the numbers of `random`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from stepgraph.errors import DTypeError, GraphError
from stepgraph.graph.definition import (
    Array,
    Gradients,
    Grads,
    Misuse,
    OpDefinition,
    Sample,
    arrived,
    require_float,
)
from stepgraph.graph.operation import Operation
from stepgraph.graph.ops.random import (
    RandomOps,
    bits_reference,
    check_step,
    draw_bits,
    dropout_threshold,
)
from stepgraph.graph.shapes import Misfit, Spec, known_shape
from stepgraph.graph.tensor import Tensor


def _dropout_infer(x: Spec, step: Spec, *, rate: float, seed: int, stream: int) -> Spec:
    require_float(x)
    check_step(step)
    return x


def _dropout_reference(x: Array, step: Array, *, rate: float, seed: int, stream: int) -> Array:
    bits = bits_reference(step, shape=x.shape, seed=seed, stream=stream)
    kept = bits >= np.uint32(dropout_threshold(rate))
    scaled = x * x.dtype.type(1 / (1 - rate))
    return np.asarray(np.where(kept, scaled, x.dtype.type(0)))


def _dropout_gradient(op: Operation, grads: Grads) -> Gradients:
    grad = arrived(grads)
    # The same op on the same step: the same mask.
    return [op.graph._one(DROPOUT, (grad, op.inputs[1]), dict(op.attributes)), None]


def _dropout_decompose(
    graph: Any, x: Tensor, step: Tensor, *, rate: float, seed: int, stream: int
) -> Tensor:
    bits = draw_bits(graph, step, known_shape(x.shape), seed, stream)
    kept = graph.greater_than_or_equal_to(bits, graph.constant(np.uint32(dropout_threshold(rate))))
    result: Tensor = graph.select(kept, x * (1 / (1 - rate)), graph.zeros_like(x))
    return result


def _dropout_samples(rng: np.random.Generator) -> Iterator[Sample]:
    x = rng.standard_normal((5, 7)).astype("float32")
    yield Sample((x, 0.5))
    yield Sample((x, 0.1), {"seed": 9}, label="seed")
    yield Sample((x, 0.0), label="rate 0")
    yield Sample((x[:0], 0.3), label="empty")


def _dropout_misuses() -> Iterator[Misuse]:
    yield Misuse(lambda g: g.dropout(g.placeholder((2,)), 1.0), "rate 1.0 is outside", GraphError)
    yield Misuse(
        lambda g: g.dropout(g.placeholder((2,), "int32"), 0.5), "floating point", DTypeError
    )


DROPOUT = OpDefinition(
    "dropout",
    inputs=("x", "step"),
    infer=_dropout_infer,
    reference=_dropout_reference,
    gradient=_dropout_gradient,
    decompose=_dropout_decompose,
    mpsgraph="dropoutTensor:rate:name:",
    samples=_dropout_samples,
    misuses=_dropout_misuses,
)

DEFINITIONS = (DROPOUT,)


class DropoutOps(RandomOps):
    """Dropout."""

    def dropout(
        self,
        x: Tensor,
        rate: float,
        seed: int = 0,
        step: Tensor | int | None = None,
        name: str | None = None,
    ) -> Tensor:
        """Elements of `x` set to 0 at random, the others scaled so that the mean stays.

        Args:
            x: float tensor of any shape.
            rate: probability of 0, from 0 up to but not 1; the others are multiplied by
                ``1 / (1 - rate)``.
            seed: 0 to 2**64 - 1.
            step: integer scalar; `random_step` without it, so that every run has another mask.
            name: label.

        Returns:
            Tensor of the shape and dtype of `x`.

        Raises:
            GraphError: the rate or the seed is outside its range.
            DTypeError: `x` is not floating point, or the step is no integer scalar.

        Source: MPSGraph ``dropoutTensor:rate:name:``; Srivastava et al., "Dropout", JMLR 2014.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.dropout(graph.constant(1.0, shape=(1000,)), 0.25, seed=1, step=0)
            >>> values = graph.run(targets=[x], device="reference")[0]
            >>> sorted(set(values.round(4).tolist()))
            [0.0, 1.3333]
        """
        if not 0 <= rate < 1:
            raise self._worded(
                Misfit(GraphError, f"rate {rate} is outside", "from 0 up to but not 1", None),
                DROPOUT,
                (x,),
                name,
            )
        return self._random(DROPOUT, (x,), {"rate": float(rate)}, seed, step, name)
