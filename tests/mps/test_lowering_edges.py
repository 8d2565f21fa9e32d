"""Values at the edges of what samples cover, where a plain selector means something else."""

from __future__ import annotations

import numpy as np
import pytest

import stepgraph as sg
from stepgraph.backends.mps.device import use
from stepgraph.errors import UnsupportedError
from tests.mps.double import Double

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


@pytest.fixture(autouse=True)
def mps():
    """The double behind the device."""
    double = Double()
    with use(double):
        yield double


def both(build, *arrays):
    """What ``build(graph, *tensors)`` gives on the double and on the reference."""
    graph = sg.Graph()
    inputs = [graph.placeholder(a.shape, a.dtype) for a in arrays]
    made = build(graph, *inputs)
    targets = list(made) if isinstance(made, (list, tuple)) else [made]
    feeds = dict(zip(inputs, arrays, strict=True))
    return (graph.run(feeds, targets, device=d) for d in ("mps", "reference"))


def same(build, *arrays):
    """Asserts that both give the same, bit by bit but for the signs of zeros."""
    for got, wanted in zip(*both(build, *arrays), strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)


def close(build, *arrays, rtol=1e-5, atol=1e-6):
    for got, wanted in zip(*both(build, *arrays), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=rtol, atol=atol)


def edges(dtype: str) -> np.ndarray:
    """The lowest, the highest, zero, and what lies beside them."""
    info = np.iinfo(dtype)
    picked = {info.min, info.min + 1, info.max, info.max - 1, info.max // 2, info.max // 2 + 1}
    picked |= {v for v in (-7, -3, -2, -1, 0, 1, 2, 3, 7, 100) if info.min <= v <= info.max}
    return np.array(sorted(picked), dtype)


# -- integers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("op", ["floor_division", "modulo", "floor_modulo"])
def test_integer_division(op, dtype):
    values = edges(dtype)
    with np.errstate(all="ignore"):
        same(lambda g, a, b: getattr(g, op)(a, b), values[:, None], values)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize(
    "op",
    ["less_than", "less_than_or_equal_to", "greater_than", "greater_than_or_equal_to", "equal"],
)
def test_integers_compare_as_they_are(op, dtype):
    values = edges(dtype)
    same(lambda g, a, b: getattr(g, op)(a, b), values[:, None], values)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_extremes_of_integers(dtype):
    values = edges(dtype)
    rows = np.stack([np.roll(values, i) for i in range(4)])
    same(
        lambda g, a, b: [
            g.minimum(a, b),
            g.maximum(a, b),
            g.reduction_maximum(a, axes=1),
            g.reduction_minimum(a, axes=(0,), keep_dims=False),
            g.reduction_arg_maximum(a, axis=1),
            g.reduction_arg_minimum(a, axis=1, keep_dims=False),
        ],
        rows,
        values,
    )


@pytest.mark.parametrize("dtype", INTEGERS)
def test_shifts_by_any_number_of_places(dtype):
    bits = np.iinfo(dtype).bits
    places = np.array([0, 1, bits - 1, bits, bits + 1, 2 * bits - 1], dtype)
    if dtype[0] == "i":
        places = np.concatenate([places, np.array([-1, -bits], dtype)])
    values = edges(dtype)
    same(lambda g, a, b: g.bitwise_left_shift(a, b), values[:, None], places)
    same(lambda g, a, b: g.bitwise_right_shift(a, b), values[:, None], places)
    for by in (0, 1, bits - 1):
        same(lambda g, a, by=by: g.bitwise_right_shift(a, by), values)


@pytest.mark.parametrize("wanted", [*INTEGERS, "bool"])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_casts_between_integers_wrap_around(dtype, wanted):
    same(lambda g, a: g.cast(a, wanted), edges(dtype))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_signs(dtype):
    values = edges(dtype)
    same(lambda g, a: [g.sign(a), g.square(a), g.bitwise_not(a)], values)
    with np.errstate(all="ignore"):
        same(lambda g, a: g.absolute(a), values)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_sums_of_integers_wrap_around(dtype):
    rows = np.stack([np.roll(edges(dtype), i) for i in range(3)])
    same(
        lambda g, a: [
            g.reduction_sum(a, axes=1),
            g.reduction_product(a, axes=0),
            g.cumulative_sum(a, axis=1),
            g.cumulative_sum(a, axis=1, exclusive=True, reverse=True),
        ],
        rows,
    )


# -- elements that are moved ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool", "float32", "float16"])
def test_gathers_keep_every_bit(dtype, rng):
    values = edges(dtype) if dtype in INTEGERS else rng.integers(0, 2, 9).astype(dtype)
    where = rng.integers(0, len(values), (3, 4)).astype("int32")
    same(lambda g, a, i: g.gather(a, i), values, where)
    table = np.stack([values, values[::-1]])
    along = rng.integers(0, 2, (3, len(values))).astype("int64")
    same(lambda g, a, i: g.gather_along_axis(a, i, 0), table, along)
    pairs = np.stack([rng.integers(0, 2, 5), rng.integers(0, len(values), 5)], 1).astype("int32")
    same(lambda g, a, i: g.gather_nd(a, i), table, pairs)


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool", "float32"])
def test_the_last_of_several_updates_stays(dtype, rng):
    data = np.zeros((5, 2), dtype)
    updates = edges(dtype)[:6] if dtype in INTEGERS else rng.integers(0, 2, 6).astype(dtype)
    updates = np.stack([updates, updates[::-1]], 1)
    where = np.array([3, 1, 3, 0, 1, 3], "int32")
    same(lambda g, d, u, i: g.scatter(d, u, i, mode="set"), data, updates, where)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int64", "uint32"])
@pytest.mark.parametrize("mode", ["add", "sub", "mul", "min", "max"])
def test_scatters_of_integers_lose_no_bits(mode, dtype, rng):
    data, updates = edges(dtype)[:6], edges(dtype)[2:10]
    where = rng.integers(0, 6, 8).astype("int32")
    same(lambda g, d, u, i: g.scatter(d, u, i, mode=mode), data, updates, where)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_nan_reaches_the_extreme_of_a_scatter(mode):
    data = np.array([1, np.nan, 3, 4], "float32")
    updates = np.array([np.nan, 7, -7, 0], "float32")
    where = np.array([0, 1, 2, 2], "int32")
    same(lambda g, d, u, i: g.scatter(d, u, i, mode=mode), data, updates, where)


def test_a_scatter_of_integers_that_is_too_large_is_refused():
    graph = sg.Graph()
    data = graph.placeholder((2**16,), "int32")
    updates, where = (graph.placeholder((2**11,), "int32") for _ in range(2))
    added = graph.scatter(data, updates, where)
    with pytest.raises(UnsupportedError, match="goes through float32"):
        graph.compile([data, updates, where], [added], device="mps")


# -- NaN, infinity -------------------------------------------------------------------------------

HARD = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -1.5, 3e38, -3e38], "float32")


def test_nan_is_kept(rng):
    rows = np.stack([HARD, HARD[::-1], np.roll(HARD, 3), np.full(9, np.nan, "float32")])
    same(
        lambda g, x: [
            g.relu(x),
            g.sign(x),
            g.clamp(x, -1.0, 1.0),
            g.maximum(x, 0.0),
            g.minimum(0.0, x),
            g.reduction_maximum(x, axes=1),
            g.reduction_minimum(x, axes=1),
            g.reduction_arg_maximum(x, axis=1),
            g.reduction_arg_minimum(x, axis=1),
            g.signbit(x),
            g.cast(x, "bool"),
        ],
        rows,
    )


def test_floor_modulo_of_floats():
    values = np.array([-np.inf, -7.5, -1.0, -0.0, 0.0, 0.5, 2.0, 7.5, np.inf, np.nan], "float32")
    with np.errstate(all="ignore"):
        same(lambda g, a, b: [g.floor_modulo(a, b), g.modulo(a, b)], values[:, None], values)


def test_pooling_with_nan_and_infinity(rng):
    x = rng.standard_normal((2, 6, 7, 3)).astype("float32")
    x[0, 1, 1, 0], x[1, 5, 6, 2], x[0, 0, 0, 1] = np.nan, np.inf, -np.inf
    x[1, :2, :2, 0] = -np.inf
    for padding in ("TF_SAME", "TF_VALID"):
        same(lambda g, a, p=padding: g.max_pooling_2d(a, 3, 2, padding=p), x)


# -- order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*INTEGERS, "float32"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_order_of_equal_elements(dtype, axis, rng):
    x = rng.integers(0, 3, (3, 4, 5)).astype(dtype)
    if dtype == "float32":
        x[rng.random(x.shape) < 0.3] = np.nan
        x[rng.random(x.shape) < 0.1] = np.inf
    same(
        lambda g, a: [
            *g.top_k(a, 2, axis=axis),
            g.sort(a, axis),
            g.sort(a, axis, descending=True),
            g.arg_sort(a, axis),
            g.arg_sort(a, axis, descending=True),
        ],
        x,
    )


@pytest.mark.parametrize("dtype", INTEGERS)
def test_order_of_large_integers(dtype):
    values = edges(dtype)
    same(lambda g, a: [*g.top_k(a, 4), g.sort(a), g.arg_sort(a)], np.roll(values, 3))


# -- shapes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [(26, 0), (17, 4), (17, 0)])
def test_slices_every_way(version, rng):
    x = rng.standard_normal((5, 6, 7)).astype("float32")
    with use(Double(version)):
        same(
            lambda g, a: [
                a[::-1, 4:0:-2, -1],
                a[1:4, ..., ::3],
                a[-2, 2:3, 6:1:-1],
                a[..., None, 5],
                a[:, ::-1],
            ],
            x,
        )
        update = rng.standard_normal((2, 3, 7)).astype("float32")
        same(
            lambda g, a, u: [
                g.slice_update(a, u, (1, 0, 0), (2, 2, 1)),
                g.slice_update(a, u, (4, 5, 6), (-3, -2, -1)),
            ],
            x,
            update,
        )
        bits = rng.integers(0, 2, (5, 6)).astype(bool)
        same(lambda g, a, u: g.slice_update(a, u, (0, 1), (2, 3)), bits, ~bits[:3, :2])


def test_reductions_of_many_axes_and_none(rng):
    x = rng.standard_normal((2, 3, 1, 2, 2, 3)).astype("float32")
    close(
        lambda g, a: [
            g.reduction_sum(a, axes=(0, -1, 3)),
            g.reduction_sum(a, axes=(0, 3), keep_dims=False),
            g.reduction_sum(a, axes=()),
            g.reduction_maximum(a, axes=(), keep_dims=False),
            g.mean(a, (1, 4), keep_dims=False),
            g.variance(a, None, (0, 1)),
            g.reduction_sum(a, keep_dims=False),
            g.cumulative_sum(a, axis=0),
            g.cumulative_sum(a, axis=1, reverse=True, exclusive=True),
        ],
        x,
    )


def test_pads_of_every_kind(rng):
    x = rng.standard_normal((3, 4)).astype("float32")
    pads = ((1, 2), (0, 3))
    same(
        lambda g, a: [
            *(g.pad(a, pads, mode=m) for m in ("reflect", "symmetric", "edge")),
            g.pad(a, ((7, 0), (0, 9)), mode="reflect"),
            g.pad(a, pads, value=-np.inf),
        ],
        x,
    )
    same(lambda g, a: g.pad(a, pads, value=True), x > 0)
    big = np.iinfo("int64").max - 1
    same(lambda g, a: g.pad(a, pads, value=big), x.astype("int64"))


def test_long_products_are_cut_in_pieces(mps, rng):
    a = rng.standard_normal((2, 40000)).astype("float32")
    b = rng.standard_normal((40000, 3)).astype("float32")
    close(lambda g, x, y: x @ y, a, b, rtol=1e-3, atol=1e-2)
    assert mps.sent["matrixMultiplicationWithPrimaryTensor:secondaryTensor:name:"] == 2


def test_attention_is_turned_round_where_it_is_miscompiled(mps, rng):
    q, k, v = (rng.standard_normal((4, 5, 8)).astype("float32") for _ in range(3))
    close(
        lambda g, q, k, v: g.softmax(g.matrix_multiplication(q, k, transpose_secondary=True)) @ v,
        q,
        k,
        v,
    )


def test_products_broadcast(rng):
    a, b = rng.standard_normal((3, 1, 2, 4)), rng.standard_normal((5, 4, 6))
    a, b = a.astype("float32"), b.astype("float32")
    close(lambda g, x, y: x @ y, a, b)
    close(lambda g, x, y: g.matrix_multiplication(x, y[0], transpose_primary=False), a, b)
    t = np.ascontiguousarray(a.swapaxes(2, 3))
    close(lambda g, x, y: g.matrix_multiplication(x, y[0], transpose_primary=True), t, b)


# -- control flow --------------------------------------------------------------------------------


def test_branches(mps):
    x = np.array([3.0, -1.0], "float32")
    for value in (1.0, -1.0):

        def build(g, a, p):
            return g.if_(p[0] > 0.0, lambda: [a * 2.0, g.sign(a)], lambda: [a - 1.0, a])

        same(build, x, np.array([value], "float32"))
    assert not mps.sent["ifWithPredicateTensor:thenBlock:elseBlock:name:"]


def test_a_branch_with_a_loop_is_a_block(mps):
    x = np.array([3.0, -1.0], "float32")
    for value in (1.0, -1.0):

        def build(g, a, p):
            def looped():
                return g.for_loop(3, a, lambda i, v: v * 2.0 + g.cast(i, "float32"))

            return g.if_(p[0] > 0.0, looped, lambda: a)

        same(build, x, np.array([value], "float32"))
    assert mps.sent["ifWithPredicateTensor:thenBlock:elseBlock:name:"]


def test_loops(mps):
    x, count = np.array([1.0, 2.0], "float32"), np.array(4, "int32")

    def build(g, a, n):
        def body(i, v, total):
            return g.if_(i > 3, lambda: v, lambda: v * 1.5), total + g.cast(i, "float32") * a

        nested = g.for_loop(
            2, a, lambda i, v: g.for_loop(n, v, lambda j, w: w + g.cast(i + j, "float32"))
        )
        return [
            *g.for_loop(n, [a, g.zeros_like(a)], body, lower_bound=1, step=2),
            g.for_loop(n, a, lambda i, v: -v, maximum_iterations=2),
            g.for_loop(n - 9, a, lambda i, v: -v),
            nested,
            g.while_loop(a, lambda v: v[0] < 20.0, lambda v: v * 3.0),
            g.while_loop(a, lambda v: v[0] < 1e6, lambda v: v * 3.0, maximum_iterations=3),
            *g.while_loop(
                [a, n], lambda v, k: k > 0, lambda v, k: [v + a * g.cast(k, "float32"), k - 1]
            ),
        ]

    same(build, x, count)


def test_gradients_of_loops():
    x, count = np.array([1.0, 2.0, -0.5], "float32"), np.array(3, "int32")

    def build(g, a, n):
        grown = g.for_loop(
            n, a, lambda i, v: g.sin(v) * a + g.cast(i, "float32"), maximum_iterations=5
        )
        waited = g.while_loop(
            a,
            lambda v: g.reduction_sum(v, keep_dims=False) < 9.0,
            lambda v: v * v + 1.0,
            maximum_iterations=6,
        )
        total = g.reduction_sum(grown + waited, keep_dims=False)
        return [total, *g.gradients(of=total, with_=[a]).values()]

    close(build, x, count, rtol=1e-4)


def test_loops_that_carry_something_empty():
    x, nothing = np.array([1.0, 2.0], "float32"), np.zeros((0, 3), "float32")

    def build(g, a, e):
        return g.for_loop(3, [a, e], lambda i, v, w: [v * 2.0, w * 2.0])

    same(build, x, nothing)


# -- without elements ----------------------------------------------------------------------------


def test_parts_without_elements(rng):
    x, nothing = rng.standard_normal((2, 3)).astype("float32"), np.zeros((0, 3), "float32")
    none = np.zeros(0, "int32")
    same(
        lambda g, a, e, i: [
            g.concat([a, e, a], 0),
            g.reduction_sum(e, axes=0),
            g.reduction_maximum(e, axes=0, keep_dims=False),
            g.scatter(a, e, i),
            g.matrix_multiplication(e, e, transpose_primary=True),
            g.pad(e, ((1, 0), (0, 0))),
            e + 1.0,
        ],
        x,
        nothing,
        none,
    )
