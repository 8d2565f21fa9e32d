"""Small things around training: seeds, names, one-hot labels, user classes (``keras.utils``)."""

from __future__ import annotations

import itertools
import random
import re
import secrets
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stepgraph.errors import DataError, describe

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 0xFFFFFFFFFFFFFFFF

T = TypeVar("T")


class _Session:
    """What a process counts: seeds drawn and names given."""

    def __init__(self) -> None:
        self.seed: int | None = None
        self.drawn = itertools.count()
        self.names: dict[str, int] = {}


_session = _Session()

# Classes of the user's own, by name, so that saved models that hold them can be read back.
CUSTOM_OBJECTS: dict[str, Any] = {}


def set_random_seed(seed: int) -> None:
    """Makes all that follows repeatable: initial weights, dropout, the order of samples.

    Also seeds Python's and NumPy's global generators, which data pipelines often draw from. The
    weights of a network then depend on the seed and the order in which its layers are made, and are
    the same on every machine.

    Args:
        seed: an integer.

    Source: Keras ``keras.utils.set_random_seed``.

    Example:
        >>> from stepgraph import layers, models
        >>> def first():
        ...     set_random_seed(7)
        ...     return models.Sequential([layers.Input((3,)), layers.Dense(2)]).get_weights()[0]
        >>> bool((first() == first()).all())
        True
    """
    _session.seed = int(seed)
    _session.drawn = itertools.count()
    random.seed(seed)
    np.random.seed(int(seed) & 0xFFFFFFFF)  # noqa: NPY002 (data pipelines draw from it)


def next_seed() -> int:
    """A seed that nobody got before, from the stream that `set_random_seed` starts; 63 bits."""
    if _session.seed is None:
        _session.seed = secrets.randbits(63)
    return mix(_session.seed, next(_session.drawn))


def mix(seed: int, number: int) -> int:
    """An unrelated seed for each number; SplitMix64's finaliser, cut to 63 bits.

    Example:
        >>> mix(1, 2) == mix(1, 2), mix(1, 2) == mix(1, 3)
        (True, False)
    """
    value = (seed * _GOLDEN + (number + 1) * 0xD1B54A32D192ED03) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return (value ^ (value >> 31)) >> 1


def clear_session() -> None:
    """Starts counting layer names from the beginning again, as ``keras.utils.clear_session``."""
    _session.names.clear()


def snake_case(name: str) -> str:
    """A class's name as Keras writes it in layer names.

    Example:
        >>> snake_case("MaxPooling2D"), snake_case("ReLU"), snake_case("Conv2DTranspose")
        ('max_pooling2d', 're_lu', 'conv2d_transpose')
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def unique_name(stem: str) -> str:
    """The stem, then ``stem_1``, ``stem_2`` and so on."""
    count = _session.names.get(stem, 0)
    _session.names[stem] = count + 1
    return f"{stem}_{count}" if count else stem


def register_keras_serializable(
    package: str = "Custom", name: str | None = None
) -> Callable[[type[T]], type[T]]:
    """Decorator for a layer, loss, metric or schedule of your own, so that `load_model` finds it.

    Args:
        package: taken for Keras's sake.
        name: the name in saved files; the class's own without it.

    Source: Keras ``keras.utils.register_keras_serializable``.
    """
    del package

    def register(cls: type[T]) -> type[T]:
        CUSTOM_OBJECTS[name or cls.__name__] = cls
        return cls

    return register


def to_categorical(
    x: ArrayLike, num_classes: int | None = None, dtype: str = "float32"
) -> NDArray[Any]:
    """Class numbers as one-hot rows.

    Args:
        x: integers, shape ``(...)`` or ``(..., 1)``.
        num_classes: how many classes; one more than the largest number without it.
        dtype: of the result.

    Returns:
        Array of shape ``(..., num_classes)``.

    Raises:
        DataError: a number is negative or not below `num_classes`.

    Source: Keras ``keras.utils.to_categorical``.

    Example:
        >>> to_categorical([0, 2])
        array([[1., 0., 0.],
               [0., 0., 1.]], dtype=float32)
    """
    labels = np.asarray(x).astype(np.int64)
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    count = num_classes or (int(labels.max()) + 1 if labels.size else 0)
    if labels.size and (labels.min() < 0 or labels.max() >= count):
        raise DataError(
            describe(
                "to_categorical",
                f"class numbers run from {labels.min()} to {labels.max()}",
                expected=f"0 to {count - 1}",
                fix="give the right num_classes",
            )
        )
    rows = np.zeros((*labels.shape, count), dtype)
    np.put_along_axis(rows, labels[..., None], 1, axis=-1)
    return rows
