"""Runs the command line as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

LAUNCH = Path(__file__).with_name("launch.py")
# A job of a second: real digits, a tiny network.
JOB = (
    "--model tiny --image-size 8 --channels 1 --batch-size 128 --optimizer sgd --learning-rate 0.02"
).split()


class CommandLine:
    """Runs ``stepgraph`` with the tiny network in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("FORCE_", "NO_COLOR"))},
            "TERM": "xterm",
        }

    def command(self, *arguments: object) -> list[str]:
        """The command as a list."""
        return [sys.executable, str(LAUNCH), *map(str, arguments)]

    def __call__(self, *arguments: object, code: int | None = 0, **environment: str) -> Any:
        """Runs to the end; checks the exit code unless it is None."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )
        if code is not None:
            assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Starts and returns at once."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def train(self, *arguments: object, **options: Any) -> Any:
        """Begins a run of the small job."""
        return self("train", *JOB, *arguments, **options)
