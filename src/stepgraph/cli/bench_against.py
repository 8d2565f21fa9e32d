"""``stepgraph bench --against``: the speed table, row by row as it is measured."""

from __future__ import annotations

from collections.abc import Sequence

from stepgraph.applications import APPLICATIONS
from stepgraph.backends.cpu.native.pool import default_threads
from stepgraph.cli import output
from stepgraph.rivals import speed


def table(
    against: str,
    models: Sequence[str],
    batches: Sequence[int],
    threads: int | None,
    seconds: float,
    compiled: bool | None,
    as_json: bool,
) -> None:
    """Measures and prints.

    Args:
        against: in `speed.RIVALS`.
        models: names; all of them if there are none.
        batches: pictures in a step; `speed.BATCHES` if there are none.
        threads: of both; all processors by default.
        seconds: for each row.
        compiled: whether the rival's own compiler is measured; where it works by default.
        as_json: an object a line instead of a table.
    """
    other = speed.rival(against)
    threads = threads or default_threads()
    version = other.set_threads(threads)
    compiled = other.compiles() if compiled is None else compiled
    ways = [way for way in other.WAYS if compiled or way != "torch.compile"]
    facts = {"machine": speed.machine(), "threads": threads, "against": f"{against} {version}"}
    if as_json:
        output.emit("bench_against", **facts)
    else:
        print(f"milliseconds per training step (medians), {threads} threads, {against} {version}")
        print(facts["machine"])
        print(_line("network", "batch", [*speed.OWN, *ways], "ratio"), flush=True)
    for row in speed.rows(
        models or list(APPLICATIONS),
        batches or speed.BATCHES,
        other,
        ways,
        threads=threads,
        seconds=seconds,
    ):
        ratios = {own: row.ratio(own) for own in speed.OWN}
        if as_json:
            output.emit(
                "bench_row",
                model=row.model,
                batch_size=row.batch_size,
                median_milliseconds=row.milliseconds,
                least_milliseconds=row.least,
                failed=row.failed,
                fastest=row.best,
                ratio=ratios,
            )
            continue
        cells = [
            f"{row.milliseconds[way]:.2f}" if way in row.milliseconds else "failed"
            for way in (*speed.OWN, *ways)
        ]
        print(_line(row.model, str(row.batch_size), cells, f"{ratios[speed.OWN[0]]:.2f}"))
        for way, why in row.failed.items():
            output.note(f"{way}: {why}")


def _line(name: str, batch: str, cells: Sequence[str], last: str) -> str:
    return f"{name:<13} {batch:>5}" + "".join(f"  {cell:>21}" for cell in cells) + f"  {last:>6}"
