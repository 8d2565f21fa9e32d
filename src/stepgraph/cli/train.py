"""``stepgraph train``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from stepgraph.checkpoints import Checkpoint, RunDirectory
from stepgraph.cli import events, loading, reporting
from stepgraph.cli.config import CHANGEABLE, RunConfig, total_steps
from stepgraph.cli.defaults import AUGMENTS, JOB, OPTIMIZERS, RUNS, SCHEDULES, for_dataset
from stepgraph.cli.device import choose
from stepgraph.cli.learner import Learner, canonical_model
from stepgraph.cli.options import (
    POSITIVE,
    NamedOption,
    Rate,
    dataset_names,
    device_option,
    find_run,
    json_option,
    model_names,
    name_value,
    threads_option,
)
from stepgraph.cli.stopping import StopRequest
from stepgraph.cli.training import Training, resume_command
from stepgraph.datasets import Dataset, Splits, channel_statistics
from stepgraph.errors import CheckpointError, DataError, describe


def _choices(table: Mapping[str, tuple[str, Any]]) -> str:
    return "; ".join(f"{name}: {about}" for name, (about, _) in table.items())


@click.command(
    "train",
    epilog="Ctrl-C saves and says how to go on; pressed twice it stops at once. Exit codes: "
    "0 done, 1 failed, 2 wrong use, 130 stopped by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP.",
)
@click.option(
    "--model",
    cls=NamedOption,
    names=model_names,
    metavar="NAME",
    help=f"Network to train (default {JOB['model']}).",
)
@click.option(
    "--model-option",
    "model_options",
    multiple=True,
    metavar="NAME=VALUE",
    callback=name_value,
    help="Further argument of the network's builder, such as stem=2. May be repeated.",
)
@click.option(
    "--dataset",
    cls=NamedOption,
    names=dataset_names,
    metavar="NAME|PATH",
    help="Data set, or a folder of class folders, a CIFAR archive, an .npz file "
    f"(default {JOB['dataset']}).",
)
@click.option("--data", metavar="PATH", help="Where the files of a named data set are.")
@click.option("--download", is_flag=True, help="Fetch the data set if it is not there.")
@click.option(
    "--image-size", type=POSITIVE, help=f"Height and width in pixels (default {JOB['image_size']})."
)
@click.option("--channels", type=click.Choice(["1", "3"]), help="Grey or colour (default 3).")
@click.option(
    "--epochs", type=POSITIVE, help=f"Passes over the training set (default {JOB['epochs']})."
)
@click.option("--steps", type=POSITIVE, help="Steps in all; given alone, epochs follow from it.")
@click.option("--batch-size", type=POSITIVE, help=f"Pictures a step (default {JOB['batch_size']}).")
@click.option("--augment", type=click.Choice(list(AUGMENTS)), help=f"{_choices(AUGMENTS)}.")
@click.option(
    "--normalize/--no-normalize",
    default=None,
    help="Bring each channel to mean 0 and deviation 1, as measured on the training set.",
)
@click.option(
    "--optimizer",
    type=click.Choice(list(OPTIMIZERS)),
    help=f"How weights follow from gradients (default {JOB['optimizer']}).",
)
@click.option(
    "--learning-rate",
    type=Rate(),
    help="At the start (default "
    + ", ".join(f"{n}: {o.learning_rate:g}" for n, o in OPTIMIZERS.items())
    + ").",
)
@click.option(
    "--schedule",
    type=click.Choice(list(SCHEDULES)),
    help=f"What becomes of the learning rate (default {JOB['schedule']}). {_choices(SCHEDULES)}.",
)
@click.option(
    "--momentum",
    type=Rate(zero=True, below=1.0),
    help="Of "
    + " and ".join(
        f"{n} (default {o.momentum:g})" for n, o in OPTIMIZERS.items() if o.momentum is not None
    )
    + ".",
)
@click.option(
    "--weight-decay",
    type=Rate(zero=True),
    help="Part of each weight taken off every step, times the learning rate.",
)
@click.option("--clip-norm", type=Rate(), help="Largest norm of all gradients together.")
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), help=f"Of all chance (default {JOB['seed']})."
)
@device_option
@threads_option
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help=f"Folder for what the run leaves (default {RUNS}/MODEL-DATASET-NUMBER).",
)
@click.option(
    "--resume",
    is_flag=True,
    help=f"Go on where --run-dir, or the newest run in {RUNS}/, was interrupted. --epochs and "
    "--steps may then be larger; what else makes up the run stays.",
)
@click.option(
    "--checkpoint-every",
    type=POSITIVE,
    metavar="STEPS",
    help="Steps between checkpoints.  [default: about a minute]",
)
@click.option("--quiet", is_flag=True, help="Print nothing but errors and remarks.")
@json_option
def command(
    run_dir: Path | None,
    resume: bool,
    download: bool,
    quiet: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Train a network and leave a run directory.

    Without options: ResNet-50 on images of hand-written digits that come with the package. The run
    directory holds config.json, metrics.jsonl (a line a step), timing.jsonl and checkpoints. A run
    that was interrupted, even by a power failure, goes on with --resume as if it never had been.
    The CIFAR data sets have other defaults: longer, larger batches, augmented, normalised.
    """
    reporter = reporting.reporter(as_json=as_json, quiet=quiet)
    # However this ends, the terminal is given back first.
    click.get_current_context().call_on_close(reporter.close)
    stop = StopRequest(lambda cause: reporter.note(_stopping(cause)))
    chosen = {name: value for name, value in given.items() if value not in (None, {})}
    if "channels" in chosen:
        chosen["channels"] = int(chosen["channels"])
    if "model" in chosen:
        chosen["model"] = canonical_model(chosen["model"])
    reporter.preparing("reading the data set")
    if resume:
        run = RunDirectory(find_run(run_dir))
        before = loading.read_config(run)
        config = _changed(before, chosen)
        if config.device != before.device:
            reporter.note(
                f"the run goes on on device {config.device} instead of {before.device}; its "
                "numbers will differ in their last digits from what they would have been"
            )
        splits = loading.load_data(config, download=download)
        if loading.fingerprint(splits) != config.data_sha256:
            raise _other_data(config)
    else:
        config, splits, remark = new_config(chosen, download)
        if remark:
            reporter.note(remark)
        run = RunDirectory(run_dir or _new_folder(config))
    with run.training():
        if run.exists and not resume:
            raise _occupied(run.path)
        return _train(run, config, splits, resume, reporter, stop)


def _train(
    run: RunDirectory,
    config: RunConfig,
    splits: Splits,
    resume: bool,
    reporter: events.Reporter,
    stop: StopRequest,
) -> int:
    if resume:
        # Somebody else may have trained on until the lock was free.
        loading.read_config(run)
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
    with stop:
        ended = training.train()
    reporter.ended(ended)
    if ended.status == "done":
        return 0
    return stop.exit_code if stop.requested else 130


def new_config(
    chosen: Mapping[str, Any], download: bool = False
) -> tuple[RunConfig, Splits, str | None]:
    """The configuration of a new run, its data, and a remark on the device.

    Args:
        chosen: what the user said; everything else comes from the tables of defaults.
        download: fetch the data set if it is nowhere to be found.
    """
    device, remark = choose(chosen.get("device"))
    dataset = chosen.get("dataset", JOB["dataset"])
    values = {**for_dataset(dataset), **chosen, "device": device}
    if "steps" in chosen and "epochs" not in chosen:
        values["epochs"] = None
    splits = loading.read_data(
        dataset, values.get("data"), values["image_size"], values["channels"], download
    )
    train = splits.train
    optimizer = OPTIMIZERS[values["optimizer"]]
    momentum = values.get("momentum", optimizer.momentum)
    if momentum is not None and optimizer.momentum is None:
        able = [name for name, choice in OPTIMIZERS.items() if choice.momentum is not None]
        raise click.UsageError(
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
        data=values.get("data") and str(Path(values["data"]).expanduser().resolve()),
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
    return config, splits, remark


def _portable(dataset: str) -> str:
    """A path is kept whole, so that the run goes on from any working directory."""
    path = Path(dataset).expanduser()
    return str(path.resolve()) if path.exists() else dataset


def _batch_size(wanted: int, train: Dataset) -> int:
    if wanted > len(train):
        raise click.UsageError(
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
        changes["data"] = str(Path(changes["data"]).expanduser().resolve())
    # Either of them alone says how long.
    if ("epochs" in changes) != ("steps" in changes):
        changes.setdefault("epochs", None)
        changes.setdefault("steps", None)
    changes["device"], _ = choose(changes.get("device", config.device))
    return config.changed(**changes)


def _new_folder(config: RunConfig) -> Path:
    """Makes the next free folder in `RUNS`."""
    stem = re.sub(r"[^a-z0-9]+", "-", f"{config.model}-{Path(config.dataset).stem}".lower())
    number = 1
    try:
        RUNS.mkdir(exist_ok=True)
        while True:
            path = RUNS / f"{stem}-{number}"
            try:
                path.mkdir()
            except FileExistsError:
                number += 1
                continue
            return path
    except OSError as error:
        raise CheckpointError(
            describe(
                f"run directory {RUNS}/",
                error.strerror or str(error),
                fix="name a folder that can be written with --run-dir",
            )
        ) from error


def _occupied(path: Path) -> CheckpointError:
    return CheckpointError(
        describe(
            f"run directory {path}",
            "a run was begun in it already",
            fix=f"go on with it: {resume_command(path)}\n"
            "       or choose another --run-dir for a new run",
        )
    )


def _other_data(config: RunConfig) -> DataError:
    return DataError(
        describe(
            "train --resume",
            f"the pictures or labels of {config.dataset} are not those that the run began with",
            fix="bring them back (--data says where they are), or begin a new run",
        )
    )


def _stopping(cause: str) -> str:
    return f"{cause}: this step is finished, then everything is saved (again: stop at once)"


def _started(training: Training, splits: Splits) -> events.Started:
    from stepgraph import devices

    config = training.config
    height, width, channels = config.image_shape
    base = config.device.partition(":")[0]
    rate = f"learning rate {config.learning_rate:g}, {config.schedule}"
    extra = {"momentum": config.momentum, "weight decay": config.weight_decay}
    extra["gradients clipped to norm"] = config.clip_norm
    parts = [config.optimizer, rate, *(f"{n} {v:g}" for n, v in extra.items() if v)]
    return events.Started(
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
