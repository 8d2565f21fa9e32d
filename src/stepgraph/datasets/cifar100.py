"""CIFAR-100 in the manner of `keras.datasets.cifar100`."""

from __future__ import annotations

import os

from stepgraph.datasets._keras import Arrays, load_arrays
from stepgraph.errors import DataError, describe, nearest

_NAMES = {"fine": "cifar100", "coarse": "cifar100-coarse"}


def load_data(
    label_mode: str = "fine",
    data: str | os.PathLike[str] | None = None,
    *,
    download: bool = False,
) -> Arrays:
    """Returns ``(x_train, y_train), (x_test, y_test)`` as `keras.datasets.cifar100` does.

    Unlike Keras's, it downloads only if told to.

    Args:
        label_mode: "fine" for 100 classes, "coarse" for 20.
        data: as in `stepgraph.datasets.load`.
        download: fetch the files if they are not there.

    Returns:
        uint8 arrays; ``x_train`` of shape ``(50000, 32, 32, 3)``, ``y_train`` of ``(50000, 1)``.

    Raises:
        DataError: as `stepgraph.datasets.load`; `label_mode` is neither.
    """
    if label_mode not in _NAMES:
        raise DataError(
            describe("cifar100", f"no label_mode {label_mode!r}", fix=nearest(label_mode, _NAMES))
        )
    return load_arrays(_NAMES[label_mode], data, download, label_column=True)
