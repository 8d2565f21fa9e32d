"""Batches that are not written yet: what they are made of, and how NumPy makes them.

A device that can writes them straight to where a step reads them; for everything else they turn
into arrays, with the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray


class Rows:
    """``source[index]``, to be written where it is wanted.

    Attributes:
        source: contiguous array.
        index: int64 positions along its first axis; all of them exist.

    Example:
        >>> np.asarray(Rows(np.arange(6.0).reshape(3, 2), np.array([2, 0])))
        array([[4., 5.],
               [0., 1.]])
    """

    __slots__ = ("dtype", "index", "shape", "source")
    kind: ClassVar[str] = "rows"

    def __init__(self, source: NDArray[Any], index: NDArray[np.int64]) -> None:
        self.source, self.index = source, index
        self.shape: tuple[int, ...] = (len(index), *source.shape[1:])
        self.dtype = source.dtype

    def __len__(self) -> int:
        return len(self.index)

    def write_into(self, out: NDArray[Any]) -> None:
        """Writes the rows into an array of their shape and dtype."""
        # "clip": with the usual mode NumPy would write into a buffer first.
        np.take(self.source, self.index, axis=0, out=out, mode="clip")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        del copy
        return np.take(self.source, self.index, axis=0).astype(dtype or self.dtype, copy=False)


class Pictures:
    """Pictures of a set as a network takes them: picked, moved, scaled; float32 ``(B, H, W, C)``.

    Attributes:
        source: the whole set, uint8 or float32 ``(N, H, W, C)``, contiguous.
        index: int64, which of them.
        moves: int64 ``(3, B)``: rows down and columns right that each is read at (zeros outside),
            and whether it is mirrored after that; None for none.
        normalize: mean and deviation for each value of a row, float32 ``(W * C,)``; None for none.

    Example:
        >>> images = np.array([[[[0], [255]]]], np.uint8)
        >>> mirrored = np.array([[0], [0], [1]])
        >>> np.asarray(Pictures(images, np.array([0]), mirrored))[0, 0, :, 0]
        array([1., 0.], dtype=float32)
    """

    __slots__ = ("index", "moves", "normalize", "shape", "source")
    kind: ClassVar[str] = "pictures"
    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.float32)

    def __init__(
        self,
        source: NDArray[Any],
        index: NDArray[np.int64],
        moves: NDArray[np.int64] | None = None,
        normalize: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
    ) -> None:
        self.source, self.index, self.moves, self.normalize = source, index, moves, normalize
        self.shape: tuple[int, ...] = (len(index), *source.shape[1:])

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, part: slice) -> Pictures:
        """Some of them, in the same form."""
        moves = None if self.moves is None else self.moves[:, part]
        return Pictures(self.source, self.index[part], moves, self.normalize)

    def write_into(self, out: NDArray[np.float32]) -> None:
        """Writes them into a contiguous array of their shape."""
        picked = np.take(self.source, self.index, axis=0)
        if self.moves is not None:
            picked = moved(picked, self.moves)
        if picked.dtype == np.uint8:
            np.divide(picked, np.float32(255), out=out, dtype=np.float32)
        else:
            out[...] = picked
        if self.normalize is not None:
            count, height, width, channels = self.shape
            flat = out.reshape(count, height, width * channels)
            flat -= self.normalize[0]
            flat /= self.normalize[1]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        del copy
        out = np.empty(self.shape, np.float32)
        self.write_into(out)
        return out.astype(dtype or np.float32, copy=False)


def moved(
    pictures: NDArray[Any], moves: Sequence[NDArray[np.int64]] | NDArray[Any]
) -> NDArray[Any]:
    """Pictures ``(B, H, W, C)`` shifted and mirrored, in a new array; see `Pictures.moves`."""
    count, height, width, channels = pictures.shape
    down, right, mirror = moves
    pad_y, pad_x = (int(np.abs(way).max(initial=0)) for way in (down, right))
    shape = (count, height + 2 * pad_y, width + 2 * pad_x, channels)
    padded = np.zeros(shape, pictures.dtype)
    padded[:, pad_y : pad_y + height, pad_x : pad_x + width] = pictures
    # Every place that a crop can have, as a view whose items are a crop's whole rows: one gather
    # then copies rows, not pixels.
    row = np.dtype((np.void, width * channels * pictures.itemsize))
    places = (count, 2 * pad_y + 1, 2 * pad_x + 1, height)
    picture, line, pixel, _ = padded.strides
    crops: NDArray[Any] = np.ndarray(places, row, padded.data, strides=(picture, line, pixel, line))
    rows = crops[np.arange(count), down + pad_y, right + pad_x].view(pictures.dtype)
    result: NDArray[Any] = rows.reshape(count, height, width, channels)
    mirrored = np.flatnonzero(mirror)
    straight = result[mirrored]
    # Channel by channel: backwards over pixels of a few bytes each, copying is slow.
    for channel in range(channels):
        result[mirrored, :, :, channel] = straight[:, :, ::-1, channel]
    return result
