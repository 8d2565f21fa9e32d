"""Ops that only move numbers, in rows and in panels, against the references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.backends.cpu.agreement import CHANNELS, agree, compiled

SIZES = st.integers(1, 7)


@st.composite
def tensors(draw, rank=4):
    shape = (*(draw(SIZES) for _ in range(rank - 1)), draw(st.sampled_from((*CHANNELS, 32))))
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def moved(make, panels):
    """`make` behind an op that leaves its input in panels, and before one that wants it there."""

    def build(g, x, *rest):
        if not panels:
            return make(g, x, *rest)
        y = make(g, g.max_pooling_2d(x, 1), *rest)
        wanted = [
            t for t in (y if isinstance(y, list) else [y]) if t.rank == 4 and 0 not in t.shape
        ]
        return [*(y if isinstance(y, list) else [y]), *(g.max_pooling_2d(t, 1) for t in wanted)]

    return build


@settings(max_examples=30)
@given(tensors(), st.permutations(range(4)), st.booleans())
def test_permute(x, order, panels):
    agree(moved(lambda g, x: g.permute(x, order), panels), [x], tolerance=0)


@settings(max_examples=20)
@given(tensors(), st.sets(st.integers(0, 3)), st.booleans())
def test_reverse(x, axes, panels):
    agree(moved(lambda g, x: g.reverse(x, tuple(axes)), panels), [x], tolerance=0)


@settings(max_examples=30)
@given(tensors(), st.data(), st.booleans())
def test_strided_slice_and_its_gradient(x, data, panels):
    def pick(size):
        start, end = (data.draw(st.integers(-size - 1, size + 1)) for _ in range(2))
        return start, end, data.draw(st.sampled_from([1, 1, 2, 3, -1, -2]))

    starts, ends, strides = zip(*(pick(n) for n in x.shape), strict=True)
    masks = [tuple(data.draw(st.booleans()) for _ in x.shape) for _ in range(2)]

    def make(g, x):
        part = g.strided_slice(x, starts, ends, strides, *masks)
        return [part, g.strided_slice_gradient(part * 2.0, x, starts, ends, strides, *masks)]

    agree(moved(make, panels), [x], tolerance=0)


@settings(max_examples=20)
@given(tensors(), st.data(), st.booleans())
def test_slice_update(x, data, panels):
    starts, sizes = [], []
    for n in x.shape:
        starts.append(data.draw(st.sampled_from([0, 0, n - 1, n // 2, 16 if n > 16 else 0])))
        sizes.append(data.draw(st.integers(1, n - starts[-1])))
    update = -np.ones(sizes, "float32")
    agree(moved(lambda g, x, u: g.slice_update(x, u, starts), panels), [x, update], tolerance=0)


@settings(max_examples=20)
@given(tensors(), st.integers(0, 3), st.booleans(), st.sampled_from(CHANNELS))
def test_concat_and_split(x, axis, panels, more):
    shape = list(x.shape)
    shape[axis] = more
    other = np.random.default_rng(1).standard_normal(shape).astype("float32")

    def make(g, x, other):
        joined = g.concat([x, other, x], axis)
        return [joined, *g.split(joined, [x.shape[axis], more, x.shape[axis]], axis)]

    agree(moved(make, panels), [x, other], tolerance=0)


@settings(max_examples=20)
@given(tensors(), st.data(), st.booleans(), st.sampled_from([0.0, 1.5]))
def test_pad(x, data, panels, value):
    paddings = [tuple(data.draw(st.integers(0, 2)) for _ in range(2)) for _ in x.shape]
    if data.draw(st.booleans()):
        paddings[-1] = (0, 0)
    agree(moved(lambda g, x: g.pad(x, paddings, value=value), panels), [x], tolerance=0)


@settings(max_examples=15)
@given(tensors(), st.lists(st.integers(1, 3), min_size=4, max_size=4), st.booleans())
def test_tile(x, multiples, panels):
    agree(moved(lambda g, x: g.tile(x, multiples), panels), [x], tolerance=0)


DTYPES = ("float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")
DTYPES += ("uint64", "bool")


@pytest.mark.parametrize("source", DTYPES)
def test_cast(source):
    numbers = np.array([0, 1, -1, 2.75, -2.75, 100.5, -100.5, 70000, 5, -0.0, 33.3] * 3)
    if source.startswith("u"):
        numbers = np.abs(numbers)
    if source in ("uint32", "uint64"):
        numbers[-1] = np.iinfo(source).max // 2 + 2
    x = numbers.astype(source)
    # What no integer holds has no agreed meaning: left out.
    small = np.clip(numbers, 0, 100).astype(source)
    for target in DTYPES:
        narrowing = source.startswith("float") and not target.startswith("float")
        given_ = small if narrowing else x
        executable, feeds = compiled(lambda g, x, target=target: g.cast(x, target), [given_])
        got = executable.run({feeds[0]: given_})[0]
        np.testing.assert_array_equal(got, given_.astype(target), err_msg=target)


def test_empty_parts():
    x = np.zeros((2, 0, 3), "float32")

    def make(g, x):
        return [
            g.pad(x, [(0, 0), (1, 1), (0, 0)], value=2.0),
            g.permute(x, (2, 0, 1)),
            g.reverse(x),
        ]

    agree(make, [x])


def test_transpose_is_cut_into_tasks():
    x = np.random.default_rng(0).standard_normal((3, 130, 4, 300)).astype("float32")
    agree(lambda g, x: g.permute(x, (3, 0, 2, 1)), [x], tolerance=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_element_types_move(dtype):
    x = np.arange(60).reshape(3, 4, 5).astype(dtype)

    def make(g, x):
        return [
            g.permute(x, (2, 1, 0)),
            g.reverse(x, 2),
            g.concat([x, x], 1),
            g.pad(x, [(0, 1), (0, 0), (2, 0)], value=1),
        ]

    agree(make, [x], tolerance=0)
