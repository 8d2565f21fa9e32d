"""Milliseconds of a prediction, beside PyTorch's (eager, inference mode) and ONNX Runtime's.

    python benchmarks/predict_speed.py [--models resnet50,vit] [--batches 1,64] [--seconds 5]

From NumPy pictures to NumPy probabilities; all take turns with the same number of threads (see
`stepgraph.rivals.turns`). stepgraph answers as `Model.predict_on_batch`. ONNX Runtime runs what
PyTorch exports of the same network, and is left out where it is not installed. Weights are random,
moving statistics those of a new network: that changes no time. Shown are medians and how many times
as long the fastest of the others takes.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import warnings
from collections.abc import Callable

import numpy as np
import torch
from tables import show

from stepgraph.applications import APPLICATIONS
from stepgraph.rivals import pytorch, speed
from stepgraph.rivals.turns import take_turns
from stepgraph.rivals.twins import TWINS

OTHERS = ("PyTorch", "PyTorch channels_last", "ONNX Runtime")


class Answer(torch.nn.Module):
    """A twin with the softmax that stepgraph's networks end in."""

    def __init__(self, twin: torch.nn.Module) -> None:
        super().__init__()
        self.twin = twin

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.twin(x).softmax(-1)


def onnx_runtime(name: str, model, x: np.ndarray, threads: int) -> Callable[[np.ndarray], object]:
    """A session on the exported network, with all of its optimisations."""
    import onnxruntime

    twin = TWINS[name](model.input_shape[1:], model.output_shape[-1], exact=False)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Answer(twin).eval(), (torch.from_numpy(x),), file, input_names=["x"], dynamo=False
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(
        file.getvalue(), options, providers=["CPUExecutionProvider"]
    )
    return lambda x: session.run(None, {"x": x})[0]


def measure(name: str, batch: int, options: argparse.Namespace) -> list[str]:
    """A row of the table."""
    model = speed.build(name)
    model.compile(loss="sparse_categorical_crossentropy", threads=options.threads)
    x, _ = speed.pictures(model, batch)
    ways = {"stepgraph": model.predict_on_batch}
    ways |= {way: pytorch.prediction(name, model, way) for way in OTHERS[:2]}
    try:
        ways[OTHERS[2]] = onnx_runtime(name, model, x, options.threads)
    except ImportError as error:
        print(f"  {OTHERS[2]}: {error}")
    programs = {way: functools.partial(run, x) for way, run in ways.items()}
    for program in programs.values():
        assert np.allclose(np.sum(program(), -1), 1, atol=1e-4)
    times = take_turns(programs, options.seconds)
    middle = {way: 1e3 * float(np.median(found)) for way, found in times.items()}
    own = middle.pop("stepgraph")
    return [
        f"{name}, {batch}",
        f"{own:.3f}",
        *(f"{middle[way]:.3f}" if way in middle else "-" for way in OTHERS),
        f"{min(middle.values()) / own:.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=",".join(APPLICATIONS), help="names, with commas")
    parser.add_argument("--batches", default="1,64", help="batch sizes, with commas")
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each row")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    pytorch.set_threads(options.threads)
    rows = []
    for name in options.models.split(","):
        for batch in map(int, options.batches.split(",")):
            rows.append(measure(name, batch, options))
            print(*rows[-1], flush=True)
    columns = ["network, batch", "stepgraph", *OTHERS, "fastest of them / stepgraph"]
    show(f"milliseconds per prediction (medians), {options.threads} threads", columns, rows)


if __name__ == "__main__":
    main()
