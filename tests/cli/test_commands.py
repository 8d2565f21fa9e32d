"""The commands that read a run directory, and those that need none."""

import json
import subprocess
import sys

import numpy as np
import pytest

from stepgraph.cli import main
from stepgraph.cli.app import COMMANDS
from stepgraph.datasets import load
from tests.cli.harness import CommandLine


@pytest.fixture(scope="module")
def digits():
    return load("digits", size=8, channels=1)


def test_help_is_for_people(stepgraph, capsys):
    done = stepgraph("--help")
    for command in COMMANDS:
        assert f"\n  {command}" in done.stdout
        assert main([command, "--help"]) == 0
        text = capsys.readouterr().out
        assert "Usage: stepgraph " + command in text
        assert "--json" in text
        assert ("resnet50" in text) == (command in ("train", "summary", "bench", "verify"))
    assert stepgraph("--version").stdout.startswith("stepgraph, version ")


def test_as_a_module(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "stepgraph", "devices"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "reference" in done.stdout


def test_an_unknown_command(stepgraph):
    done = stepgraph("trian", code=2)
    assert "No such command 'trian'" in done.stderr
    assert "Traceback" not in done.stderr


def test_devices(stepgraph, events):
    done = stepgraph("devices")
    assert done.stdout.splitlines()[0].split() == ["device", "usable", "about"]
    found = {event["name"]: event for event in events(stepgraph("devices", "--json").stdout)}
    assert found["reference"]["usable"] is True
    assert sum(event["default"] for event in found.values()) == 1


def test_quirks(stepgraph, events):
    done = stepgraph("devices", "--quirks")
    assert "integer_gathers (always; systems: all)" in done.stdout
    found = {
        event["name"]: event for event in events(stepgraph("devices", "--quirks", "--json").stdout)
    }
    assert found["slice_update_missing"]["systems"] == "before iOS 18.0 / macOS 15.0"
    assert found["slice_update_missing"]["ops"] == ["slice_update"]
    assert found["slice_update_missing"]["how"] == "switch"


def test_summary(stepgraph, trained, events):
    done = stepgraph("summary", "--model", "LeNet-5", "--channels", 1)
    assert "Total params: 61,706" in done.stdout
    (found,) = events(trained("summary", "--run-dir", "run", "--json").stdout)
    assert found["model"] == "tiny"
    assert found["input_shape"] == [8, 8, 1]
    assert found["parameters"] == sum(layer["parameters"] for layer in found["layers"])
    assert found["layers"][-1]["output_shape"] == [None, 10]


def test_a_network_that_cannot_be_built(stepgraph):
    done = stepgraph("summary", "--model", "lenet5", "--image-size", 2, code=1)
    assert "model lenet5: cannot be built" in done.stderr
    assert "pictures: 2x2x3" in done.stderr


def test_evaluate(trained: CommandLine, events, digits):
    (found,) = events(trained("evaluate", "run", "--json", "--output", "out").stdout)
    last = json.loads((trained.folder / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert found["accuracy"] == last["val_accuracy"]
    assert found["loss"] == last["val_loss"]
    table = np.array(found["confusion"])
    assert table.sum(axis=1).tolist() == np.bincount(digits.test.labels).tolist()
    assert np.trace(table) / table.sum() == found["accuracy"]
    assert (trained.folder / "out" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((trained.folder / "out" / "evaluation.json").read_text())["step"] == 33


def test_evaluate_in_words(trained: CommandLine):
    done = trained("evaluate", "--run-dir", "run", "--split", "train", "--output", "out")
    assert "1,438 (train set)" in done.stdout
    assert "mostly mistaken for" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("batch", [7, 1000])
def test_the_batch_size_does_not_change_the_scores(trained: CommandLine, events, batch):
    (found,) = events(
        trained("evaluate", "run", "--json", "--output", "out", "--batch-size", batch).stdout
    )
    last = json.loads((trained.folder / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert found["images"] == 359
    assert found["accuracy"] == pytest.approx(last["val_accuracy"], abs=0.003)
    assert found["loss"] == pytest.approx(last["val_loss"], rel=1e-4)


def test_predict_says_what_evaluate_counts(trained: CommandLine, events, digits):
    from PIL import Image

    names = []
    for i in range(150):
        names.append(f"{i}.png")
        Image.fromarray(digits.test.images[i, ..., 0]).save(trained.folder / names[-1])
    done = trained("predict", *names, "--run-dir", "run", "--json", "--top", 10)
    found = events(done.stdout)
    assert [event["file"] for event in found] == names
    for event in found:
        chances = [entry["probability"] for entry in event["classes"]]
        assert chances == sorted(chances, reverse=True)
        assert sum(chances) == pytest.approx(1, abs=1e-4)
    right = [e["classes"][0]["class"] == str(digits.test.labels[i]) for i, e in enumerate(found)]
    assert np.mean(right) > 0.5
    words = trained("predict", "0.png", "--run-dir", "run", "--top", 2).stdout.splitlines()
    assert words[0].split() == ["file", "most", "likely", "then"]
    assert words[1].startswith("0.png  ")


def test_predict_names_what_it_cannot_read(trained: CommandLine, events):
    (trained.folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    from PIL import Image

    Image.new("RGB", (31, 17)).save(trained.folder / "good.png")
    done = trained(
        "predict", "none.png", "broken.png", "good.png", "--run-dir", "run", "--json", code=1
    )
    kinds = [event["event"] for event in events(done.stdout)]
    assert kinds == ["error", "error", "prediction"]
    assert "none.png: no such file" in done.stderr
    assert "broken.png: not a readable image" in done.stderr


def test_plot(trained: CommandLine):
    from PIL import Image

    done = trained("plot", "run", "--output", "pictures")
    assert done.stdout.split() == [
        f"pictures/{name}.png" for name in ("curves", "confusion", "mistakes")
    ]
    for line in done.stdout.split():
        with Image.open(trained.folder / line) as picture:
            assert min(picture.size) > 400
            assert len(set(picture.convert("L").resize((64, 64)).tobytes())) > 20
    assert not [p for p in (trained.folder / "pictures").iterdir() if p.name.startswith(".")]


def test_commands_want_a_trained_run(stepgraph, trained: CommandLine):
    assert "none is named" in stepgraph("evaluate", code=1).stderr
    assert "does not exist" in stepgraph("plot", "nowhere", code=1).stderr
    assert "Name the run directory once" in stepgraph("plot", "a", "--run-dir", "b", code=2).stderr
    begun = stepgraph.folder / "begun"
    begun.mkdir()
    (begun / "config.json").write_bytes((trained.folder / "run" / "config.json").read_bytes())
    done = stepgraph("evaluate", "begun", code=1)
    assert "there is no checkpoint in it yet" in done.stderr


def test_floating_pictures_are_remarked_on(trained: CommandLine, tmp_path):
    from PIL import Image

    run = tmp_path / "run"
    run.mkdir()
    config = json.loads((trained.folder / "run" / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "pixels": "float32"}))
    (run / "checkpoints").symlink_to(trained.folder / "run" / "checkpoints")
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    done = trained("predict", tmp_path / "a.png", "--run-dir", run)
    assert "trained on float32 pictures" in done.stderr


def test_another_data_set_is_refused(trained: CommandLine, tmp_path):
    copy = tmp_path / "run"
    copy.mkdir()
    config = json.loads((trained.folder / "run" / "config.json").read_text())
    for folder in ("checkpoints", "metrics.jsonl"):
        (copy / folder).symlink_to(trained.folder / "run" / folder)
    (copy / "config.json").write_text(json.dumps({**config, "image_shape": [16, 16, 1]}))
    done = trained("evaluate", copy, code=1)
    assert "the saved arrays are not those of this network" in done.stderr
    (copy / "config.json").write_text(json.dumps({**config, "image_size": 16}))
    done = trained("evaluate", copy, code=1)
    assert "is not the one that this network was made for" in done.stderr
