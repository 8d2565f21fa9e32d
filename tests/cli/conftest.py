"""The command line as a process: fixtures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.harness import CommandLine


@pytest.fixture
def stepgraph(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A folder whose ``run`` was trained for three epochs, for tests that only read it."""
    made = CommandLine(tmp_path_factory.mktemp("trained"))
    made.train("--epochs", 3, "--run-dir", "run", "--checkpoint-every", 20)
    return made


@pytest.fixture
def events() -> Callable[[str], list[dict[str, Any]]]:
    """Parses JSON lines."""
    return lambda text: [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def files() -> Callable[[Path], dict[str, bytes]]:
    """What a run directory holds that must not depend on interruptions."""

    def collect(run: Path) -> dict[str, bytes]:
        found = {"metrics": (run / "metrics.jsonl").read_bytes()}
        newest = max((run / "checkpoints").glob("step-*"))
        for path in newest.iterdir():
            found[f"{newest.name}/{path.name}"] = path.read_bytes()
        return found

    return collect
