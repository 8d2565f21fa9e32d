"""Reports of training: live on a terminal, plain lines elsewhere, JSON for programs, or nothing."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from stepgraph.cli import output
from stepgraph.cli.output import duration, percent
from stepgraph.runs.events import Ended, Reporter, Seen, Started, Stepped, Validated

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.status import Status

PLAIN_SECONDS = 10.0
"""Least time between two lines about single steps where lines are not redrawn."""


def reporter(*, as_json: bool, quiet: bool) -> Reporter:
    """The reporter for this process's standard output."""
    found: Reporter
    if as_json:
        found = JsonReporter()
    elif quiet:
        found = QuietReporter()
    else:
        found = LiveReporter() if output.is_terminal() else PlainReporter()
    return cast(Reporter, _Steady(found))


class _Steady:
    """Passes all on to a reporter until its output breaks; training is not to die of that."""

    def __init__(self, inner: Reporter) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Callable[..., None]:
        def tell(*values: Any) -> None:
            try:
                getattr(self._inner, name)(*values)
            except OSError:
                # The reader of a pipe has gone, or the terminal with its window.
                output.drop_standard_output()
                self._inner = QuietReporter()

        return tell


class QuietReporter:
    """Says nothing but what is not as might be expected."""

    def preparing(self, what: str) -> None:
        """Nothing."""

    def started(self, event: Started) -> None:
        """Nothing."""

    def stepped(self, event: Stepped) -> None:
        """Nothing."""

    def seen(self, batch: Seen) -> None:
        """Shows no pictures."""

    def validating(self, done: int, total: int) -> None:
        """Nothing."""

    def validated(self, event: Validated) -> None:
        """Nothing."""

    def saved(self, step: int, path: Path) -> None:
        """Nothing."""

    def note(self, message: str) -> None:
        """A line on standard error."""
        output.note(message)

    def ended(self, event: Ended) -> None:
        """How to go on, if there is a need to."""
        if event.status != "done":
            for line in _ending(event):
                print(line, file=sys.stderr)

    def close(self) -> None:
        """Nothing."""


class PlainReporter(QuietReporter):
    """Lines of text; a step's only now and then."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None

    def started(self, event: Started) -> None:
        """What is trained on what."""
        for label, value in _opening(event).items():
            self._print(f"{label}: {value}")

    def stepped(self, event: Stepped) -> None:
        """The first step, and then one every `PLAIN_SECONDS`."""
        now = self._clock()
        if self._last is not None and now - self._last < PLAIN_SECONDS:
            return
        self._last = now
        parts = [
            f"step {event.step}/{event.total}",
            f"epoch {event.epoch}/{event.epochs}",
            f"loss {event.loss:.4f}",
            f"accuracy {percent(event.accuracy)}",
        ]
        if event.images_per_second is not None and event.seconds_left is not None:
            parts.append(f"{event.images_per_second:,.0f} images/s")
            parts.append(f"{duration(event.seconds_left)} left")
        self._print("  ".join(parts))

    def validated(self, event: Validated) -> None:
        """One line."""
        self._print(
            f"epoch {event.epoch}/{event.epochs}  loss {event.loss:.4f}  "
            f"accuracy {percent(event.accuracy)}  test loss {event.val_loss:.4f}  "
            f"test accuracy {percent(event.val_accuracy)}  {duration(event.seconds)}"
        )

    def ended(self, event: Ended) -> None:
        """The result, and what to do next."""
        for line in _ending(event):
            self._print(line)

    @staticmethod
    def _print(line: str) -> None:
        print(line, flush=True)


class JsonReporter(QuietReporter):
    """One JSON object a line on standard output, with an ``event`` each."""

    def __init__(self) -> None:
        output.json_errors()

    def started(self, event: Started) -> None:
        """Event "start"."""
        output.emit("start", **{**asdict(event), "run_dir": str(event.run_dir)})

    def stepped(self, event: Stepped) -> None:
        """Event "step"."""
        output.emit("step", **asdict(event))

    def validated(self, event: Validated) -> None:
        """Event "epoch"."""
        output.emit("epoch", **asdict(event))

    def saved(self, step: int, path: Path) -> None:
        """Event "checkpoint"."""
        output.emit("checkpoint", step=step, path=str(path))

    def note(self, message: str) -> None:
        """Event "note"."""
        output.emit("note", message=message)

    def ended(self, event: Ended) -> None:
        """Event "end"."""
        output.emit("end", **{**asdict(event), "run_dir": str(event.run_dir)})


class LiveReporter(QuietReporter):
    """A bar that moves, and under each other what the epochs brought."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._head_shown = False
        self._console = output.console()
        self._status: Status | None = None

    def preparing(self, what: str) -> None:
        """A line that shows that something is going on."""
        if self._status is None:
            self._status = self._console.status("")
            self._status.start()
        self._status.update(f"[dim]{what} ...")

    def started(self, event: Started) -> None:
        """What is trained on what, and the bar."""
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        self._end_status()
        output.facts(_opening(event))
        self._console.print()
        # The bar takes what room there is; figures keep their places while they change.
        self._progress = Progress(
            TextColumn("[bold]epoch {task.fields[epoch]}", table_column=Column(no_wrap=True)),
            BarColumn(
                bar_width=None,
                complete_style="cyan",
                finished_style="green",
                table_column=Column(ratio=1, min_width=6),
            ),
            TextColumn("{task.fields[figures]}", table_column=Column(no_wrap=True)),
            console=self._console,
            refresh_per_second=5,
            expand=True,
        )
        width = len(str(event.epochs))
        self._task = self._progress.add_task(
            "train",
            total=event.total,
            completed=event.step,
            epoch=f"{1:{width}}/{event.epochs}",
            figures="[dim]compiling the step for this device",
        )
        self._progress.start()

    def stepped(self, event: Stepped) -> None:
        """Moves the bar."""
        figures = f"loss {event.loss:<6.4f}  acc {100 * event.accuracy:5.1f} %"
        if event.images_per_second is not None and event.seconds_left is not None:
            figures += f"  [cyan]{event.images_per_second:7,.0f} images/s[/]"
            figures += f"  [dim]{_clock(event.seconds_left):>5} left[/]"
        self._update(event, completed=event.step, figures=figures)

    def validating(self, done: int, total: int) -> None:
        """Says so in the bar's line."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, figures=f"[dim]test set {done:,}/{total:,}")

    def validated(self, event: Validated) -> None:
        """A row of figures above the bar."""
        if not self._head_shown:
            self._head_shown = True
            self._console.print(
                f"[dim]{'epoch':>9}  {'loss':>8}  {'accuracy':>8}  {'test loss':>9}  "
                f"{'test acc.':>9}  {'time':>10}[/]"
            )
        epoch = f"{event.epoch}/{event.epochs}"
        self._console.print(
            f"{epoch:>9}  {event.loss:8.4f}  {percent(event.accuracy):>8}  "
            f"{event.val_loss:9.4f}  [bold green]{percent(event.val_accuracy):>9}[/]  "
            f"[dim]{duration(event.seconds):>10}[/]"
        )

    def note(self, message: str) -> None:
        """A line above the bar."""
        from rich.text import Text

        self._console.print(Text.assemble(("note: ", "bold yellow"), message))

    def ended(self, event: Ended) -> None:
        """Ends the bar; the result, and what to do next."""
        from rich.text import Text

        self.close()
        self._console.print()
        first, *others = _ending(event)
        style = "bold green" if event.status == "done" else "bold yellow"
        self._console.print(Text(first, style))
        for line in others:
            label, _, rest = line.partition(": ")
            self._console.print(Text.assemble((f"{label}: ", "dim"), rest))

    def close(self) -> None:
        """Takes the bar away."""
        self._end_status()
        if self._progress is not None:
            if self._task is not None:
                self._progress.update(self._task, visible=False)
            self._progress.stop()
            self._progress = None

    def _end_status(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _update(self, event: Stepped, **values: Any) -> None:
        if self._progress is not None and self._task is not None:
            width = len(str(event.epochs))
            self._progress.update(
                self._task, epoch=f"{event.epoch:{width}}/{event.epochs}", **values
            )


def _opening(event: Started) -> dict[str, str]:
    going = f", going on after step {event.step:,}" if event.step else ""
    return {
        "model": f"{event.model}, {event.parameters:,} parameters",
        "data": f"{event.dataset}, {event.train_images:,} for training, "
        f"{event.test_images:,} for testing",
        "optimizer": event.optimizer,
        "device": event.device,
        "steps": f"{event.total:,} in {event.epochs:,} epoch{'s'[: event.epochs > 1]}, "
        f"seed {event.seed}{going}",
        "run directory": str(event.run_dir),
    }


def _ending(event: Ended) -> list[str]:
    steps = f"{event.step:,} of {event.total:,} steps"
    if event.status == "done":
        result = ""
        if event.val_accuracy is not None:
            result = f", test accuracy {percent(event.val_accuracy)}"
        return [
            f"done: {steps} in {duration(event.seconds)}{result}",
            f"look at it: stepgraph plot --run-dir {shlex.quote(str(event.run_dir))}",
        ]
    saved = (
        "nothing is saved yet" if event.saved_step is None else f"saved: step {event.saved_step:,}"
    )
    head = "stopped" if event.status == "stopped" else "stopped at once, without saving"
    return [f"{head} after {steps}; {saved}", f"go on with: {event.command}"]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
