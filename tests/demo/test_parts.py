"""Parts of the demo that need no window."""

from __future__ import annotations

import ast
import gc
import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stepgraph.applications import APPLICATIONS
from stepgraph.datasets import DATASETS
from stepgraph.errors import CheckpointError
from stepgraph_demo import choices, words
from stepgraph_demo.rubbish import Collector
from stepgraph_demo.session import LEFT, Session, leave, newest_unfinished

SOURCES = sorted((Path(__file__).parents[2] / "demo" / "src").rglob("*.py"))

# What Toga's iOS backend has, and what is no widget.
WIDGETS = {
    "ActivityIndicator", "Box", "Button", "Canvas", "DetailedList", "Divider", "ImageView",
    "Label", "OptionContainer", "ProgressBar", "ScrollContainer", "Selection", "Slider", "Switch",
    "TextInput",
}  # fmt: skip
OTHERS = {
    "App", "Command", "ConfirmDialog", "Group", "Image", "Key", "MainWindow", "OpenFileDialog",
    "SelectFolderDialog", "Widget", "Window", "style",
}  # fmt: skip

TINY = {
    "dataset": "digits",
    "image_size": 8,
    "channels": 1,
    "model": "mlp",
    "model_options": {"hidden": [8]},
    "batch_size": 32,
    "device": "cpu",
}


def test_only_widgets_that_every_target_has() -> None:
    used = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "toga"
            ):
                used.add(node.attr)
    assert "Canvas" in used
    assert used <= WIDGETS | OTHERS, used - WIDGETS - OTHERS


def test_every_choice_can_be_trained() -> None:
    assert set(choices.NETWORKS.values()) == set(APPLICATIONS)
    assert {name for name, _ in choices.DATASETS.values() if name} <= set(DATASETS)
    for title in choices.NETWORKS:
        assert "weights" in choices.size_of(title)
    settings = choices.Choices().settings()
    assert (settings["model"], settings["dataset"]) == ("resnet50", "digits")
    own = choices.Choices(dataset="Own photos")
    assert own.lacks()
    placed = choices.Choices(dataset="Own photos", place="/a")
    assert not placed.lacks()
    assert placed.settings()["dataset"] == "/a"
    assert choices.Choices(dataset="CIFAR-10", place="/b").settings()["data"] == "/b"


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"network": "none"}', '{"batch": "many"}', '{"x": 1}']
)
def test_choices_come_back_and_broken_ones_do_not(tmp_path: Path, text: str) -> None:
    path = tmp_path / "folder" / "choices.json"
    chosen = choices.Choices(network="LeNet-5", batch=64, text="large")
    choices.save(path, chosen)
    assert choices.load(path) == chosen
    path.write_text(text, encoding="utf-8")
    assert choices.load(path) == choices.Choices()


def test_words_of_errors() -> None:
    message = "read x: broken\n  got: a\n  fix: mend it"
    assert words.first_line(message) == "read x: broken"
    assert words.advice(message) == "What to do: mend it."
    assert words.advice("read x: broken") == ""


def wait(session: Session, *phases: str) -> None:
    end = time.monotonic() + 60
    while session.view().phase not in phases:
        assert time.monotonic() < end, session.view()
        time.sleep(0.005)


def records(runs: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(runs.glob("*/metrics.jsonl"))]


def test_a_session_pauses_goes_on_and_stops(tmp_path: Path) -> None:
    chosen = {**TINY, "epochs": 3}
    straight = Session(tmp_path / "a", chosen).start()
    assert straight.join(60)
    assert straight.view().phase == "done"
    assert straight.scores is not None
    assert straight.scores.confusion().sum() == len(straight.splits.test)
    worst = straight.mistakes(4)
    assert all(truth != guess for _, truth, guess, _ in worst)
    assert [p for *_, p in worst] == sorted((p for *_, p in worst), reverse=True)
    assert newest_unfinished(tmp_path / "a") is None

    session = Session(tmp_path / "b", chosen)
    session.pause()
    session.start()
    wait(session, "paused")
    held = session.training.step
    assert session.training.saved_step == held
    session.stop()
    assert session.join(60)
    assert session.view().phase == "stopped"
    found = newest_unfinished(tmp_path / "b")
    assert (found.step, found.total) == (held, 132)
    again = Session(tmp_path / "b", resume=found.path).start()
    assert again.join(60)
    assert again.view().phase == "done"
    assert records(tmp_path / "b") == records(tmp_path / "a")
    picture = again.splits.test.images[0]
    chances = again.predict(picture)
    np.testing.assert_allclose(
        dict(chances)[again.config.class_names[3]], again.scores.probabilities[0, 3], rtol=1e-4
    )


def test_a_run_that_was_left_is_not_offered(tmp_path: Path) -> None:
    session = Session(tmp_path, {**TINY, "epochs": 3})
    session.pause()
    session.start()
    wait(session, "paused")
    session.stop()
    session.join(60)
    found = newest_unfinished(tmp_path)
    leave(found.path)
    assert newest_unfinished(tmp_path) is None
    exported = session.export(tmp_path / "out")
    assert not (exported / LEFT).exists()
    assert session.export(tmp_path / "out").name == f"{exported.name}-2"
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="export to"):
        session.export(tmp_path / "file")


def test_a_damaged_run_is_not_offered(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    (broken / "checkpoints" / "step-000000001").mkdir(parents=True)
    (broken / "config.json").write_text(json.dumps({"format": 1}))
    assert newest_unfinished(tmp_path) is None
    assert newest_unfinished(tmp_path / "not there") is None


def test_own_photos_by_class(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, grey in (("dark", 40), ("light", 200)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(20):
            pixels = np.clip(rng.normal(grey, 20, (12, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    chosen = {**TINY, "dataset": str(tmp_path / "photos"), "batch_size": 8, "epochs": 20}
    chosen["learning_rate"] = 0.02
    session = Session(tmp_path / "runs", chosen).start()
    assert session.join(60)
    assert session.view().phase == "done", session.view().message
    assert session.config.class_names == ["dark", "light"]
    assert session.scores.accuracy > 0.9


def test_what_nobody_foresaw_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the sky fell")

    monkeypatch.setattr("stepgraph_demo.session.settle_new", broken)
    session = Session(tmp_path, TINY).start()
    assert session.join(60)
    assert session.view().phase == "failed"
    assert "the sky fell" in session.view().message


def test_cycles_are_collected_where_tick_is_called() -> None:
    where = []

    class Thing:
        def __del__(self) -> None:
            where.append(threading.current_thread().name)

    def litter() -> None:
        for _ in range(3000):
            thing = Thing()
            thing.itself = thing  # type: ignore[attr-defined]

    try:
        collector = Collector((700, 10, 10))
        thread = threading.Thread(target=litter, name="another")
        thread.start()
        thread.join()
        assert where == []
        assert collector.tick() is not None
        collector.everything()
        assert where == [threading.current_thread().name] * 3000
    finally:
        gc.enable()
