"""How far stepgraph's numbers stand from PyTorch's: same initial weights, same batches.

    python benchmarks/parity.py [--models resnet50,vit] [--steps 10] [--seeds 3] [--batch N]

Two tables for the networks of `stepgraph.applications`, trained by plain gradient descent on
scikit-learn's digits.

The first compares the reference device in float64 with PyTorch in float64, at a learning rate of
1e-6: the largest relative deviation over all steps and seeds of the loss, of all gradients (the
weights' change divided by the rate), and of all moving statistics' change. 1e-6 is wanted.

The second asks whether the CPU engine's float32 is as good as PyTorch's. Truth is PyTorch's
float64. At each step the distance of each float32 training from it is taken as a norm over all
gradients, all weights' changes, all moving statistics' changes, and the CPU engine's distance is
divided by PyTorch's; median and worst over steps and seeds are shown, 2 is wanted. The loss is one
number, whose distance may be nil by luck, so its column compares root mean squares over all steps.

Some of these networks are chaotic at 0.01, and on small batches even at 1e-6: two trainings part
exponentially. Where PyTorch itself is a tenth of the truth away from it, neither follows it any
more and their ratio is chance; such steps are left out, and the column "steps" says how many of the
gradients' are left. ResNet-50 takes the talk's batch of 64: on 8 pictures its last normalisations
see 8 values each, gradients have a norm of 10,000, and float64 does not repeat itself. And where a
ReLU's input is 0, or two inputs of a maximum equal, but for rounding, one of the trainings may take
the other side; from there on its distance is that of another path. This shows in the worst ratio,
not in the median.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from networks import batches, build
from tables import show
from twins import Trained

from stepgraph import optimizers
from stepgraph.applications import APPLICATIONS
from stepgraph.models import Model

FLAT, CHAOTIC = 1e-6, 0.01
BATCH, LARGER = 8, {"resnet50": 64}
LOST = 0.1


def norm(arrays) -> float:
    """The Euclidean norm of all elements of all arrays."""
    return math.sqrt(sum(float(np.sum(np.square(a, dtype=np.float64))) for a in arrays))


def minus(a, b):
    return [np.subtract(x, y, dtype=np.float64) for x, y in zip(a, b, strict=True)]


def relative(distance: float, size: float) -> float:
    return distance / size if size else distance


@dataclass
class Found:
    """What one training has come to after a step, as float64 arrays."""

    loss: float
    gradients: list[np.ndarray]
    weights: list[np.ndarray]
    statistics: list[np.ndarray]

    def distances(self, other: Found) -> dict[str, float]:
        """How far another training is, by kind."""
        found = {"loss": abs(self.loss - other.loss)}
        for kind in ("gradients", "weights", "statistics"):
            found[kind] = norm(minus(getattr(self, kind), getattr(other, kind)))
        return found

    def sizes(self) -> dict[str, float]:
        kinds = ("gradients", "weights", "statistics")
        return {"loss": abs(self.loss)} | {kind: norm(getattr(self, kind)) for kind in kinds}


class Ours:
    """A model on one of stepgraph's devices.

    Args:
        model: with its initial weights.
        device: where it trains.
        learning_rate: of the gradient descent.
        gradients: whether to compute gradients by themselves beside the training step, which keeps
            none; without, they are the weights' change divided by the rate.
    """

    def __init__(self, model: Model, device: str, learning_rate: float, gradients: bool) -> None:
        self.model, self.rate = model, learning_rate
        model.compile(optimizers.SGD(learning_rate), "categorical_crossentropy", device=device)
        trained = set(model.trainable_weights)
        self.trained = [i for i, w in enumerate(model.weights) if w in trained]
        self.others = [i for i, w in enumerate(model.weights) if w not in trained]
        self.initial = model.get_weights()
        self.probe = None
        if gradients:
            runtime = model.runtime
            step = runtime.step("train", (False,))
            loss = step.executable.targets[0]
            weights = [runtime.variables[w] for w in model.trainable_weights]
            found = runtime.graph.gradients(of=loss, with_=weights, unconnected="zero")
            targets = [loss, *(found[w] for w in weights)]
            self.probe = runtime.graph.compile(step.feeds, targets, device=device)
            self.feeds = step.feeds

    def step(self, x, y) -> Found:
        before = self.model.get_weights()
        if self.probe is not None:
            _, *gradients = self.probe.run(dict(zip(self.feeds, (x, y), strict=True)))
            # The probe has moved the statistics too.
            self.model.set_weights(before)
        loss = self.model.train_on_batch(x, y)
        after = self.model.get_weights()
        if self.probe is None:
            moved = minus(before, after)
            gradients = [moved[i] / self.rate for i in self.trained]
        change = minus(after, self.initial)
        return Found(
            loss, gradients, [change[i] for i in self.trained], [change[i] for i in self.others]
        )


class Theirs:
    """The same in PyTorch."""

    def __init__(self, name: str, model: Model, dtype: torch.dtype, learning_rate: float) -> None:
        self.twin, self.rate = Trained(name, model, dtype), learning_rate
        self.initial = self.twin.get_weights()

    def step(self, x, y) -> Found:
        loss, gradients = self.twin.step(x, y, self.rate)
        change = minus(self.twin.get_weights(), self.initial)
        kinds = [on for _, _, on in self.twin.weights]
        return Found(
            loss,
            gradients,
            [a for a, on in zip(change, kinds, strict=True) if on],
            [a for a, on in zip(change, kinds, strict=True) if not on],
        )


def reference_deviation(
    name: str, seed: int, steps: int, batch: int, learning_rate: float = FLAT
) -> dict[str, float]:
    """The largest relative deviation of the float64 reference from PyTorch's float64, by kind."""
    model = build(name, seed)
    theirs = Theirs(name, model, torch.float64, learning_rate)
    ours = Ours(model, "reference:float64", learning_rate, gradients=False)
    worst: dict[str, float] = {}
    for x, y in batches(model, batch, steps, seed):
        truth = theirs.step(x, y)
        distances, sizes = truth.distances(ours.step(x, y)), truth.sizes()
        for kind, distance in distances.items():
            worst[kind] = max(worst.get(kind, 0.0), relative(distance, sizes[kind]))
    return worst


@dataclass
class Ratios:
    """Distances of the CPU engine and of PyTorch, and the truth's size, of all steps and seeds."""

    rows: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)

    def add(self, exact: Found, ours: Found, theirs: Found) -> None:
        mine, other, sizes = exact.distances(ours), exact.distances(theirs), exact.sizes()
        for kind, size in sizes.items():
            self.rows.setdefault(kind, []).append((mine[kind], other[kind], size))

    def followed(self, kind: str) -> list[tuple[float, float]]:
        """Both distances where PyTorch still follows the truth."""
        return [(a, b) for a, b, size in self.rows[kind] if 0 < b <= LOST * size]

    def of(self, kind: str) -> list[float]:
        """One ratio per step and seed."""
        return [a / b for a, b in self.followed(kind)]

    def rms(self, kind: str) -> float:
        """The ratio of root mean squares."""
        pairs = np.array(self.followed(kind))
        return norm([pairs[:, 0]]) / norm([pairs[:, 1]]) if len(pairs) else math.nan


def float32_ratios(
    name: str, learning_rate: float, seeds: int, steps: int, batch: int, device: str = "cpu"
) -> Ratios:
    """How much farther from float64 the CPU engine stands than PyTorch, step by step."""
    ratios = Ratios()
    for seed in range(seeds):
        model = build(name, seed)
        truth = Theirs(name, model, torch.float64, learning_rate)
        theirs = Theirs(name, model, torch.float32, learning_rate)
        ours = Ours(model, device, learning_rate, gradients=True)
        for x, y in batches(model, batch, steps, seed):
            ratios.add(truth.step(x, y), ours.step(x, y), theirs.step(x, y))
    return ratios


def ratio_row(name: str, rate: float, ratios: Ratios) -> list[str]:
    kept = f"{len(ratios.of('gradients'))}/{len(ratios.rows['gradients'])}"
    row = [name, f"{rate:g}", kept, f"{ratios.rms('loss'):.2f}"]
    for kind in ("gradients", "weights", "statistics"):
        values = ratios.of(kind)
        row += [f"{np.median(values):.2f}", f"{max(values):.2f}"] if values else ["-", "-"]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=",".join(APPLICATIONS), help="names, with commas")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, help=f"{BATCH}, and {LARGER} without it")
    parser.add_argument("--only", choices=("reference", "cpu"), help="one table alone")
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = options.models.split(",")
    sizes = {name: options.batch or LARGER.get(name, BATCH) for name in names}
    what = f"{options.steps} steps"

    if options.only != "cpu":
        rows = []
        for name in names:
            found = reference_deviation(name, 0, options.steps, sizes[name])
            rows.append(
                [
                    name,
                    str(sizes[name]),
                    *(f"{value:.1e}" if value else "-" for value in found.values()),
                ]
            )
            print(*rows[-1], flush=True)
        show(
            f"float64 reference against PyTorch {torch.__version__} float64: largest relative "
            f"deviation, {what}, learning rate {FLAT:g}",
            ["network", "batch", "loss", "gradients", "weights", "moving statistics"],
            rows,
        )
    if options.only != "reference":
        rows = []
        for name in names:
            for rate in (CHAOTIC, FLAT):
                found = float32_ratios(name, rate, options.seeds, options.steps, sizes[name])
                rows.append(ratio_row(name, rate, found))
                print(*rows[-1], flush=True)
        show(
            f"float32 distance from float64, CPU engine / PyTorch {torch.__version__}: median and "
            f"worst ratio over {what}, {options.seeds} seeds",
            ["network", "rate", "steps", "loss (rms)", "gradients", "worst", "weights", "worst",
             "statistics", "worst"],
            rows,
        )  # fmt: skip


if __name__ == "__main__":
    main()
