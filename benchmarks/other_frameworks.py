"""Milliseconds of the same training steps in TensorFlow (XLA), JAX and MLX.

    python benchmarks/other_frameworks.py --backend tensorflow [--models resnet50] [--batches 64]
    python benchmarks/other_frameworks.py --backend jax
    python benchmarks/other_frameworks.py --backend mlx      # pip install mlx, on Linux 'mlx[cpu]'

For TensorFlow and JAX each network is built once more from Keras's layers
(`keras_parity.translated`) and trained by `train_on_batch`, compiled by XLA; for MLX from its own
functions (`mlx_steps`), compiled by `mlx.core.compile`, on the processor. These libraries can
seldom be installed side by side, so this runs alone, in an environment with one of them and
stepgraph's source, and takes no turns with anything: compare on a quiet machine. The first steps,
which compile, do not count; what takes long is stepped fewer times.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Callable

import numpy as np
from tables import show

from stepgraph.models import Model
from stepgraph.rivals import speed

RATE = 1e-3


Step = Callable[[np.ndarray, np.ndarray], float]


def keras_steps(backend: str, threads: int) -> tuple[Callable[[Model], Step], str]:
    """What makes a step of a model in Keras on a backend, and the versions."""
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        library = importlib.import_module(backend)
        import keras
    except ImportError as error:
        sys.exit(f"other_frameworks: {error}\n  pip install keras {backend}")
    from keras_parity import translated

    if backend == "tensorflow":
        library.config.threading.set_intra_op_parallelism_threads(threads)
        library.config.threading.set_inter_op_parallelism_threads(1)

    def make(model: Model) -> Step:
        twin = translated(model, keras)
        twin.compile(
            keras.optimizers.SGD(RATE), "sparse_categorical_crossentropy", jit_compile=True
        )
        return lambda x, y: float(np.ravel(twin.train_on_batch(x, y))[0])

    return make, f"{backend} {library.__version__}, Keras {keras.__version__}"


def mlx_steps() -> tuple[Callable[[Model], Step], str]:
    """What makes a step of a model in MLX, and the version."""
    try:
        import mlx.core as mx
    except ImportError as error:
        sys.exit(f"other_frameworks: {error}\n  pip install 'mlx[cpu]' (on a Mac: mlx)")
    from mlx_steps import check, training_step

    mx.set_default_device(mx.cpu)

    def make(model: Model) -> Step:
        check(model, *speed.pictures(model, 2))
        return training_step(model, RATE)

    return make, f"MLX {mx.__version__}, on the processor"


def measure(make: Callable[[Model], Step], name: str, batch: int, seconds: float) -> list[str]:
    """A row: first step, median, least."""
    model = speed.build(name)
    x, y = speed.pictures(model, batch)
    step = make(model)
    times = []
    while sum(times[3:]) < seconds or len(times) < 8:
        start = time.perf_counter()
        step(x, y)
        times.append(time.perf_counter() - start)
        if sum(times) > 10 * seconds and len(times) > 3:
            break
    counted = times[3:]
    return [
        f"{name}, {batch}",
        f"{times[0]:.1f} s",
        f"{1e3 * float(np.median(counted)):.2f}",
        f"{1e3 * min(counted):.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", choices=("tensorflow", "jax", "mlx"), required=True)
    parser.add_argument("--models", default="resnet50,resnet18,mlp", help="names, with commas")
    parser.add_argument("--batches", default="64", help="batch sizes, with commas")
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each row")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    if options.backend == "mlx":
        make, title = mlx_steps()
    else:
        make, title = keras_steps(options.backend, options.threads)
    rows = []
    for name in options.models.split(","):
        for batch in map(int, options.batches.split(",")):
            rows.append(measure(make, name, batch, options.seconds))
            print(*rows[-1], flush=True)
    show(
        f"milliseconds per training step, {options.threads} threads, {title}",
        ["network, batch", "first step", "median", "least"],
        rows,
    )


if __name__ == "__main__":
    main()
