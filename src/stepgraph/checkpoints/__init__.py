"""Run directories and checkpoints: saved whole or not at all, found again after any kill."""

from stepgraph.checkpoints.checkpoint import (
    Checkpoint,
    check_arrays,
    list_checkpoints,
    load,
    newest,
    save,
    specs_of,
)
from stepgraph.checkpoints.lock import Lock
from stepgraph.checkpoints.records import Records, cut_records, read_records
from stepgraph.checkpoints.run_directory import RunDirectory
from stepgraph.checkpoints.safetensors import Array, ArraySpec

__all__ = [
    "Array",
    "ArraySpec",
    "Checkpoint",
    "Lock",
    "Records",
    "RunDirectory",
    "check_arrays",
    "cut_records",
    "list_checkpoints",
    "load",
    "newest",
    "read_records",
    "save",
    "specs_of",
]
