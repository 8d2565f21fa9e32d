"""Products of few rows: kernels against float64 on every target, steps against the plain path."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import stepgraph as sg
from stepgraph.backends.cpu.native.few_rows import cut, few_rows, few_rows_module
from stepgraph.backends.cpu.native.product import blocking_for
from stepgraph.backends.cpu.native.target import host_target

KINDS = ("forward", "data", "weights")
# rows, input panels, output panels
SIZES = [(1, 3, 9), (2, 33, 2), (3, 1, 1), (5, 2, 5), (6, 20, 3), (8, 2, 4), (11, 3, 2), (12, 4, 3)]


@functools.cache
def _made(kind, rows):
    return lambda target: few_rows_module(few_rows(kind, rows, target))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_kernels_agree_with_float64(kernels_of, target, kind, size) -> None:
    rows, ins, outs = size
    spec = few_rows(kind, rows, target)
    if spec is None:
        pytest.skip("too many rows for this target's registers")
    rng = np.random.default_rng(rows)
    x, w, y = (
        rng.normal(size=shape).astype("float32")
        for shape in ((ins, rows, 16), (outs, ins, 16, 16), (outs, rows, 16))
    )
    wide = [a.astype(np.float64) for a in (x, w, y)]
    width, across = cut(spec, ins, outs)
    call = kernels_of(_made(kind, rows))
    for alpha, beta in ((1.0, 0.0), (-0.25, 1.0)):
        expected = {
            "forward": lambda: np.einsum("cmi,ocij->omj", *wide[:2]),
            "data": lambda: np.einsum("omj,ocij->cmi", wide[2], wide[1]),
            "weights": lambda alpha=alpha, beta=beta: (
                alpha * np.einsum("cmi,omj->ocij", wide[0], wide[2]) + beta * wide[1]
            ),
        }[kind]()
        given = [np.array(a) for a in (x, w, y)]
        target_of = given[{"forward": 2, "data": 0, "weights": 1}[kind]]
        if beta == 0.0:
            target_of[...] = np.nan  # what is not to be read
        sizes = {"in_panels": ins, "out_panels": outs, "width": width}
        factors = {"alpha": alpha, "beta": beta}
        operands = dict(zip("xwy", given, strict=True))
        call("few_rows", -(-across // width), **operands, **sizes, **factors)
        np.testing.assert_allclose(target_of, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def _step(rows, inner, outer, threads, disable):
    """Predictions, loss gradient and weights of a step of descent through two layers."""
    rng = np.random.default_rng(3)
    x0, t0 = (rng.normal(size=(rows, n)).astype("float32") for n in (inner, outer))
    graph = sg.Graph()
    x, t = (graph.placeholder(a.shape, name=n) for n, a in (("x", x0), ("t", t0)))
    first = graph.variable(rng.normal(size=(inner, inner)).astype("float32") / inner, name="first")
    last = graph.variable(rng.normal(size=(inner, outer)).astype("float32"), name="last")
    start = {v: graph.get_value(v.name).astype(np.float64) for v in (first, last)}
    y = (x @ first) @ last
    loss = graph.reduction_sum(y * t, axes=(0, 1))
    gradients = graph.gradients(of=loss, with_=[first, last])
    updates = [
        graph.assign(v, graph.stochastic_gradient_descent(0.1, v, g)) for v, g in gradients.items()
    ]
    made = graph.compile([x, t], [y, gradients[last]], updates, threads=threads, disable=disable)
    found = [*made.run({x: x0, t: t0}), graph.get_value("first"), graph.get_value("last")]
    x1, t1 = x0.astype(np.float64), t0.astype(np.float64)
    hidden = x1 @ start[first]
    change = hidden.T @ t1
    back = x1.T @ (t1 @ start[last].T)
    expected = [hidden @ start[last], change, start[first] - 0.1 * back, start[last] - 0.1 * change]
    return found, expected, made.describe()


# The last one's weights fill no cache: its data gradient is summed in parts where it can be.
@pytest.mark.parametrize(
    ("rows", "inner", "outer"), [(1, 33, 65), (2, 17, 10), (4, 300, 3), (7, 1030, 520)]
)
def test_steps_agree_with_float64_and_the_plain_path(rows, inner, outer) -> None:
    own, expected, text = _step(rows, inner, outer, 2, ())
    if blocking_for(host_target()).held:
        assert ("(sum of parts)" in text) == (inner > 1000)
    plain, _, _ = _step(rows, inner, outer, 2, ("few_rows",))
    alone, _, _ = _step(rows, inner, outer, 1, ())
    for fast, slow, one, wide in zip(own, plain, alone, expected, strict=True):
        size = np.abs(wide).max()
        np.testing.assert_array_equal(fast, one)
        np.testing.assert_allclose(fast, wide, rtol=0, atol=2e-6 * size)
        np.testing.assert_allclose(slow, wide, rtol=0, atol=2e-6 * size)
