"""What fusion stores: dear values in place of what they are made of."""

from __future__ import annotations

import numpy as np
import pytest

import stepgraph as sg

# Activations whose slope takes exponentials of what they read.
ACTIVATIONS = {
    "gelu": lambda g, x: g.gelu(x),
    "silu": lambda g, x: g.silu(x),
    "softplus": lambda g, x: g.softplus(x),
}


def trained(activation, rows, units, seen=False, **options):
    """An executable of two dense layers' gradients; `seen`: what the activation reads is a target.

    Returns:
        It, and what to feed it.
    """
    rng = np.random.default_rng(rows + units)
    graph = sg.Graph()
    arrays = [rng.standard_normal(s).astype("float32") for s in ((rows, 24), (rows, 8))]
    x, dy = (graph.placeholder(a.shape, name=n) for a, n in zip(arrays, ("x", "dy"), strict=True))
    shapes = ((24, units), (units,), (units, 8))
    weights = [graph.variable(0.3 * rng.standard_normal(s).astype("float32")) for s in shapes]
    read = graph.matrix_multiplication(x, weights[0], name="read")
    y = ACTIVATIONS[activation](graph, read + weights[1]) @ weights[2]
    loss = graph.reduction_sum(y * y * dy, keep_dims=False)
    slopes = graph.gradients(of=loss, with_=[x, *weights])
    targets = [loss, *(slopes[v] for v in (x, *weights)), *([read] if seen else [])]
    executable = graph.compile([x, dy], targets, **options)
    return executable, arrays


def run(executable, arrays):
    return executable.run(dict(zip(executable._feeds, arrays, strict=True)))


def readers(executable, name):
    """How many launches read the value of this name."""
    steps = executable._chosen(None).steps
    return sum(any(b.name == name for b in step.reads) for step in steps)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_slope_is_stored_and_what_it_was_made_of_is_not_read_again(activation):
    kept, arrays = trained(activation, 40, 48, disable=["chain"])
    again, _ = trained(activation, 40, 48, disable=["chain", "keep_dear"])
    assert readers(kept, "read") == 1
    assert readers(again, "read") == 2
    assert kept.planned_bytes() <= again.planned_bytes()
    exact, _ = trained(activation, 40, 48, device="reference:float64")
    wanted = run(exact, arrays)
    for executable in (kept, again):
        for a, b in zip(run(executable, arrays), wanted, strict=True):
            assert np.abs(a - b).max() <= 3e-6 * np.abs(b).max()


@pytest.mark.parametrize("rows", [1, 5, 64, 300])
@pytest.mark.parametrize("units", [7, 32, 65])
def test_slopes_of_awkward_sizes_agree_with_float64(rows, units):
    kept, arrays = trained("gelu", rows, units)
    exact, _ = trained("gelu", rows, units, device="reference:float64")
    for a, b in zip(run(kept, arrays), run(exact, arrays), strict=True):
        assert np.abs(a - b).max() <= 3e-6 * np.abs(b).max()


def test_a_slope_is_made_again_where_its_source_is_kept_anyway():
    kept, _ = trained("gelu", 40, 48, seen=True, disable=["chain"])
    again, _ = trained("gelu", 40, 48, seen=True, disable=["chain", "keep_dear"])
    assert readers(kept, "read") == readers(again, "read") >= 2
