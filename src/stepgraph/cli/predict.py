"""``stepgraph predict``."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from stepgraph.cli import output
from stepgraph.cli.options import (
    POSITIVE,
    device_option,
    find_run,
    json_option,
    run_dir_option,
    threads_option,
)
from stepgraph.cli.trained import open_trained
from stepgraph.datasets import read_image
from stepgraph.errors import DataError


@click.command("predict")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILES..."
)
@run_dir_option
@click.option("--top", type=POSITIVE, default=3, show_default=True, help="Classes to name.")
@device_option
@threads_option
@json_option
def command(
    files: tuple[Path, ...],
    run_dir: Path | None,
    top: int,
    device: str | None,
    threads: int | None,
    as_json: bool,
) -> int:
    """Say what pictures show: PNG, JPEG, BMP, GIF, WebP, TIFF or PPM files.

    They are brought to the size the network was trained on. A file that cannot be read is named;
    the others are still looked at, and the exit code is 1.
    """
    if as_json:
        output.json_errors()
    trained = open_trained(find_run(run_dir), device, threads)
    config = trained.config
    if config.pixels != "uint8":
        output.note(
            f"this network was trained on {config.pixels} pictures as they were; files are scaled "
            "to 0..1, which may be something else"
        )
    height, width, channels = config.image_shape
    pictures, readable, failed = [], [], False
    for file in files:
        try:
            pictures.append(read_image(file, (height, width), channels))
            readable.append(file)
        except DataError as error:
            failed = True
            output.error(str(error), kind="DataError")
    rows = []
    for begin in range(0, len(pictures), config.batch_size):
        batch = np.stack(pictures[begin : begin + config.batch_size])
        chances = trained.learner.classify(batch)
        for file, chance in zip(readable[begin:], chances, strict=False):
            best = np.argsort(-chance, kind="stable")[:top]
            found = [(config.class_names[i], float(chance[i])) for i in best]
            if as_json:
                classes = [{"class": name, "probability": p} for name, p in found]
                output.emit("prediction", file=str(file), classes=classes)
            rows.append((str(file), *(f"{name}  {output.percent(p)}" for name, p in found)))
    if rows and not as_json:
        heads = ("most likely", "then", *[""] * len(config.class_names))[: len(rows[0]) - 1]
        output.table(("file", *heads), rows)
    return 1 if failed else 0
