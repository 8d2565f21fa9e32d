"""Training killed at any moment goes on as if it never had been."""

import json
import signal
import time

import numpy as np
import pytest

from tests.cli.harness import JOB

# 11 steps an epoch; the run ends within an epoch.
LENGTH = ("--steps", 40, "--checkpoint-every", 3)
VARIANTS = {
    "sgd": ("--optimizer", "sgd", "--schedule", "cosine", "--clip-norm", 1, "--normalize"),
    "adamw": ("--optimizer", "adamw", "--schedule", "linear", "--augment", "crop-flip"),
}


def resume_until_done(stepgraph, run, kills):
    """Resumes a run again and again, killing it before the given numbers of file changes."""
    codes = []
    for number in kills:
        done = stepgraph(
            "train", "--resume", "--run-dir", run, code=None, STEPGRAPH_TEST_KILL=str(number)
        )
        codes.append(done.returncode)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
    stepgraph("train", "--resume", "--run-dir", run)
    return codes


def test_killed_at_every_kind_of_moment(stepgraph, files, rng):
    """The kills fall on each write, sync and rename of a save, and between saves."""
    stepgraph.train(*LENGTH, "--run-dir", "whole")
    # Until config.json is there, there is nothing to resume.
    for number in (1, 2):
        begun = stepgraph.train(
            *LENGTH, "--run-dir", "killed", code=None, STEPGRAPH_TEST_KILL=str(number)
        )
        assert begun.returncode == -signal.SIGKILL
        assert not (stepgraph.folder / "killed" / "config.json").exists()
    begun = stepgraph.train(*LENGTH, "--run-dir", "killed", code=None, STEPGRAPH_TEST_KILL="9")
    assert begun.returncode == -signal.SIGKILL
    kills = [8, 12, 14, 16, 17, 19, 22, 27, *rng.integers(8, 70, 2).tolist()]
    codes = resume_until_done(stepgraph, "killed", kills)
    assert codes.count(-signal.SIGKILL) >= 6, "the kills are to hit"
    folder = stepgraph.folder
    assert files(folder / "killed") == files(folder / "whole")
    left = [p.name for p in (folder / "killed").rglob("*") if p.name.startswith((".", "damaged"))]
    assert left == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_optimizer_goes_on_bit_by_bit(stepgraph, files, variant):
    options = ("--epochs", 2, *VARIANTS[variant])
    stepgraph.train(*options, "--run-dir", "whole")
    stepgraph.train(
        *options, "--run-dir", "cut", "--checkpoint-every", 8, code=-9, STEPGRAPH_TEST_KILL="38"
    )
    checkpoints = list((stepgraph.folder / "cut" / "checkpoints").glob("step-*"))
    assert checkpoints, "the kill came before the first checkpoint"
    done = stepgraph("train", "--resume", "--run-dir", "cut")
    assert "going on after step" in done.stdout
    assert files(stepgraph.folder / "cut") == files(stepgraph.folder / "whole")


def test_killed_from_outside_at_random(stepgraph, files, rng):
    length = ("--steps", 900, "--checkpoint-every", 20, "--quiet")
    stepgraph.train(*length, "--run-dir", "whole")
    arguments = ["train", *JOB, *length, "--run-dir", "killed"]
    metrics = stepgraph.folder / "killed" / "metrics.jsonl"
    hits = 0
    for _ in range(2):
        process = stepgraph.start(*arguments)
        size = metrics.stat().st_size if metrics.exists() else 0
        while process.poll() is None and not (metrics.exists() and metrics.stat().st_size > size):
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0, 0.3)))
        process.kill()
        process.communicate(timeout=30)
        hits += process.returncode == -signal.SIGKILL
        arguments = ["train", "--resume", "--run-dir", "killed", "--quiet"]
    assert hits >= 1
    stepgraph(*arguments)
    assert files(stepgraph.folder / "killed") == files(stepgraph.folder / "whole")


def test_a_longer_run_is_the_longer_run(stepgraph, files):
    constant = ("--schedule", "constant")
    stepgraph.train(*constant, "--epochs", 3, "--run-dir", "whole")
    stepgraph.train(*constant, "--epochs", 1, "--run-dir", "grown")
    stepgraph("train", "--resume", "--run-dir", "grown", "--epochs", 3)
    assert files(stepgraph.folder / "grown") == files(stepgraph.folder / "whole")
    config = json.loads((stepgraph.folder / "grown" / "config.json").read_text())
    assert config["epochs"] == 3


def test_a_damaged_checkpoint_is_passed_over(stepgraph, files):
    stepgraph.train(*LENGTH, "--run-dir", "run")
    before = files(stepgraph.folder / "run")
    newest = max((stepgraph.folder / "run" / "checkpoints").glob("step-*"))
    path = newest / "arrays.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    done = stepgraph("train", "--resume", "--run-dir", "run")
    assert f"{newest.name} is damaged and was passed over" in done.stderr
    assert "going on after step 39" in done.stdout
    assert files(stepgraph.folder / "run") == before
    assert (newest.parent / f"damaged-{newest.name}").is_dir()


def test_what_makes_up_a_run_cannot_be_changed(trained):
    done = trained("train", "--resume", "--run-dir", "run", "--seed", 5, "--batch-size", 3, code=1)
    assert "--seed: 5, the run has 0" in done.stderr
    assert "--batch-size: 3, the run has 128" in done.stderr


def test_changed_data_is_noticed(stepgraph, rng):
    images = rng.integers(0, 256, (40, 8, 8), np.uint8)
    arrays = {"x_train": images, "y_train": np.arange(40) % 10}
    arrays |= {"x_test": images[:20], "y_test": np.arange(20) % 10}
    np.savez(stepgraph.folder / "data.npz", **arrays)
    small = ("--dataset", "data.npz", "--batch-size", 10)
    stepgraph.train(*small, "--steps", 2, "--run-dir", "run")
    images[3, 3, 3] ^= 1
    np.savez(stepgraph.folder / "data.npz", **arrays)
    done = stepgraph("train", "--resume", "--run-dir", "run", "--steps", 4, code=1)
    assert "are not those that the run began with" in done.stderr


def test_another_device_is_remarked_on(stepgraph):
    stepgraph.train("--steps", 2, "--run-dir", "run")
    done = stepgraph(
        *("train", "--resume", "--run-dir", "run", "--steps", 4, "--device", "reference")
    )
    assert "goes on on device reference instead of cpu" in done.stderr
    assert "done: 4 of 4 steps" in done.stdout


def test_a_finished_run_stays_as_it_is(trained, files):
    before = files(trained.folder / "run")
    done = trained("train", "--resume", "--run-dir", "run")
    assert "done: 33 of 33 steps" in done.stdout
    assert files(trained.folder / "run") == before


def test_the_newest_run_is_found(stepgraph):
    stepgraph.train("--steps", 2)
    stepgraph.train("--steps", 3)
    runs = stepgraph.folder / "runs"
    assert sorted(p.name for p in runs.iterdir()) == ["tiny-digits-1", "tiny-digits-2"]
    done = stepgraph("train", "--resume", "--steps", 4)
    assert "done: 4 of 4 steps" in done.stdout
    assert len((runs / "tiny-digits-2" / "metrics.jsonl").read_text().splitlines()) == 4


def test_nothing_to_resume(stepgraph):
    for arguments, words in (
        (("--run-dir", "none"), "does not exist"),
        ((), "none is named and there is none in runs/"),
    ):
        done = stepgraph("train", "--resume", *arguments, code=1)
        assert words in done.stderr
        assert not (stepgraph.folder / "none").exists()
