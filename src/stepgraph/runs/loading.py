"""From a configuration or a run directory to data, networks and their states."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stepgraph.checkpoints import Checkpoint, RunDirectory, check_arrays
from stepgraph.datasets import Splits, load
from stepgraph.datasets.download import Progress
from stepgraph.errors import CheckpointError, DataError, describe
from stepgraph.runs.config import RunConfig, from_json
from stepgraph.runs.device import choose
from stepgraph.runs.learner import Learner


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        path: its run directory.
        config: what it is.
        learner: the network with the weights of the newest good checkpoint.
        step: of that checkpoint.
        remarks: what is not as might be expected.
    """

    path: Path
    config: RunConfig
    learner: Learner
    step: int
    remarks: Sequence[str]


def read_config(run: RunDirectory) -> RunConfig:
    """The configuration in a run directory.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    return from_json(f"read {run.path / 'config.json'}", run.read_config())


def load_trained(path: Path, device: str | None = None, threads: int | None = None) -> Trained:
    """The network of a run directory, on any device.

    Args:
        path: the run directory.
        device: where to compute; without it the usual one here, wherever it was trained.
        threads: of the device; as in training without it.

    Raises:
        CheckpointError: nothing was saved there yet, or nothing that can be read.
    """
    run = RunDirectory(path)
    config = read_config(run)
    found, remark = choose(device)
    config = config.changed(device=found, threads=threads or config.threads)
    learner = Learner(config)
    checkpoint, notes = load_newest(run, learner)
    if checkpoint is None:
        raise CheckpointError(
            describe(
                f"run directory {path}",
                "there is no checkpoint in it yet",
                fix="train for longer; Ctrl-C saves one",
            )
        )
    learner.restore(checkpoint.arrays)
    remarks = [remark, *notes] if remark else notes
    return Trained(path, config, learner, checkpoint.step, remarks)


def load_newest(run: RunDirectory, learner: Learner) -> tuple[Checkpoint | None, list[str]]:
    """The newest good checkpoint of a network's run, and notes on damaged ones.

    Raises:
        CheckpointError: none is good, or they are another network's.
    """
    return run.newest(check_arrays(f"load {run.path}", learner.specs()))


def load_data(
    config: RunConfig,
    data: str | None = None,
    download: bool = False,
    progress: Progress | None = None,
) -> Splits:
    """The data set of a run.

    Args:
        config: of the run.
        data: where it is, if not where the configuration says.
        download: fetch it if it is nowhere to be found.
        progress: told of the download.

    Raises:
        DataError: it cannot be had, or is not the one that the network was made for.
    """
    splits = load(
        config.dataset,
        data or config.data,
        size=config.image_size,
        channels=config.channels,
        download=download,
        progress=progress,
    )
    train = splits.train
    if list(train.image_shape) != config.image_shape or (
        list(train.class_names) != config.class_names
    ):
        raise DataError(
            describe(
                f"data set {config.dataset}",
                "is not the one that this network was made for",
                got={"data": _kind(list(train.image_shape), list(train.class_names))},
                expected=_kind(config.image_shape, config.class_names),
                fix="name the right one with --data",
            )
        )
    return splits


def fingerprint(splits: Splits) -> str:
    """SHA-256 of all pictures and labels.

    Example:
        >>> import numpy as np
        >>> from stepgraph.datasets import from_arrays
        >>> data = from_arrays(np.zeros((2, 2, 2), np.uint8), [0, 1])
        >>> fingerprint(Splits(data, data))[:16]
        '470b63997ba10f29'
    """
    digest = hashlib.sha256()
    for part in (splits.train, splits.test):
        for array in (part.images, part.labels):
            little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            digest.update(repr(array.shape).encode())
            digest.update(little.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _kind(shape: list[int], names: list[str]) -> str:
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"pictures {'x'.join(map(str, shape))}, {len(names)} classes ({shown})"
