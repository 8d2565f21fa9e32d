"""The two dataclasses that every loader returns, and the way from plain arrays to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stepgraph.datasets import draws, resizing
from stepgraph.errors import DataError, describe


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their labels, in memory.

    Attributes:
        images: shape ``(N, H, W, C)``; uint8 with values 0..255, or float32, which the batches
            take as it is.
        labels: int64, shape ``(N,)``, each in ``[0, len(class_names))``.
        class_names: one name per class, in label order.
        name: what errors and printed lines call it.

    Raises:
        DataError: the arrays do not fit each other, a label is out of range or a float is not
            finite; the message names the first record at fault.

    Example:
        >>> images = np.zeros((2, 4, 4, 1), np.uint8)
        >>> Dataset(images, np.array([0, 1]), ("cat", "dog"), "pets")
        Dataset('pets': 2 images 4x4x1 uint8, 2 classes)
    """

    images: NDArray[Any]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        _check_images(self.images, self.name)
        _check_labels(self.labels, len(self.images), self.class_names, self.name)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        size = "x".join(str(n) for n in self.images.shape[1:])
        return (
            f"Dataset({self.name!r}: {len(self)} images {size} {self.images.dtype}, "
            f"{len(self.class_names)} classes)"
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape ``(H, W, C)`` of one image."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    @property
    def class_count(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def take(self, index: ArrayLike, name: str | None = None) -> Dataset:
        """Returns the records at `index` (integers or a mask), copied.

        Example:
            >>> from_arrays(np.zeros((3, 2, 2)), [0, 1, 0]).take([2, 0]).labels
            array([0, 0])
        """
        chosen = np.asarray(index)
        return replace(
            self,
            images=self.images[chosen],
            labels=self.labels[chosen],
            name=name or self.name,
        )

    def resized(
        self, size: int | tuple[int, int] | None = None, channels: int | None = None
    ) -> Dataset:
        """Returns the set with images of another size or number of channels.

        Args:
            size: height and width, or one number for both; None keeps the size. Bilinear, with
                the filter widened when shrinking, so that nothing is skipped.
            channels: 1 (luma, ITU-R BT.601) or 3 (grey repeated); None keeps them.

        Example:
            >>> from_arrays(np.zeros((3, 8, 8)), [0, 1, 0]).resized(32, channels=3).image_shape
            (32, 32, 3)
        """
        images = self.images
        if channels == 1:  # resizing one channel is a third of the work
            images = resizing.convert_channels(images, channels)
        if size is not None:
            height, width = (size, size) if isinstance(size, int) else size
            images = resizing.resize(images, height, width)
        images = resizing.convert_channels(images, channels)
        return self if images is self.images else replace(self, images=images)

    def split(self, test_fraction: float = 0.2, seed: int = 0) -> Splits:
        """Splits into training and test set, each class by itself (stratified), always alike.

        Args:
            test_fraction: share of each class that goes to the test set, in (0, 1); rounded, and
                at least one image of each class that has two.
            seed: another seed draws another split.

        Raises:
            DataError: the fraction leaves one side empty.

        Example:
            >>> data = from_arrays(np.zeros((10, 2, 2)), [0, 1] * 5)
            >>> halves = data.split(0.4)
            >>> sorted(halves.test.labels.tolist()), len(halves.train)
            ([0, 0, 1, 1], 6)
        """
        if not 0.0 < test_fraction < 1.0:
            raise DataError(
                describe(
                    "split",
                    "test_fraction must lie between 0 and 1",
                    got={"test_fraction": test_fraction},
                )
            )
        order = draws.permutation(len(self), seed, 0, draws.SPLIT)
        in_test = np.zeros(len(self), dtype=bool)
        for label in range(self.class_count):
            members = order[self.labels[order] == label]
            share = max(round(test_fraction * len(members)), 1) if len(members) > 1 else 0
            in_test[members[: min(share, len(members) - 1)]] = True
        if not in_test.any():
            raise DataError(
                describe(
                    "split",
                    f"{self.name!r} has no class with two images",
                    fix="give a test set of its own",
                )
            )
        return Splits(
            self.take(np.flatnonzero(~in_test), f"{self.name} train"),
            self.take(np.flatnonzero(in_test), f"{self.name} test"),
        )


@dataclass(frozen=True, eq=False)
class Splits:
    """A training and a test set of the same classes and image shape.

    Example:
        >>> data = from_arrays(np.zeros((4, 2, 2)), [0, 0, 1, 1])
        >>> both = Splits(data, data)
        >>> (x, y), (x_test, y_test) = both.arrays()
        >>> x.shape, y_test.tolist()
        ((4, 2, 2, 1), [0, 0, 1, 1])
    """

    train: Dataset
    test: Dataset

    def __post_init__(self) -> None:
        for what in ("class_names", "image_shape"):
            ours, theirs = getattr(self.train, what), getattr(self.test, what)
            if ours != theirs:
                raise DataError(
                    describe(
                        "splits",
                        f"training and test set differ in {what}",
                        got={"train": ours, "test": theirs},
                    )
                )

    def resized(
        self, size: int | tuple[int, int] | None = None, channels: int | None = None
    ) -> Splits:
        """Applies `Dataset.resized` to both sets.

        Example:
            >>> data = from_arrays(np.zeros((4, 2, 2)), [0, 0, 1, 1])
            >>> Splits(data, data).resized(4).test.image_shape
            (4, 4, 1)
        """
        return Splits(self.train.resized(size, channels), self.test.resized(size, channels))

    def arrays(
        self,
    ) -> tuple[tuple[NDArray[Any], NDArray[np.int64]], tuple[NDArray[Any], NDArray[np.int64]]]:
        """Returns ``(x_train, y_train), (x_test, y_test)``."""
        return (self.train.images, self.train.labels), (self.test.images, self.test.labels)


def from_arrays(
    images: ArrayLike,
    labels: ArrayLike,
    class_names: Sequence[str] | None = None,
    name: str = "arrays",
) -> Dataset:
    """Makes a data set of NumPy arrays (or anything NumPy turns into one).

    Args:
        images: ``(N, H, W, C)`` or grey ``(N, H, W)``; uint8 in 0..255, or floating (becomes
            float32 and is fed as it is). Other integers are taken if they fit uint8.
        labels: integers ``(N,)`` or ``(N, 1)``, or one-hot rows ``(N, classes)``.
        class_names: one per class; "0", "1", ... up to the largest label by default.
        name: what errors call the set.

    Raises:
        DataError: shapes, values or labels do not fit; the message names the first record.

    Example:
        >>> from_arrays(np.zeros((2, 8, 8), np.uint8), [[0], [3]])
        Dataset('arrays': 2 images 8x8x1 uint8, 4 classes)
    """
    x = np.asarray(images)
    if x.ndim == 3:
        x = x[..., np.newaxis]
    if np.issubdtype(x.dtype, np.floating):
        x = x.astype(np.float32, copy=False)
    elif np.issubdtype(x.dtype, np.integer) and x.dtype != np.uint8:
        if x.size and (x.min() < 0 or x.max() > 255):
            raise DataError(
                describe(
                    name,
                    f"integer pixels must lie in 0..255, found {x.min()}..{x.max()}",
                    fix="scale the images to uint8, or give them as floats",
                )
            )
        x = x.astype(np.uint8)
    y = _integer_labels(np.asarray(labels), name)
    if class_names is None:
        class_names = [str(i) for i in range(int(y.max(initial=-1)) + 1)]
    return Dataset(np.ascontiguousarray(x), y, tuple(class_names), name)


def _integer_labels(y: NDArray[Any], name: str) -> NDArray[np.int64]:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2:
        wrong = np.flatnonzero(((y != 0) & (y != 1)).any(axis=1) | (y.sum(axis=1) != 1))
        if len(wrong):
            raise DataError(
                describe(
                    name,
                    f"labels of record {wrong[0]} are not one-hot",
                    got={"labels": y[wrong[0]].tolist()},
                    expected="one 1 per row, everything else 0",
                )
            )
        y = y.argmax(axis=1)
    if y.ndim != 1 or not (np.issubdtype(y.dtype, np.integer) or np.all(y == np.round(y))):
        raise DataError(
            describe(
                name,
                "labels must be whole numbers",
                got={"labels": f"{y.dtype} {y.shape}"},
                expected="integers (N,) or (N, 1), or one-hot rows (N, classes)",
            )
        )
    return y.astype(np.int64)


def _check_images(images: NDArray[Any], name: str) -> None:
    if images.ndim != 4 or images.dtype not in (np.uint8, np.float32) or 0 in images.shape:
        raise DataError(
            describe(
                name,
                "images do not have the form of a data set",
                got={"images": f"{images.dtype} {images.shape}"},
                expected="uint8 or float32, shape (N, H, W, C), nothing empty",
                fix="from_arrays(images, labels) brings arrays into this form",
            )
        )
    if images.dtype == np.float32:
        good = np.isfinite(images).reshape(len(images), -1).all(axis=1)
        if not good.all():
            record = int(np.flatnonzero(~good)[0])
            raise DataError(
                describe(
                    name,
                    f"record {record} holds NaN or infinite pixels "
                    f"({int((~good).sum())} such records)",
                )
            )


def _check_labels(
    labels: NDArray[np.int64], count: int, class_names: tuple[str, ...], name: str
) -> None:
    if labels.dtype != np.int64 or labels.shape != (count,):
        raise DataError(
            describe(
                name,
                f"{count} images need {count} labels",
                got={"labels": f"{labels.dtype} {labels.shape}"},
                expected=f"int64, shape ({count},)",
            )
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if len(wrong):
        raise DataError(
            describe(
                name,
                f"record {wrong[0]} has label {labels[wrong[0]]} "
                f"({len(wrong)} labels out of range)",
                expected=f"labels 0..{len(class_names) - 1}",
            )
        )
