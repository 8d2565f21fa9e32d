"""Networks that a command takes from a run directory."""

from __future__ import annotations

from pathlib import Path

from stepgraph.cli import output
from stepgraph.runs.loading import Trained, load_trained


def open_trained(path: Path, device: str | None, threads: int | None) -> Trained:
    """The network of a run directory; what is not as might be expected is printed."""
    trained = load_trained(path, device, threads)
    for remark in trained.remarks:
        output.note(remark)
    return trained
