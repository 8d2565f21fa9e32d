"""Batches as a pure function of (seed, epoch, step), so that training resumes at any of them."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stepgraph.datasets import draws
from stepgraph.datasets.arrays import Dataset
from stepgraph.datasets.augment import Augment, Normalize
from stepgraph.datasets.pictures import Pictures
from stepgraph.datasets.stream import Stream
from stepgraph.errors import DataError, describe

# Pictures whose moves are drawn at once: so many that a batch's share costs next to nothing.
DRAWN = 4096

LabelForm = Literal["one_hot", "sparse"]


class Batch(NamedTuple):
    """Pictures and labels of one step.

    Attributes:
        x: float32 ``(B, H, W, C)``, contiguous; in [0, 1] unless normalised or float from the
            start.
        y: float32 ``(B, classes)`` one-hot, or int32 ``(B,)`` if sparse.
    """

    x: NDArray[np.float32]
    y: NDArray[Any]


class DeferredBatch(NamedTuple):
    """A `Batch` whose pictures are not written yet.

    Attributes:
        x: what its pictures are made of.
        y: as in a `Batch`.
    """

    x: Pictures
    y: NDArray[Any]


class Batches:
    """Cuts a data set into batches; any batch can be asked for, always with the same bits.

    Args:
        dataset: what to cut.
        batch_size: pictures per batch.
        seed: of shuffling and augmentation; a 64-bit integer.
        shuffle: another order every epoch; False keeps the data set's order.
        augment: random changes of the pictures; None for none.
        normalize: mean and deviation per channel; None for none.
        labels: "one_hot" (float32) or "sparse" (int32).
        drop_remainder: leave out the last, smaller batch of an epoch.

    Raises:
        DataError: the batch size is not positive, or exceeds the set while dropping the
            remainder; channel counts differ.

    Example:
        >>> from stepgraph.datasets import from_arrays
        >>> data = from_arrays(np.zeros((10, 4, 4), np.uint8), [0, 1] * 5)
        >>> batches = Batches(data, 4, seed=1)
        >>> batches.steps_per_epoch, batches.batch(epoch=3, step=1).x.shape
        (2, (4, 4, 4, 1))
        >>> for x, y in batches.stream(epochs=1):
        ...     print(x.shape, y.shape)
        (4, 4, 4, 1) (4, 2)
        (4, 4, 4, 1) (4, 2)
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        augment: Augment | None = None,
        normalize: Normalize | None = None,
        labels: LabelForm = "one_hot",
        drop_remainder: bool = True,
    ) -> None:
        if batch_size < 1 or (drop_remainder and batch_size > len(dataset)):
            raise DataError(
                describe(
                    "batches",
                    f"batch_size {batch_size} does not suit {dataset!r}",
                    expected=f"1 to {len(dataset)}",
                    fix="a smaller batch size, or drop_remainder=False",
                )
            )
        if labels not in ("one_hot", "sparse"):
            raise DataError(
                describe("batches", f"labels={labels!r}", expected="'one_hot' or 'sparse'")
            )
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.augment = augment
        self.normalize = normalize
        self.labels = labels
        self.drop_remainder = drop_remainder
        _, width, channels = dataset.image_shape
        self._rows = None if normalize is None else normalize.rows(width, channels)
        whole, rest = divmod(len(dataset), batch_size)
        self._steps = whole + (rest > 0 and not drop_remainder)
        self._images = np.ascontiguousarray(dataset.images)
        self._one_hot = (
            None if labels == "sparse" else np.eye(dataset.class_count, dtype=np.float32)
        )
        self._used = min(self._steps * batch_size, len(dataset))
        self._order: tuple[int, NDArray[np.int64]] | None = None
        self._drawn: tuple[tuple[int, int], NDArray[np.int64]] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return self._steps

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Returns the order in which an epoch visits the samples."""
        kept = self._order
        if kept is None or kept[0] != epoch:
            count = len(self.dataset)
            drawn = draws.permutation(count, self.seed, epoch) if self.shuffle else np.arange(count)
            # One assignment of a pair, so that another thread sees both or neither.
            self._order = kept = (epoch, drawn)
        return kept[1]

    def indices(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Returns the sample numbers of one batch.

        Raises:
            DataError: no such epoch or step.
        """
        if epoch < 0 or not 0 <= step < self._steps:
            raise DataError(
                describe(
                    "batches",
                    f"no step {step} in epoch {epoch}",
                    expected=f"steps 0..{self.steps_per_epoch - 1}, epochs from 0",
                )
            )
        return self.order(epoch)[step * self.batch_size : (step + 1) * self.batch_size]

    def batch(self, epoch: int, step: int, out: Batch | None = None) -> Batch:
        """Returns one batch: the same bits for the same seed, epoch and step, always.

        Args:
            epoch: from 0.
            step: within the epoch, from 0.
            out: buffers of `empty` to write into; the batch returned is made of them (of their
                beginning, where an epoch's last batch is smaller).

        Raises:
            DataError: no such step, or `out` does not fit.
        """
        made = self.deferred(epoch, step)
        buffers = self.empty() if out is None else out
        self._check(buffers)
        x, y = buffers.x[: len(made.x)], buffers.y[: len(made.x)]
        made.x.write_into(x)
        y[...] = made.y
        return Batch(x, y)

    def deferred(self, epoch: int, step: int) -> DeferredBatch:
        """Returns one batch whose pictures are not written yet; the same bits as `batch`.

        A device that can writes them where it reads them (`Executable.run`); `numpy.asarray`
        makes an array of them.

        Raises:
            DataError: no such step.

        Example:
            >>> from stepgraph.datasets import from_arrays
            >>> batches = Batches(from_arrays(np.full((4, 2, 2), 51, np.uint8), [0, 1] * 2), 2)
            >>> batches.deferred(epoch=0, step=1).x[:1].shape
            (1, 2, 2, 1)
            >>> float(np.asarray(batches.deferred(epoch=0, step=1).x).max())
            0.2
        """
        index = self.indices(epoch, step)
        moves = None if self.augment is None else self._moves(epoch, step)
        classes = self.dataset.labels.take(index)
        one_hot = self._one_hot
        y = classes.astype(np.int32) if one_hot is None else one_hot.take(classes, axis=0)
        return DeferredBatch(Pictures(self._images, index, moves, self._rows), y)

    def _moves(self, epoch: int, step: int) -> NDArray[np.int64]:
        """How a batch's pictures are moved; drawn for many batches at a time."""
        assert self.augment is not None
        size = self.batch_size
        each = max(DRAWN // size, 1)
        kept, place = self._drawn, (epoch, step // each)
        if kept is None or kept[0] != place:
            first = step // each * each * size
            index = self.order(epoch)[first : min(first + each * size, self._used)]
            drawn = self.augment.draw(self._images.shape, index, self.seed, epoch)
            # One assignment of a pair, so that another thread sees both or neither.
            self._drawn = kept = (place, drawn)
        first = step % each * size
        return kept[1][:, first : first + size]

    def empty(self) -> Batch:
        """Returns buffers that hold a batch, to be given to `batch` as `out`."""
        x = np.empty((self.batch_size, *self.dataset.image_shape), np.float32)
        if self.labels == "sparse":
            return Batch(x, np.empty(self.batch_size, np.int32))
        return Batch(x, np.empty((self.batch_size, self.dataset.class_count), np.float32))

    def stream(
        self,
        epoch: int = 0,
        step: int = 0,
        *,
        epochs: int | None = None,
        prefetch: int = 0,
        reuse: bool = False,
        deferred: bool = False,
    ) -> Stream:
        """Returns the batches from (epoch, step) on, one epoch after the other.

        Args:
            epoch: where to begin.
            step: where to begin in it; the number of steps of an epoch means the next one's start.
            epochs: stop at the end of the epoch before this one; None goes on for ever. To train
                five epochs in all, resumed or not, pass 5.
            prefetch: batches that a background thread prepares ahead; 0 for no thread.
            reuse: write into rotating buffers. A batch is then valid only until the next one is
                asked for.
            deferred: give what `deferred` gives; without `prefetch` and `reuse`, which are about
                arrays.

        Raises:
            DataError: no such place, or `deferred` beside `prefetch` or `reuse`.

        Example:
            >>> from stepgraph.datasets import from_arrays
            >>> batches = Batches(from_arrays(np.zeros((6, 2, 2)), [0, 1] * 3), 2)
            >>> with batches.stream(epochs=2, prefetch=2) as stream:
            ...     _ = next(stream), next(stream), next(stream)
            ...     print(stream.state)
            Position(epoch=1, step=0)
        """
        return Stream(
            self, epoch, step, epochs=epochs, prefetch=prefetch, reuse=reuse, deferred=deferred
        )

    def _check(self, out: Batch) -> None:
        want = (self.batch_size, *self.dataset.image_shape)
        y_want = (
            (want[:1], np.int32)
            if self.labels == "sparse"
            else ((self.batch_size, self.dataset.class_count), np.float32)
        )
        for what, array, shape, dtype in (
            ("x", out.x, want, np.float32),
            ("y", out.y, y_want[0], y_want[1]),
        ):
            if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
                raise DataError(
                    describe(
                        "batches",
                        f"out.{what} does not fit",
                        got={what: f"{array.dtype} {array.shape}"},
                        expected=f"{np.dtype(dtype).name} {shape}, contiguous",
                        fix="use the buffers that empty() returns",
                    )
                )
