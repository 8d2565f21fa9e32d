"""Shared by the Keras-like modules: ``load_data()`` as `keras.datasets` has it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepgraph.datasets.loading import load

Arrays = tuple[
    tuple[NDArray[Any], NDArray[np.uint8]],
    tuple[NDArray[Any], NDArray[np.uint8]],
]


def load_arrays(
    name: str,
    data: str | os.PathLike[str] | None,
    download: bool,
    *,
    grey: bool = False,
    label_column: bool = False,
) -> Arrays:
    """Returns ``(x_train, y_train), (x_test, y_test)`` in Keras's shapes and dtypes."""
    splits = load(name, data, download=download)
    pairs = []
    for part in (splits.train, splits.test):
        labels = part.labels.astype(np.uint8)
        pairs.append(
            (
                part.images[..., 0] if grey else part.images,
                labels[:, np.newaxis] if label_column else labels,
            )
        )
    return pairs[0], pairs[1]
