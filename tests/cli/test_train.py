"""``stepgraph train``: what it prints and leaves, how it stops, what it refuses."""

import os
import signal
import subprocess
import sys
import time

import pytest

from stepgraph.checkpoints import RunDirectory
from stepgraph.cli import main
from stepgraph.cli.stopping import SAME_SECONDS, StopRequest
from tests.cli.harness import JOB


def test_leaves_a_run_directory(trained):
    run = RunDirectory(trained.folder / "run")
    assert sorted(p.name for p in run.path.iterdir() if p.suffix != ".png") == [
        *("checkpoints", "config.json", "lock", "metrics.jsonl", "timing.jsonl"),
    ]
    config = run.read_config()
    assert config["format"] == 1
    assert (config["model"], config["dataset"], config["seed"]) == ("tiny", "digits", 0)
    records = run.read_metrics()
    assert [r["step"] for r in records] == list(range(1, 34))
    assert [r["epoch"] for r in records] == [1] * 11 + [2] * 11 + [3] * 11
    looks = [r["step"] for r in records if "val_loss" in r]
    assert looks == [11, 22, 33]
    for record in records:
        extra = {"val_loss", "val_accuracy"} if record["step"] in looks else set()
        assert set(record) == {"step", "epoch", "loss", "accuracy"} | extra
    assert records[-1]["val_accuracy"] > 0.5, "it is to have learnt"
    assert records[-1]["loss"] < records[0]["loss"]
    found, notes = run.newest()
    assert (found.step, found.epoch, found.epoch_step, notes) == (33, 3, 0, [])
    assert {name.split("/")[0] for name in found.arrays} == {
        *("weights", "optimizer", "random_step")
    }
    assert any("moving_variance" in name for name in found.arrays)


def test_plain_lines_without_a_terminal(stepgraph):
    done = stepgraph.train("--epochs", 2, "--run-dir", "run")
    assert "\x1b" not in done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("model: tiny, ")
    assert any(line.startswith("step 1/22  epoch 1/2  loss ") for line in lines)
    assert sum(line.startswith("epoch ") for line in lines) == 2
    assert lines[-2].startswith("done: 22 of 22 steps in ")
    assert lines[-1] == "look at it: stepgraph plot --run-dir run"


def test_json_for_programs(stepgraph, events):
    done = stepgraph.train("--steps", 13, "--run-dir", "run", "--json")
    assert done.stderr == ""
    found = events(done.stdout)
    kinds = [event["event"] for event in found]
    assert kinds[0] == "start"
    assert kinds[-2:] == ["checkpoint", "end"]
    assert kinds.count("step") == 13
    assert kinds.count("epoch") == 2
    steps = [event for event in found if event["event"] == "step"]
    assert steps[0]["images_per_second"] is None
    assert steps[-1]["images_per_second"] > 0
    records = RunDirectory(stepgraph.folder / "run").read_metrics()
    assert [s["loss"] for s in steps] == [r["loss"] for r in records]
    assert found[-1]["status"] == "done"
    assert found[-1]["val_accuracy"] == records[-1]["val_accuracy"]


def test_quiet_says_nothing(stepgraph):
    done = stepgraph.train("--steps", 2, "--run-dir", "run", "--quiet")
    assert done.stdout == done.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_shows_a_bar_and_is_given_back(stepgraph):
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        stepgraph.command("train", *JOB, "--epochs", 300, "--run-dir", "run"),
        cwd=stepgraph.folder,
        env={**stepgraph.environment, "COLUMNS": "100"},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    parts = []
    try:
        while part := os.read(ours, 65536):
            parts.append(part)
    except OSError:
        pass  # Linux reports the closed other end so
    os.close(ours)
    assert process.wait(60) == 0
    shown = b"".join(parts).decode()
    assert "images/s" in shown
    assert "test acc." in shown
    assert "━" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") > 0, "the cursor is shown again"
    assert "done: 3,300 of 3,300 steps" in shown


def started(stepgraph, *arguments):
    """A long run that has made some steps."""
    process = stepgraph.start("train", *JOB, "--epochs", 100_000, "--run-dir", "a run", *arguments)
    metrics = stepgraph.folder / "a run" / "metrics.jsonl"
    end = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size > 500):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    return process


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_saves_and_says_how_to_go_on(stepgraph, name, code):
    if not hasattr(signal, name):
        pytest.skip(f"no {name} here")
    process = started(stepgraph)
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "then everything is saved" in err
    assert "Traceback" not in err
    last = out.splitlines()[-1]
    assert last == "go on with: stepgraph train --resume --run-dir 'a run'"
    run = RunDirectory(stepgraph.folder / "a run")
    found, _ = run.newest()
    assert f"saved: step {found.step:,}" in out
    assert [r["step"] for r in run.read_metrics()] == list(range(1, found.step + 1))
    again = stepgraph("train", "--resume", "--run-dir", "a run", "--steps", found.step + 2)
    assert f"going on after step {found.step:,}" in again.stdout


def test_signals_are_counted():
    now, told = [100.0], []
    before = signal.getsignal(signal.SIGINT)
    with StopRequest(told.append, clock=lambda: now[0]) as stop:
        assert not stop.requested
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        assert stop.exit_code == 130
        now[0] += SAME_SECONDS / 2
        signal.raise_signal(signal.SIGINT)
        now[0] += SAME_SECONDS
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert told == ["Ctrl-C"]
    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_signal_stops_at_once(stepgraph, events):
    process = started(stepgraph, "--json", "--checkpoint-every", 2)
    process.send_signal(signal.SIGINT)
    time.sleep(SAME_SECONDS)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert events(out)[-1]["status"] in ("stopped", "aborted")
    found, notes = RunDirectory(stepgraph.folder / "a run").newest()
    assert found.step >= 2
    assert notes == []


def test_a_closed_pipe_does_not_stop_training(stepgraph):
    process = stepgraph.start("train", *JOB, "--epochs", 4, "--run-dir", "run")
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert RunDirectory(stepgraph.folder / "run").newest()[0].step == 44


def test_a_loss_that_is_not_finite_stops(stepgraph):
    network = ("--model", "mlp", "--model-option", "hidden=[16]", "--epochs", 5)
    done = stepgraph.train(*network, "--learning-rate", 1e30, "--run-dir", "run", code=1)
    assert "the loss became NaN or infinite at step 2 of 55 (epoch 1)" in done.stderr
    assert "last good checkpoint: none in run" in done.stderr
    assert "Traceback" not in done.stderr
    run = RunDirectory(stepgraph.folder / "run")
    assert run.newest() == (None, [])
    assert [record["step"] for record in run.read_metrics()] == [1]


def test_weights_that_are_not_finite_are_never_saved(stepgraph):
    """Batch normalisation hides them from the loss."""
    options = ("--learning-rate", 1e25, "--checkpoint-every", 1, "--epochs", 10)
    done = stepgraph.train(*options, "--run-dir", "run", code=1)
    found, notes = RunDirectory(stepgraph.folder / "run").newest()
    assert found is not None
    assert notes == []
    assert f"is no longer finite at step {found.step + 1} of 110" in done.stderr
    assert f"last good checkpoint: step {found.step} in run" in done.stderr


FULL = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_full_disk_stops_with_a_message_and_loses_nothing(stepgraph):
    pytest.importorskip("resource")
    stepgraph.train("--steps", 5, "--run-dir", "run")
    command = stepgraph.command("train", "--resume", "--run-dir", "run", "--steps", 40)
    # From here on no file may grow beyond 2,000 bytes.
    done = subprocess.run(
        [command[0], "-c", FULL, *command[1:]],
        cwd=stepgraph.folder,
        env=stepgraph.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "the file would exceed the largest size allowed here" in done.stderr
    assert "kept: everything that was saved before" in done.stderr
    assert RunDirectory(stepgraph.folder / "run").newest()[0].step == 5
    stepgraph("train", "--resume", "--run-dir", "run", "--steps", 8)


def test_two_processes_do_not_share_a_run_directory(stepgraph):
    process = started(stepgraph)
    done = stepgraph("train", "--resume", "--run-dir", "a run", code=1)
    assert "another process is training into it" in done.stderr
    assert f"pid {process.pid} on" in done.stderr
    done = stepgraph.train("--run-dir", "a run", code=1)
    assert "another process is training into it" in done.stderr
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)


def test_a_run_directory_is_not_overwritten(trained):
    before = (trained.folder / "run" / "config.json").read_bytes()
    done = trained.train("--run-dir", "run", code=1)
    assert "a run was begun in it already" in done.stderr
    assert "stepgraph train --resume --run-dir run" in done.stderr
    assert (trained.folder / "run" / "config.json").read_bytes() == before


REFUSED = {
    "no such model": (("--model", "resnet51"), 1, "did you mean resnet50"),
    "no such option of the model": (("--model-option", "dropuot=0.1"), 1, "did you mean dropout"),
    "no such data set": (("--dataset", "digit"), 1, "did you mean digits"),
    "no such device": (("--device", "gpu"), 1, "no device 'gpu'"),
    "no NAME=VALUE": (("--model-option", "dropout"), 2, "is not NAME=VALUE"),
    "no number": (("--learning-rate", "fast"), 2, "'fast' is not a number"),
    "not finite": (("--learning-rate", "inf"), 2, "is not above 0"),
    "negative": (("--learning-rate", "-1"), 2, "is not above 0"),
    "momentum of one": (("--momentum", "1"), 2, "is not below 1"),
    "momentum of Adam": (
        ("--optimizer", "adam", "--momentum", "0.9"),
        2,
        "--momentum goes with --optimizer sgd or rmsprop, not adam",
    ),
    "batch too large": (("--batch-size", "5000"), 2, "exceeds the 1438 pictures"),
    "no steps": (("--steps", "0"), 2, "x>=1"),
    "no such command line option": (("--colour",), 2, "No such option"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(tmp_path, capsys, case):
    arguments, code, words = REFUSED[case]
    run = tmp_path / "run"
    assert main(["train", "--model", "mlp", *arguments, "--run-dir", str(run)]) == code
    assert words in capsys.readouterr().err
    assert not (run / "config.json").exists()


def test_errors_for_programs_and_for_developers(stepgraph, events):
    done = stepgraph.train("--model", "no", "--json", code=1, STEPGRAPH_TRACEBACK="1")
    (error,) = events(done.stdout)
    assert (error["event"], error["kind"]) == ("error", "CheckpointError")
    assert "Traceback" in done.stderr


def test_without_the_engine_the_reference_is_used_and_said_so(stepgraph):
    hide = """
import importlib.util, runpy, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "llvmlite" else find(name, *rest)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    command = stepgraph.command("train", *JOB, "--steps", 2, "--run-dir", "run")

    def run(*more):
        return subprocess.run(
            [command[0], "-c", hide, *command[1:], *more],
            cwd=stepgraph.folder,
            env=stepgraph.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    done = run()
    assert done.returncode == 0, done.stderr
    assert "llvmlite is not installed" in done.stderr
    assert "very slow" in done.stderr
    assert RunDirectory(stepgraph.folder / "run").read_config()["device"] == "reference"
    done = run("--device", "cpu", "--run-dir", "other")
    assert done.returncode == 1, "a device that was named is not replaced"
    assert "'cpu' cannot be used here" in done.stderr
