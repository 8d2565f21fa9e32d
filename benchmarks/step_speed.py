"""Milliseconds of a whole training step, beside PyTorch's best CPU mode in the same run.

    python benchmarks/step_speed.py [--models resnet50,vit] [--batches 8,64] [--quick]
    python benchmarks/step_speed.py --settings all [--models vit] [--batches 8,64]

The table is that of `stepgraph bench --against torch` (`stepgraph.rivals.speed`), with least times
beside medians. A step is forward pass, loss, gradients, plain gradient descent on every weight and
the moving statistics, from NumPy arrays to the loss as a number. stepgraph runs it as
`Model.train_on_batch` and as the compiled graph that this calls; PyTorch eagerly with both memory
formats, and through torch.compile where a C++ compiler is found.

With `--settings`, optimizers and what can be switched on with them take turns as well, PyTorch in
the way that is fastest with plain gradient descent. Least milliseconds count there. The ratio says
how many times as long as stepgraph PyTorch takes with a setting; the last column divides it by the
ratio with plain gradient descent: below 100 % the setting costs us more than it costs PyTorch.
"""

from __future__ import annotations

import argparse
import functools
import gc
import os
from collections.abc import Sequence

import settings
import torch
from tables import show

from stepgraph.applications import APPLICATIONS
from stepgraph.rivals import pytorch, speed
from stepgraph.rivals.turns import take_turns


def measure(name: str, batch: int, options: argparse.Namespace) -> list[list[str]]:
    """One row for medians, one for least times."""
    ways = [way for way in pytorch.WAYS if options.compile or way != "torch.compile"]
    row = speed.measure(
        name,
        batch,
        pytorch,
        ways,
        threads=options.threads,
        seconds=options.seconds,
        least=options.least,
    )
    for way, why in row.failed.items():
        print(f"  {way}: {why}")
    cells = []
    for what, found in (("median", row.milliseconds), ("least", row.least)):
        best = min(found[way] for way in ways if way in found)
        cells.append(
            [
                f"{name}, {batch}, {what}",
                *(f"{found[way]:.2f}" if way in found else "-" for way in COLUMNS),
                *(f"{best / found[own]:.2f}" for own in speed.OWN),
            ]
        )
    return cells


def measure_settings(
    name: str, batch: int, chosen: Sequence[str], options: argparse.Namespace
) -> list[list[str]]:
    """A row for each setting."""
    models = {setting: speed.build(name) for setting in chosen}
    x, y = speed.pictures(models["sgd"], batch)
    updates = [functools.partial(settings.theirs, setting) for setting in chosen]
    ways = [way for way in pytorch.WAYS if options.compile or way != "torch.compile"]
    other = {way: pytorch.training_steps(name, models["sgd"], way, updates) for way in ways}
    plain = {way: functools.partial(steps[0], x, y) for way, steps in other.items()}
    first = take_turns(plain, options.seconds / 4, 2)
    best = min(first, key=lambda way: min(first[way]))
    steps = {("theirs", s): step for s, step in zip(chosen, other[best], strict=True)}
    for s, model in models.items():
        own = speed.own_steps(model, options.threads, settings.ours(s))
        steps["ours", s] = own["train_on_batch"]
    programs = {key: functools.partial(step, x, y) for key, step in steps.items()}
    for program in programs.values():
        program()
    times = take_turns(programs, options.seconds, options.least)
    # Least times: between so many programs, medians tell more of the machine than of the settings.
    least = {key: 1e3 * min(values) for key, values in times.items()}
    ratios = {s: least["theirs", s] / least["ours", s] for s in chosen}
    return [
        [
            f"{name}, {batch}",
            s,
            f"{least['ours', s]:.2f}",
            f"{least['theirs', s]:.2f}",
            best,
            f"{ratios[s]:.2f}",
            f"{ratios[s] / ratios['sgd']:.0%}",
        ]
        for s in chosen
    ]


COLUMNS = (*speed.OWN, *pytorch.WAYS)
SETTINGS_COLUMNS = (
    *(
        "network, batch",
        "setting",
        "stepgraph, ms",
        "PyTorch, ms",
        "PyTorch's way",
        "ratio",
        "of sgd's",
    ),
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
        default=pytorch.compiles(),
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
    pytorch.set_threads(options.threads)
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
            pytorch.forget()
            gc.collect()
    columns = ["network, batch", *COLUMNS, *(f"best/{own}" for own in speed.OWN)]
    show(
        f"milliseconds per training step, {options.threads} threads, PyTorch {torch.__version__}",
        [*SETTINGS_COLUMNS] if options.settings else columns,
        rows,
    )


if __name__ == "__main__":
    main()
