"""Milliseconds of a whole training step, beside PyTorch's best CPU mode in the same run.

    python benchmarks/step_speed.py [--models resnet50,vit] [--batches 8,64] [--quick]
    python benchmarks/step_speed.py --settings all [--models vit] [--batches 8,64]

A step is forward pass, loss, gradients, plain gradient descent on every weight and the moving
statistics, from NumPy arrays to the loss as a number. stepgraph runs it as `Model.train_on_batch`
and as the compiled graph that this calls; PyTorch eagerly with both memory formats, and through
torch.compile where a C++ compiler is found. All of them take turns, so that whatever else the
machine does meets all alike. A turn begins with a rest, because the other's threads watch for work
for some milliseconds before they sleep, and with steps that are not timed, because caches are still
the other's. Shown are medians, then least times, and PyTorch's best over stepgraph's for each. Both
use the same number of threads.

With `--settings`, optimizers and what can be switched on with them take turns as well, PyTorch in
the way that is fastest with plain gradient descent: shown is the ratio of each, and that over plain
descent's.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import settings
import torch
from networks import batches, build
from tables import show
from torch.nn import functional
from twins import TWINS

from stepgraph.applications import APPLICATIONS
from stepgraph.models import Model

# Seconds of a turn: nothing runs, steps run untimed, steps are timed.
REST, WARM, TIMED = 0.02, 0.01, 0.03

Step = Callable[[np.ndarray, np.ndarray], float]


def ours(model: Model, threads: int, setting: str = "sgd") -> dict[str, Step]:
    """`train_on_batch`, and the executable below it; both train the same weights."""
    model.compile(
        settings.ours(setting), "categorical_crossentropy", threads=threads, nonfinite="ignore"
    )
    step = model.runtime.step("train", (False,))

    def graph(x: np.ndarray, y: np.ndarray) -> float:
        return float(step.executable.run(dict(zip(step.feeds, (x, y), strict=True)))[0])

    return {"train_on_batch": model.train_on_batch, "graph step": graph}


def eager(
    name: str, model: Model, last: bool, compiled: bool = False, chosen: Sequence[str] = ("sgd",)
) -> list[Step]:
    """PyTorch's step as its users write it, with its fastest update: one for each setting."""
    twin = TWINS[name](model.input_shape[1:], model.output_shape[-1], exact=False).train()
    layout = torch.channels_last if last else torch.contiguous_format
    twin = twin.to(memory_format=layout)

    def losses(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        # Pictures are NHWC outside: as channels_last they need no copy.
        pictures = images.permute(0, 3, 1, 2).contiguous(memory_format=layout)
        return functional.cross_entropy(twin.logits(pictures), labels)

    forward = torch.compile(losses) if compiled else losses

    def step_of(setting: str) -> Step:
        optimizer, update = settings.theirs(setting, twin.parameters())

        def step(x: np.ndarray, y: np.ndarray) -> float:
            loss = forward(torch.from_numpy(x), torch.from_numpy(y))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            update()
            return float(loss.detach())

        return step

    return [step_of(setting) for setting in chosen]


def theirs(
    name: str, model: Model, compiled: bool, chosen: Sequence[str] = ("sgd",)
) -> dict[str, list[Step]]:
    """PyTorch's ways to do it, each with every setting."""
    found = {
        "PyTorch": eager(name, model, last=False, chosen=chosen),
        "PyTorch channels_last": eager(name, model, last=True, chosen=chosen),
    }
    if compiled:
        found["torch.compile"] = eager(name, model, last=True, compiled=True, chosen=chosen)
    return found


def seconds(steps: dict[Any, Step], x, y, budget: float, least: int) -> dict[Any, list[float]]:
    """Times of steps that take turns until the budget is spent."""
    times: dict[Any, list[float]] = {name: [] for name in steps}
    for name, step in list(steps.items()):
        try:
            step(x, y)
        except Exception as error:  # a compiler that does not work here is no reason to stop
            if name != "torch.compile":
                raise
            print(f"  torch.compile: {type(error).__name__}: {str(error).splitlines()[0]}")
            del steps[name], times[name]
    end = time.perf_counter() + budget
    while time.perf_counter() < end or len(next(iter(times.values()))) < least:
        for name, step in steps.items():
            time.sleep(REST)
            start = now = time.perf_counter()
            while now < start + WARM:
                step(x, y)
                now = time.perf_counter()
            start, count = now, 0
            while now < start + TIMED or count < min(least, 3):
                before = time.perf_counter()
                step(x, y)
                now = time.perf_counter()
                times[name].append(now - before)
                count += 1
    return times


def measure(name: str, batch: int, options: argparse.Namespace) -> list[list[str]]:
    """One row for medians, one for least times."""
    model = build(name, 0)
    x, y = batches(model, batch, 1, 0)[0]
    other = theirs(name, model, options.compile)
    steps = ours(model, options.threads) | {way: one for way, (one,) in other.items()}
    times = seconds(steps, x, y, options.seconds, options.least)
    rows = []
    for what, reduce in (("median", np.median), ("least", np.min)):
        found = {kind: 1e3 * float(reduce(values)) for kind, values in times.items()}
        own = [found.pop("train_on_batch"), found.pop("graph step")]
        best = min(found, key=lambda kind: found[kind])
        rows.append(
            [
                f"{name}, {batch}, {what}",
                *(f"{value:.2f}" for value in own),
                *(f"{found[kind]:.2f}" if kind in found else "-" for kind in COLUMNS),
                *(f"{found[best] / value:.2f}" for value in own),
            ]
        )
    return rows


def measure_settings(
    name: str, batch: int, chosen: Sequence[str], options: argparse.Namespace
) -> list[list[str]]:
    """A row for each setting."""
    models = {setting: build(name, 0) for setting in chosen}
    x, y = batches(models["sgd"], batch, 1, 0)[0]
    other = theirs(name, models["sgd"], options.compile, chosen)
    plain = {way: steps[0] for way, steps in other.items()}
    first = seconds(plain, x, y, options.seconds / 4, 2)
    best = min(first, key=lambda way: min(first[way]))
    steps = {("theirs", s): step for s, step in zip(chosen, other[best], strict=True)}
    steps |= {
        ("ours", s): ours(model, options.threads, s)["train_on_batch"]
        for s, model in models.items()
    }
    times = seconds(steps, x, y, options.seconds, options.least)
    middle = {key: 1e3 * float(np.median(values)) for key, values in times.items()}
    ratios = {s: middle["theirs", s] / middle["ours", s] for s in chosen}
    return [
        [
            f"{name}, {batch}",
            s,
            f"{middle['ours', s]:.2f}",
            f"{middle['theirs', s]:.2f}",
            best,
            f"{ratios[s]:.2f}",
            f"{ratios[s] / ratios['sgd']:.0%}",
        ]
        for s in chosen
    ]


COLUMNS = ("PyTorch", "PyTorch channels_last", "torch.compile")
SETTINGS_COLUMNS = (
    *("network, batch", "setting", "train_on_batch", "PyTorch", "way", "ratio", "of plain's"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=",".join(APPLICATIONS), help="names, with commas")
    parser.add_argument("--batches", default="8,64,256", help="batch sizes, with commas")
    parser.add_argument("--seconds", type=float, default=10.0, help="time for each row")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true", help="batch 8, two steps of each")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=bool(shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")),
        help="time torch.compile too; by default where there is a C++ compiler",
    )
    parser.add_argument(
        "--settings",
        help="optimizers with commas, such as adam,sgd+clipnorm; all for every one",
    )
    options = parser.parse_args()
    chosen = settings.ALL if options.settings == "all" else (options.settings or "").split(",")
    chosen = tuple(dict.fromkeys(["sgd", *filter(None, chosen)]))
    options.least = 2 if options.quick else 5
    if options.quick:
        options.seconds, options.batches = 0.0, "8"
    torch.set_num_threads(options.threads)
    rows = []
    for name in options.models.split(","):
        for batch in map(int, options.batches.split(",")):
            found = (
                measure_settings(name, batch, chosen, options)
                if options.settings
                else measure(name, batch, options)
            )
            for row in found:
                print(*row, flush=True)
            rows += found
            torch.compiler.reset()
            gc.collect()
    columns = ["network, batch", "train_on_batch", "graph", *COLUMNS]
    columns += ["best/train_on_batch", "best/graph"]
    show(
        f"milliseconds per training step, {options.threads} threads, PyTorch {torch.__version__}",
        [*SETTINGS_COLUMNS] if options.settings else columns,
        rows,
    )


if __name__ == "__main__":
    main()
