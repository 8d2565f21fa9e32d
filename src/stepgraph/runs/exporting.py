"""A network as programs for an Apple GPU, on any machine: to be printed, not to be run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgraph.errors import CheckpointError, ShapeError, describe
from stepgraph.runs.defaults import JOB
from stepgraph.runs.learner import build_model, canonical_model

if TYPE_CHECKING:
    from stepgraph.backends.executable import Executable
    from stepgraph.compiler.program import Program
    from stepgraph.graph.definition import Array
    from stepgraph.graph.tensor import Variable

TRAINING, INFERENCE = "training", "inference"


@dataclass(frozen=True)
class Exported:
    """A network as it is built into an MPSGraph.

    Attributes:
        name: of the network.
        model: it, compiled for a device of this machine.
        batch_size: of its programs.
        programs: `TRAINING` (left out if it was saved without optimizer and loss) and `INFERENCE`.
        variables: of both, by name.
        values: theirs, now.
    """

    name: str
    model: Any
    batch_size: int
    programs: dict[str, Program]
    variables: Mapping[str, Variable]
    values: dict[str, Array]


def export(
    what: str,
    batch_size: int,
    *,
    image_size: int = JOB["image_size"],
    channels: int = JOB["channels"],
    classes: int = 10,
    options: Mapping[str, Any] | None = None,
    optimizer: str = "sgd",
    seed: int = 0,
) -> Exported:
    """The programs of a network.

    Args:
        what: a run directory, a file that `Model.save` wrote, or a name in `APPLICATIONS`; only
            for such a name the further arguments count.
        batch_size: samples of a batch: a program on a GPU has one.
        image_size: height and width of pictures.
        channels: theirs.
        classes: number of classes.
        options: further arguments of the network's builder.
        optimizer: name of an optimizer.
        seed: of initial weights.

    Raises:
        CheckpointError: it is none of these, or cannot be read.
        ShapeError: an input has a size besides the batch that is not known.
    """
    path = Path(what)
    if path.is_dir():
        name, model = _of_run(path)
    elif path.is_file():
        name, model = path.stem, _of_file(path)
    else:
        name, model = _of_name(
            what, [image_size, image_size, channels], classes, options or {}, optimizer, seed
        )
    runtime = model.runtime
    steps = {INFERENCE: runtime.step("predict")}
    if runtime.objective is not None:
        weighted = (False,) * len(runtime.objective.outputs)
        steps = {TRAINING: runtime.step("train", weighted), **steps}
    programs = {kind: _program(step.executable, batch_size) for kind, step in steps.items()}
    graph = runtime.graph
    values = {n: graph.get_value(v, runtime.device) for n, v in graph.variables.items()}
    return Exported(name, model, batch_size, programs, graph.variables, values)


def _of_run(path: Path) -> tuple[str, Any]:
    from stepgraph.runs.loading import load_trained

    trained = load_trained(path, "reference")
    return trained.config.model, trained.learner.model


def _of_file(path: Path) -> Any:
    from stepgraph.models import load_model

    model = load_model(path, device="reference")
    if not model.is_ready():
        raise CheckpointError(
            describe("export", f"the model in {path} is not built", fix="call it once, then save")
        )
    return model


def _of_name(
    name: str,
    shape: list[int],
    classes: int,
    options: Mapping[str, Any],
    optimizer: str,
    seed: int,
) -> tuple[str, Any]:
    from stepgraph import utils

    known = canonical_model(name)
    utils.clear_session()
    utils.set_random_seed(seed)
    model = build_model(known, shape, classes, options)
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", device="reference")
    return known, model


def _program(executable: Executable, batch_size: int) -> Program:
    from stepgraph.backends.mps.device import lowered_program

    feeds = {}
    for tensor, shape in executable.feeds.items():
        feeds[tensor] = tuple(
            batch_size if i == 0 and s is None else s for i, s in enumerate(shape)
        )
        if None in feeds[tensor]:
            raise ShapeError(
                describe(
                    "export",
                    f"'{tensor.name}' has sizes besides the batch that are not known",
                    got={"shape": shape},
                    fix="build the model for inputs of fixed sizes",
                )
            )
    # What steers conditionals is settled when a model is built; nothing is left to be fed.
    return lowered_program(
        executable.targets[0].graph, feeds, executable.targets, executable.operations
    )
