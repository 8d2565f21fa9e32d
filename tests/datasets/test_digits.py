"""The embedded digits."""

from __future__ import annotations

import numpy as np
import pytest

from stepgraph.datasets import load
from stepgraph.datasets.formats.digits import read_digits


def test_they_are_scikit_learns() -> None:
    theirs = pytest.importorskip("sklearn.datasets").load_digits()
    ours = read_digits()
    np.testing.assert_array_equal(np.round(ours.images[..., 0] / 255 * 16), theirs.images)
    np.testing.assert_array_equal(ours.labels, theirs.target)


def test_split_is_fixed_stratified_and_complete() -> None:
    splits = load("digits")
    whole = read_digits()
    counts = np.bincount(whole.labels)
    np.testing.assert_array_equal(np.bincount(splits.test.labels), np.round(counts * 0.2))
    both = np.concatenate([splits.train.images, splits.test.images])

    def rows(images: np.ndarray) -> list[bytes]:
        return sorted(image.tobytes() for image in images)

    assert rows(both) == rows(whole.images)
    # The split is part of what results on this set mean: it must not move between releases.
    assert splits.test.labels[:12].tolist() == [0, 5, 8, 1, 2, 5, 5, 4, 2, 6, 3, 6]


def test_at_the_demos_size() -> None:
    splits = load("digits", size=32, channels=3)
    assert splits.train.images.shape == (1438, 32, 32, 3)
    assert splits.train.images.max() > 250
    # Bilinear resizing keeps the mean, but for the borders.
    small = load("digits").train.images.mean()
    assert abs(splits.train.images.mean() - small) < 0.05 * small
