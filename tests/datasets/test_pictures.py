"""Batches that are written where they are wanted: the same bits, whoever writes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import stepgraph as sg
from stepgraph import layers, utils
from stepgraph.datasets import Augment, Batches, Dataset, Normalize
from stepgraph.datasets.pictures import Pictures, Rows, moved
from stepgraph.errors import DataError, FeedError
from stepgraph.models import Sequential

SIZES = [(28, 28, 1), (32, 32, 3), (5, 6, 2), (3, 17, 4), (1, 1, 1), (20, 33, 3)]
AUGMENTS = [None, Augment(), Augment(9), Augment(2, flip=False), Augment(0)]


def data(size: tuple[int, int, int], dtype: str, count: int = 50) -> Dataset:
    rng = np.random.default_rng(0)
    images: Any = rng.integers(0, 256, (count, *size), dtype=np.uint8)
    if dtype == "float32":
        images = rng.normal(size=images.shape).astype(np.float32)
    return Dataset(images, rng.integers(0, 10, count), tuple("abcdefghij"), "some")


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_device_sees_the_bits_of_the_batch(
    size: tuple[int, int, int], dtype: str, normalized: bool, device: str
) -> None:
    channels = size[2]
    graph = sg.Graph()
    x = graph.placeholder((None, *size), name="x")
    run = graph.compile([x], [graph.relu(x) - graph.relu(-x)], device=device)
    scale = Normalize((0.3, 0.2, 0.1, 0.4)[:channels], (0.21, 0.31, 0.41, 0.17)[:channels])
    source = data(size, dtype)
    for augment in AUGMENTS:
        batches = Batches(
            source,
            16,
            seed=3,
            augment=augment,
            normalize=scale if normalized else None,
            drop_remainder=False,
        )
        for place in ((0, 0), (0, 1), (0, 3), (2, 2)):
            made = batches.deferred(*place)
            written = batches.batch(*place)
            np.testing.assert_array_equal(np.asarray(made.x), written.x)
            np.testing.assert_array_equal(np.asarray(made.x[1:]), written.x[1:])
            np.testing.assert_array_equal(made.y, written.y)
            (seen,) = run.run({x: made.x})
            np.testing.assert_array_equal(seen, written.x)


def test_every_uint8_is_scaled_as_numpy_does() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    graph = sg.Graph()
    x = graph.placeholder((1, 16, 16, 1), name="x")
    run = graph.compile([x], [x * 1.0])
    (seen,) = run.run({x: Pictures(images, np.array([0]))})
    assert seen.tobytes() == (images.astype(np.float32) / np.float32(255)).tobytes()


def test_moves_are_shifts_with_zeros_then_mirrors() -> None:
    picture = np.arange(1, 7, dtype=np.uint8).reshape(1, 2, 3, 1)
    for move, expected in (
        ((1, 0, 0), [[4, 5, 6], [0, 0, 0]]),
        ((-1, 0, 0), [[0, 0, 0], [1, 2, 3]]),
        ((0, 1, 0), [[2, 3, 0], [5, 6, 0]]),
        ((0, -2, 1), [[1, 0, 0], [4, 0, 0]]),
        ((2, 3, 1), [[0, 0, 0], [0, 0, 0]]),
    ):
        got = moved(picture, np.array(move)[:, None])
        assert got[0, :, :, 0].tolist() == expected


def test_rows_of_other_sets_and_other_places_follow_each_other() -> None:
    """What a feeder remembers of the newest value does not outlive it."""
    graph = sg.Graph()
    x = graph.placeholder((None, 3, 5), name="x")
    run = graph.compile([x], [x * 1.0])
    rng = np.random.default_rng(1)
    for count in (4, 4, 7, 4):
        source = rng.normal(size=(9, 3, 5)).astype(np.float32)
        index = rng.integers(0, 9, 2 * count)
        for part in (index[:count], index[::2]):
            (seen,) = run.run({x: Rows(source, part)})
            np.testing.assert_array_equal(seen, source[part])
        np.testing.assert_array_equal(run.run({x: source[:count]})[0], source[:count])
    with pytest.raises(FeedError, match="has shape"):
        run.run({x: Rows(np.zeros((4, 5, 3), np.float32), np.array([0]))})


def test_wide_pictures_are_written_by_numpy() -> None:
    batches = Batches(data((2, 3000, 2), "uint8", 3), 2, augment=Augment(1))
    graph = sg.Graph()
    x = graph.placeholder((2, 2, 3000, 2), name="x")
    run = graph.compile([x], [x * 1.0])
    (seen,) = run.run({x: batches.deferred(0, 0).x})
    np.testing.assert_array_equal(seen, batches.batch(0, 0).x)


def test_drawn_at_once_or_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    source = data((8, 8, 1), "uint8", 70)
    whole = Batches(source, 8, seed=5, augment=Augment(), drop_remainder=False)
    expected = [whole.batch(1, step).x for step in range(whole.steps_per_epoch)]
    for at_once in (1, 20, 64):
        monkeypatch.setattr("stepgraph.datasets.batches.DRAWN", at_once)
        other = Batches(source, 8, seed=5, augment=Augment(), drop_remainder=False)
        for step in reversed(range(other.steps_per_epoch)):
            np.testing.assert_array_equal(other.batch(1, step).x, expected[step])


def test_a_stream_of_them() -> None:
    batches = Batches(data((4, 4, 1), "uint8"), 8, seed=2, augment=Augment(1))
    written = list(batches.stream(0, 3, epochs=2))
    stream = batches.stream(0, 3, epochs=2, deferred=True)
    for one, other in zip(written, stream, strict=True):
        np.testing.assert_array_equal(one.x, np.asarray(other.x))
    assert stream.state == (2, 0)
    with pytest.raises(DataError, match="deferred batches are not prepared ahead"):
        batches.stream(deferred=True, prefetch=1)


@pytest.mark.parametrize("labels", ["one_hot", "sparse"])
def test_fit_trains_on_the_same_batches_on_both_ways(labels: Any) -> None:
    """On the processor pictures are written by kernels, one by one they are arrays."""
    source = data((6, 6, 1), "uint8", 44)
    batches = Batches(source, 8, seed=4, augment=Augment(1), labels=labels, drop_remainder=False)
    loss = "categorical_crossentropy" if labels == "one_hot" else "sparse_categorical_crossentropy"

    def fresh() -> Sequential:
        utils.set_random_seed(2)
        stack = [layers.Input((6, 6, 1)), layers.Flatten(), layers.Dense(10, activation="softmax")]
        model = Sequential(stack)
        model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
        return model

    fitted, single = fresh(), fresh()
    history = fitted.fit(batches, epochs=3, verbose=0, validation_data=batches)
    for x, y in batches.stream(epochs=3):
        single.train_on_batch(x, y)
    for a, b in zip(fitted.get_weights(), single.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    found = single.evaluate(batches, verbose=0, return_dict=True)
    assert found["loss"] == history.history["val_loss"][-1]
    np.testing.assert_array_equal(
        fitted.predict(batches),
        np.concatenate([single.predict_on_batch(x) for x, _ in batches.stream(epochs=1)]),
    )


def test_columns_of_arrays_are_picked_right() -> None:
    """Arrays that are not contiguous, shuffled: the same training as on a copy."""
    rng = np.random.default_rng(3)
    wide = rng.normal(size=(40, 12)).astype(np.float32)
    y = rng.integers(0, 3, 40)

    def trained(x: Any) -> list[Any]:
        utils.set_random_seed(2)
        model = Sequential([layers.Input((6,)), layers.Dense(3, activation="softmax")])
        model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
        model.fit(x, y, batch_size=16, epochs=2, verbose=0)
        return model.get_weights()

    for a, b in zip(trained(wide[:, ::2]), trained(wide[:, ::2].copy()), strict=True):
        np.testing.assert_array_equal(a, b)
