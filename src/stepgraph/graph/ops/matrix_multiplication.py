"""Products of matrices (MPSGraphMatrixMultiplicationOps)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stepgraph.errors import DTypeError
from stepgraph.graph.core import GraphCore
from stepgraph.graph.definition import (
    Array,
    Gradients,
    Grads,
    Misuse,
    OpDefinition,
    Sample,
    arrived,
    require_float,
    require_same_dtype,
)
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import Spec, bad_shape, broadcast_shapes
from stepgraph.graph.tensor import Tensor, TensorLike


def _infer(
    primary: Spec, secondary: Spec, *, transpose_primary: bool, transpose_secondary: bool
) -> Spec:
    require_float(primary, secondary)
    require_same_dtype(primary, secondary)
    for what, spec in (("primary", primary), ("secondary", secondary)):
        if spec.rank < 2:
            raise bad_shape(
                f"{what} has rank {spec.rank}",
                expected="rank 2 or more: (..., rows, columns)",
                fix="graph.expand_dims a vector to a row or a column",
            )
    *lead_a, rows, inner = primary.shape
    *lead_b, inner_b, columns = secondary.shape
    if transpose_primary:
        rows, inner = inner, rows
    if transpose_secondary:
        inner_b, columns = columns, inner_b
    if inner != inner_b and inner is not None and inner_b is not None:
        raise bad_shape(
            f"the inner sizes {inner} and {inner_b} differ",
            expected="(..., rows, inner) times (..., inner, columns), after the transpositions",
            fix="transpose one with transpose_primary=True or transpose_secondary=True",
        )
    lead = broadcast_shapes(tuple(lead_a), tuple(lead_b))
    return Spec((*lead, rows, columns), primary.dtype)


def _reference(
    primary: Array, secondary: Array, *, transpose_primary: bool, transpose_secondary: bool
) -> Array:
    a = primary.swapaxes(-1, -2) if transpose_primary else primary
    b = secondary.swapaxes(-1, -2) if transpose_secondary else secondary
    return np.asarray(np.matmul(a, b))


def _gradient(op: Operation, grads: Grads) -> Gradients:
    g, (a, b), grad = op.graph, op.inputs, arrived(grads)
    ta, tb = op.attributes["transpose_primary"], op.attributes["transpose_secondary"]
    if ta:
        to_a = g.matrix_multiplication(b, grad, tb, True)
    else:
        to_a = g.matrix_multiplication(grad, b, False, not tb)
    if b.rank == 2 and a.rank > 2 and not ta:
        # Rows of all the matrices share b: one long product instead of many that are then summed.
        inner, columns = a.shape[-1], grad.shape[-1]
        if inner and columns:
            a, grad = g.reshape(a, (-1, inner)), g.reshape(grad, (-1, columns))
    if tb:
        to_b = g.matrix_multiplication(grad, a, True, ta)
    else:
        to_b = g.matrix_multiplication(a, grad, not ta, False)
    return [to_a, to_b]


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    def draw(*shape: int) -> Array:
        return rng.standard_normal(shape).astype("float32")

    yield Sample((draw(3, 4), draw(4, 5)))
    yield Sample((draw(4, 3), draw(4, 5)), {"transpose_primary": True}, label="transposed primary")
    yield Sample(
        (draw(3, 4), draw(5, 4)), {"transpose_secondary": True}, label="transposed secondary"
    )
    yield Sample(
        (draw(4, 3), draw(5, 4)),
        {"transpose_primary": True, "transpose_secondary": True},
        label="both transposed",
    )
    yield Sample((draw(2, 3, 4), draw(4, 5)), label="one matrix for all")
    yield Sample(
        (draw(2, 3, 4), draw(5, 4)), {"transpose_secondary": True}, label="one transposed for all"
    )
    yield Sample((draw(2, 1, 3, 4), draw(5, 4, 2)), label="broadcast batches")
    yield Sample(
        (draw(2, 4, 3), draw(1, 4, 2)), {"transpose_primary": True}, label="broadcast transposed"
    )
    yield Sample((draw(17, 33), draw(33, 19)), label="odd sizes")
    yield Sample((draw(1, 1), draw(1, 1)), label="single")
    yield Sample((draw(0, 4), draw(4, 5)), label="no rows")
    yield Sample((draw(3, 0), draw(0, 5)), label="empty sum")


def _misuses() -> Iterator[Misuse]:
    yield Misuse(
        lambda g: g.matrix_multiplication(g.placeholder((2, 3)), g.placeholder((2, 3))),
        "inner sizes 3 and 2 differ",
    )
    yield Misuse(
        lambda g: g.matrix_multiplication(g.placeholder((3,)), g.placeholder((3, 2))),
        "primary has rank 1",
    )
    yield Misuse(
        lambda g: g.matrix_multiplication(g.placeholder((2, 3, 4)), g.placeholder((3, 4, 5))),
        "do not broadcast",
    )
    yield Misuse(
        lambda g: g.matrix_multiplication(
            g.placeholder((2, 2), "int32"), g.placeholder((2, 2), "int32")
        ),
        "needs floating point",
        DTypeError,
    )


MATRIX_MULTIPLICATION = OpDefinition(
    "matrix_multiplication",
    inputs=("primary", "secondary"),
    infer=_infer,
    reference=_reference,
    gradient=_gradient,
    mpsgraph="matrixMultiplicationWithPrimaryTensor:secondaryTensor:name:",
    samples=_samples,
    misuses=_misuses,
)

DEFINITIONS = (MATRIX_MULTIPLICATION,)


class MatrixMultiplicationOps(GraphCore):
    """Products of matrices."""

    def matrix_multiplication(
        self,
        primary: TensorLike,
        secondary: TensorLike,
        transpose_primary: bool = False,
        transpose_secondary: bool = False,
        name: str | None = None,
    ) -> Tensor:
        """Products of the matrices in the last two axes; also written ``primary @ secondary``.

        The axes before the last two are broadcast by NumPy's rules.

        Args:
            primary: float tensor (..., rows, inner), or (..., inner, rows) if transposed.
            secondary: float tensor (..., inner, columns), or (..., columns, inner) if transposed.
            transpose_primary: swap the last two axes of `primary` first; costs nothing.
            transpose_secondary: the same for `secondary`.
            name: label in printed graphs and errors.

        Returns:
            Tensor (..., rows, columns).

        Raises:
            ShapeError: a rank is below 2, the inner sizes differ, or the batches do not broadcast.
            DTypeError: an operand is not floating point, or they differ in dtype.

        Source: MPSGraph ``matrixMultiplicationWithPrimaryTensor:secondaryTensor:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.constant([[1.0, 2.0]])
            >>> graph.run(targets=[graph.matrix_multiplication(x, [[3.0], [4.0]])])[0]
            array([[11.]], dtype=float32)
        """
        a, b = self._pair(primary, secondary)
        attributes = {
            "transpose_primary": bool(transpose_primary),
            "transpose_secondary": bool(transpose_secondary),
        }
        return self._one(MATRIX_MULTIPLICATION, (a, b), attributes, name=name)
