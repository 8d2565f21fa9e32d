"""Indexing, broadcasting, padding, joining and splitting mean what they mean in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import stepgraph as sg
from stepgraph.errors import FeedError, GraphError, ShapeError

shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


def values(shape):
    return np.arange(np.prod(shape, dtype=int), dtype="float32").reshape(shape) + 1


def evaluate(build, *arrays, unknown=False):
    """What `build(graph, *tensors)` gives on the reference device, by sizes known early or late."""
    graph = sg.Graph()
    tensors = [graph.placeholder((None,) * a.ndim if unknown else a.shape, a.dtype) for a in arrays]
    made = build(graph, *tensors)
    outputs = list(made) if isinstance(made, (list, tuple)) else [made]
    found = graph.run(dict(zip(tensors, arrays, strict=True)), outputs, device="reference")
    for tensor, value in zip(outputs, found, strict=True):
        assert len(tensor.shape) == value.ndim
        assert all(a in (None, b) for a, b in zip(tensor.shape, value.shape, strict=True))
        if not unknown:
            assert tensor.shape == value.shape
    return found if isinstance(made, (list, tuple)) else found[0]


@given(data=st.data(), shape=shapes, unknown=st.booleans())
@settings(max_examples=150, deadline=None)
def test_basic_indexing_is_numpys(data, shape, unknown):
    key = data.draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    x = values(shape)
    np.testing.assert_array_equal(evaluate(lambda g, t: t[key], x, unknown=unknown), x[key])


@given(data=st.data(), shape=shapes, unknown=st.booleans())
@settings(max_examples=80, deadline=None)
def test_gradient_of_basic_indexing_marks_what_was_read(data, shape, unknown):
    key = data.draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    x = values(shape)

    def build(g, t):
        part = t[key]
        return g.gradients(of=part * part, with_=[t])[t]

    wanted = np.zeros_like(x)
    wanted[key] = 2 * x[key]
    np.testing.assert_array_equal(evaluate(build, x, unknown=unknown), wanted)


@given(data=st.data(), shape=hnp.array_shapes(min_dims=1, max_dims=4, max_side=4))
@settings(max_examples=80, deadline=None)
def test_one_index_array_among_slices_is_numpys(data, shape):
    axis = data.draw(st.integers(0, len(shape) - 1))
    size = shape[axis]
    indices = data.draw(
        hnp.arrays(
            "int64", hnp.array_shapes(max_dims=2, max_side=3), elements=st.integers(-size, size - 1)
        )
    )
    others = [data.draw(hnp.basic_indices((n,), max_dims=1, allow_ellipsis=False)) for n in shape]
    parts = [
        part[0] if isinstance(part, tuple) and part else slice(None) if part == () else part
        for part in others
    ]
    parts[axis] = indices
    x = values(shape)
    numbers = [i for i, p in enumerate(parts) if not isinstance(p, slice)]
    if numbers[-1] - numbers[0] >= len(numbers):
        with pytest.raises(GraphError, match="something between them"):
            evaluate(lambda g, t: t[tuple(parts)], x)
        return
    np.testing.assert_array_equal(evaluate(lambda g, t: t[tuple(parts)], x), x[tuple(parts)])


def test_index_tensor_is_gathered():
    x, i = values((4, 3)), np.array([[2, 0], [1, 1]], "int32")
    np.testing.assert_array_equal(evaluate(lambda g, t, k: t[:, k], x, i), x[:, i])


@pytest.mark.parametrize(
    ("key", "error", "words"),
    [
        (3, ShapeError, "index 3 is outside axis 0 of size 3"),
        ((0, 0, 0), ShapeError, "3 indices for a tensor of shape"),
        ((..., ...), ShapeError, "only have one ellipsis"),
        (slice(None, None, 0), ShapeError, "step 0"),
        (True, GraphError, "mask of bools"),
        (np.array([True, False, True]), GraphError, "mask of bools"),
        (1.5, GraphError, "cannot index"),
        ("a", GraphError, "cannot index"),
        ([0, 3], ShapeError, "outside axis 0 of size 3"),
        (([0], [1]), GraphError, "more than one index array"),
        (slice(0.5, 2), GraphError, "cannot bound a slice"),
    ],
)
def test_wrong_keys_are_answered(key, error, words):
    x = sg.Graph().placeholder((3, 2))
    with pytest.raises(error, match=words) as caught:
        x[key]
    assert "created at: test_indexing.py" in str(caught.value)


def test_index_of_an_unknown_axis_is_checked_at_compile():
    graph = sg.Graph()
    x = graph.placeholder((None, 2))
    with pytest.raises(ShapeError, match="index 5 is outside axis 0 of size 3"):
        graph.run({x: values((3, 2))}, [x[5]], device="reference")


@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, max_side=4))
@settings(max_examples=80, deadline=None)
def test_broadcasting_is_numpys(shapes):
    a, b = (values(s) for s in shapes.input_shapes)
    np.testing.assert_array_equal(evaluate(lambda g, x, y: x + y, a, b), a + b)
    assert (
        evaluate(lambda g, x: g.broadcast(x, shapes.result_shape), a).shape == shapes.result_shape
    )


@given(
    data=st.data(),
    shape=hnp.array_shapes(min_dims=1, max_dims=3, max_side=4),
    unknown=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_padding_is_numpys(data, shape, unknown):
    pair = st.tuples(st.integers(0, 5), st.integers(0, 5))
    paddings = data.draw(st.lists(pair, min_size=len(shape), max_size=len(shape)))
    mode = data.draw(st.sampled_from(["constant", "reflect", "symmetric", "edge"]))
    x = values(shape)
    got = evaluate(lambda g, t: g.pad(t, paddings, mode), x, unknown=unknown)
    np.testing.assert_array_equal(got, np.pad(x, paddings, mode=mode))

    def gradient(g, t):
        return g.gradients(of=g.pad(t, paddings, mode), with_=[t])[t]

    # How often each element appears in the result.
    counts = np.array([np.sum(np.pad(x, paddings, mode=mode) == v) for v in x.ravel()])
    got = evaluate(gradient, x, unknown=unknown)
    np.testing.assert_array_equal(got, counts.reshape(shape))


@given(
    data=st.data(),
    shape=hnp.array_shapes(min_dims=1, max_dims=3, max_side=5),
    unknown=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_concat_and_split_are_numpys_and_each_others_inverse(data, shape, unknown):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    sizes = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    parts = []
    for i, size in enumerate(sizes):
        own = list(shape)
        own[axis] = size
        parts.append(values(own) * (i + 1))
    whole = np.concatenate(parts, axis)
    got = evaluate(lambda g, *t: g.concat(t, axis), *parts, unknown=unknown)
    np.testing.assert_array_equal(got, whole)
    cut = evaluate(lambda g, t: g.split(t, sizes, axis), whole, unknown=unknown)
    for a, b in zip(cut, parts, strict=True):
        np.testing.assert_array_equal(a, b)

    def gradient(g, *t):
        joined = g.concat(t, axis)
        return list(g.gradients(of=joined * joined, with_=list(t)).values())

    for a, b in zip(evaluate(gradient, *parts, unknown=unknown), parts, strict=True):
        np.testing.assert_array_equal(a, 2 * b)


@given(shape=hnp.array_shapes(max_dims=3, max_side=6), count=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_equal_split_is_numpys(shape, count):
    assume(shape[0] % count == 0)
    x = values(shape)
    for a, b in zip(evaluate(lambda g, t: g.split(t, count), x), np.split(x, count), strict=True):
        np.testing.assert_array_equal(a, b)


def test_split_that_does_not_add_up():
    graph = sg.Graph()
    with pytest.raises(ShapeError, match="does not divide into 2 equal parts"):
        graph.split(graph.placeholder((3,)), 2)
    with pytest.raises(ShapeError, match="do not make up axis 0 of size 3"):
        graph.split(graph.placeholder((3,)), [1, 1])
    with pytest.raises(ShapeError, match="not known yet"):
        graph.split(graph.placeholder((None,)), 2)


@pytest.mark.parametrize(
    "build",
    [
        lambda g, x: g.tile(x, (2, 3)),
        lambda g, x: g.flatten_2d(g.expand_dims(x, 1)),
        lambda g, x: g.squeeze(g.expand_dims(x, 2), 2),
        lambda g, x: g.permute(x, (1, 0)),
        lambda g, x: g.reshape(x, (-1,)),
        lambda g, x: g.reverse(x),
        lambda g, x: g.slice(x, 1, -2, 2),
        lambda g, x: g.gather(x, g.constant([1, 1, 0]), axis=1),
        lambda g, x: g.gather_nd(x, g.constant([[1, 1], [0, 2]])),
        lambda g, x: g.sort(x, axis=0),
        lambda g, x: g.top_k(x, 2, axis=1)[0],
        lambda g, x: g.dropout(x, 0.5, step=3),
        lambda g, x: x * g.random_normal_like(x, step=1),
        lambda g, x: g.slice_update(x * x, g.constant([[5.0]]), [1, 1]),
        lambda g, x: g.scatter(x * x, x[:1], g.constant([1]), mode="set"),
    ],
)
def test_sizes_learnt_late_give_the_same_second_derivatives(build):
    x = np.array([[3.0, 1.0, 2.0], [5.0, 4.0, 9.0]], "float32")

    def twice(g, t):
        y = build(g, t)
        first = g.gradients(of=y * y * y, with_=[t])[t]
        return [y, first, g.gradients(of=first * first, with_=[t])[t]]

    for late, early in zip(evaluate(twice, x, unknown=True), evaluate(twice, x), strict=True):
        np.testing.assert_array_equal(late, early)
    assert np.any(early)


# Every op that takes indices: (shapes of its float operands, shape of its indices, what it builds).
INDEXED = {
    "gather": ([(3, 2)], (1,), lambda g, i, x: g.gather(x, i)),
    "gather_gradient": ([(1, 2), (3, 2)], (1,), lambda g, i, u, x: g.gather_gradient(u, i, x)),
    "gather_nd": ([(3, 2)], (1, 1), lambda g, i, x: g.gather_nd(x, i)),
    "gather_nd_gradient": (
        [(1, 2), (3, 2)],
        (1, 1),
        lambda g, i, u, x: g.gather_nd_gradient(u, i, x),
    ),
    "gather_along_axis": ([(3, 2)], (1, 2), lambda g, i, x: g.gather_along_axis(x, i, 0)),
    "gather_along_axis_gradient": (
        [(1, 2), (3, 2)],
        (1, 2),
        lambda g, i, u, x: g.gather_along_axis_gradient(u, i, x, 0),
    ),
    "scatter": ([(1, 2), (3, 2)], (1,), lambda g, i, u, x: g.scatter(x, u, i)),
    "scatter_nd": ([(1, 2)], (1, 1), lambda g, i, u: g.scatter_nd(u, i, (3, 2))),
    "scatter_along_axis": (
        [(1, 2), (3, 2)],
        (1, 2),
        lambda g, i, u, x: g.scatter_along_axis(x, u, i, 0),
    ),
}


@pytest.mark.parametrize("index", [-1, 3])
@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("op", INDEXED)
def test_an_index_outside_ends_the_run(op, device, index):
    shapes, size, build = INDEXED[op]
    graph = sg.Graph()
    i = graph.placeholder(size, "int32")
    operands = {graph.placeholder(shape): values(shape) for shape in shapes}
    executable = graph.compile([i, *operands], [build(graph, i, *operands)], device=device)
    # Some gradients have become a scatter by the time they run.
    with pytest.raises(FeedError, match=rf"er\w*: index {index} is outside axis 0 of size 3"):
        executable.run({i: np.full(size, index, "int32"), **operands})
    assert executable.run({i: np.full(size, 2, "int32"), **operands})[0].size


@pytest.mark.parametrize("place", [(1, -1), (0, 2)])
@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("op", ["gather_nd", "gather_nd_gradient", "scatter_nd"])
def test_a_tuple_outside_is_not_taken_for_another_row(op, device, place):
    graph = sg.Graph()
    x, u = graph.constant(values((3, 2))), graph.constant(values((1,)))
    i = graph.placeholder((1, 2), "int32")
    made = {
        "gather_nd": lambda: graph.gather_nd(x, i),
        "gather_nd_gradient": lambda: graph.gather_nd_gradient(u, i, x),
        "scatter_nd": lambda: graph.scatter_nd(u, i, (3, 2)),
    }[op]()
    with pytest.raises(FeedError, match="is outside axis 1 of size 2"):
        graph.run({i: np.array([place], "int32")}, [made], device=device)


def test_a_run_ended_by_an_index_names_the_operation():
    graph = sg.Graph()
    i = graph.placeholder((1,), "int32")
    picked = graph.gather(graph.constant([1.0]), i, name="words")
    with pytest.raises(FeedError, match=r"operation: 'words'\n  created at: test_indexing.py"):
        graph.run({i: [1]}, [picked], device="reference")


def test_overwritten_updates_get_no_gradient():
    graph = sg.Graph()
    data, updates = graph.placeholder((3,)), graph.placeholder((3,))
    made = graph.scatter(data, updates, graph.constant([1, 0, 1]), mode="set")
    grads = graph.gradients(of=made * graph.constant([2.0, 3.0, 4.0]), with_=[data, updates])
    feeds = {data: values((3,)), updates: values((3,))}
    into_data, into_updates = graph.run(feeds, list(grads.values()), device="reference")
    np.testing.assert_array_equal(into_data, [0, 0, 4])
    np.testing.assert_array_equal(into_updates, [0, 2, 3])


def test_embedding_trains_with_repeated_indices():
    """Gradient descent on a table finds the vectors that its words stand for."""
    rng = np.random.default_rng(3)
    wanted = rng.standard_normal((6, 4)).astype("float32")
    graph = sg.Graph()
    words = graph.placeholder((None,), "int32")
    target = graph.placeholder((None, 4))
    table = graph.variable(np.zeros((6, 4), "float32"), name="table")
    miss = graph.gather(table, words) - target
    loss = graph.reduction_sum(miss * miss, keep_dims=False)
    update = graph.assign(table, table - 0.05 * graph.gradients(of=loss, with_=[table])[table])
    step = graph.compile([words, target], [loss], [update], device="reference")
    losses = []
    for _ in range(60):
        batch = rng.integers(0, 6, 16).astype("int32")
        losses.append(float(step.run({words: batch, target: wanted[batch]})[0]))
    assert losses[-1] < 1e-3 * losses[0]
    np.testing.assert_allclose(graph.get_value(table, "reference"), wanted, atol=0.05)
