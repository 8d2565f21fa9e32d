"""What element-by-element ops share: inference by kind of dtype, gradients, samples, misuses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from stepgraph.errors import DTypeError
from stepgraph.graph.definition import (
    Array,
    Gradients,
    Grads,
    Misuse,
    OpDefinition,
    Sample,
    arrived,
    bad_dtype,
    require_same_dtype,
)
from stepgraph.graph.dtypes import DType, bool_
from stepgraph.graph.operation import Operation
from stepgraph.graph.shapes import Spec, broadcast_shapes
from stepgraph.graph.tensor import Tensor

if TYPE_CHECKING:
    from stepgraph.graph.graph import Graph

Samples: TypeAlias = Callable[[np.random.Generator], Iterator[Sample]]
# (graph, x, output, incoming gradient) to the gradient of x.
UnaryRule: TypeAlias = "Callable[[Graph, Tensor, Tensor, Tensor], Tensor]"
# (graph, primary, secondary, output, incoming gradient) to both gradients.
BinaryRule: TypeAlias = "Callable[[Graph, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]"

# Kind of operand an op takes: (test, what to say otherwise, a dtype that fails it).
KINDS: dict[str, tuple[Callable[[DType], bool], str, str]] = {
    "any": (lambda d: True, "", ""),
    "float": (lambda d: d.is_float, "needs floating point", "int32"),
    "number": (lambda d: not d.is_bool, "needs numbers", "bool"),
    "signed": (lambda d: d.kind in ("float", "int"), "needs signed numbers", "uint8"),
    "integer": (lambda d: d.is_integer, "needs integers", "float32"),
    "bool": (lambda d: d.is_bool, "needs bool", "float32"),
}


def require_kind(kind: str, *specs: Spec) -> None:
    """Refuses operands of another kind of dtype."""
    accepts, words, _ = KINDS[kind]
    for spec in specs:
        if not accepts(spec.dtype):
            raise bad_dtype(f"{words}, got {spec.dtype}", fix="cast it with graph.cast(x, dtype)")


def erf(x: Array) -> Array:
    """The error function, which NumPy lacks, in float64."""
    return np.array([math.erf(v) for v in x.reshape(-1).tolist()], "float64").reshape(x.shape)


def unary(
    name: str,
    mpsgraph: str,
    reference: Callable[[Array], Any],
    rule: UnaryRule | None,
    samples: Samples,
    *,
    kind: str = "float",
    to_bool: bool = False,
    decompose: Callable[..., Tensor] | None = None,
) -> OpDefinition:
    """An op of one tensor, element by element. Without a rule its gradient is zero everywhere.

    `mpsgraph` is how its selector begins.
    """

    def infer(x: Spec) -> Spec:
        require_kind(kind, x)
        return Spec(x.shape, bool_) if to_bool else x

    def compute(x: Array) -> Array:
        return np.asarray(reference(x), bool if to_bool else x.dtype)

    def gradient(op: Operation, grads: Grads) -> Gradients:
        assert rule is not None
        return [rule(op.graph, op.inputs[0], op.output, arrived(grads))]

    def misuses() -> Iterator[Misuse]:
        _, words, wrong = KINDS[kind]
        if words:
            yield Misuse(lambda g: getattr(g, name)(g.placeholder((3,), wrong)), words, DTypeError)
        else:
            yield Misuse(lambda g: getattr(g, name)(0.5), "where a tensor is due", DTypeError)

    return OpDefinition(
        name,
        inputs=("x",),
        infer=infer,
        reference=compute,
        gradient=gradient if rule else None,
        not_differentiable="" if rule else "discrete",
        decompose=decompose,
        elementwise=True,
        mpsgraph=mpsgraph and f"{mpsgraph}WithTensor:name:",
        samples=samples,
        misuses=misuses,
    )


def binary(
    name: str,
    mpsgraph: str,
    reference: Callable[[Array, Array], Any],
    rule: BinaryRule | None,
    samples: Samples,
    *,
    kind: str = "number",
    to_bool: bool = False,
    decompose: Callable[..., Tensor] | None = None,
) -> OpDefinition:
    """As `unary`, of two tensors with NumPy's broadcasting."""

    def infer(primary: Spec, secondary: Spec) -> Spec:
        require_kind(kind, primary, secondary)
        require_same_dtype(primary, secondary)
        shape = broadcast_shapes(primary.shape, secondary.shape)
        return Spec(shape, bool_ if to_bool else primary.dtype)

    def compute(primary: Array, secondary: Array) -> Array:
        return np.asarray(reference(primary, secondary), bool if to_bool else primary.dtype)

    def gradient(op: Operation, grads: Grads) -> Gradients:
        assert rule is not None
        return rule(op.graph, op.inputs[0], op.inputs[1], op.output, arrived(grads))

    def misuses() -> Iterator[Misuse]:
        _, words, wrong = KINDS[kind]
        right = {"bool": "bool", "integer": "int32"}.get(kind, "float32")
        other = "uint8" if kind == "integer" else "float64"

        def build(a: str, b: str, size: int = 3) -> Callable[[Graph], object]:
            return lambda g: getattr(g, name)(g.placeholder((3,), a), g.placeholder((size,), b))

        yield Misuse(build(right, right, 2), r"shapes \(3,\) and \(2,\) do not broadcast")
        if kind != "bool":
            yield Misuse(build(right, other), "operands have different dtypes", DTypeError)
        if words:
            yield Misuse(build(wrong, wrong), words, DTypeError)

    return OpDefinition(
        name,
        inputs=("primary", "secondary"),
        infer=infer,
        reference=compute,
        gradient=gradient if rule else None,
        not_differentiable="" if rule else "discrete",
        decompose=decompose,
        elementwise=True,
        mpsgraph=mpsgraph and f"{mpsgraph}WithPrimaryTensor:secondaryTensor:name:",
        samples=samples,
        misuses=misuses,
    )


def slope(factor: Callable[[Graph, Tensor, Tensor], Tensor]) -> UnaryRule:
    """The chain rule for a slope given by (graph, x, output)."""
    return lambda g, x, y, grad: grad * factor(g, x, y)


# -- samples -------------------------------------------------------------------------------------

SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], "float32")


def values_between(
    low: float, high: float, *, integers: bool = False, special: bool = True
) -> Samples:
    """Samples of one operand drawn from an interval; then empty, rank 0, NaN and infinities."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        yield Sample((rng.uniform(low, high, (4, 5)).astype("float32"),))
        yield Sample((np.zeros((0, 3), "float32"),), label="empty")
        yield Sample((np.array(0.5 * (low + high) + 0.25, "float32"),), label="rank 0")
        if special:
            yield Sample((SPECIAL,), differentiable=(), label="special values")
        if integers:
            yield Sample((rng.integers(-9, 10, (7,)).astype("int32"),), label="integers")

    return samples


def apart_from(*kinks: float) -> Samples:
    """As `values_between` -3 and 3, but nothing within 0.1 of a place where the slope jumps."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        x = rng.uniform(-3, 3, (4, 5))
        for kink in kinks:
            x = np.where(np.abs(x - kink) < 0.1, kink + 0.3, x)
        yield Sample((x.astype("float32"),))
        yield Sample((np.zeros((0, 3), "float32"),), label="empty")
        yield Sample((np.array(-1.75, "float32"),), label="rank 0")
        yield Sample((SPECIAL,), differentiable=(), label="special values")

    return samples


def listed(*values: float, dtype: str = "float32") -> Samples:
    """Samples of one operand with exactly these values; then empty and rank 0."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        yield Sample((np.array(values, dtype),))
        yield Sample((np.zeros((0, 3), dtype),), label="empty")
        yield Sample((np.array(values[0], dtype),), label="rank 0")

    return samples


def pairs_between(
    low: float,
    high: float,
    second_low: float | None = None,
    second_high: float | None = None,
    *,
    integers: bool = False,
    special: bool = True,
) -> Samples:
    """Samples of two operands: equal shapes, broadcast both ways, empty, rank 0, special values."""
    low2 = low if second_low is None else second_low
    high2 = high if second_high is None else second_high

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        def pair(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[Array, Array]:
            first, second = rng.uniform(low, high, a), rng.uniform(low2, high2, b)
            return np.asarray(first, "float32"), np.asarray(second, "float32")

        yield Sample(pair((3, 4), (3, 4)))
        yield Sample(pair((2, 1, 4), (3, 1)), label="broadcast")
        yield Sample(pair((), (3, 4)), label="scalar first")
        yield Sample(pair((0, 3), (3,)), label="empty")
        yield Sample(pair((), ()), label="rank 0")
        if special:
            every = np.array([0.0, -0.0, 1.5, -2.0, np.inf, -np.inf, np.nan], "float32")
            yield Sample((every[:, None], every), differentiable=(), label="special values")
        if integers:
            a, b = rng.integers(-9, 10, (12,)), rng.integers(-9, 10, (12,))
            yield Sample(
                (a.astype("int32"), np.where(b == 0, 4, b).astype("int32")), label="integers"
            )

    return samples


def tied_pairs(rng: np.random.Generator) -> Iterator[Sample]:
    """Two operands of few different values, so that many are equal; NaN too."""
    a, b = (rng.integers(-2, 3, (4, 5)).astype("float32") for _ in range(2))
    yield Sample((a, b), differentiable=())
    yield Sample((a, b[0]), differentiable=(), label="broadcast")
    every = np.array([0.0, -0.0, 1.0, np.inf, -np.inf, np.nan], "float32")
    yield Sample((every[:, None], every), differentiable=(), label="special values")
    yield Sample((a[:0], b[0]), differentiable=(), label="empty")
    yield Sample((np.array(a[0, 0]), np.array(b[0, 0])), differentiable=(), label="rank 0")
    yield Sample((a.astype("int32"), b.astype("int32")), label="integers")


def bool_pairs(rng: np.random.Generator) -> Iterator[Sample]:
    """Two bool operands in all four combinations; broadcast and empty."""
    a, b = np.array([False, False, True, True]), np.array([False, True, False, True])
    yield Sample((a, b))
    yield Sample((a[:, None], b), label="broadcast")
    yield Sample((a[:0], b[:1]), label="empty")


def integer_pairs(low: int, high: int) -> Samples:
    """Two integer operands of several widths, the second between `low` and `high`."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for dtype in ("int32", "uint8", "int64"):
            first = rng.integers(0 if dtype[0] == "u" else -100, 101, (3, 5)).astype(dtype)
            second = rng.integers(max(low, 0) if dtype[0] == "u" else low, high, (5,))
            yield Sample((first, second.astype(dtype)), label=dtype)

    return samples
