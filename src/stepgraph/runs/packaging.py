"""A network for Apple's devices without Python: as a Swift package, or as MPSGraph's own file.

Both come from what the device ``mps`` would be told. A Swift package can be written anywhere;
MPSGraph's file is written by the framework itself, so only where that is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgraph.backends.mps.device import lowered_program
from stepgraph.backends.mps.objc.package import (
    PREDICTION,
    TRAINING,
    Contents,
    Value,
    swift_name,
    write_package,
)
from stepgraph.backends.mps.plan import plan_memory
from stepgraph.backends.mps.recording import record
from stepgraph.compiler.program import Program
from stepgraph.errors import GraphError, UnsupportedError, describe
from stepgraph.graph.tensor import Tensor

if TYPE_CHECKING:
    from stepgraph.models import Model

_Path = str | os.PathLike[str]

# Exported graphs are built once for many systems: with the ways around what the newest do wrong,
# and with selectors that need iOS 18.1 or macOS 15.1.
SYSTEM = "iOS 26.0"


def write_swift_package(
    model: Model,
    folder: _Path,
    name: str | None = None,
    batch_size: int = 32,
    prediction_batch_size: int = 1,
) -> Path:
    """Writes a Swift package that trains and predicts without Python.

    It has an Objective-C target, in which both graphs are built message by message, a Swift
    wrapper, and the weights with the optimizer's state, which `stepgraph.models.load_model` reads
    again after the app has saved them.

    Args:
        model: compiled, of one input and one output.
        folder: where to; made if it is missing.
        name: of the package and its Swift class; from the model's name without it.
        batch_size: samples of a training step.
        prediction_batch_size: samples predicted at once; the app may ask for any number.

    Returns:
        The folder.

    Raises:
        UnsupportedError: the model has several inputs or outputs, or an op that MPSGraph lacks.
    """
    programs = _programs(model, batch_size, prediction_batch_size)
    runtime = model.runtime
    step = runtime.step("train", (False,))
    if len(step.feeds) != 2 or len(programs[PREDICTION].targets) != 1:
        raise UnsupportedError(
            describe(
                f"export '{model.name}'",
                f"{len(model.network.inputs)} inputs and {len(model.network.outputs)} outputs",
                expected="one of each",
                fix="stepgraph export --messages writes networks of any kind",
            )
        )
    target = Path(folder)
    package = swift_name(name or model.name)
    output = programs[PREDICTION].targets[0]
    contents = Contents(
        package,
        model.name,
        record(programs, runtime.graph.variables, system=SYSTEM),
        _value(step.feeds[0], batch_size),
        _value(step.feeds[1], batch_size),
        Value("", tuple(output.shape[1:]), output.dtype.name, prediction_batch_size),  # type: ignore[arg-type]
        plan_memory(programs[TRAINING]).total,
    )
    weights = write_package(target, contents)
    model.save(weights)
    return target


def write_graph_package(model: Model, path: _Path, batch_size: int = 1) -> Path:
    """Writes a model's prediction as an ``.mpsgraphpackage``, weights included.

    Args:
        model: with its input shape known.
        path: of the package.
        batch_size: samples predicted at once.

    Returns:
        The path.

    Raises:
        UnsupportedError: this is no Apple platform: the framework itself writes the file.

    Source: MPSGraphExecutable ``serializeToMPSGraphPackageAtURL:descriptor:``.
    """
    from stepgraph.backends.mps.serialize import serialize

    require_framework()
    step = model.runtime.step("predict")
    shapes = {t: (batch_size, *t.shape[1:]) for t in step.feeds}
    graph = model.runtime.graph
    program = lowered_program(graph, shapes, step.executable.targets, ())
    values = {n: graph.get_value(n, model.runtime.device) for n in program.variables}
    return serialize(program, values, Path(path))


def require_framework() -> None:
    """Refuses to go on where MPSGraph cannot be had."""
    from stepgraph.backends.mps.device import DEVICE

    reason = DEVICE.unavailable()
    if reason:
        raise UnsupportedError(
            describe(
                "export --mpsgraphpackage",
                reason,
                fix="run it on a Mac; --objc and --messages work everywhere",
            )
        )


def _programs(model: Model, batch_size: int, prediction_batch_size: int) -> dict[str, Program]:
    """Training (of which only the loss comes back) and prediction, lowered for ``mps``."""
    if model.optimizer is None or not model.is_ready():
        raise GraphError(
            describe(
                f"export '{model.name}'",
                "is not compiled, or its input shape is not known",
                fix="model.compile(optimizer=..., loss=...), and an Input layer",
            )
        )
    runtime = model.runtime
    step = runtime.step("train", (False,) * len(model.network.outputs))
    predict = runtime.step("predict")
    return {
        TRAINING: lowered_program(
            runtime.graph,
            {t: (batch_size, *t.shape[1:]) for t in step.feeds},
            step.executable.targets[:1],
            step.executable._operations,
        ),
        PREDICTION: lowered_program(
            runtime.graph,
            {t: (prediction_batch_size, *t.shape[1:]) for t in predict.feeds},
            predict.executable.targets,
            (),
        ),
    }


def _value(tensor: Tensor, batch: int) -> Value:
    shape: Any = tensor.shape[1:]
    return Value(tensor.name, tuple(shape), tensor.dtype.name, batch)
