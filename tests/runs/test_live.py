"""The view of a run: what is shown is what happened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stepgraph.checkpoints import RunDirectory
from stepgraph.datasets import Normalize
from stepgraph.runs.beginning import begin, settle_new
from stepgraph.runs.events import Seen, Several
from stepgraph.runs.live import PICTURE_SECONDS, Curve, Live, Point, smooth
from stepgraph.runs.memory import memory_in_use, memory_peak
from stepgraph.runs.training import make_batches

TINY = {
    "dataset": "digits",
    "image_size": 8,
    "channels": 1,
    "batch_size": 32,
    "model": "mlp",
    "model_options": {"hidden": [8]},
    "device": "cpu",
}


class Never:
    requested = False


def trained(folder: Path, live: Live, **chosen: object) -> RunDirectory:
    config, splits, _ = settle_new({**TINY, **chosen})
    live.class_names = config.class_names
    live.normalize = config.normalization
    run = RunDirectory(folder)
    with run.training():
        training = begin(run, config, splits, False, live, Never())
        live.ended(training.train())
    return run


def test_curves_and_looks_are_those_of_the_metrics_file(tmp_path: Path) -> None:
    live = Live()
    assert live.view().phase == "idle"
    run = trained(tmp_path / "run", live, epochs=2)
    records = run.read_metrics()
    view = live.view()
    assert view.phase == "done"
    assert [p.loss for p in view.curve] == [r["loss"] for r in records]
    assert [p.accuracy for p in view.curve] == [r["accuracy"] for r in records]
    assert [(v.epoch, v.accuracy) for v in view.looks] == [
        (r["epoch"], r["val_accuracy"]) for r in records if "val_accuracy" in r
    ]
    assert view.memory > 10_000_000
    assert view.planned > 0
    assert view.started is not None
    assert view.started.total == len(records)
    again = Live()
    again.recall(records)
    assert again.view().curve == view.curve
    assert again.view().looks == view.looks


@pytest.mark.parametrize("normalize", [False, True])
def test_the_pictures_are_the_batch_with_its_classes(tmp_path: Path, normalize: bool) -> None:
    live = Live(pictures=5)
    trained(tmp_path / "run", live, steps=1, normalize=normalize)
    config, splits, _ = settle_new({**TINY, "steps": 1})
    x, y = make_batches(config, splits).batch(0, 0)
    shown = live.view().pictures
    assert len(shown) == 5
    for picture, pixels, label in zip(shown, x, y, strict=False):
        np.testing.assert_allclose(picture.pixels, pixels * 255, atol=1)
        assert picture.truth == config.class_names[int(label.argmax())]
        assert 0 < picture.probability <= 1


def test_pictures_change_no_faster_than_people_look() -> None:
    times = iter([0.0, 0.2, PICTURE_SECONDS * 0.9, 1.0, 1.1])
    live = Live(("a", "b"), clock=lambda: next(times))
    asked = []

    def predict(x: np.ndarray) -> np.ndarray:
        asked.append(len(x))
        return np.tile(np.float32([0.25, 0.75]), (len(x), 1))

    batch = Seen(
        np.zeros((16, 2, 2, 1), np.float32), np.eye(2, dtype=np.float32)[[0, 1] * 8], predict
    )
    for _ in range(3):
        live.seen(batch)
    assert asked == [8, 8]
    first, second = live.view().pictures[:2]
    assert (first.truth, first.taken_for, first.right) == ("a", "b", False)
    assert (second.truth, second.right, second.probability) == ("b", True, 0.75)


def test_normalisation_is_undone() -> None:
    live = Live(("a",), Normalize((0.5, 0.5, 0.5), (0.25, 0.5, 1.0)))
    x = np.zeros((1, 1, 1, 3), np.float32)
    x[0, 0, 0] = 1, -1, 9
    live.seen(Seen(x, np.ones((1, 1), np.float32), lambda x: np.ones((1, 1), np.float32)))
    assert live.view().pictures[0].pixels.ravel().tolist() == [191, 0, 255]


def test_a_curve_keeps_its_means_however_long() -> None:
    curve = Curve(64)
    losses = np.random.default_rng(0).random(10_000)
    for step, loss in enumerate(losses, 1):
        curve.add(Point(step, 1, float(loss), float(loss) / 2))
    assert 32 <= len(curve.points) <= 64
    assert sum(p.steps for p in curve.points) == len(losses)
    assert curve.points[-1].step == len(losses)
    mean = sum(p.loss * p.steps for p in curve.points) / len(losses)
    assert mean == pytest.approx(losses.mean())
    assert len({p.steps for p in curve.points[:-1]}) == 1


def test_smoothing_follows_and_forgets() -> None:
    assert smooth([3.0] * 5) == pytest.approx([3.0] * 5)
    steps = smooth([0.0] * 50 + [1.0] * 50)
    assert steps[49] == 0
    assert steps[50] < 0.2
    assert steps[-1] > 0.99


def test_several_reporters_hear_the_same() -> None:
    one, two = Live(), Live()
    Several(one, two).note("heard")
    assert one.view().notes == two.view().notes == ("heard",)


def test_memory_in_use_grows_with_what_is_held() -> None:
    before = memory_in_use()
    held = np.ones(50_000_000, np.uint8)
    assert memory_in_use() - before > 40_000_000
    assert memory_peak() >= held.nbytes
