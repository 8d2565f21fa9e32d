"""The embedded digits: 1,797 real hand-written digits of 8x8 pixels, shipped with the package."""

from __future__ import annotations

import io
from importlib.resources import files

import numpy as np

from stepgraph.datasets.arrays import Dataset, Splits

LEVELS = 16


def read_digits() -> Dataset:
    """Returns all 1,797 digits, pixels scaled from 0..16 to 0..255 (rounded).

    The original value of a pixel is ``round(pixel / 255 * 16)``.

    Source: UCI "Optical Recognition of Handwritten Digits" (CC BY 4.0), test part, the same
    records in the same order as ``sklearn.datasets.load_digits``.

    Example:
        >>> read_digits()
        Dataset('digits': 1797 images 8x8x1 uint8, 10 classes)
    """
    content = (files("stepgraph.datasets") / "data" / "digits.npz").read_bytes()
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        pixels, labels = stored["pixels"], stored["labels"]
    images = (pixels.astype(np.uint16) * 255 + LEVELS // 2) // LEVELS
    return Dataset(
        images.astype(np.uint8)[..., np.newaxis],
        labels.astype(np.int64),
        tuple(str(i) for i in range(10)),
        "digits",
    )


def read_splits() -> Splits:
    """Returns the digits split once and for all: a fifth of each class is the test set.

    Example:
        >>> read_splits().test
        Dataset('digits test': 359 images 8x8x1 uint8, 10 classes)
    """
    return read_digits().split(0.2, seed=0)
