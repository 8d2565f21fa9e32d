"""What a training step would take with more threads than this machine has, by its own task lists.

    python benchmarks/schedule_simulation.py [--models resnet50] [--batches 64] [--threads 1,2,4,8]

Each launch of the compiled step is measured on one thread; its tasks are taken to cost the same.
The schedule is then played with the executor's own rule (`executor_ir`): a thread claims
``remaining >> shift`` tasks, at least one, and pays for the claim; the last one opens the next
launch, which the others see a moment later. What is left out: shared caches and memory bandwidth
(launches that move data gain less than said once bandwidth is reached) and clock speeds that fall
when all cores work. Beside the prediction for as many threads as there are processors stands the
measured time. First come the launches that lose most with the largest number of threads, and how
many tasks they have.
"""

from __future__ import annotations

import argparse
import heapq
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tables import show

from stepgraph.applications import APPLICATIONS
from stepgraph.backends.cpu import chains
from stepgraph.backends.cpu.device import FETCH
from stepgraph.backends.cpu.plan import ChainStep, KernelStep
from stepgraph.rivals import speed

# Seconds: profiling a launch alone, claiming tasks, seeing that a launch was opened.
ALONE, CLAIM, SEEN = 1e-6, 5e-8, 2e-7


@dataclass
class Launch:
    """A launch with its number of tasks and its seconds on one thread."""

    name: str
    tasks: int
    seconds: float
    flops: int


def simulate(launch: Launch, threads: int) -> float:
    """Seconds from the opening of a launch to its end."""
    if launch.tasks <= 1 or threads == 1:
        return launch.seconds + CLAIM
    each = launch.seconds / launch.tasks
    shift = (2 * threads - 1).bit_length()
    free = [0.0] + [SEEN] * (threads - 1)
    heapq.heapify(free)
    remaining, end = launch.tasks, 0.0
    while remaining:
        count = max(remaining >> shift, 1)
        done = heapq.heappop(free) + CLAIM + count * each
        remaining -= count
        end = max(end, done)
        heapq.heappush(free, done)
    return end


def executable_of(name: str, batch: int, threads: int):
    """A network's training step and its feeds."""
    model = speed.build(name)
    x, y = speed.pictures(model, batch)
    speed.own_steps(model, threads)
    step = model.runtime.step("train", (False,))
    return step.executable, dict(zip(step.feeds, (x, y), strict=True))


def launches_of(name: str, batch: int, threads: int, rounds: int) -> list[Launch]:
    """The launches of a step for so many threads, with the least time of each on one thread."""
    # All that the number of threads decides is which launches are chained.
    chains.TASKS = max(8, chains.TASKS_PER_THREAD * threads)
    executable, feeds = executable_of(name, batch, 1)
    executable.run(feeds)
    profiles = [executable.profile(feeds) for _ in range(rounds)]
    (runner,) = executable._runners.values()
    steps = iter(runner.steps)
    found = []
    for number, first in enumerate(profiles[0]):
        seconds = max(min(profile[number].seconds for profile in profiles) - ALONE, 1e-7)
        step = None if first.name == FETCH else next(steps)
        tasks = step.tasks if isinstance(step, KernelStep | ChainStep) else 1
        found.append(Launch(first.name, tasks, seconds, first.flops))
    return found


def measured(name: str, batch: int, threads: int, seconds: float) -> float:
    """Seconds of a whole step."""
    chains.TASKS = 8
    executable, feeds = executable_of(name, batch, threads)
    executable.run(feeds)
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        executable.run(feeds)
        times.append(time.perf_counter() - start)
    return float(np.min(times))


def worst(launches: Sequence[Launch], threads: int, count: int) -> list[list[str]]:
    """Launches by what they lose against an even share, those of one name and size together."""
    kinds: dict[tuple[str, int], list[float]] = {}
    for launch in launches:
        took = simulate(launch, threads)
        entry = kinds.setdefault((launch.name, launch.tasks), [0, 0.0, 0.0])
        entry[0] += 1
        entry[1] += took
        entry[2] += took - launch.seconds / threads
    ranked = sorted(kinds.items(), key=lambda item: -item[1][2])[:count]
    whole = sum(simulate(launch, threads) for launch in launches)
    return [
        [name[:60], str(tasks), str(int(n)), f"{1e3 * took:.3f}", f"{lost / whole:.1%}"]
        for (name, tasks), (n, took, lost) in ranked
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=",".join(APPLICATIONS), help="names, with commas")
    parser.add_argument("--batches", default="64", help="batch sizes, with commas")
    parser.add_argument("--threads", default="1,2,4,8,16,32,64", help="numbers, with commas")
    parser.add_argument("--rounds", type=int, default=5, help="profiles; the least time counts")
    parser.add_argument("--worst", type=int, default=6, help="launches that lose most, listed")
    options = parser.parse_args()
    numbers = [int(number) for number in options.threads.split(",")]
    here = len(os.sched_getaffinity(0))
    rows = []
    for name in options.models.split(","):
        for batch in map(int, options.batches.split(",")):
            launches = {n: launches_of(name, batch, n, options.rounds) for n in {*numbers, here, 1}}
            times = {n: sum(simulate(one, n) for one in found) for n, found in launches.items()}
            one = times[1]
            rows.append(
                [
                    f"{name}, {batch}",
                    *(f"{1e3 * times[n]:.2f} ({one / times[n] / n:.0%})" for n in numbers),
                    f"{1e3 * measured(name, batch, 1, 1.0):.2f}",
                    f"{1e3 * measured(name, batch, here, 1.0):.2f}",
                ]
            )
            if options.worst:
                show(
                    f"{name}, {batch}: what loses most with {numbers[-1]} threads",
                    ["launch", "tasks", "launches", "ms", "of the step lost"],
                    worst(launches[numbers[-1]], numbers[-1], options.worst),
                )
    show(
        "milliseconds per training step by threads, simulated (share of an even split)",
        ["network, batch", *map(str, numbers), "1 measured", f"{here} measured"],
        rows,
    )


if __name__ == "__main__":
    main()
