"""``stepgraph export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stepgraph.cli import output
from stepgraph.cli.options import POSITIVE, json_option, name_value
from stepgraph.runs.defaults import JOB

if TYPE_CHECKING:
    from stepgraph.backends.mps.recording import Recording
    from stepgraph.runs.exporting import Exported


@click.command("export")
@click.argument("model", metavar="MODEL")
@click.option(
    "--messages",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the messages that build the network's MPSGraph, as JSON lines.",
)
@click.option(
    "--objc",
    "objc",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write a Swift package that trains and predicts without Python.",
)
@click.option(
    "--mpsgraphpackage",
    "graph_package",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Write the prediction, weights included, as a file of MPSGraph's own. On a Mac only.",
)
@click.option("--name", help="Name of the Swift package.  [default: the network's]")
@click.option(
    "--predict-batch-size",
    type=POSITIVE,
    default=1,
    show_default=True,
    help="Samples that the Swift package, or MPSGraph's file, predicts at once.",
)
@click.option(
    "--system",
    default="iOS 26.0",
    show_default=True,
    help="Operating system to build for; older ones need other messages.",
)
@click.option("--batch-size", type=POSITIVE, default=64, show_default=True)
@click.option("--image-size", type=POSITIVE, default=JOB["image_size"], show_default=True)
@click.option("--channels", type=POSITIVE, default=JOB["channels"], show_default=True)
@click.option("--classes", type=POSITIVE, default=10, show_default=True)
@click.option("--optimizer", default="sgd", show_default=True, help="Any optimizer of the library.")
@click.option(
    "--model-option",
    "model_options",
    multiple=True,
    metavar="NAME=VALUE",
    callback=name_value,
    help="Further argument of the network's builder. May be repeated.",
)
@json_option
def command(
    model: str,
    messages: Path | None,
    objc: Path | None,
    graph_package: Path | None,
    name: str | None,
    predict_batch_size: int,
    system: str,
    batch_size: int,
    image_size: int,
    channels: int,
    classes: int,
    optimizer: str,
    model_options: dict[str, object],
    as_json: bool,
) -> None:
    """Write a network as it is built on an Apple GPU, from any machine.

    MODEL is a run directory, a file that Model.save wrote, or the name of a network; picture size,
    classes, optimizer and model options count for a name only. Both the training step and the
    prediction are written, each for one batch size: messages for that of training, of which the
    Swift package predicts any number.
    """
    from stepgraph.runs.exporting import export

    if messages is None and objc is None and graph_package is None:
        raise click.UsageError(
            "Nothing to write: say --messages FILE, --objc DIR or --mpsgraphpackage PATH."
        )
    if graph_package is not None:
        from stepgraph.runs.packaging import require_framework

        require_framework()
    exported = export(
        model,
        batch_size,
        image_size=image_size,
        channels=channels,
        classes=classes,
        options=model_options,
        optimizer=optimizer,
    )
    if messages is not None:
        from stepgraph.backends.mps.recording import record

        recording = record(exported.programs, exported.variables, exported.values, system)
        _write_messages(recording, messages)
        _report(exported, recording, messages, as_json)
    if objc is not None or graph_package is not None:
        from stepgraph.runs.packaging import write_graph_package, write_swift_package

        written = []
        if objc is not None:
            sizes = (batch_size, predict_batch_size)
            title = name or exported.name
            written.append(write_swift_package(exported.model, objc, title, *sizes))
        if graph_package is not None:
            written.append(write_graph_package(exported.model, graph_package, predict_batch_size))
        for path in written:
            if as_json:
                output.emit("export", model=exported.name, batch_size=batch_size, file=str(path))
            else:
                print(f"{exported.name}: {path}")


def _write_messages(recording: Recording, path: Path) -> None:
    from stepgraph.backends.mps.message_lines import lines

    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines(recording))


def _report(exported: Exported, recording: Recording, path: Path, as_json: bool) -> None:
    from stepgraph.backends.mps.plan import plan_memory

    rows = []
    for name, part in recording.programs.items():
        plan = plan_memory(part.program)
        operations = len(part.program.operations())
        count = sum(1 for _ in part.every_message())
        unshared = plan.total - plan.peak + plan.unshared
        if as_json:
            output.emit(
                "export",
                model=exported.name,
                batch_size=exported.batch_size,
                file=str(path),
                graph=name,
                operations=operations,
                messages=count,
                planned_bytes=plan.total,
                unshared_bytes=unshared,
            )
        numbers = (f"{operations}", f"{count}", f"{plan.total / 1e6:.1f}", f"{unshared / 1e6:.1f}")
        rows.append((name, *numbers))
    if as_json:
        return
    print(f"{exported.name}, batches of {exported.batch_size}: messages in {path}")
    columns = ("graph", "operations", "messages", "MB planned", "MB if nothing is freed")
    output.table(columns, rows, right=(1, 2, 3, 4))
    if "training" not in recording.programs:
        output.note("saved without optimizer and loss: there is no training graph")
