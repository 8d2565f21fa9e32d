"""From a configuration or a run directory to data, networks and their states."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stepgraph.checkpoints import Checkpoint, RunDirectory, check_arrays
from stepgraph.cli import output
from stepgraph.cli.config import RunConfig, from_json
from stepgraph.cli.device import choose
from stepgraph.cli.learner import Learner
from stepgraph.datasets import Splits, load
from stepgraph.errors import CheckpointError, DataError, describe


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        path: its run directory.
        config: what it is.
        learner: the network with the weights of the newest good checkpoint.
        step: of that checkpoint.
    """

    path: Path
    config: RunConfig
    learner: Learner
    step: int


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
    if remark:
        output.note(remark)
    config = config.changed(device=found, threads=threads or config.threads)
    learner = Learner(config)
    checkpoint, notes = load_newest(run, learner)
    for note in notes:
        output.note(note)
    if checkpoint is None:
        raise CheckpointError(
            describe(
                f"run directory {path}",
                "there is no checkpoint in it yet",
                fix="train for longer; Ctrl-C saves one",
            )
        )
    learner.restore(checkpoint.arrays)
    return Trained(path, config, learner, checkpoint.step)


def load_newest(run: RunDirectory, learner: Learner) -> tuple[Checkpoint | None, list[str]]:
    """The newest good checkpoint of a network's run, and notes on damaged ones.

    Raises:
        CheckpointError: none is good, or they are another network's.
    """
    return run.newest(check_arrays(f"load {run.path}", learner.specs()))


def load_data(config: RunConfig, data: str | None = None, download: bool = False) -> Splits:
    """The data set of a run.

    Args:
        config: of the run.
        data: where it is, if not where the configuration says.
        download: fetch it if it is nowhere to be found.

    Raises:
        DataError: it cannot be had, or is not the one that the network was made for.
    """
    splits = read_data(
        config.dataset, data or config.data, config.image_size, config.channels, download
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


def read_data(
    name: str, data: str | None, size: int | None, channels: int | None, download: bool
) -> Splits:
    """`stepgraph.datasets.load` with a bar while it downloads."""
    if not download:
        return load(name, data, size=size, channels=channels)
    from rich.progress import Progress

    with Progress(console=output.console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"downloading {name}", total=None)

        def progress(file: str, done: int, total: int) -> None:
            bar.update(task, description=f"downloading {file}", completed=done, total=total)

        return load(name, data, size=size, channels=channels, download=download, progress=progress)


def _kind(shape: list[int], names: list[str]) -> str:
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"pictures {'x'.join(map(str, shape))}, {len(names)} classes ({shown})"
