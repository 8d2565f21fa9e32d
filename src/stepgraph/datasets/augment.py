"""What a batch does to its pictures: random crop, random flip, normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepgraph.datasets import draws
from stepgraph.datasets.arrays import Dataset
from stepgraph.datasets.pictures import moved
from stepgraph.errors import DataError, describe


@dataclass(frozen=True)
class Augment:
    """Random changes of training pictures, drawn per (seed, epoch, sample).

    The usual recipe for CIFAR (He et al., "Deep residual learning", 2015, section 4.2): pad by
    four, crop back to size at random, flip half of the pictures.

    Attributes:
        crop: pixels of zero padding on each side before cropping back; 0 for none.
        flip: mirror left to right with probability one half.

    Example:
        >>> Augment(crop=2, flip=False)
        Augment(crop=2, flip=False)
    """

    crop: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise DataError(describe("augment", f"crop must not be negative, it is {self.crop}"))

    def apply(
        self, images: NDArray[Any], index: NDArray[np.int64], seed: int, epoch: int
    ) -> NDArray[Any]:
        """Returns ``images[index]`` changed as drawn for each of them; the dtype stays.

        Args:
            images: the whole set, ``(N, H, W, C)``.
            index: which samples.
            seed: of the run.
            epoch: from 0.

        Returns:
            A new array ``(len(index), H, W, C)``.

        Example:
            >>> images = np.arange(64, dtype=np.uint8).reshape(16, 1, 4, 1)
            >>> index = np.arange(16)
            >>> once = Augment(crop=0).apply(images, index, seed=0, epoch=0)
            >>> sorted({tuple(row.argsort().tolist()) for row in once[:, 0, :, 0]})
            [(0, 1, 2, 3), (3, 2, 1, 0)]
        """
        picked = np.take(images, index, axis=0)
        return moved(picked, self.draw(images.shape, index, seed, epoch))

    def draw(
        self, shape: Sequence[int], index: NDArray[np.int64], seed: int, epoch: int
    ) -> NDArray[np.int64]:
        """Returns how samples are moved, as `Pictures.moves` says it: int64 ``(3, len(index))``.

        Args:
            shape: of the set, ``(N, H, W, C)``.
            index: which samples.
            seed: of the run.
            epoch: from 0.
        """
        span = 2 * self.crop + 1
        bounds = (span, span, 2 if self.flip else 1)
        drawn = draws.several(seed, epoch, (draws.CROP_Y, draws.CROP_X, draws.FLIP), index, bounds)
        drawn[:2] -= self.crop
        # A padding wider than the picture can push it out altogether, not further.
        for way, size in zip(drawn, shape[1:3], strict=False):
            if self.crop > size:
                np.clip(way, -size, size, out=way)
        return drawn


@dataclass(frozen=True)
class Normalize:
    """Subtracts a mean and divides by a standard deviation, per channel, after scaling to [0, 1].

    Attributes:
        mean: one number per channel.
        std: one positive number per channel.

    Example:
        >>> Normalize((0.5,), (0.25,))
        Normalize(mean=(0.5,), std=(0.25,))
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise DataError(
                describe(
                    "normalize",
                    "needs one mean and one positive deviation per channel",
                    got={"mean": self.mean, "std": self.std},
                )
            )

    def rows(self, width: int, channels: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns mean and deviation repeated along a row of ``width * channels`` values.

        Raises:
            DataError: the pictures have another number of channels.
        """
        if len(self.mean) != channels:
            raise DataError(
                describe("normalize", f"{len(self.mean)} means for pictures of {channels} channels")
            )
        mean, std = (np.tile(np.asarray(v, np.float32), width) for v in (self.mean, self.std))
        return mean, std


def channel_statistics(dataset: Dataset) -> Normalize:
    """Measures mean and standard deviation of each channel of a training set, in float64.

    Example:
        >>> images = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
        >>> channel_statistics(Dataset(images, np.array([0, 0]), ("a",), "two"))
        Normalize(mean=(0.5,), std=(0.5,))
    """
    channels = dataset.images.shape[-1]
    scale = 255.0 if dataset.images.dtype == np.uint8 else 1.0
    chunks = [
        c.reshape(-1, channels).astype(np.float64) / scale
        for c in np.array_split(dataset.images, len(dataset) // 4096 + 1)
    ]
    return _statistics(chunks)


def _statistics(chunks: Sequence[NDArray[np.float64]]) -> Normalize:
    count = sum(len(c) for c in chunks)
    mean = sum(c.sum(axis=0) for c in chunks) / count
    # Around the mean: the difference of two large sums would lose digits.
    variance = sum(np.square(c - mean).sum(axis=0) for c in chunks) / count
    return Normalize(
        tuple(float(m) for m in np.atleast_1d(mean)),
        tuple(float(s) or 1.0 for s in np.sqrt(np.atleast_1d(variance))),
    )
