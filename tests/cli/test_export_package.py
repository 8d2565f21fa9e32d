"""``stepgraph export --objc`` and ``--mpsgraphpackage``."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from stepgraph.checkpoints import RunDirectory
from stepgraph.models import load_model
from tests.cli.harness import CommandLine

LENET = ("lenet5", "--channels", 1, "--batch-size", 8)


def test_a_swift_package_by_name(stepgraph: CommandLine, events: Any) -> None:
    done = stepgraph("export", *LENET, "--objc", "out", "--name", "digit reader")
    assert done.stdout == "lenet5: out\n"
    folder = stepgraph.folder / "out"
    assert (folder / "Sources" / "DigitReader" / "DigitReader.swift").exists()
    text = (folder / "Sources/DigitReaderGraph/DigitReaderGraph.m").read_text("utf-8")
    assert "trainingBatchSize = 8" in text
    done = stepgraph("export", *LENET, "--objc", "again", "--messages", "m.jsonl", "--json")
    assert [event.get("graph") for event in events(done.stdout)] == ["training", "inference", None]


def test_a_swift_package_of_a_run(trained: CommandLine) -> None:
    trained("export", "run", "--batch-size", 4, "--objc", "package")
    (file,) = (trained.folder / "package").rglob("weights.safetensors")
    model = load_model(file, device="reference")
    checkpoint, _ = RunDirectory(trained.folder / "run").newest()
    assert checkpoint is not None
    arrays = checkpoint.arrays
    found = {n: a for n, a in arrays.items() if n.startswith("weights/")}
    assert len(model.get_weights()) == len(found)
    for mine, saved in zip(model.get_weights(), found.values(), strict=True):
        assert any(np.array_equal(mine, a) for a in found.values()), saved.shape
    (manifest,) = (trained.folder / "package").glob("Package.swift")
    assert 'name: "Tiny"' in manifest.read_text("utf-8")


@pytest.mark.skipif(sys.platform in ("darwin", "ios"), reason="here it can be written")
def test_mpsgraphs_own_file_is_refused_before_anything_is_written(stepgraph: CommandLine) -> None:
    done = stepgraph(
        *("export", *LENET, "--objc", "out", "--mpsgraphpackage", "net.mpsgraphpackage"), code=1
    )
    assert "run it on a Mac" in done.stderr
    assert not list(stepgraph.folder.iterdir())


def test_nothing_to_write(stepgraph: CommandLine) -> None:
    assert "--objc" in stepgraph("export", "lenet5", code=2).stderr
