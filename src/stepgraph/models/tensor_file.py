"""A model's arrays and description in one safetensors file that is whole or not there."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from stepgraph.checkpoints import safetensors
from stepgraph.checkpoints.files import TEMPORARY, saving, sync_folder

# The format sorts arrays as it likes; their order in the model is kept beside them.
_ORDER = "order"


def write(
    path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
) -> None:
    """Writes arrays and strings; a file of that name is replaced at once or not at all.

    Args:
        path: name of the file; its folder is made if it is missing.
        arrays: by name.
        metadata: strings beside them.

    Raises:
        CheckpointError: it cannot be written; what was there is untouched.
    """
    target = Path(path)
    with saving(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        # A folder of its own, so that another process cannot be writing the same temporary name.
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=target.parent) as folder:
            temporary = Path(folder) / target.name
            safetensors.write(temporary, arrays, {**metadata, _ORDER: json.dumps(list(arrays))})
            os.replace(temporary, target)
        sync_folder(target.parent)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The arrays, in the order they were given, and the strings of a file.

    Raises:
        CheckpointError: there is no such file, or it is damaged.
    """
    arrays = safetensors.read(Path(path))
    # Just read and found in order, so the header can be believed.
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    metadata = {str(key): str(value) for key, value in header.get("__metadata__", {}).items()}
    names = json.loads(metadata.pop(_ORDER, "[]"))
    if set(names) == set(arrays):
        arrays = {name: arrays[name] for name in names}
    return arrays, metadata
