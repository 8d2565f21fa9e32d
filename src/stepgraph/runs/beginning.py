"""How a run begins: its configuration from what was chosen, its folder, its state."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stepgraph.checkpoints import Checkpoint, RunDirectory
from stepgraph.datasets import Dataset, Splits, channel_statistics, load
from stepgraph.datasets.download import Progress
from stepgraph.errors import CheckpointError, DataError, SettingError, describe
from stepgraph.runs import loading
from stepgraph.runs.config import CHANGEABLE, RunConfig, total_steps
from stepgraph.runs.defaults import JOB, OPTIMIZERS, RUNS, for_dataset
from stepgraph.runs.device import choose
from stepgraph.runs.events import Reporter, Started
from stepgraph.runs.learner import Learner, canonical_model
from stepgraph.runs.training import Stop, Training, resume_command


class Settled(NamedTuple):
    """A run that can begin or go on.

    Attributes:
        config: what it is.
        splits: its data.
        remarks: what is not as might be expected.
    """

    config: RunConfig
    splits: Splits
    remarks: Sequence[str]


def settle_new(
    chosen: Mapping[str, Any], download: bool = False, progress: Progress | None = None
) -> Settled:
    """The configuration of a new run, and its data.

    Args:
        chosen: what the user said, by the names of `RunConfig` ("normalize" for mean and std);
            everything else comes from the tables of defaults.
        download: fetch the data set if it is nowhere to be found.
        progress: told of the download, as `stepgraph.datasets.load` does.

    Raises:
        SettingError: settings that do not go together.
        DataError: the data set cannot be had.
        UnsupportedError: the device cannot be used.
    """
    device, remark = choose(chosen.get("device"))
    dataset = chosen.get("dataset", JOB["dataset"])
    values = {**for_dataset(dataset), **chosen, "device": device}
    if "steps" in chosen and "epochs" not in chosen:
        values["epochs"] = None
    splits = load(
        dataset,
        values.get("data"),
        size=values["image_size"],
        channels=values["channels"],
        download=download,
        progress=progress,
    )
    train = splits.train
    optimizer = OPTIMIZERS[values["optimizer"]]
    momentum = values.get("momentum", optimizer.momentum)
    if momentum is not None and optimizer.momentum is None:
        able = [name for name, choice in OPTIMIZERS.items() if choice.momentum is not None]
        raise SettingError(
            f"--momentum goes with --optimizer {' or '.join(able)}, not {values['optimizer']}."
        )
    batch_size = _batch_size(values["batch_size"], train)
    steps_per_epoch = len(train) // batch_size
    normalize = channel_statistics(train) if values["normalize"] else None
    total = total_steps(values["epochs"], values.get("steps"), steps_per_epoch)
    config = RunConfig(
        model=canonical_model(values["model"]),
        model_options=values.get("model_options", {}),
        dataset=dataset if dataset == JOB["dataset"] else _portable(dataset),
        data=values.get("data") and _whole(values["data"]),
        image_size=values["image_size"],
        channels=values["channels"],
        image_shape=list(train.image_shape),
        class_names=list(train.class_names),
        pixels=train.images.dtype.name,
        data_sha256=loading.fingerprint(splits),
        epochs=values["epochs"],
        steps=values.get("steps"),
        batch_size=batch_size,
        augment=values["augment"],
        mean=list(normalize.mean) if normalize else None,
        std=list(normalize.std) if normalize else None,
        optimizer=values["optimizer"],
        learning_rate=values.get("learning_rate", optimizer.learning_rate),
        schedule=values["schedule"],
        schedule_steps=total,
        momentum=momentum,
        weight_decay=values.get("weight_decay", optimizer.weight_decay),
        clip_norm=values.get("clip_norm"),
        seed=values["seed"],
        device=device,
        threads=values.get("threads"),
        checkpoint_every=values.get("checkpoint_every"),
    )
    return Settled(config, splits, [remark] if remark else [])


def settle_resumed(
    run: RunDirectory,
    chosen: Mapping[str, Any],
    download: bool = False,
    progress: Progress | None = None,
) -> Settled:
    """The configuration of a run that goes on, and its data.

    Args:
        run: its directory.
        chosen: what is to change, among `CHANGEABLE`; what else is named must be as it was.
        download: as for `settle_new`.
        progress: likewise.

    Raises:
        CheckpointError: there is no run, or it cannot be changed so.
        DataError: the data are not those that it began with.
    """
    before = loading.read_config(run)
    config = _changed(before, chosen)
    remarks = []
    if config.device != before.device:
        remarks.append(
            f"the run goes on on device {config.device} instead of {before.device}; its "
            "numbers will differ in their last digits from what they would have been"
        )
    splits = loading.load_data(config, download=download, progress=progress)
    if loading.fingerprint(splits) != config.data_sha256:
        raise DataError(
            describe(
                "train --resume",
                f"the pictures or labels of {config.dataset} are not those that the run began with",
                fix="bring them back (--data says where they are), or begin a new run",
            )
        )
    return Settled(config, splits, remarks)


def begin(
    run: RunDirectory,
    config: RunConfig,
    splits: Splits,
    resume: bool,
    reporter: Reporter,
    stop: Stop,
) -> Training:
    """Builds the network, takes up the newest good checkpoint, and tells the reporter.

    Args:
        run: where everything goes, within its `RunDirectory.training`.
        config: of the run.
        splits: its data.
        resume: go on with what is there; else nothing may be there.
        reporter: who tells of it.
        stop: asked after each step.

    Raises:
        CheckpointError: a run was begun there already, or cannot be read.
    """
    if resume:
        # Somebody else may have trained on until the lock was free.
        loading.read_config(run)
    elif run.exists:
        raise _occupied(run.path)
    reporter.preparing(f"building {config.model} for device {config.device}")
    learner = Learner(config)
    start: Checkpoint | None = None
    notes: list[str] = []
    if resume:
        start, notes = loading.load_newest(run, learner)
        if start is not None:
            learner.restore(start.arrays)
        notes += run.rewind(start.step if start else 0)
    run.write_config(config.to_json())
    training = Training(config, run, splits, learner, start, reporter, stop)
    if training.total > config.schedule_steps and config.schedule != "constant":
        notes.append(
            f"the {config.schedule} schedule was laid out for {config.schedule_steps:,} steps; "
            "after them the learning rate stays at its end"
        )
    for note in notes:
        reporter.note(note)
    reporter.started(_started(training, splits))
    return training


def new_folder(config: RunConfig, runs: Path = RUNS) -> Path:
    """Makes the next free folder for a run.

    Raises:
        CheckpointError: it cannot be made.
    """
    stem = re.sub(r"[^a-z0-9]+", "-", f"{config.model}-{Path(config.dataset).stem}".lower())
    number = 1
    try:
        runs.mkdir(parents=True, exist_ok=True)
        while True:
            path = runs / f"{stem}-{number}"
            try:
                path.mkdir()
            except FileExistsError:
                number += 1
                continue
            return path
    except OSError as error:
        raise CheckpointError(
            describe(
                f"run directory {runs}/",
                error.strerror or str(error),
                fix="name a folder that can be written with --run-dir",
            )
        ) from error


def _portable(dataset: str) -> str:
    """A path is kept whole, so that the run goes on from any working directory."""
    path = Path(dataset).expanduser()
    return _whole(dataset) if path.exists() else dataset


def _whole(path: str) -> str:
    return str(Path(path).expanduser().resolve())


def _batch_size(wanted: int, train: Dataset) -> int:
    if wanted > len(train):
        raise SettingError(
            f"--batch-size {wanted} exceeds the {len(train)} pictures of {train.name!r}."
        )
    return wanted


def _changed(config: RunConfig, chosen: Mapping[str, Any]) -> RunConfig:
    """The configuration of a run that goes on, with what may be changed changed."""
    plain = {name: getattr(config, name) for name in chosen if hasattr(config, name)}
    other = {
        "--" + name.replace("_", "-"): f"{value}, the run has {plain[name]}"
        for name, value in chosen.items()
        if name in plain and name not in CHANGEABLE and plain[name] != value
    }
    if "normalize" in chosen and chosen["normalize"] != (config.mean is not None):
        other["--normalize"] = "differs"
    if other:
        raise CheckpointError(
            describe(
                "train --resume",
                "a run goes on as it began; it can only be changed in "
                + ", ".join("--" + name.replace("_", "-") for name in CHANGEABLE),
                got=other,
                fix="leave these out, or begin a new run in another --run-dir",
            )
        )
    changes = {name: value for name, value in chosen.items() if name in CHANGEABLE}
    if "data" in changes:
        changes["data"] = _whole(changes["data"])
    # Either of them alone says how long.
    if ("epochs" in changes) != ("steps" in changes):
        changes.setdefault("epochs", None)
        changes.setdefault("steps", None)
    changes["device"], _ = choose(changes.get("device", config.device))
    return config.changed(**changes)


def _occupied(path: Path) -> CheckpointError:
    return CheckpointError(
        describe(
            f"run directory {path}",
            "a run was begun in it already",
            fix=f"go on with it: {resume_command(path)}\n"
            "       or choose another --run-dir for a new run",
        )
    )


def _started(training: Training, splits: Splits) -> Started:
    from stepgraph import devices

    config = training.config
    height, width, channels = config.image_shape
    base = config.device.partition(":")[0]
    rate = f"learning rate {config.learning_rate:g}, {config.schedule}"
    extra = {"momentum": config.momentum, "weight decay": config.weight_decay}
    extra["gradients clipped to norm"] = config.clip_norm
    parts = [config.optimizer, rate, *(f"{n} {v:g}" for n, v in extra.items() if v)]
    return Started(
        model=config.model,
        parameters=training.learner.parameters,
        dataset=f"{config.dataset}, {height}x{width}x{channels}, {len(config.class_names)} classes",
        train_images=len(splits.train),
        test_images=len(splits.test),
        optimizer=", ".join(parts) + f", batches of {config.batch_size}",
        device=f"{config.device}: {devices().get(base, '')}",
        run_dir=training.run_directory.path,
        epochs=training.epochs,
        total=training.total,
        step=training.step,
        seed=config.seed,
    )
