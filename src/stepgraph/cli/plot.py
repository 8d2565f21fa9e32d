"""``stepgraph plot``."""

from __future__ import annotations

from pathlib import Path

import click

from stepgraph.checkpoints import RunDirectory
from stepgraph.checkpoints.files import saving
from stepgraph.cli import output
from stepgraph.cli.options import (
    device_option,
    find_run,
    json_option,
    run_argument,
    run_dir_option,
    threads_option,
)
from stepgraph.cli.trained import open_trained
from stepgraph.runs.loading import load_data, read_config
from stepgraph.runs.scoring import score


@click.command("plot")
@run_argument
@run_dir_option
@click.option("--data", metavar="PATH", help="Where the data set's files are now.")
@click.option(
    "--output",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the pictures.  [default: the run directory]",
)
@click.option("--curves-only", is_flag=True, help="Only curves.png, which needs no network.")
@device_option
@threads_option
@json_option
def command(
    run: Path | None,
    run_dir: Path | None,
    data: str | None,
    folder: Path | None,
    curves_only: bool,
    device: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Draw a run as PNG files: curves, confusion matrix, mistakes.

    curves.png shows loss and accuracy over the steps; confusion.png what the newest checkpoint
    takes for what on the test set; mistakes.png the pictures it is most wrongly sure about.
    """
    if as_json:
        output.json_errors()
    from stepgraph.cli import figures

    path = find_run(run_dir, run)
    directory = RunDirectory(path)
    config = read_config(directory)
    made = {
        "curves.png": figures.curves(
            directory.read_metrics(), f"{config.model} on {config.dataset}"
        )
    }
    if not curves_only:
        trained = open_trained(path, device, threads)
        test = load_data(config, data).test
        scores = score(trained.learner.predict, test, config.batch_size, config.normalization)
        names = config.class_names
        made["confusion.png"] = figures.confusion(scores.confusion(), names, scores.accuracy)
        made["mistakes.png"] = figures.mistakes(test.images, scores, names)
    target = folder or path
    with saving(target):
        target.mkdir(parents=True, exist_ok=True)
        for name, figure in made.items():
            figure.save(target / name)
    files = [str(target / name) for name in made]
    if as_json:
        output.emit("plot", files=files)
        return
    for file in files:
        print(file)
