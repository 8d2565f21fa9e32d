"""Initial weights (``keras.initializers``): deterministic for a seed, on every machine.

Example:
    >>> from stepgraph.initializers import GlorotUniform
    >>> kernel = GlorotUniform(seed=1)((3, 3, 16, 32))
    >>> bool(abs(kernel).max() <= (6 / (9 * 16 + 9 * 32)) ** 0.5)
    True
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepgraph.configs import Configurable, resolve
from stepgraph.errors import ShapeError, describe
from stepgraph.initializers import draws
from stepgraph.utils import next_seed

Array = NDArray[Any]


class Initializer(Configurable):
    """Fills a weight: called with its shape and dtype.

    One that draws and has no `seed` draws something new each time; layers give each weight a seed
    of its own, so that no two weights start equal.
    """

    seed: int | None = None

    def __call__(
        self, shape: Sequence[int], dtype: str = "float32", seed: int | None = None
    ) -> Array:
        """Returns an array of that shape and dtype.

        Args:
            shape: sizes.
            dtype: element type.
            seed: taken where the initializer has none of its own.
        """
        own = self.seed if self.seed is not None else seed
        values = self.draw(tuple(shape), next_seed() if own is None else own)
        return np.asarray(values, dtype).reshape(tuple(shape))

    def draw(self, shape: tuple[int, ...], seed: int) -> Any:
        """The values in float64, row-major, of any shape with as many elements."""
        raise NotImplementedError


class Zeros(Initializer):
    """Zeros."""

    def draw(self, shape: tuple[int, ...], seed: int) -> Any:
        """Zeros of that shape."""
        return np.zeros(shape)


class Ones(Initializer):
    """Ones."""

    def draw(self, shape: tuple[int, ...], seed: int) -> Any:
        """Ones of that shape."""
        return np.ones(shape)


class Constant(Initializer):
    """One value everywhere.

    Args:
        value: the number, or an array that broadcasts to the shape.
    """

    def __init__(self, value: Any = 0.0) -> None:
        self.value = value

    def draw(self, shape: tuple[int, ...], seed: int) -> Any:
        """The value at that shape."""
        return np.broadcast_to(np.asarray(self.value, np.float64), shape)


class RandomUniform(Initializer):
    """Uniform between `minval` and `maxval`."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None):
        self.minval, self.maxval, self.seed = minval, maxval, seed

    def draw(self, shape: tuple[int, ...], seed: int) -> Any:
        """The values."""
        return self.minval + (self.maxval - self.minval) * draws.uniform(seed, math.prod(shape))


class RandomNormal(Initializer):
    """Normal with a mean and a standard deviation."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None):
        self.mean, self.stddev, self.seed = mean, stddev, seed

    def draw(self, shape: tuple[int, ...], seed: int) -> Any:
        """The values."""
        return self.mean + self.stddev * draws.normal(seed, math.prod(shape))


class TruncatedNormal(Initializer):
    """Normal, without values more than two standard deviations from the mean."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None):
        self.mean, self.stddev, self.seed = mean, stddev, seed

    def draw(self, shape: tuple[int, ...], seed: int) -> Any:
        """The values."""
        return self.mean + self.stddev * draws.truncated_normal(seed, math.prod(shape))


class VarianceScaling(Initializer):
    """Random with a variance that suits the number of inputs and outputs of a weight.

    Args:
        scale: the variance is ``scale / n``.
        mode: n is ``"fan_in"``, ``"fan_out"`` or ``"fan_avg"``; a convolution's fans are its
            kernel's area times its channels, as TensorFlow computes them.
        distribution: ``"truncated_normal"``, ``"untruncated_normal"`` or ``"uniform"``.
        seed: of the draw.

    Source: Keras ``VarianceScaling``; Glorot and Bengio 2010; He et al. 2015.
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
    ) -> None:
        if scale <= 0 or mode not in ("fan_in", "fan_out", "fan_avg"):
            raise ValueError(
                describe(
                    "VarianceScaling",
                    f"scale={scale!r}, mode={mode!r}",
                    expected="a positive scale; mode 'fan_in', 'fan_out' or 'fan_avg'",
                )
            )
        distribution = distribution.lower()
        if distribution == "normal":
            distribution = "truncated_normal"
        if distribution not in ("truncated_normal", "untruncated_normal", "uniform"):
            raise ValueError(
                describe(
                    "VarianceScaling",
                    f"distribution={distribution!r}",
                    expected="'truncated_normal', 'untruncated_normal' or 'uniform'",
                )
            )
        self.scale, self.mode, self.distribution, self.seed = scale, mode, distribution, seed

    def draw(self, shape: tuple[int, ...], seed: int) -> Any:
        """The values."""
        fan_in, fan_out = fans(shape)
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, n)
        count = math.prod(shape)
        if self.distribution == "uniform":
            limit = math.sqrt(3.0 * variance)
            return limit * (2.0 * draws.uniform(seed, count) - 1.0)
        if self.distribution == "untruncated_normal":
            return math.sqrt(variance) * draws.normal(seed, count)
        # Cutting at two deviations narrows the distribution by this factor.
        deviation = math.sqrt(variance) / 0.87962566103423978
        return deviation * draws.truncated_normal(seed, count)


class _Scaled(VarianceScaling):
    """A `VarianceScaling` of fixed settings."""

    settings: tuple[float, str, str]

    def __init__(self, seed: int | None = None) -> None:
        scale, mode, distribution = self.settings
        super().__init__(scale, mode, distribution, seed)


class GlorotUniform(_Scaled):
    """Uniform within sqrt(6 / (fan in + fan out)); what Keras's layers start from."""

    settings = (1.0, "fan_avg", "uniform")


class GlorotNormal(_Scaled):
    """Truncated normal with variance 2 / (fan in + fan out)."""

    settings = (1.0, "fan_avg", "truncated_normal")


class HeUniform(_Scaled):
    """Uniform within sqrt(6 / fan in)."""

    settings = (2.0, "fan_in", "uniform")


class HeNormal(_Scaled):
    """Truncated normal with variance 2 / fan in."""

    settings = (2.0, "fan_in", "truncated_normal")


class LecunUniform(_Scaled):
    """Uniform within sqrt(3 / fan in)."""

    settings = (1.0, "fan_in", "uniform")


class LecunNormal(_Scaled):
    """Truncated normal with variance 1 / fan in."""

    settings = (1.0, "fan_in", "truncated_normal")


class Orthogonal(Initializer):
    """A random matrix with orthonormal rows or columns; the last axis is the columns.

    Its last bits depend on the machine's linear algebra library.

    Args:
        gain: factor on the matrix.
        seed: of the draw.

    Source: Saxe, McClelland and Ganguli 2014; Keras ``Orthogonal``.
    """

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        self.gain, self.seed = gain, seed

    def draw(self, shape: tuple[int, ...], seed: int) -> Any:
        """The matrix."""
        if len(shape) < 2:
            raise ShapeError(describe("Orthogonal", f"needs rank 2 or more, got {shape}"))
        rows, columns = math.prod(shape[:-1]), shape[-1]
        flat = (max(rows, columns), min(rows, columns))
        q, r = np.linalg.qr(draws.normal(seed, math.prod(flat)).reshape(flat))
        q = q * np.sign(np.diag(r))
        return self.gain * (q.T if rows < columns else q)


class Identity(Initializer):
    """The identity matrix, times `gain`."""

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain

    def draw(self, shape: tuple[int, ...], seed: int) -> Any:
        """The matrix."""
        if len(shape) != 2:
            raise ShapeError(describe("Identity", f"needs rank 2, got {shape}"))
        return self.gain * np.eye(*shape)


def fans(shape: Sequence[int]) -> tuple[float, float]:
    """How many inputs and outputs a weight of that shape joins, as TensorFlow counts them.

    Example:
        >>> fans((3, 3, 16, 32)), fans((784, 10)), fans((5,))
        ((144, 288), (784, 10), (5, 5))
    """
    if not shape:
        return 1, 1
    if len(shape) == 1:
        return shape[0], shape[0]
    area = math.prod(shape[:-2])
    return area * shape[-2], area * shape[-1]


CLASSES: tuple[type[Initializer], ...] = (
    Zeros,
    Ones,
    Constant,
    RandomUniform,
    RandomNormal,
    TruncatedNormal,
    VarianceScaling,
    GlorotUniform,
    GlorotNormal,
    HeUniform,
    HeNormal,
    LecunUniform,
    LecunNormal,
    Orthogonal,
    Identity,
)


def _names() -> dict[str, type[Initializer]]:
    from stepgraph.utils import snake_case

    table: dict[str, type[Initializer]] = {}
    for cls in CLASSES:
        table[cls.__name__] = table[snake_case(cls.__name__)] = cls
    table["uniform"], table["normal"] = RandomUniform, RandomNormal
    return table


TABLE: dict[str, type[Initializer]] = _names()


def get(identifier: Any) -> Any:
    """An initializer from its name, config, class, or any function of (shape, dtype).

    Example:
        >>> type(get("glorot_uniform")).__name__
        'GlorotUniform'
    """
    return Zeros() if identifier is None else resolve("initializer", identifier, TABLE)


def serialize(initializer: Initializer) -> dict[str, Any]:
    """Its class and config."""
    return {"class_name": type(initializer).__name__, "config": initializer.get_config()}


deserialize = get
