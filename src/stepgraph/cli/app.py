"""The table of commands, and what becomes of errors."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import click

from stepgraph import __version__
from stepgraph.cli import output
from stepgraph.errors import StepgraphError

# Name to the module that holds it as `command`; imported when used.
COMMANDS: dict[str, str] = {
    "train": "stepgraph.cli.train",
    "evaluate": "stepgraph.cli.evaluate",
    "predict": "stepgraph.cli.predict",
    "summary": "stepgraph.cli.summary",
    "devices": "stepgraph.cli.devices",
    "plot": "stepgraph.cli.plot",
    "bench": "stepgraph.cli.bench",
    "export": "stepgraph.cli.export",
    "verify": "stepgraph.cli.verify",
}

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130


class _Commands(click.Group):
    """Commands in the table's order."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name]).command
        return command


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong use, 130 stopped by Ctrl-C (train saves first).",
)
@click.version_option(__version__, prog_name="stepgraph")
def application() -> None:
    """Train neural networks on the device at hand.

    "stepgraph train" trains ResNet-50 on real images of hand-written digits and leaves a run
    directory, which the other commands read.
    """


def run(arguments: Sequence[str] | None) -> int:
    """Runs a command; errors become messages and exit codes."""
    try:
        code = application.main(
            args=None if arguments is None else list(arguments),
            prog_name="stepgraph",
            standalone_mode=False,
        )
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return WRONG_USE
    except StepgraphError as error:
        return _failed(error, str(error))
    except MemoryError as error:
        return _failed(error, "out of memory\n  fix: a smaller --batch-size or --model")
    except (KeyboardInterrupt, click.Abort):
        output.error("stopped", kind="Interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        output.drop_standard_output()
        return FAILED


def _failed(error: BaseException, message: str) -> int:
    if os.environ.get("STEPGRAPH_TRACEBACK") == "1":
        traceback.print_exception(error)
    output.error(message, kind=type(error).__name__)
    return FAILED
