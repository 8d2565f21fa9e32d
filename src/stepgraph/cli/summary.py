"""``stepgraph summary``."""

from __future__ import annotations

from pathlib import Path

import click

from stepgraph.checkpoints import RunDirectory
from stepgraph.cli import output
from stepgraph.cli.options import POSITIVE, NamedOption, json_option, model_names, name_value
from stepgraph.runs.defaults import JOB
from stepgraph.runs.learner import build_model, canonical_model
from stepgraph.runs.loading import read_config


@click.command("summary")
@click.option(
    "--model",
    cls=NamedOption,
    names=model_names,
    metavar="NAME",
    help=f"Network (default {JOB['model']}).",
)
@click.option(
    "--model-option",
    "model_options",
    multiple=True,
    metavar="NAME=VALUE",
    callback=name_value,
    help="Further argument of the network's builder, such as stem=2. May be repeated.",
)
@click.option("--image-size", type=POSITIVE, default=JOB["image_size"], show_default=True)
@click.option("--channels", type=POSITIVE, default=JOB["channels"], show_default=True)
@click.option("--classes", type=POSITIVE, default=10, show_default=True)
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Take all of that from a run directory.",
)
@json_option
def command(
    model: str | None,
    model_options: dict[str, object],
    image_size: int,
    channels: int,
    classes: int,
    run_dir: Path | None,
    as_json: bool,
) -> None:
    """Print a network's layers, their output shapes and parameters."""
    shape = [image_size, image_size, channels]
    if run_dir is not None:
        config = read_config(RunDirectory(run_dir))
        model, model_options = config.model, config.model_options
        shape, classes = config.image_shape, len(config.class_names)
    name = canonical_model(model or JOB["model"])
    made = build_model(name, shape, classes, model_options)
    if not as_json:
        made.summary(print_fn=print)
        return
    trainable = sum(weight.size for weight in made.trainable_weights)
    output.emit(
        "summary",
        model=name,
        input_shape=shape,
        classes=classes,
        parameters=made.count_params(),
        trainable=trainable,
        layers=[
            {
                "name": layer.name,
                "type": type(layer).__name__,
                "output_shape": layer.output_shape,
                "parameters": layer.count_params(),
            }
            for layer in made.layers
        ],
    )
