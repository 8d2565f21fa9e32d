"""Random numbers (MPSGraphRandomOps) that are functions of (seed, stream, step): Philox4x32-10.

Nothing is remembered between draws: the numbers of an op depend on its seed, on its stream (a
number of its own, given when the op is built) and on the step, which the graph counts in a
variable. A forward pass and its gradient therefore see the same dropout mask, every device draws
the same bits, and a training run resumed at a step goes on as if never interrupted.

Element ``i`` of a result (row-major) takes word ``i % 4`` of the Philox block with key
``(seed low, seed high)`` and counter ``(i // 4, stream, step low, step high)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from stepgraph.errors import DTypeError, GraphError
from stepgraph.graph.core import GraphCore
from stepgraph.graph.definition import (
    Array,
    Misuse,
    OpDefinition,
    Sample,
    bad_dtype,
    require_float,
)
from stepgraph.graph.dtypes import DType, DTypeLike, as_dtype, float16, float32, uint32
from stepgraph.graph.philox import (
    LOW,
    PHILOX_MULTIPLIERS,
    PHILOX_ROUNDS,
    PHILOX_WEYL,
    random_words,
)
from stepgraph.graph.shapes import Misfit, ShapeLike, Spec, known_shape, known_sizes
from stepgraph.graph.tensor import Tensor, Variable


def _unused_bits(dtype: DType) -> int:
    """Low bits of a word that a fraction in [0, 1) of this dtype leaves out.

    24 bits are left, exact in float32; float64 gets the same numbers, so that it can check float32.
    """
    return 21 if dtype == float16 else 8


def check_step(step: Spec) -> None:
    """Refuses a step that is no scalar integer."""
    if step.rank or not step.dtype.is_integer:
        raise bad_dtype(
            f"the step is {step}",
            expected="a scalar integer",
            fix='graph.constant(0, dtype="int64")',
        )


# -- random_bits ---------------------------------------------------------------------------------


def _bits_infer(step: Spec, *, shape: tuple[int, ...], seed: int, stream: int) -> Spec:
    check_step(step)
    return Spec(shape, uint32)


def bits_reference(step: Array, *, shape: tuple[int, ...], seed: int, stream: int) -> Array:
    """The words that `random_bits` gives."""
    return random_words(math.prod(shape), seed, stream, int(step)).reshape(shape)


def _bits_decompose(
    graph: Any, step: Tensor, *, shape: tuple[int, ...], seed: int, stream: int
) -> Tensor:
    """Philox in 32-bit arithmetic, for devices that multiply no wider."""
    count = math.prod(shape)
    blocks = -(-count // 4)

    def multiply(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
        low_a, high_a = a & 0xFFFF, a >> 16
        low_b, high_b = graph.bitwise_and(b, 0xFFFF), graph.bitwise_right_shift(b, 16)
        cross, other = high_b * low_a, low_b * high_a
        carry = (
            graph.bitwise_right_shift(low_b * low_a, 16)
            + graph.bitwise_and(cross, 0xFFFF)
            + graph.bitwise_and(other, 0xFFFF)
        )
        high = (
            high_b * high_a
            + graph.bitwise_right_shift(cross, 16)
            + graph.bitwise_right_shift(other, 16)
            + graph.bitwise_right_shift(carry, 16)
        )
        return high, b * a

    wide = graph.cast(step, "int64")
    c0 = graph.cast(graph.coordinate_along_axis((blocks,), 0), "uint32")
    c1 = graph.constant(np.uint32(stream))
    c2 = graph.cast(wide, "uint32")
    c3 = graph.cast(graph.bitwise_right_shift(wide, 32), "uint32")
    k0, k1 = seed & LOW, seed >> 32
    for _ in range(PHILOX_ROUNDS):
        high0, low0 = multiply(PHILOX_MULTIPLIERS[0], c0)
        high1, low1 = multiply(PHILOX_MULTIPLIERS[1], c2)
        c0 = graph.bitwise_xor(graph.bitwise_xor(high1, c1), k0)
        c2 = graph.bitwise_xor(graph.bitwise_xor(high0, c3), k1)
        c1, c3 = low1, low0
        k0, k1 = (k0 + PHILOX_WEYL[0]) & LOW, (k1 + PHILOX_WEYL[1]) & LOW
    words = graph.stack([graph.broadcast(c, (blocks,)) for c in (c0, c1, c2, c3)], axis=1)
    line = graph.slice(graph.reshape(words, (4 * blocks,)), 0, 0, count)
    result: Tensor = graph.reshape(line, shape)
    return result


def _bits_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(((3, 5),), {"seed": 1})
    yield Sample(((9,), 2**40 + 3, np.array(2**35 + 7, "int64")), label="large seed and step")
    yield Sample(((0, 2),), label="empty")


def _shape_misuses(name: str) -> Any:
    def misuses() -> Iterator[Misuse]:
        yield Misuse(
            lambda g: getattr(g, name)((2,), step=g.placeholder((1,), "int32")),
            "the step is int32",
            DTypeError,
        )
        yield Misuse(lambda g: getattr(g, name)((2,), seed=-1), "seed -1 is outside", GraphError)

    return misuses


# -- random_uniform ------------------------------------------------------------------------------


def _float_infer(step: Spec, *, shape: tuple[int, ...], dtype: DType, **_: Any) -> Spec:
    check_step(step)
    found = Spec(shape, dtype)
    require_float(found)
    return found


def _fractions(words: Array, dtype: DType) -> Array:
    """Words as fractions in [0, 1) of a dtype."""
    shift = _unused_bits(dtype)
    kept = (words >> np.uint32(shift)).astype(dtype.numpy)
    return np.asarray(kept * dtype.numpy.type(2.0 ** (shift - 32)))


def _uniform_reference(
    step: Array,
    *,
    shape: tuple[int, ...],
    minimum: float,
    maximum: float,
    dtype: DType,
    seed: int,
    stream: int,
) -> Array:
    bits = bits_reference(step, shape=shape, seed=seed, stream=stream)
    scale, shift = (dtype.numpy.type(v) for v in (maximum - minimum, minimum))
    return np.asarray(_fractions(bits, dtype) * scale + shift)


def _uniform_decompose(
    graph: Any,
    step: Tensor,
    *,
    shape: tuple[int, ...],
    minimum: float,
    maximum: float,
    dtype: DType,
    seed: int,
    stream: int,
) -> Tensor:
    bits = draw_bits(graph, step, shape, seed, stream)
    result: Tensor = _fraction(graph, bits, dtype) * (maximum - minimum) + minimum
    return result


def draw_bits(graph: Any, step: Tensor, shape: tuple[int, ...], seed: int, stream: int) -> Tensor:
    """`random_bits` with attributes that are decided already, for decompositions."""
    attributes = {"shape": shape, "seed": seed, "stream": stream}
    bits: Tensor = graph._one(RANDOM_BITS, (step,), attributes)
    return bits


def _fraction(graph: Any, bits: Tensor, dtype: DType) -> Tensor:
    shift = _unused_bits(dtype)
    kept = graph.cast(graph.bitwise_right_shift(bits, shift), dtype)
    result: Tensor = kept * 2.0 ** (shift - 32)
    return result


def _uniform_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(((4, 5),))
    yield Sample(((7,), -2.0, 3.0), {"seed": 5}, label="range")
    yield Sample(((3,),), {"dtype": "float64"}, label="float64")
    yield Sample(((),), {"seed": 2}, label="rank 0")
    yield Sample(((2, 0),), label="empty")


# -- random_normal -------------------------------------------------------------------------------


def _normal_reference(
    step: Array,
    *,
    shape: tuple[int, ...],
    mean: float,
    standard_deviation: float,
    dtype: DType,
    seed: int,
    stream: int,
) -> Array:
    count = math.prod(shape)
    computed = float32 if dtype == float16 else dtype
    number = computed.numpy.type
    words = random_words(count + count % 2, seed, stream, int(step)).reshape(-1, 2)
    # In (0, 1], so that the logarithm is finite.
    first = _fractions(words[:, 0], computed) + number(2.0**-24)
    angle = _fractions(words[:, 1], computed) * number(2 * math.pi)
    radius = np.sqrt(number(-2) * np.log(first))
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    drawn = pairs.reshape(-1)[:count].reshape(shape)
    return np.asarray(drawn * number(standard_deviation) + number(mean), dtype.numpy)


def _normal_decompose(
    graph: Any,
    step: Tensor,
    *,
    shape: tuple[int, ...],
    mean: float,
    standard_deviation: float,
    dtype: DType,
    seed: int,
    stream: int,
) -> Tensor:
    count = math.prod(shape)
    pairs = (count + 1) // 2
    computed = float32 if dtype == float16 else dtype
    bits = draw_bits(graph, step, (pairs, 2), seed, stream)
    first, second = (_fraction(graph, part, computed) for part in graph.split(bits, 2, axis=1))
    radius = graph.square_root(graph.logarithm(first + 2.0**-24) * -2.0)
    angle = second * (2 * math.pi)
    both = graph.concat([radius * graph.cos(angle), radius * graph.sin(angle)], axis=1)
    line = graph.slice(graph.reshape(both, (2 * pairs,)), 0, 0, count)
    drawn = graph.reshape(line, shape) * standard_deviation + mean
    result: Tensor = graph.cast(drawn, dtype) if computed != dtype else drawn
    return result


def _normal_samples(rng: np.random.Generator) -> Iterator[Sample]:
    yield Sample(((4, 5),))
    yield Sample(((7,), 3.0, 0.5), {"seed": 5}, label="moments")
    yield Sample(((2, 0),), label="empty")


# -- random_uniform_like, random_normal_like -----------------------------------------------------


def _like_infer(like: Spec, step: Spec, **_: Any) -> Spec:
    check_step(step)
    require_float(like)
    return like


def _uniform_like_reference(like: Array, step: Array, **attributes: Any) -> Array:
    return _uniform_reference(step, shape=like.shape, dtype=as_dtype(like.dtype), **attributes)


def _uniform_like_decompose(graph: Any, like: Tensor, step: Tensor, **attributes: Any) -> Tensor:
    found = {"shape": known_shape(like.shape), "dtype": like.dtype, **attributes}
    result: Tensor = graph._one(RANDOM_UNIFORM, (step,), found)
    return result


def _normal_like_reference(like: Array, step: Array, **attributes: Any) -> Array:
    return _normal_reference(step, shape=like.shape, dtype=as_dtype(like.dtype), **attributes)


def _normal_like_decompose(graph: Any, like: Tensor, step: Tensor, **attributes: Any) -> Tensor:
    found = {"shape": known_shape(like.shape), "dtype": like.dtype, **attributes}
    result: Tensor = graph._one(RANDOM_NORMAL, (step,), found)
    return result


def _like_samples(rng: np.random.Generator) -> Iterator[Sample]:
    like = rng.standard_normal((3, 5)).astype("float32")
    yield Sample((like,), differentiable=())
    yield Sample((like, 1.0, 2.0), {"seed": 3}, differentiable=(), label="settings")


def _like_misuses(name: str) -> Any:
    def misuses() -> Iterator[Misuse]:
        yield Misuse(
            lambda g: getattr(g, name)(g.placeholder((2,), "int32")), "floating point", DTypeError
        )

    return misuses


def dropout_threshold(rate: float) -> int:
    """A word below this drops its element."""
    return min(round(rate * 2**32), LOW)


RANDOM_BITS = OpDefinition(
    "random_bits",
    inputs=("step",),
    infer=_bits_infer,
    reference=bits_reference,
    not_differentiable="discrete",
    decompose=_bits_decompose,
    mpsgraph="randomPhiloxStateTensorWithSeed:name:",
    samples=_bits_samples,
    misuses=_shape_misuses("random_bits"),
)
RANDOM_UNIFORM = OpDefinition(
    "random_uniform",
    inputs=("step",),
    infer=_float_infer,
    reference=_uniform_reference,
    not_differentiable="discrete",
    decompose=_uniform_decompose,
    mpsgraph="randomUniformTensorWithShape:seed:name:",
    samples=_uniform_samples,
    misuses=_shape_misuses("random_uniform"),
)
RANDOM_NORMAL = OpDefinition(
    "random_normal",
    inputs=("step",),
    infer=_float_infer,
    reference=_normal_reference,
    not_differentiable="discrete",
    decompose=_normal_decompose,
    mpsgraph="randomTensorWithShape:descriptor:seed:name:",
    samples=_normal_samples,
    misuses=_shape_misuses("random_normal"),
)
RANDOM_UNIFORM_LIKE = OpDefinition(
    "random_uniform_like",
    inputs=("like", "step"),
    infer=_like_infer,
    reference=_uniform_like_reference,
    not_differentiable="discrete",
    decompose=_uniform_like_decompose,
    shape_only=(0,),
    mpsgraph="randomUniformTensorWithShapeTensor:seed:name:",
    samples=_like_samples,
    misuses=_like_misuses("random_uniform_like"),
)
RANDOM_NORMAL_LIKE = OpDefinition(
    "random_normal_like",
    inputs=("like", "step"),
    infer=_like_infer,
    reference=_normal_like_reference,
    not_differentiable="discrete",
    decompose=_normal_like_decompose,
    shape_only=(0,),
    mpsgraph="randomTensorWithShapeTensor:descriptor:seed:name:",
    samples=_like_samples,
    misuses=_like_misuses("random_normal_like"),
)

DEFINITIONS = (
    RANDOM_BITS,
    RANDOM_UNIFORM,
    RANDOM_NORMAL,
    RANDOM_UNIFORM_LIKE,
    RANDOM_NORMAL_LIKE,
)


class RandomOps(GraphCore):
    """Random numbers: functions of seed, stream and step.

    Every op built takes the graph's next stream, so two ops of one seed draw independently. The
    step is `random_step` unless one is given. Inside a loop the step does not change by itself:
    draw from a step that depends on the loop's index to get new numbers in every round.
    """

    @property
    def random_step(self) -> Variable:
        """The variable (int64 scalar) that random ops without a step of their own draw from.

        Made when first asked for. A compiled executable whose run draws from it adds 1 to it in
        every run; others leave it alone. Like any variable it can be set (`Graph.set_value`) and
        saved.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> noise = graph.random_uniform((2,))
            >>> _ = graph.run(targets=[noise], device="reference")
            >>> int(graph.get_value(graph.random_step, "reference"))
            1
        """
        if self._random_step is None:
            with self._at_root():
                self._random_step = self._graph.variable(np.int64(0), name="random_step")
        return self._random_step

    def _random(
        self,
        definition: OpDefinition,
        inputs: tuple[Tensor, ...],
        attributes: dict[str, Any],
        seed: int,
        step: Tensor | int | None,
        name: str | None,
    ) -> Tensor:
        """Adds a random op in a stream of its own."""
        if not 0 <= seed < 2**64:
            raise self._worded(
                Misfit(GraphError, f"seed {seed} is outside 0 to 2**64 - 1", None, None),
                definition,
                inputs,
                name,
            )
        if step is None:
            step = self.random_step
        elif not isinstance(step, Tensor):
            step = self._graph.constant(np.int64(step))
        settings = {**attributes, "seed": int(seed), "stream": self._streams}
        made = self._one(definition, (*inputs, step), settings, name=name)
        self._streams += 1
        return made

    def random_bits(
        self,
        shape: ShapeLike,
        seed: int = 0,
        step: Tensor | int | None = None,
        name: str | None = None,
    ) -> Tensor:
        """Random words: uint32, every value equally likely.

        Args:
            shape: known sizes.
            seed: 0 to 2**64 - 1.
            step: integer scalar; `random_step` without it.
            name: label in printed graphs and errors; made unique when taken.

        Raises:
            GraphError: the seed is outside its range.
            DTypeError: the step is no integer scalar.

        Source: Philox4x32-10 (Salmon et al., SC 2011).

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> bits = graph.random_bits((4,), seed=0, step=0)
            >>> [hex(x) for x in graph.run(targets=[bits], device="reference")[0].tolist()]
            ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
        """
        attributes = {"shape": known_sizes(shape, "random_bits")}
        return self._random(RANDOM_BITS, (), attributes, seed, step, name)

    def random_uniform(
        self,
        shape: ShapeLike,
        minimum: float = 0.0,
        maximum: float = 1.0,
        dtype: DTypeLike = "float32",
        seed: int = 0,
        step: Tensor | int | None = None,
        name: str | None = None,
    ) -> Tensor:
        """Random numbers spread evenly over a range.

        There are 2**24 of them, equally far apart, the same in float32 and float64; 2**11 in
        float16.

        Args:
            shape: known sizes; for those of another tensor see `random_uniform_like`.
            minimum: smallest value.
            maximum: upper end; excluded, but for rounding in ranges other than [0, 1).
            dtype: floating point.
            seed: 0 to 2**64 - 1.
            step: integer scalar; `random_step` without it.
            name: label.

        Raises:
            DTypeError: the dtype is not floating point, or the step is no integer scalar.
            GraphError: the seed is outside its range.

        Source: MPSGraph ``randomUniformTensorWithShape:seed:name:``; the numbers are our own.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.random_uniform((2,), seed=7, step=0)
            >>> graph.run(targets=[x], device="reference")[0].shape
            (2,)
        """
        attributes = {
            "shape": known_sizes(shape, "random_uniform"),
            "minimum": float(minimum),
            "maximum": float(maximum),
            "dtype": as_dtype(dtype),
        }
        return self._random(RANDOM_UNIFORM, (), attributes, seed, step, name)

    def random_normal(
        self,
        shape: ShapeLike,
        mean: float = 0.0,
        standard_deviation: float = 1.0,
        dtype: DTypeLike = "float32",
        seed: int = 0,
        step: Tensor | int | None = None,
        name: str | None = None,
    ) -> Tensor:
        """Normally distributed random numbers, at most 5.77 standard deviations from the mean.

        Args:
            shape: known sizes; for those of another tensor see `random_normal_like`.
            mean: their mean.
            standard_deviation: their standard deviation.
            dtype: floating point.
            seed: 0 to 2**64 - 1.
            step: integer scalar; `random_step` without it.
            name: label.

        Raises:
            DTypeError: the dtype is not floating point, or the step is no integer scalar.
            GraphError: the seed is outside its range.

        Source: MPSGraph ``randomTensorWithShape:descriptor:seed:name:``; Box and Muller, "A note on
        the generation of random normal deviates", 1958.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> x = graph.random_normal((1000,), mean=3.0, seed=7, step=0)
            >>> bool(abs(graph.run(targets=[x], device="reference")[0].mean() - 3) < 0.2)
            True
        """
        attributes = {
            "shape": known_sizes(shape, "random_normal"),
            "mean": float(mean),
            "standard_deviation": float(standard_deviation),
            "dtype": as_dtype(dtype),
        }
        return self._random(RANDOM_NORMAL, (), attributes, seed, step, name)

    def random_uniform_like(
        self,
        like: Tensor,
        minimum: float = 0.0,
        maximum: float = 1.0,
        seed: int = 0,
        step: Tensor | int | None = None,
        name: str | None = None,
    ) -> Tensor:
        """`random_uniform` of the shape and dtype of another tensor, known or not.

        Args:
            like: float tensor; its values are not read.
            minimum: smallest value.
            maximum: upper end, as for `random_uniform`.
            seed: 0 to 2**64 - 1.
            step: integer scalar; `random_step` without it.
            name: label.

        Source: MPSGraph ``randomUniformTensorWithShapeTensor:seed:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> like = graph.placeholder((None, 3))
            >>> graph.random_uniform_like(like)
            <Tensor 'random_uniform_like' float32 (?, 3)>
        """
        attributes = {"minimum": float(minimum), "maximum": float(maximum)}
        return self._random(RANDOM_UNIFORM_LIKE, (like,), attributes, seed, step, name)

    def random_normal_like(
        self,
        like: Tensor,
        mean: float = 0.0,
        standard_deviation: float = 1.0,
        seed: int = 0,
        step: Tensor | int | None = None,
        name: str | None = None,
    ) -> Tensor:
        """`random_normal` of the shape and dtype of another tensor, known or not.

        Args:
            like: float tensor; its values are not read.
            mean: their mean.
            standard_deviation: their standard deviation.
            seed: 0 to 2**64 - 1.
            step: integer scalar; `random_step` without it.
            name: label.

        Source: MPSGraph ``randomTensorWithShapeTensor:descriptor:seed:name:``.

        Example:
            >>> import stepgraph as sg
            >>> graph = sg.Graph()
            >>> like = graph.placeholder((None, 3))
            >>> graph.random_normal_like(like)
            <Tensor 'random_normal_like' float32 (?, 3)>
        """
        attributes = {"mean": float(mean), "standard_deviation": float(standard_deviation)}
        return self._random(RANDOM_NORMAL_LIKE, (like,), attributes, seed, step, name)
