"""A checkpoint: everything that training needs to go on as if never interrupted."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepgraph.checkpoints import safetensors
from stepgraph.checkpoints.files import remove_folder, saving, write_folder
from stepgraph.checkpoints.safetensors import Array, ArraySpec
from stepgraph.errors import CheckpointError, describe

FORMAT = 1
ARRAYS = "arrays.safetensors"
STATE = "state.json"
_NAME = re.compile(r"step-(\d{9,18})")
_MAX_STATE = 16 << 20  # bytes of state.json
_LISTED = 10  # differences named in one message

Check = Callable[[dict[str, ArraySpec]], None]


@dataclass(frozen=True)
class Checkpoint:
    """State of a training run after a step.

    Attributes:
        step: steps made, over all epochs.
        epoch: epoch of the batch that comes next, from 0.
        epoch_step: place of that batch in its epoch, from 0.
        seed: of the run: shuffling, augmentation, initial weights, dropout.
        arrays: weights, moving statistics, optimizer state, generator counters, by name.
        details: further plain values.
    """

    step: int
    epoch: int
    epoch_step: int
    seed: int
    arrays: dict[str, Array] = field(repr=False)
    details: dict[str, Any] = field(default_factory=dict)


def folder_name(step: int) -> str:
    """Name of a checkpoint's folder.

    Example:
        >>> folder_name(44)
        'step-000000044'
    """
    return f"step-{step:09}"


def save(folder: Path, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Writes a checkpoint, then removes the oldest beyond `keep`.

    A kill or a full disk at any moment leaves all earlier checkpoints as they were.

    Args:
        folder: where checkpoints of this run are.
        checkpoint: what to write.
        keep: how many checkpoints to leave, this one included.

    Returns:
        The checkpoint's folder, holding ``arrays.safetensors`` and ``state.json``.

    Raises:
        CheckpointError: it cannot be written; the message says why and what to do.
    """
    target = folder / folder_name(checkpoint.step)

    def fill(temporary: Path) -> None:
        size, digest = safetensors.write(temporary / ARRAYS, checkpoint.arrays)
        state = {
            "format": FORMAT,
            "step": checkpoint.step,
            "position": {"epoch": checkpoint.epoch, "step": checkpoint.epoch_step},
            "seed": checkpoint.seed,
            "arrays": {"file": ARRAYS, "bytes": size, "sha256": digest},
            "details": checkpoint.details,
        }
        text = json.dumps(state, indent=1, allow_nan=False) + "\n"
        with (temporary / STATE).open("xb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    with saving(target):
        folder.mkdir(parents=True, exist_ok=True)
        if target.exists():
            # Only a run that went on from an older one comes here again; the older one is there.
            remove_folder(target)
        write_folder(target, fill)
        for path in list_checkpoints(folder)[:-keep]:
            remove_folder(path)
    return target


def load(path: Path, check: Check | None = None) -> Checkpoint:
    """Reads one checkpoint back, every byte checked.

    Args:
        path: its folder.
        check: called with names, shapes and dtypes before arrays are read; see `check_arrays`.

    Raises:
        CheckpointError: something is missing, damaged, truncated, made by a newer version, or
            refused by `check`.
    """
    state = _read_state(path / STATE)
    what = f"read {path / STATE}"
    arrays = _member(what, state, "arrays", dict)
    size = _member(what, arrays, "bytes", int)
    digest = _member(what, arrays, "sha256", str)
    position = _member(what, state, "position", dict)
    numbers = {
        "step": _member(what, state, "step", int),
        "epoch": _member(what, position, "epoch", int),
        "epoch_step": _member(what, position, "step", int),
    }
    if min(numbers.values()) < 0 or folder_name(numbers["step"]) != path.name:
        raise CheckpointError(
            describe(what, "its numbers do not fit", got=numbers, expected=f"those of {path.name}")
        )
    file = path / ARRAYS
    found = file.stat().st_size if file.is_file() else None
    if found != size:
        raise CheckpointError(
            describe(
                f"read {file}",
                "no such file" if found is None else "truncated, or not the file that was written",
                got={} if found is None else {"size": f"{found:,} bytes"},
                expected=f"{size:,} bytes",
            )
        )
    return Checkpoint(
        **numbers,
        seed=_member(what, state, "seed", int),
        arrays=safetensors.read(file, sha256=digest, check=check),
        details=_member(what, state, "details", dict),
    )


def list_checkpoints(folder: Path) -> list[Path]:
    """Folders of checkpoints, oldest first; whether they are good shows on loading."""
    if not folder.is_dir():
        return []
    found = [(int(m[1]), p) for p in folder.iterdir() if (m := _NAME.fullmatch(p.name))]
    return [path for _, path in sorted(found)]


def newest(folder: Path, check: Check | None = None) -> tuple[Checkpoint | None, list[str]]:
    """Loads the newest checkpoint that is good.

    Args:
        folder: where checkpoints of a run are.
        check: as for `load`. What it refuses is an error, not a reason to take an older one: the
            older ones are of the same network.

    Returns:
        The checkpoint, None if there is none at all, and a note on each damaged one passed over.

    Raises:
        CheckpointError: there are checkpoints and none of them is good, or `check` refuses.
    """
    notes: list[str] = []
    refused: list[CheckpointError] = []

    def checked(specs: dict[str, ArraySpec]) -> None:
        try:
            if check is not None:
                check(specs)
        except CheckpointError as error:
            refused.append(error)
            raise

    for path in reversed(list_checkpoints(folder)):
        try:
            return load(path, checked), notes
        except CheckpointError as error:
            if refused:
                raise
            if path.exists():  # otherwise the training process has just replaced it
                notes.append(f"{path.name} is damaged and was passed over: {error}")
    if notes:
        raise CheckpointError(
            describe(
                f"read {folder}",
                "no checkpoint in it is good",
                got={str(i): note for i, note in enumerate(notes, 1)},
                fix="start anew in another run directory",
            )
        )
    return None, notes


def check_arrays(what: str, expected: Mapping[str, ArraySpec]) -> Check:
    """Makes a check that the arrays of a file are exactly those expected.

    Args:
        what: opens the message, such as "load resnet50".
        expected: name to shape and dtype.

    Returns:
        A function of what was found, raising CheckpointError that lists every kind of difference.

    Example:
        >>> check = check_arrays("load mlp", {"kernel": ArraySpec((2, 3), "float32")})
        >>> check({"kernel": ArraySpec((2, 4), "float32"), "bias": ArraySpec((4,), "float32")})
        Traceback (most recent call last):
        stepgraph.errors.CheckpointError: load mlp: the saved arrays are not those of this network
          not in the network: bias float32 (4,)
          kernel: saved float32 (2, 4), the network has float32 (2, 3)
          fix: build the network as it was when it was saved
    """

    def check(found: dict[str, ArraySpec]) -> None:
        missing = [f"{name} {expected[name]}" for name in expected if name not in found]
        extra = [f"{name} {found[name]}" for name in found if name not in expected]
        other = {
            name: f"saved {found[name]}, the network has {spec}"
            for name, spec in expected.items()
            if name in found and found[name] != spec
        }
        if not (missing or extra or other):
            return
        got: dict[str, object] = {}
        if missing:
            got["not in the file"] = _some(missing)
        if extra:
            got["not in the network"] = _some(extra)
        got.update(list(other.items())[:_LISTED])
        if len(other) > _LISTED:
            got["and"] = f"{len(other) - _LISTED} more of other shape or dtype"
        raise CheckpointError(
            describe(
                what,
                "the saved arrays are not those of this network",
                got=got,
                fix="build the network as it was when it was saved",
            )
        )

    return check


def specs_of(arrays: Mapping[str, Array]) -> dict[str, ArraySpec]:
    """Shapes and dtypes of arrays.

    Example:
        >>> import numpy as np
        >>> specs_of({"a": np.zeros((2, 3), "float32")})
        {'a': ArraySpec(shape=(2, 3), dtype='float32')}
    """
    return {name: ArraySpec(a.shape, a.dtype.name) for name, a in arrays.items()}


def _some(items: list[str]) -> str:
    more = f", and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(items[:_LISTED]) + more


def _read_state(path: Path) -> dict[str, Any]:
    what = f"read {path}"
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_STATE + 1)
        state = json.loads(data) if len(data) <= _MAX_STATE else None
    except OSError as error:
        raise CheckpointError(describe(what, error.strerror or str(error))) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(describe(what, f"no readable JSON: {error}")) from error
    if not isinstance(state, dict):
        raise CheckpointError(describe(what, "no description of a checkpoint"))
    if _member(what, state, "format", int) != FORMAT:
        raise CheckpointError(
            describe(
                what,
                f"format {state['format']} is not known here",
                expected=f"format {FORMAT}",
                fix="use the version of stepgraph that wrote it, or a newer one",
            )
        )
    return state


def _member(what: str, state: Mapping[str, Any], key: str, kind: type) -> Any:
    value = state.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise CheckpointError(
            describe(what, f"'{key}' is missing or no {kind.__name__}", got={key: repr(value)[:80]})
        )
    return value
