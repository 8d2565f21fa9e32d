"""Options that several commands share, and how values are read from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from stepgraph.errors import CheckpointError, describe
from stepgraph.runs.defaults import RUNS

POSITIVE = click.IntRange(min=1)


class Rate(click.ParamType[float]):
    """A finite number, at least 0, or above 0."""

    name = "number"

    def __init__(self, *, zero: bool = False, below: float | None = None) -> None:
        self.zero = zero
        self.below = below

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Reads the number, or fails."""
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number.", param, ctx)
        if not (0 <= number < float("inf")) or (number == 0 and not self.zero):
            self.fail(f"{value} is not {'0 or more' if self.zero else 'above 0'}.", param, ctx)
        if self.below is not None and number >= self.below:
            self.fail(f"{value} is not below {self.below:g}.", param, ctx)
        return number


class NamedOption(click.Option):
    """An option whose help ends with the names of a table that is only imported for it."""

    def __init__(self, *args: Any, names: Callable[[], Iterable[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._names = names

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Adds the names."""
        record = super().get_help_record(ctx)
        return record and (record[0], f"{record[1]}  [{', '.join(self._names())}]")


def model_names() -> list[str]:
    """Names that ``--model`` takes."""
    from stepgraph.applications import APPLICATIONS

    return list(APPLICATIONS)


def dataset_names() -> list[str]:
    """Names that ``--dataset`` takes besides paths."""
    from stepgraph.datasets import DATASETS

    return list(DATASETS)


def name_value(
    ctx: click.Context, param: click.Parameter, given: tuple[str, ...]
) -> dict[str, Any]:
    """Reads ``NAME=VALUE`` pairs; values are JSON where they can be, words otherwise."""
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise click.BadParameter(f"{text!r} is not NAME=VALUE.", ctx, param)
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, one object a line, for programs."
)
run_dir_option = click.option(
    "--run-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help=f"Run directory.  [default: the newest one in {RUNS}/]",
)
run_argument = click.argument(
    "run", required=False, type=click.Path(path_type=Path, file_okay=False)
)
device_option = click.option(
    "--device", metavar="NAME", help='Device, as "stepgraph devices" lists them.'
)
threads_option = click.option(
    "--threads", type=POSITIVE, help="Threads of the device.  [default: all processors]"
)


def find_run(named: Path | None, argument: Path | None = None) -> Path:
    """The run directory a command means.

    Args:
        named: by ``--run-dir``.
        argument: by position.

    Raises:
        CheckpointError: none is named and there is none in `RUNS`.
    """
    if named is not None and argument is not None and named != argument:
        raise click.UsageError("Name the run directory once: as RUN or with --run-dir.")
    chosen = named or argument
    if chosen is not None:
        return chosen
    found = [path.parent for path in RUNS.glob("*/config.json")] if RUNS.is_dir() else []
    if not found:
        raise CheckpointError(
            describe(
                "run directory",
                f"none is named and there is none in {RUNS}/",
                fix='name one with --run-dir, or make one with "stepgraph train"',
            )
        )
    return max(found, key=lambda path: (path / "config.json").stat().st_mtime)
