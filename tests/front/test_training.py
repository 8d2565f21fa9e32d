"""fit, evaluate and predict: data in every form, weights of samples, order, resuming, accidents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepgraph import callbacks, layers, losses, models, optimizers, utils
from stepgraph.errors import DataError, FeedError, NumericsError
from stepgraph.layers import Dense, Input
from stepgraph.models import Model, Sequential
from stepgraph.models.data import ArraySource, Batch

Array = np.ndarray[Any, Any]


def classifier(seed: int = 1, **settings: Any) -> Model:
    """Dropout, normalisation and moments: everything that has a state."""
    utils.set_random_seed(seed)
    utils.clear_session()
    model = Sequential(
        [
            Input((4,)),
            Dense(6, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.25),
            Dense(3, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=settings.pop("optimizer", "adam"),
        loss=settings.pop("loss", "sparse_categorical_crossentropy"),
        metrics=["acc"],
        device=settings.pop("device", "reference"),
        **settings,
    )
    return model


def linear(**settings: Any) -> Model:
    """One weight without a bias: its training can be followed by hand."""
    model = Sequential([Input((1,)), Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile(
        optimizer=settings.pop("optimizer", optimizers.SGD(0.125)),
        loss="mse",
        device="reference:float64",
        **settings,
    )
    return model


@pytest.fixture
def data(rng: np.random.Generator) -> tuple[Array, Array]:
    return rng.standard_normal((22, 4)).astype("float32"), rng.integers(0, 3, 22)


def same(a: Model, b: Model) -> None:
    for x, y in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)


def test_history(data: tuple[Array, Array]) -> None:
    x, y = data
    model = classifier()
    history = model.fit(
        x, y, batch_size=8, epochs=4, initial_epoch=1, validation_data=(x, y), verbose=0
    )
    assert history.epoch == [1, 2, 3]
    assert list(history.history) == ["loss", "acc", "val_loss", "val_acc"]
    assert all(len(values) == 3 for values in history.history.values())
    assert history.params["steps"] == 3
    assert model.history is history
    # The last, smaller batch was a step too.
    assert model.optimizer.iterations == 9
    found = model.evaluate(x, y, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(history.history["val_loss"][-1])


def test_figures_are_means_over_samples(data: tuple[Array, Array]) -> None:
    x, y = data
    model = classifier()
    p = model.predict(x, batch_size=5)
    loss, accuracy = model.evaluate(x, y, batch_size=5, verbose=0)
    assert loss == pytest.approx(-np.log(p[np.arange(22), y]).mean(), rel=1e-5)
    assert accuracy == pytest.approx((p.argmax(-1) == y).mean())
    np.testing.assert_allclose(model.predict_on_batch(x), p, rtol=1e-6)


def test_a_step_by_hand() -> None:
    model = linear()
    x, y = np.array([[1.0], [2.0]]), np.array([[0.0], [0.0]])
    assert model.train_on_batch(x, y) == pytest.approx(2.5)
    assert model.get_weights()[0] == pytest.approx(1 - 0.125 * 5)
    assert model.test_on_batch(x, y) == pytest.approx(2.5 * 0.375**2)


def test_sample_and_class_weights() -> None:
    x, y = np.array([[1.0], [2.0]]), np.array([[0.0], [0.0]])
    model = linear()
    assert model.train_on_batch(x, y, sample_weight=np.array([2.0, 0.0])) == pytest.approx(1.0)
    assert model.get_weights()[0] == pytest.approx(1 - 0.125 * 2)
    model = linear(weighted_metrics=["mse"], metrics=["mse"])
    logs = model.test_on_batch(x, y, sample_weight=[3.0, 1.0], return_dict=True)
    # Keras divides the loss by the count, a weighted metric by the weights.
    assert logs == pytest.approx({"loss": 7 / 2, "mse": 2.5, "mse_1": 7 / 4})

    labels = np.array([0, 1, 2, 1])
    inputs = np.eye(4, dtype="float32")
    by_class, by_sample = classifier(), classifier()
    by_class.fit(inputs, labels, class_weight={1: 5.0}, verbose=0)
    by_sample.fit(inputs, labels, sample_weight=np.array([1, 5, 1, 5]), verbose=0)
    same(by_class, by_sample)


class Items:
    """A sequence of batches, as Keras's data generators are."""

    def __init__(self, x: Array, y: Array, size: int) -> None:
        self.x, self.y, self.size, self.passes = x, y, size, 0

    def __len__(self) -> int:
        return -(-len(self.x) // self.size)

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        if index >= len(self):
            raise IndexError
        part = slice(index * self.size, (index + 1) * self.size)
        return self.x[part], self.y[part]

    def on_epoch_end(self) -> None:
        self.passes += 1


def test_every_form_of_data_trains_alike(data: tuple[Array, Array]) -> None:
    x, y = data

    def batches() -> Iterator[tuple[Array, Array]]:
        while True:
            for i in range(3):
                yield Items(x, y, 8)[i]

    arrays = classifier()
    arrays.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    generator = classifier()
    generator.fit(batches(), epochs=2, steps_per_epoch=22 / 8, verbose=0)
    same(arrays, generator)
    items = Items(x, y, 8)
    sequence = classifier()
    sequence.fit(items, epochs=2, shuffle=False, verbose=0)
    same(arrays, sequence)
    assert items.passes == 2
    singly = classifier()
    for _ in range(2):
        for batch in Items(x, y, 8):
            singly.train_on_batch(*batch)
    same(arrays, singly)
    listed = classifier()
    listed.fit(iter([Items(x, y, 8)[i] for i in range(3)]), epochs=1, verbose=0)
    assert listed.steps_trained == 3


@pytest.mark.parametrize("quick", [0.0, 1e9], ids=["by a thread", "in place"])
def test_data_sets_of_ours(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, quick: float
) -> None:
    from stepgraph.datasets import Batches, from_arrays

    monkeypatch.setattr("stepgraph.models.data.QUICK", quick)

    pictures = rng.integers(0, 256, (20, 6, 6, 1)).astype(np.uint8)
    made = from_arrays(pictures, rng.integers(0, 3, 20))

    def train(model: Model, **settings: Any) -> Model:
        model.fit(Batches(made, 8, seed=4, drop_remainder=False), verbose=0, **settings)
        return model

    def fresh() -> Model:
        utils.set_random_seed(2)
        model = Sequential([Input((6, 6, 1)), layers.Flatten(), Dense(3, activation="softmax")])
        model.compile(optimizer="adam", loss="categorical_crossentropy", device="reference")
        return model

    whole = train(fresh(), epochs=4)
    assert whole.steps_trained == 12
    halves = train(train(fresh(), epochs=2), epochs=4, initial_epoch=2)
    same(whole, halves)
    # The first batches are prepared without a thread: an epoch of one or two of them is whole.
    for size in (20, 10):
        several, batches = fresh(), Batches(made, size, seed=4)
        several.fit(batches, epochs=3, verbose=0)
        singly = fresh()
        for epoch in range(3):
            for x, y in batches.stream(epoch=epoch, epochs=epoch + 1):
                singly.train_on_batch(x, y)
        same(several, singly)


def test_a_generator_that_ends(data: tuple[Array, Array]) -> None:
    x, y = data
    model = classifier()
    with pytest.warns(UserWarning, match="the data ended before epoch 2 of 3"):
        model.fit(iter([(x, y)]), epochs=3, verbose=0)
    with pytest.raises(DataError, match="the data gave no batch"):
        model.fit(iter([]), verbose=0)


def test_shuffling_depends_on_seed_and_step(data: tuple[Array, Array]) -> None:
    x, _ = data

    def orders(seed: int) -> list[list[float]]:
        model = classifier(seed)
        samples = Batch([x], [np.zeros(22, np.int32)], [None])
        source = ArraySource(samples, 22, shuffle=True, seed=model.seed)
        return [next(source.batches(0, i)).x[0][:, 0].tolist() for i in (0, 1, 1)]

    first, second = orders(1), orders(2)
    assert first == orders(1)
    assert first[1] == first[2] != first[0]
    assert sorted(first[0]) == sorted(x[:, 0].tolist())
    assert first[0] != second[0]


@pytest.mark.parametrize(
    ("optimizer", "device"),
    [("sgd", "reference"), ("adam", "reference"), ("rmsprop", "reference"), ("adam", "cpu")],
)
def test_resuming_is_bit_identical(
    optimizer: str, device: str, data: tuple[Array, Array], tmp_path: Path
) -> None:
    x, y = data
    whole = classifier(optimizer=optimizer, device=device)
    history = whole.fit(x, y, batch_size=8, epochs=4, validation_split=0.25, verbose=0)
    half = classifier(optimizer=optimizer, device=device)
    half.fit(x, y, batch_size=8, epochs=2, validation_split=0.25, verbose=0)
    half.save(tmp_path / "half.sg")
    utils.set_random_seed(99)
    again = models.load_model(tmp_path / "half.sg")
    same(half, again)
    rest = again.fit(
        x, y, batch_size=8, epochs=4, initial_epoch=2, validation_split=0.25, verbose=0
    )
    same(whole, again)
    for name, values in rest.history.items():
        assert values == history.history[name][2:]
    for name, value in whole.optimizer.state().items():
        np.testing.assert_array_equal(value, again.optimizer.state()[name])


def test_equal_seeds_train_equally(data: tuple[Array, Array]) -> None:
    x, y = data
    runs = []
    for seed in (5, 5, 6):
        model = classifier(seed)
        model.fit(x, y, batch_size=8, epochs=2, verbose=0)
        runs.append(model)
    same(runs[0], runs[1])
    assert (runs[0].get_weights()[0] != runs[2].get_weights()[0]).any()


def test_a_loss_that_is_no_number() -> None:
    x, y = np.array([[1e30]]), np.zeros((1, 1))
    model = linear(optimizer=optimizers.SGD(1e30))

    def many_steps(model: Model) -> float:
        return [model.train_on_batch(x, y) for _ in range(9)][-1]

    with pytest.raises(
        NumericsError, match=r"(?s)the loss is \w+ in step \d.*learning rate: 1e\+30"
    ):
        many_steps(model)
    lenient = linear(optimizer=optimizers.SGD(1e30), nonfinite="ignore")
    assert not np.isfinite(many_steps(lenient))
    warned = linear(optimizer=optimizers.SGD(1e30), nonfinite="warn")
    with pytest.warns(RuntimeWarning, match="the loss is"):
        many_steps(warned)
    stopping = linear(optimizer=optimizers.SGD(1e30), nonfinite="ignore")
    many = np.full((20, 1), 1e30)
    stopping.fit(
        many, np.zeros(20), batch_size=1, verbose=0, callbacks=[callbacks.TerminateOnNaN()]
    )
    assert stopping.steps_trained < 20


def test_labels_out_of_range() -> None:
    model = classifier()
    with pytest.raises(FeedError, match="takes whole numbers"):
        model.train_on_batch(np.zeros((2, 4)), [0.0, 0.5])
    assert model.train_on_batch(np.zeros((2, 4)), [0.0, 1.0])
    with pytest.raises(DataError, match=r"(?s)class numbers run from 0 to 3.*0 to 2"):
        model.train_on_batch(np.zeros((2, 4)), [0, 3])


def test_devices_agree(data: tuple[Array, Array]) -> None:
    """A float32 step agrees with the same step in float64."""
    x, y = data
    found = []
    for device in ("reference", "reference:float64"):
        model = classifier()
        model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy", device=device)
        model.fit(x, y, batch_size=8, epochs=3, verbose=0)
        found.append(model.get_weights())
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert found[1][0].dtype == np.float64


def test_the_cpu_trains_it(data: tuple[Array, Array]) -> None:
    x, y = data
    found = []
    for device in ("cpu", "reference"):
        model = classifier()
        model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", device=device)
        model.fit(x, y, batch_size=8, epochs=2, verbose=0)
        found.append(model.get_weights())
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_steps_and_frequencies(data: tuple[Array, Array]) -> None:
    x, y = data
    model = classifier()
    history = model.fit(
        x,
        y,
        batch_size=8,
        epochs=4,
        steps_per_epoch=2,
        validation_data=iter([(x, y)] * 9),
        validation_steps=1,
        validation_freq=2,
        verbose=0,
    )
    assert model.steps_trained == 8
    assert len(history.history["val_loss"]) == 2
    assert model.evaluate(x, y, batch_size=8, steps=1, verbose=0)[0] > 0
    assert model.predict(x, batch_size=8, steps=1).shape == (8, 3)


def test_partial_batches_of_a_fixed_batch_size(rng: np.random.Generator) -> None:
    """Input(batch_size=...) is shown, but a last, smaller batch is welcome, as in Keras."""
    x = Input((2,), batch_size=4)
    model = Model(x, Dense(1)(x))
    assert model.output_shape == (4, 1)
    model.compile(optimizer="sgd", loss="mse", device="reference")
    model.fit(rng.standard_normal((6, 2)), np.zeros(6), batch_size=4, verbose=0)
    assert model.steps_trained == 2


class PictureFlow(Items):
    """What ``ImageDataGenerator().flow(...)`` returns, as far as a model sees it."""

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        return self

    def __next__(self) -> tuple[Array, Array]:
        return self[0]


@pytest.mark.slow
def test_the_talks_script(rng: np.random.Generator) -> None:
    """A Keras script for ResNet-50 on 32 x 32 pictures, with nothing changed but its imports."""
    from stepgraph import activations
    from stepgraph import optimizers as keras_optimizers
    from stepgraph.layers import (
        Activation,
        Add,
        AveragePooling2D,
        BatchNormalization,
        Conv2D,
        Flatten,
        MaxPooling2D,
    )

    def unit(x: Any, filters: int, size: int, stride: int, padding: str, last: bool) -> Any:
        x = Conv2D(
            filters,
            kernel_size=(size, size),
            strides=(stride, stride),
            padding=padding,
            use_bias=False,
        )(x)
        x = BatchNormalization()(x)
        return x if last else Activation(activations.relu)(x)

    def block(x: Any, filters: tuple[int, int], stride: int | None) -> Any:
        skip = x
        x = unit(x, filters[0], 1, stride or 1, "valid", False)
        x = unit(x, filters[0], 3, 1, "same", False)
        x = unit(x, filters[1], 1, 1, "valid", True)
        if stride is not None:
            skip = unit(skip, filters[1], 1, stride, "valid", True)
        x = Add()([x, skip])
        return Activation(activations.relu)(x)

    pictures = rng.random((10, 32, 32, 3)).astype("float32")
    labels = utils.to_categorical(rng.integers(0, 10, 10), 10)
    batch_size = 4
    train_set_data = PictureFlow(pictures, labels, batch_size)
    utils.set_random_seed(0)

    start = Input(shape=(32, 32, 3), batch_size=batch_size)
    x = Conv2D(8, kernel_size=(7, 7), strides=(2, 2), use_bias=False)(start)
    x = BatchNormalization()(x)
    x = Activation(activations.relu)(x)
    x = MaxPooling2D((3, 3), strides=(2, 2))(x)
    for stage, (filters, count) in enumerate(
        [((8, 32), 3), ((16, 64), 4), ((32, 128), 6), ((64, 256), 3)]
    ):
        x = block(x, filters, 1 if stage == 0 else 2)
        for _ in range(count - 1):
            x = block(x, filters, None)
    x = AveragePooling2D((2, 2), padding="same")(x)
    x = Flatten()(x)
    x = Dense(10, activation="softmax")(x)

    model = Model(inputs=start, outputs=x, name="Resnet50")
    model.compile(
        loss=losses.CategoricalCrossentropy(reduction=losses.Reduction.SUM_OVER_BATCH_SIZE),
        optimizer=keras_optimizers.legacy.SGD(),
        metrics=["acc"],
    )
    history = model.fit(train_set_data, epochs=2, steps_per_epoch=10 / batch_size, verbose=0)
    assert list(history.history) == ["loss", "acc"]
    assert model.optimizer.iterations == 6
    convolutions = [layer for layer in model.layers if isinstance(layer, Conv2D)]
    assert len(convolutions) == 53
    assert [t.shape for t in model.outputs] == [(4, 10)]
    assert np.isfinite(history.history["loss"]).all()
