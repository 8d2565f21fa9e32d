"""Batches: pure functions of (seed, epoch, step), and right in what they hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgraph.datasets import (
    Augment,
    Batches,
    Normalize,
    channel_statistics,
    draws,
    from_arrays,
)
from stepgraph.errors import DataError

MASK = 2**64 - 1


def data(count: int = 23, size: int = 6, channels: int = 3, classes: int = 4):
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, channels), np.uint8)
    names = [str(i) for i in range(classes)]
    return from_arrays(pixels, np.arange(count) % classes, names)


def splitmix(state: int) -> int:
    """The published generator's next output, in Python's integers: the oracle."""
    z = state & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_splitmix_gives_the_published_numbers() -> None:
    # First outputs of the reference splitmix64.c for seed 1234567.
    golden = 0x9E3779B97F4A7C15
    first = [splitmix(1234567 + golden * (i + 1)) for i in range(3)]
    assert first == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(seed=st.integers(-(2**70), 2**70), epoch=st.integers(0, 10**6), purpose=st.integers(0, 4))
def test_keys_agree_with_plain_integers(seed: int, epoch: int, purpose: int) -> None:
    golden = 0x9E3779B97F4A7C15
    base = splitmix(splitmix(splitmix(seed) + purpose * golden) + epoch * golden)
    index = np.array([0, 1, 5, 49_999])
    got = draws.keys(seed, epoch, purpose, index).tolist()
    assert got == [splitmix(base + (i + 1) * golden) for i in index.tolist()]


def test_permutation_stays_as_it_is() -> None:
    """Checkpoints resume across releases, so these may not change."""
    assert draws.permutation(8, seed=0, epoch=0).tolist() == [2, 4, 6, 5, 1, 7, 0, 3]
    assert draws.permutation(8, seed=0, epoch=1).tolist() == [5, 7, 2, 0, 3, 1, 6, 4]


def test_permutations_are_even() -> None:
    counts = np.zeros((6, 6))
    for seed in range(3000):
        counts[np.arange(6), draws.permutation(6, seed, seed % 7)] += 1
    # 500 expected in each place, standard deviation about 20.
    assert np.abs(counts - 500).max() < 110


def test_integers_are_even_and_in_range() -> None:
    drawn = draws.integers(3, 4, draws.CROP_X, np.arange(90_000), 9)
    counts = np.bincount(drawn, minlength=9)
    assert len(counts) == 9
    assert np.abs(counts - 10_000).max() < 500
    other = draws.integers(3, 4, draws.CROP_Y, np.arange(90_000), 9)
    assert abs(np.corrcoef(drawn, other)[0, 1]) < 0.02


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_visits_every_sample_once(shuffle: bool) -> None:
    batches = Batches(data(), 5, seed=3, shuffle=shuffle, drop_remainder=False)
    assert batches.steps_per_epoch == 5
    seen = np.concatenate([batches.indices(2, step) for step in range(5)])
    assert sorted(seen.tolist()) == list(range(23))
    assert (seen.tolist() == list(range(23))) is not shuffle
    assert Batches(data(), 5).steps_per_epoch == 4


def test_plain_batch_is_pixels_over_255() -> None:
    source = data()
    batches = Batches(source, 5, seed=1)
    index = batches.indices(0, 2)
    x, y = batches.batch(0, 2)
    assert (x.dtype, y.dtype, x.flags.c_contiguous) == (np.float32, np.float32, True)
    expected = source.images[index].astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(y, np.eye(4, dtype=np.float32)[source.labels[index]])
    sparse = Batches(source, 5, seed=1, labels="sparse").batch(0, 2).y
    assert sparse.dtype == np.int32
    np.testing.assert_array_equal(sparse, source.labels[index])


def test_float_images_are_fed_as_they_are() -> None:
    pixels = np.random.default_rng(0).normal(size=(4, 3, 3, 1)).astype(np.float32)
    x, _ = Batches(from_arrays(pixels, [0, 1, 2, 3]), 4, shuffle=False).batch(0, 0)
    np.testing.assert_array_equal(x, pixels)


def test_normalize() -> None:
    source = data(200, 4)
    statistics = channel_statistics(source)
    scaled = source.images / 255.0
    np.testing.assert_allclose(statistics.mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(statistics.std, scaled.std((0, 1, 2)), rtol=1e-12)
    x, _ = Batches(source, 200, shuffle=False, normalize=statistics).batch(0, 0)
    expected = (scaled - statistics.mean) / statistics.std
    np.testing.assert_allclose(x, expected, atol=1e-5)


def expected_augmentation(picture, crop: int, dy: int, dx: int, mirror: int):
    padded = np.pad(picture, ((crop, crop), (crop, crop), (0, 0)))
    height, width, _ = picture.shape
    cut = padded[dy : dy + height, dx : dx + width]
    return cut[:, ::-1] if mirror else cut


@given(
    seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 50), crop=st.integers(0, 9),
    flip=st.booleans(),
)  # fmt: skip
def test_augmentation_is_pad_crop_flip(seed: int, epoch: int, crop: int, flip: bool) -> None:
    images = np.random.default_rng(1).integers(1, 256, (7, 5, 6, 2), dtype=np.uint8)
    index = np.array([6, 0, 3, 3])
    got = Augment(crop, flip).apply(images, index, seed, epoch)
    span = 2 * crop + 1
    down = draws.integers(seed, epoch, draws.CROP_Y, index, span)
    right = draws.integers(seed, epoch, draws.CROP_X, index, span)
    mirror = draws.integers(seed, epoch, draws.FLIP, index, 2 if flip else 1)
    for place, i in enumerate(index):
        expected = expected_augmentation(images[i], crop, down[place], right[place], mirror[place])
        np.testing.assert_array_equal(got[place], expected)


def test_augmentation_goes_with_the_sample_not_the_batch() -> None:
    """The same sample in the same epoch is changed alike whatever the batch size."""
    source, augment = data(24, 8), Augment(3)
    one = Batches(source, 4, seed=9, augment=augment)
    two = Batches(source, 12, seed=9, augment=augment)
    small = np.concatenate([one.batch(5, step).x for step in range(6)])
    large = np.concatenate([two.batch(5, step).x for step in range(2)])
    np.testing.assert_array_equal(small, large)
    again = dict(zip(one.order(6), _epoch(one, 6), strict=True))
    before = dict(zip(one.order(5), small, strict=True))
    changed = sum(not np.array_equal(again[i], before[i]) for i in range(24))
    assert changed > 15


def _epoch(batches: Batches, epoch: int):
    return np.concatenate([batches.batch(epoch, step).x for step in range(batches.steps_per_epoch)])


@given(
    seed=st.integers(0, 2**32), epoch=st.integers(0, 9), step=st.integers(0, 3),
    visits=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=4),
)  # fmt: skip
def test_a_batch_does_not_depend_on_what_came_before(
    seed: int, epoch: int, step: int, visits: list[tuple[int, int]]
) -> None:
    options = {"seed": seed, "augment": Augment(2), "normalize": Normalize((0.5,), (0.2,))}
    source = data(channels=1)
    wandering, fresh = (Batches(source, 5, **options) for _ in range(2))  # type: ignore[arg-type]
    out = wandering.empty()
    for visit in visits:
        wandering.batch(*visit, out=out)
    a, b = wandering.batch(epoch, step, out=out), fresh.batch(epoch, step)
    assert a.x.tobytes() == b.x.tobytes()
    assert a.y.tobytes() == b.y.tobytes()


def test_buffers_are_written_and_checked() -> None:
    batches = Batches(data(), 5, drop_remainder=False)
    out = batches.empty()
    got = batches.batch(0, 0, out=out)
    assert np.shares_memory(got.x, out.x)
    assert np.shares_memory(got.y, out.y)
    rest = batches.batch(0, 4, out=out)
    assert (rest.x.shape[0], rest.y.shape[0]) == (3, 3)
    fresh = batches.batch(0, 4)
    np.testing.assert_array_equal(rest.x, fresh.x)
    with pytest.raises(DataError, match=r"out\.x does not fit"):
        batches.batch(0, 0, out=out._replace(x=out.x[:, ::2]))
    with pytest.raises(DataError, match=r"out\.y does not fit"):
        batches.batch(0, 0, out=out._replace(y=out.y.astype(np.float64)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Batches(data(), 0), "batch_size 0"),
        (lambda: Batches(data(), 24), "batch_size 24"),
        (lambda: Batches(data(), 4, labels="hot"), "labels='hot'"),
        (lambda: Batches(data(), 4, normalize=Normalize((0.5,), (1.0,))), "1 means .* 3 channels"),
        (lambda: Batches(data(), 4).batch(0, 5), "no step 5"),
        (lambda: Batches(data(), 4).batch(-1, 0), "epoch -1"),
        (lambda: Augment(-1), "negative"),
        (lambda: Normalize((0.5,), (0.0,)), "positive deviation"),
    ],
)
def test_mistakes_are_named(make, words: str) -> None:
    with pytest.raises(DataError, match=words):
        make()
