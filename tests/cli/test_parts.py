"""Parts of the command line by themselves: pictures and words."""

import numpy as np
import pytest

from stepgraph.cli import figures, output
from stepgraph.errors import CheckpointError
from stepgraph.runs.scoring import Scores

RECORDS = [
    {"step": i, "epoch": (i - 1) // 5 + 1, "loss": 2.0 / i, "accuracy": 1 - 1 / i}
    for i in range(1, 11)
]


@pytest.mark.parametrize("classes", [2, 10, 26, 100])
def test_pictures_of_any_number_of_classes(tmp_path, classes):
    names = [f"class number {i}" for i in range(classes)]
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, 60)
    scores = Scores(1.0, 0.1, labels, rng.random((60, classes), np.float32))
    pictures = {
        "confusion": figures.confusion(scores.confusion(), names, 0.1),
        "mistakes": figures.mistakes(rng.random((60, 8, 8, 3), np.float32), scores, names),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_curves_of_one_step_and_of_epochs(tmp_path):
    figures.curves(RECORDS[:1], "one step").save(tmp_path / "a")
    looks = [
        {**r, "val_loss": 1.0, "val_accuracy": 0.5} if r["step"] % 5 == 0 else r for r in RECORDS
    ]
    figures.curves(looks, "two epochs").save(tmp_path / "b")
    with pytest.raises(CheckpointError, match="holds no step yet"):
        figures.curves([], "nothing")


def test_no_mistakes(tmp_path):
    scores = Scores(0.0, 1.0, np.array([0, 1]), np.eye(2, dtype="float32"))
    figures.mistakes(np.zeros((2, 4, 4, 1), np.uint8), scores, ["a", "b"]).save(tmp_path / "m")
    assert (tmp_path / "m").stat().st_size > 1000


def test_words():
    assert [output.duration(s) for s in (0.04, 59.94, 59.96, 3599.6)] == [
        *("0.0 s", "59.9 s", "1 min 0 s", "1 h 0 min"),
    ]
    assert output.percent(1) == "100.0 %"
