"""``stepgraph train``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, cast

import click

from stepgraph.checkpoints import RunDirectory
from stepgraph.cli import output, reporting
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
from stepgraph.errors import SettingError
from stepgraph.runs.beginning import begin, new_folder, settle_new, settle_resumed
from stepgraph.runs.config import RunConfig
from stepgraph.runs.defaults import AUGMENTS, JOB, OPTIMIZERS, RUNS, SCHEDULES
from stepgraph.runs.events import Reporter, Several
from stepgraph.runs.learner import canonical_model
from stepgraph.runs.live import Live


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
@click.option(
    "--dashboard",
    metavar="[HOST:]PORT",
    help="Serve a page that shows the run, at 127.0.0.1 without HOST; PORT 0 for a free one. "
    "Beyond this machine the address printed has a token in it.",
)
@click.option("--quiet", is_flag=True, help="Print nothing but errors and remarks.")
@json_option
def command(
    run_dir: Path | None,
    resume: bool,
    download: bool,
    dashboard: str | None,
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
    with output.download_bar() if download else nullcontext() as progress:
        if resume:
            run = RunDirectory(find_run(run_dir))
            config, splits, remarks = settle_resumed(run, chosen, download, progress)
        else:
            try:
                config, splits, remarks = settle_new(chosen, download, progress)
            except SettingError as error:
                raise click.UsageError(str(error)) from error
            run = RunDirectory(run_dir or new_folder(config))
    for remark in remarks:
        reporter.note(remark)
    with ExitStack() as stack:
        if dashboard is not None:
            reporter = _shown(dashboard, config, reporter, stack)
        stack.enter_context(run.training())
        training = begin(run, config, splits, resume, reporter, stop)
        with stop:
            ended = training.train()
        reporter.ended(ended)
    if ended.status == "done":
        return 0
    return stop.exit_code if stop.requested else 130


def _shown(address: str, config: RunConfig, reporter: Reporter, stack: ExitStack) -> Reporter:
    """A reporter that tells a page, too; the page is served until the stack ends."""
    from stepgraph.dashboard import Dashboard, parse_address

    try:
        host, port = parse_address(address)
    except SettingError as error:
        raise click.BadParameter(str(error), param_hint="--dashboard") from error
    live = Live(config.class_names, config.normalization)
    served = stack.enter_context(Dashboard(live, host, port))
    reporter.note(f"the run is shown at {served.url}")
    return cast(Reporter, Several(reporter, live))


def _stopping(cause: str) -> str:
    return f"{cause}: this step is finished, then everything is saved (again: stop at once)"
