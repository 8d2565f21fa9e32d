"""Saving models and reading them back, bit for bit."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stepgraph import losses, metrics, optimizers
from stepgraph.configs import plain
from stepgraph.errors import CheckpointError, StepgraphError, describe
from stepgraph.models import tensor_file
from stepgraph.models.runtime import RANDOM_STEP
from stepgraph.utils import CUSTOM_OBJECTS

if TYPE_CHECKING:
    from stepgraph.models.model import Model

FORMAT = 1
_OPTIMIZER = "optimizer/"


def save_model(
    model: Model,
    path: str | os.PathLike[str],
    overwrite: bool = True,
    include_optimizer: bool = True,
) -> None:
    """What `Model.save` does."""
    _refuse_replacing(path, overwrite)
    arrays = weight_arrays(model)
    about: dict[str, Any] = {
        "format": FORMAT,
        "class_name": type(model).__name__,
        "config": model.get_config(),
        "seed": model.seed,
        "steps_trained": model.steps_trained,
        "trainable": _trainable(model),
    }
    if include_optimizer and model._compiled is not None:
        about["compile"] = _compile_config(model)
        arrays |= {f"{_OPTIMIZER}{n}": a for n, a in model.optimizer.state().items()}
        counter = model.runtime.random_step() if model.is_ready() else None
        if counter is not None:
            arrays[RANDOM_STEP] = model.runtime.graph.get_value(counter, model.runtime.device)
    tensor_file.write(path, arrays, {"stepgraph": json.dumps(about), "format": "np"})


def load_model(
    filepath: str | os.PathLike[str],
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
    device: str | None = None,
) -> Any:
    """A model that `Model.save` wrote, ready to go on training.

    Args:
        filepath: name of the file.
        custom_objects: classes and functions of your own, by name.
        compile: whether to compile it as it was, and restore the optimizer's state.
        device: where to run; as it was without it.

    Returns:
        The `Model` or `Sequential`.

    Raises:
        CheckpointError: the file is damaged, of a newer format, or does not fit what it describes.

    Source: Keras ``keras.models.load_model``.
    """
    from stepgraph.models import deserialize_layer

    arrays, metadata = tensor_file.read(filepath)
    if "stepgraph" not in metadata:
        raise CheckpointError(
            describe(
                "load_model",
                f"'{filepath}' holds weights but no model",
                fix="make the model and call model.load_weights(path)",
            )
        )
    about = json.loads(metadata["stepgraph"])
    if about.get("format") != FORMAT:
        raise CheckpointError(
            describe(
                "load_model",
                f"'{filepath}' has format {about.get('format')}, this version reads {FORMAT}",
                fix="read it with the version that wrote it",
            )
        )
    with _known(custom_objects):
        try:
            model: Any = deserialize_layer(about)
            _set_trainable(model, about["trainable"])
            settings = about.get("compile")
            if compile and settings is not None:
                _compile(model, settings, device)
        except StepgraphError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                describe("load_model", f"'{filepath}' describes no model: {error!r}")
            ) from error
    model.seed, model.steps_trained = about["seed"], about["steps_trained"]
    weights = {n: a for n, a in arrays.items() if not _training_state(n)}
    set_weight_arrays(model, weights, f"load_model('{filepath}')")
    if compile and about.get("compile") is not None:
        _restore(model, arrays, filepath)
    return model


def _restore(model: Any, arrays: Mapping[str, NDArray[Any]], path: Any) -> None:
    """The optimizer's state and the random operations' counter."""
    given = {n.removeprefix(_OPTIMIZER): a for n, a in arrays.items() if n.startswith(_OPTIMIZER)}
    if model.is_ready():
        due = {name: variable.shape for name, variable in model.optimizer.variables.items()}
        _refuse_misfits(f"load_model('{path}'): optimizer", due, given)
        counter = model.runtime.random_step()
        if counter is not None and RANDOM_STEP in arrays:
            runtime = model.runtime
            runtime.graph.set_value(counter, arrays[RANDOM_STEP], runtime.device)
    model.optimizer.set_state(given)


def _training_state(name: str) -> bool:
    return name.startswith(_OPTIMIZER) or name == RANDOM_STEP


def _compile_config(model: Model) -> dict[str, Any]:
    settings = dict(model._compiled or {})
    return {
        **{
            key: _objects(settings[key])
            for key in ("loss", "metrics", "loss_weights", "weighted_metrics")
        },
        **{key: settings[key] for key in ("device", "threads", "nonfinite")},
        "optimizer": optimizers.serialize(model.optimizer),
        "excluded_from_decay": model.optimizer._excluded,
    }


def _objects(value: Any) -> Any:
    """Losses and metrics as plain values; a function of the user's own by its name."""
    if isinstance(value, list | tuple):
        return [_objects(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _objects(item) for key, item in value.items()}
    return plain(value)


def _compile(model: Any, settings: Mapping[str, Any], device: str | None) -> None:
    optimizer = optimizers.get(settings["optimizer"])
    optimizer.exclude_from_weight_decay(var_names=settings["excluded_from_decay"])
    model.compile(
        optimizer=optimizer,
        loss=_made(settings["loss"], losses.get),
        metrics=_made(settings["metrics"], metrics.get),
        weighted_metrics=_made(settings["weighted_metrics"], metrics.get),
        loss_weights=settings["loss_weights"],
        device=device or settings["device"],
        threads=settings["threads"],
        nonfinite=settings["nonfinite"],
    )


def _made(value: Any, get: Any) -> Any:
    """Configs as objects; names stay, since what they mean may depend on the output."""
    if isinstance(value, list):
        return [_made(item, get) for item in value]
    if isinstance(value, Mapping):
        if "class_name" in value:
            return get(value)
        return {key: _made(item, get) for key, item in value.items()}
    return CUSTOM_OBJECTS.get(value, value) if isinstance(value, str) else value


@contextmanager
def _known(custom_objects: Mapping[str, Any] | None) -> Iterator[None]:
    before = dict(CUSTOM_OBJECTS)
    CUSTOM_OBJECTS.update(custom_objects or {})
    try:
        yield
    finally:
        CUSTOM_OBJECTS.clear()
        CUSTOM_OBJECTS.update(before)


def _trainable(model: Any) -> list[bool]:
    """Whether each layer is trained, layers of models inside included."""
    flags: list[bool] = []
    for layer in model.layers:
        flags.append(bool(layer.trainable))
        if hasattr(layer, "network"):
            flags += _trainable(layer)
    return flags


def _set_trainable(model: Any, flags: list[bool]) -> None:
    rest = iter(flags)

    def walk(part: Any) -> None:
        for layer in part.layers:
            value = next(rest)
            if hasattr(layer, "network"):
                layer.__dict__["_trainable"] = value
                walk(layer)
            else:
                layer.trainable = value

    walk(model)


# -- weights alone ------------------------------------------------------------------------------


def save_weights(model: Model, path: str | os.PathLike[str], overwrite: bool = True) -> None:
    """What `Model.save_weights` does."""
    _refuse_replacing(path, overwrite)
    tensor_file.write(path, weight_arrays(model), {"format": "np"})


def load_weights(model: Model, path: str | os.PathLike[str], skip_mismatch: bool = False) -> None:
    """What `Model.load_weights` does."""
    arrays, _ = tensor_file.read(path)
    weights = {n: a for n, a in arrays.items() if not _training_state(n)}
    set_weight_arrays(model, weights, f"load_weights('{path}')", skip_mismatch)


def weight_arrays(model: Model) -> dict[str, NDArray[Any]]:
    """Copies of all weights by path, a shared one once."""
    found: dict[Any, str] = {}
    for path, weight in model.named_weights():
        found.setdefault(weight, path)
    return {path: weight.numpy() for weight, path in found.items()}


def set_weight_arrays(
    model: Model, arrays: Mapping[str, NDArray[Any]], what: str, skip_mismatch: bool = False
) -> None:
    """Gives all weights the values of the same paths.

    Raises:
        CheckpointError: names or shapes differ; nothing is changed then.
    """
    own: dict[Any, str] = {}
    for path, weight in model.named_weights():
        own.setdefault(weight, path)
    arrays = _renumbered(own, arrays)
    if not skip_mismatch:
        _refuse_misfits(what, {path: weight.shape for weight, path in own.items()}, arrays)
    for weight, path in own.items():
        if path in arrays and arrays[path].shape == weight.shape:
            weight.assign(arrays[path])


def _renumbered(
    own: Mapping[Any, str], arrays: Mapping[str, NDArray[Any]]
) -> Mapping[str, NDArray[Any]]:
    """The arrays under the model's own names, where only the counted numbers differ.

    A second model of one process has ``dense_2`` where the first had ``dense``. If the names
    without numbers, and all shapes, agree one by one, the order says which is which.
    """

    def bare(path: str) -> str:
        return re.sub(r"_\d+(?=/|$)", "", path)

    if set(own.values()) == set(arrays) or len(own) != len(arrays):
        return arrays
    pairs = list(zip(own.items(), arrays.items(), strict=True))
    alike = all(
        bare(path) == bare(name) and weight.shape == array.shape
        for (weight, path), (name, array) in pairs
    )
    return {path: array for (_, path), (_, array) in pairs} if alike else arrays


def _refuse_misfits(
    what: str, due: Mapping[str, tuple[int | None, ...]], given: Mapping[str, NDArray[Any]]
) -> None:
    faults = {name: "missing in the file" for name in due if name not in given}
    faults |= {name: "not in the model" for name in given if name not in due}
    faults |= {
        name: f"{np.shape(given[name])} in the file, {shape} in the model"
        for name, shape in due.items()
        if name in given and np.shape(given[name]) != shape
    }
    if faults:
        shown = dict(list(faults.items())[:20])
        if len(faults) > len(shown):
            shown["..."] = f"{len(faults) - len(shown)} more"
        raise CheckpointError(
            describe(
                what,
                f"{len(faults)} arrays do not fit the model",
                got=shown,
                fix="load the file into the model that it was saved from, or skip_mismatch=True",
            )
        )


def _refuse_replacing(path: str | os.PathLike[str], overwrite: bool) -> None:
    if not overwrite and Path(path).exists():
        raise CheckpointError(
            describe("save", f"'{path}' exists", fix="another name, or overwrite=True")
        )
