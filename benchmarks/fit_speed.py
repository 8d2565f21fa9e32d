"""Pictures a second of `fit` over a data set, beside the bare step on a batch that lies ready.

    python benchmarks/fit_speed.py [--models mlp,resnet50] [--batches 64] [--seconds 4]

`fit` has everything on that its users have: shuffling, the loss added up, the moving line (to a
file that is thrown away). It is fed with arrays, with a data set (uint8 pictures that are scaled),
and with the same data set augmented (crop and flip). Bare is the compiled step, called on one batch
again and again. All take turns, two epochs each. Whatever else the machine does only adds, so the
first step's least time over all epochs counts, the second step's, and so on, and these are summed.

The table's columns: milliseconds of a bare step and the pictures a second that it trains on; then,
for each way to feed `fit`, the share of those pictures a second that is left. 100 % would mean that
preparing batches and telling of progress cost nothing. `--picture 32x32x3` gives all networks
pictures of another size than their own.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time

import numpy as np
from tables import show

from stepgraph import optimizers, utils
from stepgraph.applications import APPLICATIONS
from stepgraph.callbacks import Callback
from stepgraph.datasets import Augment, Batches, Dataset, load

WAYS = ("arrays", "data set", "augmented")


class StepTimes(Callback):
    """Seconds of each epoch's steps; the first includes the epoch's beginning, the last its end."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[np.ndarray] = []

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self._marks = [time.perf_counter()]

    def on_train_batch_end(self, batch, logs=None) -> None:
        self._marks.append(time.perf_counter())

    def on_epoch_end(self, epoch, logs=None) -> None:
        self._marks[-1] = time.perf_counter()
        self.seconds.append(np.diff(self._marks))


def measure(name: str, batch: int, options: argparse.Namespace) -> list[str]:
    """One row of the table."""
    threads, budget, samples = options.threads, options.seconds, options.samples
    shape = {"input_shape": tuple(map(int, options.picture.split("x")))} if options.picture else {}
    utils.set_random_seed(0)
    model = APPLICATIONS[name].builder(classes=10, **shape)
    height, _, channels = model.input_shape[1:]
    digits = load("digits", size=height, channels=channels).train
    count = max(1, min(samples, 4096) // batch) * batch
    pick = np.arange(count) % len(digits)
    data = Dataset(digits.images[pick], digits.labels[pick], digits.class_names, digits.name)
    plain = Batches(data, batch, seed=0)
    augmented = Batches(data, batch, seed=0, augment=Augment())
    x, y = (np.concatenate(parts) for parts in zip(*plain.stream(epochs=1), strict=True))
    model.compile(
        optimizers.SGD(1e-3), "categorical_crossentropy", threads=threads, nonfinite="ignore"
    )
    step = model.runtime.step("train", (False,))
    feeds = dict(zip(step.feeds, (x[:batch], y[:batch]), strict=True))
    steps = count // batch

    def bare() -> list[np.ndarray]:
        seconds = []
        for _ in range(2):
            marks = [time.perf_counter()]
            for _ in range(steps):
                step.executable.run(feeds)
                marks.append(time.perf_counter())
            seconds.append(np.diff(marks))
        return seconds

    def fit(*given, **options) -> list[np.ndarray]:
        times = StepTimes()
        with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink):
            model.fit(*given, epochs=2, verbose=1, callbacks=[times], **options)
        return times.seconds

    ways = {
        "bare": bare,
        "arrays": lambda: fit(x, y, batch_size=batch),
        "data set": lambda: fit(plain),
        "augmented": lambda: fit(augmented),
    }
    found: dict[str, list[np.ndarray]] = {way: [] for way in ways}
    end = time.perf_counter() + budget
    while time.perf_counter() < end or len(found["bare"]) < 6:
        for way, run in ways.items():
            found[way] += run()
    least = {way: float(np.min(values, axis=0).sum()) for way, values in found.items()}
    return [
        f"{name}, {batch}",
        f"{1e3 * least['bare'] / steps:.2f}",
        f"{count / least['bare']:.0f}",
        *(f"{100 * least['bare'] / least[way]:.1f} %" for way in WAYS),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="mlp,lenet5,cnn,resnet50", help="names, with commas")
    parser.add_argument("--batches", default="64", help="batch sizes, with commas")
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each row")
    parser.add_argument("--samples", type=int, default=2048, help="pictures of an epoch")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--picture", help="height x width x channels, such as 32x32x3")
    options = parser.parse_args()
    rows = []
    for name in options.models.split(","):
        for batch in map(int, options.batches.split(",")):
            rows.append(measure(name, batch, options))
            print(*rows[-1], flush=True)
    show(
        f"pictures a second of fit, of those of the bare step, {options.threads} threads",
        ["network, batch", "bare: ms/step", "bare: pictures/s", *(f"fit, {way}" for way in WAYS)],
        rows,
    )


if __name__ == "__main__":
    main()
