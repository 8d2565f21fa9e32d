"""Pictures a second of `fit` over a data set, beside the bare step on a batch that lies ready.

    python benchmarks/fit_speed.py [--models mlp,resnet50] [--batches 64] [--seconds 2]

`fit` has everything on that its users have: shuffling, the loss added up, the moving line (to a
file that is thrown away). It is fed with arrays, with a data set read through its prefetching
thread, and with the same data set augmented (crop and flip). Bare is the compiled step, called on
one batch again and again. All take turns, two epochs each, and each one's fastest epoch counts,
because whatever else the machine does only adds: shown are milliseconds of a bare step, then for
each way to feed the share of the bare step's pictures a second that is left.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time

import numpy as np
from networks import build
from tables import show

from stepgraph import optimizers
from stepgraph.callbacks import Callback
from stepgraph.datasets import Augment, Batches, Dataset, load

WAYS = ("arrays", "data set", "augmented")


class EpochTimes(Callback):
    """Seconds from each epoch's first step to its last, its beginning included."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None) -> None:
        self.seconds.append(time.perf_counter() - self._start)


def measure(name: str, batch: int, threads: int, budget: float, samples: int) -> list[str]:
    """One row of the table."""
    model = build(name, 0)
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

    def bare() -> list[float]:
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            for _ in range(steps):
                step.executable.run(feeds)
            seconds.append(time.perf_counter() - start)
        return seconds

    def fit(*given, **options) -> list[float]:
        times = EpochTimes()
        with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink):
            model.fit(*given, epochs=2, verbose=1, callbacks=[times], **options)
        return times.seconds

    ways = {
        "bare": bare,
        "arrays": lambda: fit(x, y, batch_size=batch),
        "data set": lambda: fit(plain),
        "augmented": lambda: fit(augmented),
    }
    found: dict[str, list[float]] = {way: [] for way in ways}
    end = time.perf_counter() + budget
    while time.perf_counter() < end or len(found["bare"]) < 6:
        for way, run in ways.items():
            found[way] += run()
    least = {way: min(values) for way, values in found.items()}
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
    options = parser.parse_args()
    rows = []
    for name in options.models.split(","):
        for batch in map(int, options.batches.split(",")):
            rows.append(measure(name, batch, options.threads, options.seconds, options.samples))
            print(*rows[-1], flush=True)
    show(
        f"fit beside the bare step, {options.threads} threads",
        ["network, batch", "ms/step", "pictures/s", *WAYS],
        rows,
    )


if __name__ == "__main__":
    main()
