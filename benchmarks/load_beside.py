"""What another program on the same processors costs a training step.

    python benchmarks/load_beside.py [--models resnet50,mlp] [--batches 8,64] [--torch]

A busy process, free to move or pinned to one of our processors, leaves (n - 1/2) of n processors. A
step that shares work as it goes slows down by little more than n / (n - 1/2); one that waits for
every thread at each of its several hundred launches, or spins while it waits, many times. Shown are
medians in milliseconds and the ratio to the quiet machine; with `--torch`, PyTorch's too.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from tables import show

from stepgraph.rivals import speed


def spin(processor: int | None, ready) -> None:
    """Burns a processor until the parent ends this."""
    if processor is not None:
        os.sched_setaffinity(0, {processor})
    ready.set()
    while os.getppid() != 1:
        sum(range(10_000))


@contextmanager
def beside(processors: list[int | None]) -> Iterator[None]:
    """A busy process for each; None is free to move."""
    context = multiprocessing.get_context("spawn")
    children = []
    for processor in processors:
        ready = context.Event()
        child = context.Process(target=spin, args=(processor, ready), daemon=True)
        child.start()
        ready.wait()
        children.append(child)
    try:
        yield
    finally:
        for child in children:
            child.terminate()
            child.join()


def median(program: Callable[[], object], seconds: float) -> float:
    """Milliseconds."""
    program()
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        program()
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="resnet50,mlp", help="names, with commas")
    parser.add_argument("--batches", default="8,64", help="batch sizes, with commas")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each figure")
    parser.add_argument("--torch", action="store_true", help="PyTorch's steps as well")
    options = parser.parse_args()
    ours = sorted(os.sched_getaffinity(0))
    loads: dict[str, list[int | None]] = {
        "quiet": [],
        "one beside": [None],
        "one pinned": [ours[0]],
        "one each": list(ours),
    }
    rows = []
    for name in options.models.split(","):
        for batch in map(int, options.batches.split(",")):
            model = speed.build(name)
            x, y = speed.pictures(model, batch)
            steps = {"stepgraph": speed.own_steps(model, len(ours))["train_on_batch"]}
            if options.torch:
                from stepgraph.rivals import pytorch

                pytorch.set_threads(len(ours))
                (steps["PyTorch"],) = pytorch.training_steps(name, model, "PyTorch")
            for library, step in steps.items():
                program = functools.partial(step, x, y)
                found = {}
                for load, processors in loads.items():
                    with beside(processors):
                        found[load] = median(program, options.seconds)
                rows.append(
                    [
                        f"{name}, {batch}, {library}",
                        *(f"{t:.2f} ({t / found['quiet']:.2f}x)" for t in found.values()),
                    ]
                )
                print(*rows[-1], flush=True)
    show(
        f"milliseconds per training step, {len(ours)} processors and threads",
        ["network, batch", *loads],
        rows,
    )


if __name__ == "__main__":
    main()
