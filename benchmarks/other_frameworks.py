"""Milliseconds of the same training steps in TensorFlow (XLA) and JAX, through Keras 3.

    python benchmarks/other_frameworks.py --backend tensorflow [--models resnet50] [--batches 64]
    python benchmarks/other_frameworks.py --backend jax

Each network is built once more from Keras's layers (`keras_parity.translated`) and trained by
`train_on_batch`, compiled by XLA in both. These libraries can seldom be installed side by side,
so this runs alone, in an environment with one of them and stepgraph's source, and takes no turns
with anything: compare on a quiet machine. The first steps, which compile, do not count.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time

import numpy as np
from tables import show


def prepare(backend: str, threads: int):
    """Keras on a backend, with a number of threads."""
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    try:
        library = importlib.import_module(backend)
        import keras
    except ImportError as error:
        sys.exit(f"other_frameworks: {error}\n  pip install keras {backend}")
    if backend == "tensorflow":
        library.config.threading.set_intra_op_parallelism_threads(threads)
        library.config.threading.set_inter_op_parallelism_threads(1)
    return keras, f"{backend} {library.__version__}, Keras {keras.__version__}"


def measure(keras, name: str, batch: int, seconds: float) -> list[str]:
    """A row: first step, median, least."""
    from keras_parity import translated

    from stepgraph.rivals import speed

    model = speed.build(name)
    x, y = speed.pictures(model, batch)
    twin = translated(model, keras)
    twin.compile(keras.optimizers.SGD(1e-3), "sparse_categorical_crossentropy", jit_compile=True)
    start = time.perf_counter()
    twin.train_on_batch(x, y)
    first = time.perf_counter() - start
    for _ in range(2):
        twin.train_on_batch(x, y)
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        float(np.asarray(twin.train_on_batch(x, y)))
        times.append(time.perf_counter() - start)
    return [
        f"{name}, {batch}",
        f"{first:.1f} s",
        f"{1e3 * float(np.median(times)):.2f}",
        f"{1e3 * min(times):.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", choices=("tensorflow", "jax"), required=True)
    parser.add_argument("--models", default="resnet50,resnet18,mlp", help="names, with commas")
    parser.add_argument("--batches", default="64", help="batch sizes, with commas")
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each row")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    keras, title = prepare(options.backend, options.threads)
    rows = []
    for name in options.models.split(","):
        for batch in map(int, options.batches.split(",")):
            rows.append(measure(keras, name, batch, options.seconds))
            print(*rows[-1], flush=True)
    show(
        f"milliseconds per training step, {options.threads} threads, {title}",
        ["network, batch", "first step", "median", "least"],
        rows,
    )


if __name__ == "__main__":
    main()
