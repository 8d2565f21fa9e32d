"""``stepgraph export``."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from stepgraph.checkpoints import RunDirectory
from stepgraph.models import load_model
from tests.cli.harness import CommandLine


def read(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_messages_of_a_network_by_name(stepgraph, events):
    done = stepgraph(
        *("export", "lenet5", "--channels", 1, "--batch-size", 8, "--messages", "lenet5.jsonl")
    )
    assert done.stdout.startswith("lenet5, batches of 8: messages in lenet5.jsonl")
    rows = read(stepgraph.folder / "lenet5.jsonl")
    assert {row["graph"] for row in rows} == {"setup", "training", "inference"}
    assert all({"receiver", "selector", "args"} <= set(row) for row in rows)
    inference = [row["selector"] for row in rows if row["graph"] == "inference"]
    assert sum(s.startswith("convolution2DWithSourceTensor") for s in inference) == 2
    assert not any(s.startswith("assignVariable") for s in inference)
    training = [row["selector"] for row in rows if row["graph"] == "training"]
    assert sum(s.startswith("assignVariable") for s in training) >= 10
    feeds = [
        row["args"][0]["value"]
        for row in rows
        if row["selector"].startswith("placeholder") and row["graph"] == "training"
    ]
    assert feeds == [[8, 32, 32, 1], [8]]
    again = stepgraph(
        *("export", "lenet5", "--channels", 1, "--batch-size", 8, "--messages", "b.jsonl", "--json")
    )
    training, inference = events(again.stdout)
    assert training["graph"] == "training"
    assert training["messages"] > inference["messages"] > 20
    assert training["unshared_bytes"] > training["planned_bytes"] > 0
    texts = [(stepgraph.folder / name).read_text() for name in ("b.jsonl", "lenet5.jsonl")]
    assert texts[0] == texts[1]


def test_messages_of_a_run(trained: CommandLine, tmp_path):
    file = tmp_path / "run.jsonl"
    trained("export", "run", "--batch-size", 4, "--messages", file)
    rows = read(file)
    variables = [r for r in rows if r["selector"].startswith("variableWithData:")]
    assert variables
    # The values are those of the checkpoint, not fresh ones.
    checkpoint, _ = RunDirectory(trained.folder / "run").newest()
    arrays = checkpoint.arrays
    found = {r["args"][3]["value"]: r["args"][0]["value"]["sha256"] for r in variables}
    weights = {n: a for n, a in arrays.items() if n.startswith("weights/")}
    assert weights
    for name, value in weights.items():
        assert found[name.removeprefix("weights/")] == hashlib.sha256(value.tobytes()).hexdigest()


def test_messages_of_a_saved_model(stepgraph):
    import stepgraph as sg

    made = sg.models.Sequential([sg.layers.Input((5,)), sg.layers.Dense(3, activation="softmax")])
    path = stepgraph.folder / "bare.safetensors"
    made.save(path)
    done = stepgraph("export", path, "--batch-size", 2, "--messages", "bare.jsonl")
    assert "there is no training graph" in done.stdout + done.stderr
    rows = read(stepgraph.folder / "bare.jsonl")
    kernel = next(r for r in rows if r["selector"].startswith("variableWithData:"))
    loaded = load_model(path)
    found = np.frombuffer(bytes.fromhex(kernel["args"][0]["value"]["hex"]), "float32")
    np.testing.assert_array_equal(found, loaded.get_weights()[0].reshape(-1))


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("nonsense", "--messages", "x"), "there is none called 'nonsense'", 1),
        (("lenet5",), "Nothing to write", 2),
        (("lenet5", "--messages", "x", "--system", "Linux 6"), "is no system", 1),
    ],
)
def test_what_cannot_be_exported(stepgraph, arguments, words, code):
    done = stepgraph("export", *arguments, code=code)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
