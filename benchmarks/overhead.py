"""What a training step costs besides its arithmetic: Python, and launches that do nothing.

    python benchmarks/overhead.py [--model mlp] [--batch-size 1] [--threads 1,2] [--seconds 3]

`train_on_batch` is timed as it is, and within it the time spent in the native program; what is left
is Python. Then a program of as many launches with as many tasks each, whose kernel returns at once,
is timed alone: that is what starting and sharing them costs. Medians in microseconds. For the MLP
with one picture Python and launches together should stay below 60.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from tables import show

from stepgraph.backends.cpu.native.compile import build
from stepgraph.backends.cpu.native.emit import Module
from stepgraph.backends.cpu.native.pool import Pool, Program, default_threads
from stepgraph.backends.cpu.native.value import i64
from stepgraph.rivals import speed


def idle(program: Program) -> Program:
    """The same launches of a kernel that does nothing."""
    module = Module("idle")
    with module.kernel("idle", {"unused": i64}):
        pass
    kernel = build(str(module), ["idle"])["idle"]
    made = Program()
    for launch in program.launches:
        made.launch(kernel, launch.arguments, launch.tasks)
    return made


def microseconds(run: Callable[[], object], seconds: float) -> float:
    """Median time of a call."""
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


def measure(name: str, batch: int, threads: int, seconds: float) -> list[str]:
    """One row."""
    model = speed.build(name)
    x, y = speed.pictures(model, batch)
    step = speed.own_steps(model, threads)["train_on_batch"]
    step(x, y)
    (runner,) = model.runtime.step("train", (False,)).executable._runners.values()
    pool: Pool = runner._pool
    inside: list[float] = []
    run = pool.run

    def timed(program: Program) -> None:
        start = time.perf_counter()
        run(program)
        inside.append(time.perf_counter() - start)

    pool.run = timed  # type: ignore[method-assign]
    try:
        whole = microseconds(lambda: step(x, y), seconds)
    finally:
        pool.run = run  # type: ignore[method-assign]
    native = 1e6 * statistics.median(inside)
    program = idle(runner._native)
    pool.run(program)
    launches = microseconds(lambda: pool.run(program), seconds / 3)
    count = len(program.launches)
    figures = (whole, native, whole - native, launches, whole - native + launches)
    return [f"{name}, {batch}, {threads}", str(count), *(f"{figure:.1f}" for figure in figures)]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="mlp")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--threads", default=f"1,{default_threads()}", help="with commas")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row")
    options = parser.parse_args()
    rows = [
        measure(options.model, options.batch_size, threads, options.seconds)
        for threads in sorted({int(n) for n in options.threads.split(",")})
    ]
    columns = ["network, batch, threads", "launches", "step", "native", "Python", "idle launches"]
    show("microseconds (medians)", [*columns, "Python + launches"], rows)


if __name__ == "__main__":
    main()
