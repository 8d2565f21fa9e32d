"""Checkpoints: written whole, found again, damage passed over, differences named."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from stepgraph.checkpoints import (
    ArraySpec,
    Checkpoint,
    check_arrays,
    list_checkpoints,
    load,
    newest,
    save,
    specs_of,
)
from stepgraph.errors import CheckpointError


def made(step: int, seed: int = 5) -> Checkpoint:
    rng = np.random.default_rng(step)
    arrays = {"w": rng.standard_normal((3, 4)).astype("float32"), "steps": np.int64(step)}
    arrays = {name: np.asarray(value) for name, value in arrays.items()}
    return Checkpoint(step, step // 4, step % 4, seed, arrays, {"note": "é"})


def same(a: Checkpoint, b: Checkpoint) -> bool:
    plain = [(c.step, c.epoch, c.epoch_step, c.seed, c.details) for c in (a, b)]
    raw = [{n: (v.dtype, v.shape, v.tobytes()) for n, v in c.arrays.items()} for c in (a, b)]
    return plain[0] == plain[1] and raw[0] == raw[1]


def test_comes_back_bit_by_bit(tmp_path):
    path = save(tmp_path, made(7))
    assert same(load(path), made(7))
    assert sorted(p.name for p in path.iterdir()) == ["arrays.safetensors", "state.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000007"]


def test_the_last_ones_are_kept(tmp_path):
    for step in (1, 2, 9, 10, 100):
        save(tmp_path, made(step), keep=2)
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-000000010", "step-000000100"]
    found, notes = newest(tmp_path)
    assert same(found, made(100))
    assert notes == []


def test_none_at_all(tmp_path):
    assert newest(tmp_path / "nowhere") == (None, [])
    assert newest(tmp_path) == (None, [])


def test_saving_a_step_again_replaces_it(tmp_path):
    save(tmp_path, made(3, seed=1))
    save(tmp_path, made(3, seed=2))
    assert load(list_checkpoints(tmp_path)[0]).seed == 2
    assert len(list(tmp_path.iterdir())) == 1


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def edit(**changes):
    def apply(path):
        state = json.loads(path.read_text())
        state.update(changes)
        path.write_text(json.dumps(state))

    return apply


DAMAGE = {
    "arrays cut": ("arrays.safetensors", cut, "truncated"),
    "arrays changed": ("arrays.safetensors", flip, "SHA-256 differs"),
    "arrays gone": ("arrays.safetensors", os.unlink, "no such file"),
    "state cut": ("state.json", lambda p: p.write_bytes(p.read_bytes()[:40]), "no readable JSON"),
    "state gone": ("state.json", os.unlink, "No such file"),
    "state binary": ("state.json", lambda p: p.write_bytes(b"\xff\xfe\x00"), "no readable JSON"),
    "state deep": ("state.json", lambda p: p.write_bytes(b"[" * 100_000), "no readable JSON"),
    "state a list": ("state.json", lambda p: p.write_text("[]"), "no description"),
    "other step": ("state.json", edit(step=8), "numbers do not fit"),
    "negative position": (
        "state.json",
        edit(position={"epoch": -1, "step": 0}),
        "numbers do not fit",
    ),
    "seed a string": ("state.json", edit(seed="1"), "'seed' is missing or no int"),
    "step a bool": ("state.json", edit(step=True), "'step' is missing or no int"),
    "newer format": ("state.json", edit(format=2), "format 2 is not known"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named_and_the_older_one_taken(tmp_path, case):
    file, damage, words = DAMAGE[case]
    save(tmp_path, made(4))
    path = save(tmp_path, made(7))
    damage(path / file)
    with pytest.raises(CheckpointError, match=words):
        load(path)
    found, notes = newest(tmp_path)
    assert same(found, made(4))
    assert len(notes) == 1
    assert notes[0].startswith("step-000000007 is damaged and was passed over")


def test_when_all_are_damaged_nothing_is_made_up(tmp_path):
    for step in (4, 7):
        cut(save(tmp_path, made(step)) / "arrays.safetensors")
    with pytest.raises(CheckpointError, match=r"(?s)no checkpoint in it is good.*000007.*000004"):
        newest(tmp_path)


def test_another_network_is_an_error_and_no_damage(tmp_path):
    save(tmp_path, made(4))
    save(tmp_path, made(7))
    check = check_arrays("load mlp", {"w": ArraySpec((3, 5), "float32")})
    with pytest.raises(CheckpointError, match="not those of this network") as caught:
        newest(tmp_path, check)
    text = str(caught.value)
    assert "w: saved float32 (3, 4), the network has float32 (3, 5)" in text
    assert "not in the network: steps int64 ()" in text


def test_differences_are_listed_and_counted():
    expected = {f"layer{i}": ArraySpec((i,), "float32") for i in range(30)}
    found = {f"layer{i}": ArraySpec((i,), "float64") for i in range(15)}
    with pytest.raises(CheckpointError) as caught:
        check_arrays("load", expected)(found)
    text = str(caught.value)
    assert "not in the file: layer15 float32 (15,)" in text
    assert "and 5 more" in text
    assert "layer0: saved float64 (0,), the network has float32 (0,)" in text
    assert "5 more of other shape or dtype" in text
    check_arrays("load", expected)(dict(expected))


def test_specs():
    assert specs_of(made(1).arrays) == {
        "w": ArraySpec((3, 4), "float32"),
        "steps": ArraySpec((), "int64"),
    }


def run(code: str, *arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )


FILL = """
    import resource, signal, sys
    from pathlib import Path
    import numpy as np
    from stepgraph.checkpoints import Checkpoint, save
    from stepgraph.errors import CheckpointError

    folder = Path(sys.argv[1])
    save(folder, Checkpoint(1, 0, 1, 0, {"w": np.ones(10, "float32")}))
    # From here on no file may grow beyond 64 KiB: the system refuses in the middle of the write.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
    try:
        save(folder, Checkpoint(2, 0, 2, 0, {"w": np.ones(100_000, "float32")}))
    except CheckpointError as error:
        print(error)
"""


def test_a_write_refused_half_way_leaves_the_previous_one(tmp_path):
    pytest.importorskip("resource")
    done = run(FILL, tmp_path)
    assert "the file would exceed the largest size allowed here" in done.stdout, done.stderr
    assert "kept: everything that was saved before" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000001"]
    assert newest(tmp_path)[0].step == 1


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(CheckpointError, match=r"a file of that name is in the way|is no folder"):
        save(tmp_path / "checkpoints", made(1))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_an_unwritable_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match="no permission to write there"):
            save(tmp_path, made(1))
    finally:
        tmp_path.chmod(0o700)


WRITE_ON = """
    import sys
    from pathlib import Path
    import numpy as np
    from stepgraph.checkpoints import Checkpoint, save

    print("go", flush=True)
    for step in range(1, 10_000):
        save(Path(sys.argv[1]), Checkpoint(step, 0, step, 0, {"w": np.full(20_000, step)}))
"""


def test_killed_while_writing_there_is_always_a_good_one(tmp_path, rng):
    for round_ in range(5):
        folder = tmp_path / str(round_)
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITE_ON), str(folder)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05 + float(rng.uniform(0, 0.15)))
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        process.stdout.close()
        found, notes = newest(folder)
        assert notes == []
        if found is not None:
            assert (found.arrays["w"] == found.step).all()
        shutil.rmtree(folder, ignore_errors=True)
