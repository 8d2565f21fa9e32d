"""Dataset, Splits, from_arrays and resizing."""

from __future__ import annotations

import numpy as np
import pytest

from stepgraph.datasets import Dataset, Splits, from_arrays, resizing
from stepgraph.errors import DataError


def test_from_arrays_takes_the_usual_forms() -> None:
    pixels = np.arange(2 * 4 * 4).reshape(2, 4, 4)
    data = from_arrays(pixels, [[1], [0]])
    assert data.images.dtype == np.uint8
    assert data.image_shape == (4, 4, 1)
    np.testing.assert_array_equal(data.images[..., 0], pixels)
    assert data.labels.tolist() == [1, 0]
    one_hot = from_arrays(pixels.astype(np.float64), np.eye(3)[[2, 1]], ["a", "b", "c"])
    assert one_hot.images.dtype == np.float32
    assert one_hot.labels.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (np.zeros((2, 4, 4)), [0, 7], "record 1 has label 7"),
        (np.zeros((2, 4, 4)), [0, -1], "record 1 has label -1"),
        (np.zeros((2, 4, 4)), [0], "2 images need 2 labels"),
        (np.zeros((2, 4, 4)), [0.5, 1], "whole numbers"),
        (np.full((2, 4, 4), 300), [0, 1], "0..255, found 300..300"),
        (np.zeros((2, 4)), [0, 1], "form of a data set"),
        (np.zeros((0, 4, 4)), [], "form of a data set"),
        (np.array([0, np.nan]).reshape(2, 1, 1), [0, 1], "record 1 holds NaN"),
        (np.zeros((2, 4, 4)), [[1, 0], [1, 1]], "record 1 are not one-hot"),
    ],
)
def test_wrong_arrays_are_named(images: np.ndarray, labels: list, words: str) -> None:
    with pytest.raises(DataError, match=words):
        from_arrays(images, labels, ("a", "b"))


def test_split_is_stratified_disjoint_and_repeatable() -> None:
    labels = np.repeat([0, 1, 2], [50, 20, 1])
    images = np.arange(71, dtype=np.float32).reshape(71, 1, 1)
    data = from_arrays(images, labels)
    splits = data.split(0.2, seed=3)
    assert np.bincount(splits.test.labels, minlength=3).tolist() == [10, 4, 0]
    both = np.concatenate([splits.train.images, splits.test.images]).ravel()
    assert sorted(both.tolist()) == list(range(71))
    np.testing.assert_array_equal(splits.test.images, data.split(0.2, seed=3).test.images)
    assert not np.array_equal(splits.test.images, data.split(0.2, seed=4).test.images)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1])
def test_split_needs_a_fraction(fraction: float) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        from_arrays(np.zeros((4, 1, 1)), [0, 0, 1, 1]).split(fraction)


def test_splits_must_agree() -> None:
    a = from_arrays(np.zeros((2, 4, 4)), [0, 1])
    b = from_arrays(np.zeros((2, 5, 4)), [0, 1])
    with pytest.raises(DataError, match="differ in image_shape"):
        Splits(a, b)


@pytest.mark.parametrize(
    ("source", "target"), [((8, 8), (32, 32)), ((28, 28), (32, 32)), ((33, 20), (16, 7))]
)
def test_resize_agrees_with_pillow(source: tuple[int, int], target: tuple[int, int]) -> None:
    image_module = pytest.importorskip("PIL.Image")
    images = np.random.default_rng(0).integers(0, 256, (600, *source, 3), dtype=np.uint8)
    ours = resizing.resize(images, *target)
    assert ours.shape == (600, *target, 3)
    for i in (0, 511, 512, 599):  # around the chunk border too
        theirs = image_module.fromarray(images[i]).resize(
            target[::-1], image_module.Resampling.BILINEAR
        )
        # Pillow rounds between its two passes.
        assert np.abs(ours[i].astype(int) - np.asarray(theirs).astype(int)).max() <= 1


def test_resize_keeps_constants_and_float() -> None:
    grey = np.full((2, 5, 7, 1), 0.3, np.float32)
    np.testing.assert_allclose(resizing.resize(grey, 11, 3), 0.3, rtol=1e-6)
    with pytest.raises(DataError, match="0x3"):
        resizing.resize(grey, 0, 3)


def test_channels_back_and_forth_agree_with_pillow() -> None:
    image_module = pytest.importorskip("PIL.Image")
    colour = np.random.default_rng(1).integers(0, 256, (1, 9, 9, 3), dtype=np.uint8)
    grey = resizing.convert_channels(colour, 1)
    theirs = np.asarray(image_module.fromarray(colour[0]).convert("L")).astype(int)
    assert np.abs(grey[0, ..., 0].astype(int) - theirs).max() <= 1
    again = resizing.convert_channels(grey, 3)
    assert (again == grey).all()
    with pytest.raises(DataError, match="from 3 to 4"):
        resizing.convert_channels(colour, 4)


def test_dataset_checks_dtype() -> None:
    with pytest.raises(DataError, match="from_arrays"):
        Dataset(np.zeros((1, 2, 2, 1), np.float64), np.zeros(1, np.int64), ("a",), "x")
