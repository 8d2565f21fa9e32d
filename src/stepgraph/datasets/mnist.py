"""MNIST in the manner of `keras.datasets.mnist`."""

from __future__ import annotations

import os

from stepgraph.datasets._keras import Arrays, load_arrays


def load_data(data: str | os.PathLike[str] | None = None, *, download: bool = False) -> Arrays:
    """Returns ``(x_train, y_train), (x_test, y_test)`` as `keras.datasets.mnist` does.

    Unlike Keras's, it downloads only if told to.

    Args:
        data: as in `stepgraph.datasets.load`.
        download: fetch the files if they are not there.

    Returns:
        uint8 arrays; ``x_train`` of shape ``(60000, 28, 28)``, ``y_train`` of ``(60000,)``.

    Raises:
        DataError: as `stepgraph.datasets.load`.
    """
    return load_arrays("mnist", data, download, grey=True)
