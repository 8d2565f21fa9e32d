"""How good a network is on a data set: loss, accuracy, and what it takes for what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepgraph.datasets import Batches, Dataset, Normalize

_EPSILON = 1e-7  # Keras keeps probabilities this far from 0 and 1


@dataclass(frozen=True)
class Scores:
    """Predictions on a data set.

    Attributes:
        loss: mean cross entropy.
        accuracy: share of pictures whose likeliest class is the labelled one.
        labels: int64 ``(N,)``.
        probabilities: float32 ``(N, classes)``.
    """

    loss: float
    accuracy: float
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The likeliest class of each picture."""
        found: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return found

    def worst(self, most: int) -> NDArray[np.int64]:
        """Numbers of the mistakes that it was surest of, the surest first."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        sure = self.probabilities[wrong, self.predicted[wrong]]
        found: NDArray[np.int64] = wrong[np.argsort(-sure, kind="stable")[:most]]
        return found

    def confusion(self) -> NDArray[np.int64]:
        """How often a class (row) was taken for another (column)."""
        classes = self.probabilities.shape[1]
        places = self.labels * classes + self.predicted
        return np.bincount(places, minlength=classes * classes).reshape(classes, classes)


def score(
    predict: Callable[[Any], NDArray[np.float32]],
    dataset: Dataset,
    batch_size: int,
    normalize: Normalize | None,
    progress: Callable[[int], object] = lambda done: None,
) -> Scores:
    """Predicts every picture of a data set.

    The last batch is filled up to the batch size, so that a device compiles for one size only; what
    was filled in is not counted.

    Args:
        predict: probabilities of a batch.
        dataset: pictures and labels.
        batch_size: pictures at a time.
        normalize: as in training.
        progress: called with the number of pictures done.
    """
    batches = Batches(dataset, batch_size, shuffle=False, normalize=normalize, drop_remainder=False)
    found = np.empty((len(dataset), dataset.class_count), np.float32)
    for step in range(batches.steps_per_epoch):
        x = batches.batch(0, step).x
        count, begin = len(x), step * batch_size
        if count < batch_size:
            x = np.concatenate([x, np.zeros((batch_size - count, *x.shape[1:]), x.dtype)])
        found[begin : begin + count] = predict(x)[:count]
        progress(begin + count)
    chosen = found[np.arange(len(dataset)), dataset.labels].astype(np.float64)
    loss = -np.log(np.clip(chosen, _EPSILON, 1 - _EPSILON)).mean()
    accuracy = (found.argmax(axis=1) == dataset.labels).mean()
    return Scores(float(loss), float(accuracy), dataset.labels, found)
