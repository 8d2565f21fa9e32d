"""Words, tables and JSON: for a terminal with colours, for anything else as plain text."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def console(*, stderr: bool = False) -> Console:
    """A console on standard output or error; without a terminal it writes no escape codes."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def is_terminal() -> bool:
    """Whether standard output can show what is redrawn in place."""
    made = console()
    return made.is_terminal and not made.is_dumb_terminal


def emit(event: str, **values: Any) -> None:
    """Prints one JSON object on a line of standard output."""
    print(json.dumps({"event": event, **values}, allow_nan=False), flush=True)


_json_errors = False


def json_errors() -> None:
    """From now on errors are also printed as JSON, because whoever reads expects it."""
    global _json_errors
    _json_errors = True


def error(message: str, kind: str) -> None:
    """Prints an error on standard error: its first line stands out."""
    from rich.text import Text

    first, _, rest = message.partition("\n")
    text = Text.assemble(("error: ", "bold red"), (first, "bold"), "\n" + rest if rest else "")
    console(stderr=True).print(text)
    if _json_errors:
        emit("error", kind=kind, message=message)


def note(message: str) -> None:
    """Prints a remark on standard error."""
    from rich.text import Text

    console(stderr=True).print(Text.assemble(("note: ", "bold yellow"), message))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Prints a table.

    Args:
        columns: headings.
        rows: cells, as many as columns each.
        right: numbers of the columns to be aligned to the right.
    """
    if is_terminal():
        from rich import box
        from rich.table import Table
        from rich.text import Text

        made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
        for i, column in enumerate(columns):
            made.add_column(column, justify="right" if i in right else "left", overflow="fold")
        for row in rows:
            made.add_row(*(Text(cell) for cell in row))
        console().print(made, soft_wrap=False)
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def facts(pairs: Mapping[str, str]) -> None:
    """Prints what something is made of: a label and a value a line."""
    from rich.text import Text

    width = max(map(len, pairs))
    for label, value in pairs.items():
        console().print(Text.assemble((label.ljust(width), "bold"), "  ", value))


def duration(seconds: float) -> str:
    """A time span for people.

    Example:
        >>> duration(4.24), duration(83), duration(7384)
        ('4.2 s', '1 min 23 s', '2 h 3 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def percent(share: float) -> str:
    """A share in percent.

    Example:
        >>> percent(0.9731)
        '97.3 %'
    """
    return f"{100 * share:.1f} %"


def drop_standard_output() -> None:
    """Sends what is still to be printed nowhere, because whoever read it has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def download_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error; what is yielded is told file, bytes done and bytes in all."""
    from rich.progress import Progress

    with Progress(console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("downloading", total=None)

        def progress(file: str, done: int, total: int) -> None:
            bar.update(task, description=f"downloading {file}", completed=done, total=total)

        yield progress
