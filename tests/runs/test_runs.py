"""What a run is made of: configuration, tables, state, scores."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from stepgraph import applications, layers, models
from stepgraph.checkpoints import specs_of
from stepgraph.datasets import DATASETS, from_arrays
from stepgraph.errors import CheckpointError, UnsupportedError
from stepgraph.runs.beginning import settle_new
from stepgraph.runs.config import RunConfig, from_json
from stepgraph.runs.defaults import AUGMENTS, OPTIMIZERS, PER_DATASET, SCHEDULES, for_dataset
from stepgraph.runs.device import choose
from stepgraph.runs.learner import Learner
from stepgraph.runs.scoring import score

TINY = {
    "dataset": "digits",
    "batch_size": 64,
    "image_size": 8,
    "channels": 1,
    "device": "reference",
}


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return settle_new({**TINY, "model": "mlp", "model_options": {"hidden": [8]}})[0]


def test_config_comes_back(config):
    text = json.dumps(config.to_json())
    assert from_json("read", json.loads(text)) == config


def test_the_default_job_is_the_talks_network_on_digits():
    config, splits, _ = settle_new({"device": "reference"})
    assert (config.model, config.dataset, config.image_shape) == ("resnet50", "digits", [32, 32, 3])
    assert config.schedule_steps == config.total_steps(len(splits.train) // config.batch_size)


def test_tables_agree_with_each_other():
    assert set(PER_DATASET) <= set(DATASETS)
    for name in DATASETS:
        values = for_dataset(name)
        assert values["optimizer"] in OPTIMIZERS
        assert values["schedule"] in SCHEDULES
        assert values["augment"] in AUGMENTS
        assert values["model"] in applications.APPLICATIONS


BROKEN = {
    "missing": (lambda c: c.pop("seed"), "seed: missing"),
    "unknown": (lambda c: c.update(colour=1), "colour: unknown"),
    "a string for a number": (lambda c: c.update(batch_size="64"), "'64' is no int"),
    "a bool for a number": (lambda c: c.update(seed=True), "True is no int"),
    "not finite": (lambda c: c.update(learning_rate=float("nan")), "nan is no float"),
    "names no strings": (lambda c: c.update(class_names=[1]), "class_names"),
    "no list": (lambda c: c.update(image_shape="8x8"), "image_shape"),
    "newer": (lambda c: c.update(format=2), "format 2 is not known"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_config_is_refused(config, case):
    change, words = BROKEN[case]
    values = json.loads(json.dumps(config.to_json()))
    change(values)
    with pytest.raises(CheckpointError, match=words):
        from_json("read config.json", values)


def test_steps_and_epochs():
    assert settle_new({**TINY, "model": "mlp", "steps": 5000})[0].epochs is None
    both = settle_new({**TINY, "model": "mlp", "steps": 5000, "epochs": 2})[0]
    assert both.total_steps(22) == 44
    assert both.schedule_steps == 44


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_never_rise_and_stay_positive_until_the_end(name):
    made = SCHEDULES[name][1](0.5, 100)
    rates = [made if isinstance(made, float) else made(float(step)) for step in range(100)]
    assert rates[0] == pytest.approx(0.5)
    assert all(a >= b for a, b in itertools.pairwise(rates))
    assert rates[-1] > 0


def stateful(input_shape, classes):
    x = inputs = layers.Input(input_shape)
    x = layers.Conv2D(3, 3, use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.5)(layers.Flatten()(x))
    return models.Model(inputs, layers.Dense(classes, activation="softmax")(x))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_restored_learner_goes_on_bit_by_bit(monkeypatch, config, optimizer):
    table = {**applications.APPLICATIONS, "s": applications.Application(stateful, "", 0)}
    monkeypatch.setattr(applications, "APPLICATIONS", table)
    config = config.changed(
        model="s",
        model_options={},
        optimizer=optimizer,
        momentum=OPTIMIZERS[optimizer].momentum,
        weight_decay=OPTIMIZERS[optimizer].weight_decay,
        learning_rate=0.01,
    )
    rng = np.random.default_rng(1)
    batches = [
        (rng.random((4, 8, 8, 1), np.float32), np.eye(10, dtype="float32")[rng.integers(0, 10, 4)])
        for _ in range(4)
    ]
    whole = Learner(config)
    for batch in batches[:2]:
        whole.step(*batch)
    kept = whole.arrays()
    assert kept["optimizer/iterations"] == 2
    assert kept["random_step"] == 2
    rest = [whole.step(*batch) for batch in batches[2:]]
    other = Learner(config)
    assert other.specs() == specs_of(kept)
    other.restore(kept)
    assert [other.step(*batch) for batch in batches[2:]] == rest
    ends = whole.arrays(), other.arrays()
    assert all(ends[0][name].tobytes() == ends[1][name].tobytes() for name in ends[0])
    np.testing.assert_array_equal(whole.predict(batches[0][0]), other.predict(batches[0][0]))
    # Without any one of the arrays it would not: nothing is saved in vain, nothing is missing.
    del kept["random_step"]
    with pytest.raises(CheckpointError, match="not in the file: random_step"):
        other.restore(kept)


def test_scores_against_their_definition():
    rng = np.random.default_rng(2)
    data = from_arrays(rng.random((11, 2, 2, 1), np.float32), rng.integers(0, 3, 11), list("abc"))
    raw = rng.random((11, 3)) + 0.01
    chances = (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)
    asked = []

    def predict(x):
        assert len(x) == 4, "always whole batches"
        place = len(asked) * 4
        asked.append(x)
        rest = chances[place : place + 4]
        return np.concatenate([rest, np.full((4 - len(rest), 3), 1 / 3, np.float32)])

    found = score(predict, data, 4, None)
    torch = pytest.importorskip("torch")
    loss = torch.nn.functional.nll_loss(
        torch.from_numpy(np.log(chances.astype(np.float64))), torch.from_numpy(data.labels)
    )
    assert found.loss == pytest.approx(float(loss), rel=1e-12)
    assert found.accuracy == np.mean(chances.argmax(axis=1) == data.labels)
    table = found.confusion()
    for row in range(3):
        for column in range(3):
            hits = (data.labels == row) & (chances.argmax(axis=1) == column)
            assert table[row, column] == hits.sum()


def test_a_certain_mistake_has_a_finite_loss():
    data = from_arrays(np.zeros((1, 2, 2, 1), np.float32), [1], list("ab"))
    found = score(lambda x: np.array([[1.0, 0.0]], np.float32), data, 1, None)
    assert found.loss == pytest.approx(-np.log(1e-7))


def test_every_field_is_described():
    text = RunConfig.__doc__
    assert text is not None
    for field in dataclasses.fields(RunConfig):
        assert f"        {field.name}: " in text


@pytest.mark.parametrize(
    ("usable", "chosen", "told"),
    [
        (("cpu", "mps", "reference"), "cpu", False),
        (("mps", "reference"), "mps", False),
        (("reference",), "reference", True),
    ],
)
def test_the_device_where_none_is_named(monkeypatch, usable, chosen, told):
    def get_device(name):
        if name not in usable:
            raise UnsupportedError(f"{name} is not here")

    monkeypatch.setattr("stepgraph.runs.device.get_device", get_device)
    found, remark = choose(None)
    assert found == chosen
    assert (remark is not None) is told
    with pytest.raises(UnsupportedError):
        choose("tpu")
