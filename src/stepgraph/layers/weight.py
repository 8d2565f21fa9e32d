"""A layer's weight: what it is, and where its value lives at present."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stepgraph.errors import ShapeError, describe
from stepgraph.utils import next_seed


class Home(Protocol):
    """Where weights live while a device works on them."""

    def read_weight(self, weight: Weight) -> NDArray[Any]:
        """A copy of its value."""

    def write_weight(self, weight: Weight, value: NDArray[Any]) -> None:
        """Gives it a value of its shape."""


class Weight:
    """One array of a layer.

    Its value is drawn when first asked for. As soon as a model runs it lives on that model's device
    (its home); models that share layers hand it over when they run, so that all see the same value.

    Attributes:
        name: as Keras calls it within its layer, such as ``"kernel"``.
        shape: sizes.
        dtype: element type.
        initializer: called with shape, dtype and seed.
        trainable: whether training changes it by gradients, as the layer was made.
        regularizer: penalty added to the loss; None for none.
        seed: of its initial value.
        home: who holds the value now; None for this object.
    """

    # Counts every change of a home, so that a model sees with one comparison that nothing moved.
    moves = 0

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        initializer: Any,
        dtype: str = "float32",
        trainable: bool = True,
        regularizer: Any = None,
    ) -> None:
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self.initializer = initializer
        self.trainable = trainable
        self.regularizer = regularizer
        self.seed = next_seed()
        self.home: Home | None = None
        self._value: NDArray[Any] | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    def numpy(self) -> NDArray[Any]:
        """A copy of the present value."""
        if self.home is not None:
            return self.home.read_weight(self)
        if self._value is None:
            self._value = self._initial()
        return self._value.copy()

    def assign(self, value: Any) -> None:
        """Gives it a value of its shape.

        Raises:
            ShapeError: the value has another shape.
        """
        array = np.asarray(value)
        if array.shape != self.shape:
            raise ShapeError(
                describe(
                    f"weight '{self.name}'",
                    f"has shape {self.shape}, the value {array.shape}",
                )
            )
        if self.home is not None:
            self.home.write_weight(self, array)
        else:
            self._value = np.array(array, self.dtype)

    def move(self, home: Home) -> None:
        """Hands the value over to a new home, which has it already."""
        if self.home is not home:
            self.home = home
            self._value = None
            Weight.moves += 1

    def _initial(self) -> NDArray[Any]:
        made = self.initializer
        try:
            value = made(self.shape, dtype=self.dtype, seed=self.seed)
        except TypeError:
            # A function of the user's own that takes no seed.
            value = made(self.shape, dtype=self.dtype)
        array = np.array(value, self.dtype)
        if array.shape != self.shape:
            raise ShapeError(
                describe(
                    f"weight '{self.name}'",
                    f"its initializer gave shape {array.shape}",
                    expected=f"shape {self.shape}",
                )
            )
        return array

    def __repr__(self) -> str:
        return f"<Weight {self.name!r} {self.dtype} {self.shape}>"
