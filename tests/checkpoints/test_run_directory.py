"""The run directory: records cut to the step, one process at a time, leftovers removed."""

import json
import subprocess
import sys

import numpy as np
import pytest

from stepgraph.checkpoints import Checkpoint, Records, RunDirectory, cut_records, read_records
from stepgraph.errors import CheckpointError


def write(path, steps):
    records = Records(path)
    for step in steps:
        records.append({"step": step, "loss": 1 / 3 + step})
    records.sync()
    records.close()


def test_records_come_back_bit_by_bit(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, range(1, 4))
    assert read_records(path) == [{"step": s, "loss": 1 / 3 + s} for s in range(1, 4)]


def test_cut_gives_the_bytes_of_a_run_that_stopped_there(tmp_path):
    short, long = tmp_path / "short", tmp_path / "long"
    write(short, range(1, 6))
    write(long, range(1, 11))
    with long.open("ab") as file:
        file.write(b'{"step": 11, "lo')
    assert cut_records(long, 5) == 5
    assert long.read_bytes() == short.read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    before = long.stat().st_mtime_ns, long.stat().st_ino
    assert cut_records(long, 5) == 5
    assert (long.stat().st_mtime_ns, long.stat().st_ino) == before, "nothing to cut, not rewritten"


def test_cut_drops_what_a_power_failure_left(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, range(1, 4))
    with path.open("ab") as file:
        file.write(b"\0" * 40 + b"\n[1]\n{\n")
    with pytest.raises(CheckpointError, match="line 4 is no JSON object"):
        read_records(path)
    assert cut_records(path, 3) == 3
    assert len(read_records(path)) == 3


def test_cut_of_no_file(tmp_path):
    assert cut_records(tmp_path / "none", 3) == 0
    assert not (tmp_path / "none").exists()


def test_numbers_that_json_cannot_say_are_refused(tmp_path):
    records = Records(tmp_path / "m")
    with pytest.raises(ValueError, match="JSON compliant"):
        records.append({"loss": float("nan")})
    records.close()
    assert (tmp_path / "m").read_bytes() == b""


def test_a_full_disk_is_named(tmp_path):
    full = tmp_path / "metrics.jsonl"
    try:
        full.symlink_to("/dev/full")
        with open("/dev/full"):
            pass
    except OSError:
        pytest.skip("this system has no /dev/full")
    records = Records(full)
    with pytest.raises(CheckpointError, match="the disk is full"):
        records.append({"step": 1})
    records.close()


def test_rewind(tmp_path):
    run = RunDirectory(tmp_path / "run")
    with run.training():
        run.write_config({"a": 1})
        for step in (2, 4):
            run.save(Checkpoint(step, 0, step, 0, {"w": np.zeros(3)}))
        for path in (run.metrics, run.timing):
            write(path, range(1, 8))
        broken = run.checkpoints / "step-000000004" / "arrays.safetensors"
        broken.write_bytes(b"")
        found, notes = run.newest()
        assert found.step == 2
        assert len(notes) == 1
        assert run.rewind(2) == []
    assert len(read_records(run.metrics)) == len(read_records(run.timing)) == 2
    assert sorted(p.name for p in run.checkpoints.iterdir()) == [
        "damaged-step-000000004",
        "step-000000002",
    ]
    with run.training():
        run.metrics.unlink()
        assert run.rewind(2) == ["metrics.jsonl has 0 of 2 steps; it was changed"]


def test_leftovers_of_a_killed_process_go(tmp_path):
    run = RunDirectory(tmp_path)
    left = [tmp_path / ".tmp-abc", run.checkpoints / ".tmp-def" / "arrays.safetensors"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    with run.training():
        assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoints", "lock"]
        assert list(run.checkpoints.iterdir()) == []


HOLD = """
import sys, time
from stepgraph.checkpoints import RunDirectory
with RunDirectory(sys.argv[1]).training():
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_one_process_at_a_time(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    run = RunDirectory(tmp_path)
    with pytest.raises(CheckpointError, match=rf"(?s)another process.*pid {holder.pid} on"):
        with run.training():
            pass
    # However the holder ends, the lock is free then.
    holder.kill()
    holder.communicate(timeout=30)
    with run.training():
        pass


def test_metrics_are_numbers(tmp_path):
    run = RunDirectory(tmp_path)
    good = {"step": 1, "epoch": 1, "loss": 2.5, "accuracy": 0.5}
    records = Records(run.metrics)
    records.append(good)
    assert run.read_metrics() == [good]
    records.append({**good, "loss": "low"})
    records.close()
    with pytest.raises(CheckpointError, match="line 2 has no number for loss"):
        run.read_metrics()


def test_config(tmp_path):
    run = RunDirectory(tmp_path / "run")
    assert not run.exists
    with pytest.raises(CheckpointError, match="does not exist"):
        run.read_config()
    with run.training():
        with pytest.raises(CheckpointError, match=r"there is no config\.json in it"):
            run.read_config()
        run.write_config({"rate": 0.1, "name": "ü"})
    assert run.exists
    assert run.read_config() == {"rate": 0.1, "name": "ü"}
    text = (run.path / "config.json").read_bytes()
    assert text.isascii(), "the same bytes whatever the platform's encoding"
    for bad, words in ((b"{", "not readable"), (b"[]", "no JSON object"), (b"\xff", "readable")):
        (run.path / "config.json").write_bytes(bad)
        with pytest.raises(CheckpointError, match=words):
            run.read_config()


def test_config_is_plain_json(tmp_path):
    run = RunDirectory(tmp_path)
    run.write_config({"a": [1, 2.5, None, True]})
    assert json.loads((tmp_path / "config.json").read_text()) == {"a": [1, 2.5, None, True]}
