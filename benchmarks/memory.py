"""Peak memory of a training process, stepgraph's beside PyTorch's, each in a process of its own.

    python benchmarks/memory.py [--models resnet50,vit] [--batches 64] [--steps 5]

Measured is what the system says a process has held at most (`ru_maxrss`), after some training steps
from NumPy arrays with plain gradient descent: interpreter, libraries, weights, program, everything.
PyTorch runs eagerly, with both memory formats; its processes import stepgraph's front for the
network's shapes, which the column "front" says in megabytes and the share leaves out. "planned" is
what stepgraph says before the first run: the process as it is then, and what the run will add.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys

from tables import show

RIVALS = ("PyTorch", "PyTorch channels_last")


def held() -> float:
    """Megabytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def train(way: str, name: str, batch: int, steps: int, threads: int) -> dict[str, float]:
    """Trains in this process and says what it held."""
    if way == "stepgraph":
        from stepgraph.rivals import speed

        model = speed.build(name)
        x, y = speed.pictures(model, batch)
        step = speed.own_steps(model, threads)["train_on_batch"]
        made = model.runtime.step("train", (False,))
        planned = made.executable.planned_bytes(dict(zip(made.feeds, (x, y), strict=True)))
        found = {"planned": held() + planned / 1e6}
    else:
        import torch  # noqa: F401, the front is what comes on top of it

        before = held()
        from stepgraph.rivals import pytorch, speed

        found = {"front": held() - before}
        pytorch.set_threads(threads)
        model = speed.build(name)
        x, y = speed.pictures(model, batch)
        (step,) = pytorch.training_steps(name, model, way)
    for _ in range(steps):
        step(x, y)
    return {"peak": held(), **found}


def fresh(*arguments: object) -> dict[str, float]:
    """`train` in a new process."""
    command = [sys.executable, __file__, "--worker", *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        way, name, *numbers = sys.argv[2:]
        print(json.dumps(train(way, name, *map(int, numbers))))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="resnet50", help="names, with commas")
    parser.add_argument("--batches", default="64", help="batch sizes, with commas")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    rows = []
    for name in options.models.split(","):
        for batch in options.batches.split(","):
            rest = (name, batch, options.steps, options.threads)
            own = fresh("stepgraph", *rest)
            theirs = {way: fresh(way, *rest) for way in RIVALS}
            least = min(found["peak"] - found["front"] for found in theirs.values())
            cells = [own["planned"], own["peak"], *(t["peak"] for t in theirs.values())]
            rows.append(
                [
                    f"{name}, {batch}",
                    *(f"{cell:.0f}" for cell in cells),
                    f"{max(t['front'] for t in theirs.values()):.0f}",
                    f"{own['peak'] / least:.0%}",
                ]
            )
    show(
        "megabytes that a training process holds at most",
        ["network, batch", "planned", "stepgraph", *RIVALS, "front", "of PyTorch's least"],
        rows,
    )


if __name__ == "__main__":
    main()
