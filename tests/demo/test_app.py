"""The demo as people use it: a real window, off the screen, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stepgraph.backends.cpu.native.cache import directory

pytest.importorskip("toga_qt", reason="the demo's window needs toga-qt", exc_type=ImportError)

ROOT = Path(__file__).parents[2]
KEEP = os.environ.get("STEPGRAPH_SCREENSHOTS")  # where pictures of the screens are kept

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="driven through Qt on Linux"),
]


class Played:
    """A scene that was played: what it told, by name, the last of each."""

    def __init__(self, lines: list[dict[str, Any]], errors: str) -> None:
        self.lines = lines
        self.errors = errors
        self.told = {name: value for line in lines for name, value in line.items()}

    def __getitem__(self, name: str) -> Any:
        assert name in self.told, f"{self.told.get('end')}\n{self.errors}"
        return self.told[name]


def play(scene: str, home: Path, folder: Path, kill: bool = False) -> Played:
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("XDG_")},
        "HOME": str(home),
        "STEPGRAPH_CACHE_DIR": str(directory()),
        "QT_QPA_PLATFORM": "offscreen",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "demo" / "src")]),
    }
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(Path(__file__).with_name("driving.py")), scene, str(folder)]
    lines = []
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if line.startswith("{"):
                lines.append(json.loads(line))
                if kill and "kill" in lines[-1]:
                    process.send_signal(signal.SIGKILL)
        errors = process.stderr.read()
    code = process.returncode
    played = Played(lines, errors)
    if kill:
        assert code == -signal.SIGKILL, errors
    else:
        assert played["end"] == "well", f"{played['end']}\n{errors}"
        assert code == 0, errors
    if KEEP:
        Path(KEEP).mkdir(parents=True, exist_ok=True)
        for picture in folder.glob("*.png"):
            shutil.copy(picture, Path(KEEP) / picture.name)
    return played


def metrics(home: Path) -> bytes:
    (found,) = home.rglob("metrics.jsonl")
    return found.read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Played, Path, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return play("uninterrupted", folder / "home", folder / "out"), folder / "home", folder / "out"


def test_killed_and_started_again_it_ends_with_the_same_numbers(
    tmp_path: Path, whole: tuple[Played, Path, Path]
) -> None:
    home = tmp_path / "home"
    first = play("interrupted", home, tmp_path / "first", kill=True)
    assert first["changed"] > 300  # pixels of the window
    assert first["drawn"] >= 1
    assert first.lines[1]["saved"] == first.lines[1]["at"]
    assert (first["away"], first["away_saved"]) == ("paused", True)
    assert first["step"] > first["saved"] > 0
    second = play("resumed", home, tmp_path / "second")
    assert any("interrupted" in line for line in second["words"])
    assert any(f"step {first['saved']:,} of" in line.replace("\n", " ") for line in second["words"])
    assert second["phase"] == "done"
    assert [step for step, _ in second["curve"]] == list(range(1, 89))
    assert second["looks"] == 2
    assert metrics(home) == metrics(whole[1])


def test_a_whole_run_shows_what_it_does(whole: tuple[Played, Path, Path]) -> None:
    played, _, out = whole
    assert len(played["pictures"]) == 8
    assert {truth for truth, _ in played["pictures"]} <= set("0123456789")
    assert played["ticks"] > 20  # the window went on living while training ran
    assert played["accuracy"] > 0.8
    assert sum(map(sum, played["confusion"])) == 359
    (exported,) = (out / "exported").iterdir()
    assert (exported / "config.json").is_file()
    assert list(exported.glob("checkpoints/step-*/arrays.safetensors"))


def test_a_picture_from_disk_is_told(whole: tuple[Played, Path, Path]) -> None:
    played, _, _ = whole
    name, chance = played["chances"][0]
    assert name == str(played["is_"])
    assert chance > 0.3
    chances = [c for _, c in played["chances"]]
    assert chances == sorted(chances, reverse=True)
    assert any("no such file" in line for line in played["missing"])


def test_nothing_is_cut_off_at_any_size(tmp_path: Path, whole: tuple[Played, Path, Path]) -> None:
    for line in whole[0].lines:
        assert not line.get("outside"), line
    found = play("sizes", tmp_path / "home", tmp_path / "out")
    scales = [line["scale"] for line in found.lines if "scale" in line]
    assert scales == sorted(set(scales))
    assert len(scales) == 3
    for line in found.lines:
        assert not line.get("outside"), line
    assert found["dark"] > 0.3


def test_what_goes_wrong_is_said(tmp_path: Path) -> None:
    found = play("mistakes", tmp_path / "home", tmp_path / "out")
    assert "Choose the folder with your photos first." in found["lacks"]
    assert any("no class folders" in line for line in found["failed"])
    assert not found["results"]
    assert not found["hold"]
    assert "runs" in found["unwritable"]


def test_a_full_disk_and_closing_in_mid_run_lose_nothing_saved(tmp_path: Path) -> None:
    home = tmp_path / "home"
    found = play("stopped", home, tmp_path / "out")
    assert any("What to do: make room." in line for line in found["full"])
    assert any(f"step {found['kept']:,} of" in w.replace("\n", " ") for w in found["offer"])
    # The window was closed while the second run trained: it was saved on the way out.
    newest = max(home.rglob("config.json"), key=lambda path: path.stat().st_mtime).parent
    assert list(newest.glob("checkpoints/step-*"))
