"""``stepgraph evaluate``."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np

from stepgraph.checkpoints.files import saving, write_file
from stepgraph.cli import output
from stepgraph.cli.options import (
    POSITIVE,
    device_option,
    find_run,
    json_option,
    run_argument,
    run_dir_option,
    threads_option,
)
from stepgraph.cli.trained import open_trained
from stepgraph.runs.loading import Trained, load_data
from stepgraph.runs.scoring import Scores, score


@click.command("evaluate")
@run_argument
@run_dir_option
@click.option(
    "--split",
    type=click.Choice(["test", "train"]),
    default="test",
    show_default=True,
    help="Which part of the data set.",
)
@click.option("--data", metavar="PATH", help="Where the data set's files are now.")
@click.option("--batch-size", type=POSITIVE, help="Pictures at a time.  [default: as in training]")
@click.option(
    "--output",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for evaluation.json and confusion.png.  [default: the run directory]",
)
@device_option
@threads_option
@json_option
def command(
    run: Path | None,
    run_dir: Path | None,
    split: str,
    data: str | None,
    batch_size: int | None,
    folder: Path | None,
    device: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure the network of a run directory: loss, accuracy, and what it takes for what.

    The newest checkpoint is taken. Writes evaluation.json and confusion.png.
    """
    if as_json:
        output.json_errors()
    trained = open_trained(find_run(run_dir, run), device, threads)
    splits = load_data(trained.config, data)
    dataset = splits.test if split == "test" else splits.train
    scores = score(
        trained.learner.predict,
        dataset,
        batch_size or trained.config.batch_size,
        trained.config.normalization,
    )
    target = folder or trained.path
    with saving(target):
        target.mkdir(parents=True, exist_ok=True)
    from stepgraph.cli import figures

    values = _values(trained, scores, split)
    with saving(target):
        write_file(target / "evaluation.json", (json.dumps(values, indent=1) + "\n").encode())
        figures.confusion(scores.confusion(), trained.config.class_names, scores.accuracy).save(
            target / "confusion.png"
        )
    if as_json:
        output.emit("evaluation", **values)
        return
    _show(trained, scores, split, target)


def _values(trained: Trained, scores: Scores, split: str) -> dict[str, object]:
    return {
        "run_dir": str(trained.path),
        "step": trained.step,
        "split": split,
        "images": len(scores.labels),
        "loss": scores.loss,
        "accuracy": scores.accuracy,
        "class_names": trained.config.class_names,
        "confusion": scores.confusion().tolist(),
    }


def _show(trained: Trained, scores: Scores, split: str, target: Path) -> None:
    names = trained.config.class_names
    table = scores.confusion()
    output.facts(
        {
            "network": f"{trained.config.model} after step {trained.step:,} ({trained.path})",
            "images": f"{len(scores.labels):,} ({split} set)",
            "loss": f"{scores.loss:.4f}",
            "accuracy": f"{output.percent(scores.accuracy)}, "
            f"{int((scores.labels != scores.predicted).sum()):,} mistakes",
        }
    )
    right, there, said = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    errors = table - np.diag(right)
    rows = [
        (
            name,
            f"{there[i]:,}",
            _share(right[i], there[i]),
            _share(right[i], said[i]),
            f"{names[errors[i].argmax()]} ({errors[i].max()})" if errors[i].any() else "",
        )
        for i, name in enumerate(names)
    ]
    print()
    output.table(
        ("class", "images", "found", "right when said", "mostly mistaken for"), rows, (1, 2, 3)
    )
    print()
    output.facts({"written": f"{target / 'confusion.png'}, {target / 'evaluation.json'}"})


def _share(part: int, whole: int) -> str:
    return output.percent(part / whole) if whole else "-"
