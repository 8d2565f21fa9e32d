"""``stepgraph verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from stepgraph.cli import output
from stepgraph.cli.options import (
    POSITIVE,
    NamedOption,
    device_option,
    json_option,
    model_names,
    name_value,
)
from stepgraph.runs.defaults import JOB
from stepgraph.runs.device import choose
from stepgraph.runs.learner import build_model, canonical_model

if TYPE_CHECKING:
    from stepgraph.verification import OperationCheck, QuantityCheck, Report

REPRODUCTION = Path("divergence.npz")
_SHOWN = 8


@click.command("verify")
@click.option(
    "--model",
    cls=NamedOption,
    names=model_names,
    metavar="NAME",
    default=JOB["model"],
    show_default=True,
    help="Network whose training step is checked.",
)
@click.option(
    "--model-option",
    "model_options",
    multiple=True,
    metavar="NAME=VALUE",
    callback=name_value,
    help="Further argument of the network's builder. May be repeated.",
)
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Take network, optimizer and weights from a run directory instead.",
)
@click.option("--ops", "only_ops", is_flag=True, help="Check every op by itself, no network.")
@click.option("--op", "op_names", multiple=True, metavar="NAME", help="Of these --op alone.")
@click.option("--batch-size", type=POSITIVE, default=4, show_default=True)
@click.option("--image-size", type=POSITIVE, default=JOB["image_size"], show_default=True)
@click.option("--channels", type=POSITIVE, default=JOB["channels"], show_default=True)
@click.option("--optimizer", default="adam", show_default=True, help="Any optimizer.")
@click.option(
    "--steps",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Whole steps to run after the operations.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights and pictures.")
@device_option
@click.option(
    "--isolated",
    is_flag=True,
    help="Compile each operation by itself and name it before it runs: if the device ends the "
    "process, the last name printed is the culprit.",
)
@click.option(
    "--reproduction",
    type=click.Path(path_type=Path, dir_okay=False),
    default=REPRODUCTION,
    show_default=True,
    help="File to write when an operation diverges.",
)
@json_option
def command(
    model: str,
    model_options: dict[str, object],
    run_dir: Path | None,
    only_ops: bool,
    op_names: tuple[str, ...],
    batch_size: int,
    image_size: int,
    channels: int,
    optimizer: str,
    steps: int,
    seed: int,
    device: str | None,
    isolated: bool,
    reproduction: Path,
    as_json: bool,
) -> int:
    """Hold a device's numbers against float64.

    Runs a training step of a network on the device, operation by operation and as a whole, on
    random pictures. Each operation is judged by its float64 result on the inputs that it had on
    the device, so the first one that diverges is the one to blame; it is printed with its shapes,
    by how much it is off, and what was to be allowed. A reproduction is written: one file, to be
    run with "python FILE" and to be sent to whoever can mend the device.

    Exit code 0: everything agrees. 1: something diverges.
    """
    chosen, remark = choose(device)
    if remark:
        output.note(remark)
    if only_ops or op_names:
        report = _ops(chosen, op_names, isolated)
    else:
        report = _network(
            model,
            model_options,
            run_dir,
            batch_size,
            [image_size, image_size, channels],
            optimizer,
            seed,
            device=chosen,
            steps=steps,
            isolated=isolated,
            reproduction=reproduction,
            progress=_name_operation if isolated else None,
        )
    if as_json:
        output.emit("verify", **report.as_dict())
    else:
        _print(report)
    return 0 if report.agrees else 1


def _network(
    model: str,
    model_options: dict[str, object],
    run_dir: Path | None,
    batch_size: int,
    shape: list[int],
    optimizer: str,
    seed: int,
    **arguments: Any,
) -> Report:
    from stepgraph import utils
    from stepgraph.verification import verify

    rng = np.random.default_rng(seed)
    if run_dir is not None:
        from stepgraph.runs.loading import load_trained

        trained = load_trained(run_dir, "reference")
        made, shape = trained.learner.model, trained.config.image_shape
        count = len(trained.config.class_names)
        y: Any = np.eye(count, dtype=np.float32)[rng.integers(0, count, batch_size)]
    else:
        utils.clear_session()
        utils.set_random_seed(seed)
        made = build_model(canonical_model(model), shape, 10, model_options)
        made.compile(
            optimizer=optimizer,
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
            device="reference",
        )
        y = rng.integers(0, 10, batch_size)
    x = rng.random((batch_size, *shape), dtype=np.float32)
    return verify(made, x, y, **arguments)


def _ops(device: str, names: tuple[str, ...], isolated: bool) -> Report:
    from stepgraph.errors import GraphError, describe, nearest
    from stepgraph.graph.ops import OPS
    from stepgraph.verification import verify_ops

    for name in names:
        if name not in OPS:
            raise GraphError(describe("verify", f"no op '{name}'", fix=nearest(name, OPS)))

    def progress(name: str, label: str) -> None:
        print(f"{name} {label}".rstrip(), flush=True)

    return verify_ops(device, names or None, progress if isolated else None)


def _name_operation(number: int, count: int, operation: Any) -> None:
    print(f"{number + 1}/{count} {operation.type} '{operation.name}'", flush=True)


def _print(report: Report) -> None:
    from stepgraph.verification.report import describe_check

    print(f"{report.subject} on {report.device}")
    print()
    worst = report.worst_by_op()
    if worst:
        counts = {check.op: 0 for check in worst}
        for check in report.operations:
            counts[check.op] += 1
        shown = [c for c in worst if not c.comparison.agrees] or worst[:_SHOWN]
        columns = ("op", "runs", "error", "tolerance", "ratio", "where")
        output.table(columns, [_operation_row(c, counts) for c in shown], right=(1, 2, 3, 4))
        if len(worst) > len(shown):
            print(f"and {len(worst) - len(shown)} more ops, all nearer to float64")
        print()
    if report.quantities:
        columns = ("step", "kind", "worst", "error", "tolerance", "ratio")
        rows = [_quantity_row(check) for check in report.worst_by_kind()]
        output.table(columns, rows, right=(0, 3, 4, 5))
        print()
    if report.first is not None:
        print("The first operation that diverges:")
        print("\n".join(f"  {line}" for line in describe_check(report.first)))
        if report.reproduction is not None:
            print(f"\nReproduction: python {report.reproduction}")
        print()
    print(report.verdict())


def _operation_row(check: OperationCheck, counts: dict[str, int]) -> tuple[str, ...]:
    c = check.comparison
    numbers = (_number(c.error), _number(c.tolerance), _number(c.ratio))
    if c.fault:
        numbers = (c.fault, "", "")
    return (check.op, str(counts[check.op]), *numbers, check.name)


def _quantity_row(check: QuantityCheck) -> tuple[str, ...]:
    c = check.comparison
    numbers = (_number(c.error), _number(c.tolerance), _number(c.ratio))
    return (str(check.step), check.kind, check.name, *numbers)


def _number(value: float) -> str:
    return f"{value:.2g}"
