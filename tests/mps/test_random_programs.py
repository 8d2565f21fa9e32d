"""Random graphs with state: variables, assigns, branches and loops, run several times.

What a lowering leaves out (a reshape to the same shape), a target asked for twice, a variable given
a placeholder's value, a constant in a block: no test of one op brings these together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

import stepgraph as sg
from stepgraph.backends.mps.device import use
from stepgraph.errors import StepgraphError
from tests.mps.double import Double

SHAPES = [(3, 4), (1, 4), (3, 1), (), (2, 3, 4)]
RUNS = 3


@dataclass
class Made:
    """A graph, what it is fed and asked for."""

    graph: sg.Graph
    feeds: dict[sg.Tensor, np.ndarray] = field(default_factory=dict)
    tensors: list[sg.Tensor] = field(default_factory=list)
    variables: list[sg.Variable] = field(default_factory=list)
    assigns: dict[str, sg.Operation] = field(default_factory=dict)
    targets: list[sg.Tensor] = field(default_factory=list)
    flag: sg.Tensor | None = None
    number: sg.Tensor | None = None


def _assigned(m: Made, rng: np.random.Generator, a: sg.Tensor, b: sg.Tensor) -> sg.Tensor:
    """Gives a variable another value; perhaps reads it behind that."""
    free = [v for v in m.variables if v.name not in m.assigns]
    if not free:
        return a
    variable = free[rng.integers(len(free))]
    value = a
    if a.shape != variable.shape or rng.random() < 0.3:
        value = variable + m.graph.reduction_sum(a, keep_dims=False) * 0.1
    m.assigns[variable.name] = m.graph.assign(variable, value)
    if rng.random() < 0.5:
        return value
    return m.graph.control_dependency([m.assigns[variable.name]], lambda: variable * 1.0)


def _looped(m: Made, a: sg.Tensor) -> sg.Tensor:
    g = m.graph
    return g.for_loop(m.number, a, lambda i, v: g.tanh(v) + g.cast(i, "float32") * a)


# Each makes a tensor of one or two others; what does not fit raises, and is left out.
STEPS: list[Callable[[Made, np.random.Generator, sg.Tensor, sg.Tensor], sg.Tensor]] = [
    lambda m, rng, a, b: a + b,
    lambda m, rng, a, b: a * b,
    lambda m, rng, a, b: m.graph.tanh(a),
    lambda m, rng, a, b: m.graph.identity(a),
    lambda m, rng, a, b: m.graph.reduction_sum(a, keep_dims=rng.random() < 0.5) * 0.1,
    lambda m, rng, a, b: m.graph.reshape(a, (-1,)),
    lambda m, rng, a, b: m.graph.relu(a),
    lambda m, rng, a, b: m.graph.maximum(a, b),
    lambda m, rng, a, b: m.graph.select(a > b, a, b),
    lambda m, rng, a, b: m.graph.reverse(a),
    lambda m, rng, a, b: m.graph.concat([a, a], 0),
    lambda m, rng, a, b: m.graph.if_(m.flag, lambda: a * 2.0, lambda: m.graph.tanh(a)),
    lambda m, rng, a, b: m.graph.if_(m.number > 1, lambda: a * 2.0, lambda: a),
    lambda m, rng, a, b: _looped(m, a),
    lambda m, rng, a, b: m.graph.softmax(a),
    lambda m, rng, a, b: m.graph.broadcast_like(a, b),
    _assigned,
    _assigned,
]


def made(seed: int) -> Made:
    """The graph of a seed."""
    rng = np.random.default_rng(seed)
    m = Made(sg.Graph())

    def drawn() -> np.ndarray:
        return np.asarray(rng.standard_normal(SHAPES[rng.integers(len(SHAPES))]), "float32")

    for i in range(rng.integers(1, 4)):
        array = drawn()
        m.tensors.append(m.graph.placeholder(array.shape, name=f"x{i}"))
        m.feeds[m.tensors[-1]] = array
    m.variables = [m.graph.variable(drawn(), name=f"v{i}") for i in range(rng.integers(4))]
    m.tensors += [*m.variables, m.graph.constant(drawn())]
    m.flag, m.number = m.graph.placeholder((), "bool"), m.graph.placeholder((), "int32")
    m.feeds[m.flag] = np.array(rng.random() < 0.5)
    m.feeds[m.number] = np.array(rng.integers(4), "int32")
    for _ in range(rng.integers(3, 14)):
        step = STEPS[rng.integers(len(STEPS))]
        a, b = (m.tensors[i] for i in rng.integers(len(m.tensors), size=2))
        try:
            m.tensors.append(step(m, rng, a, b))
        except StepgraphError:
            continue
    m.targets = [m.tensors[i] for i in rng.integers(len(m.tensors), size=rng.integers(1, 5))]
    if rng.random() < 0.5:
        inputs = [t for t in m.feeds if t.dtype.is_float]
        total = m.graph.reduction_sum(m.tensors[-1] * 1.0, keep_dims=False)
        try:
            found = m.graph.gradients(of=total, with_=inputs, unconnected="zero")
            m.targets += found.values()
        except StepgraphError:
            pass  # a loop that nothing bounds
    return m


def lived(seed: int, device: str) -> list[np.ndarray]:
    """What some runs give, and the variables after each; one is written in between."""
    m = made(seed)
    run = m.graph.compile(
        list(m.feeds), m.targets, operations=list(m.assigns.values()), device=device
    )
    seen: list[np.ndarray] = []
    for i in range(RUNS):
        seen += run.run(m.feeds)
        seen += [m.graph.get_value(v, device) for v in m.variables]
        if i == 1 and m.variables:
            m.graph.set_value(m.variables[0], np.full(m.variables[0].shape, 0.5), device)
    return seen


@pytest.mark.parametrize("seed", range(120))
def test_random_graph(seed):
    wanted = lived(seed, "reference")
    double = Double()
    with use(double):
        got = lived(seed, "mps")
    double.raise_failures()
    for a, b in zip(got, wanted, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)


def test_the_graphs_hold_everything():
    """The dice do not miss a kind of thing."""
    graphs = [made(seed) for seed in range(120)]
    types = {op.type for m in graphs for op in m.graph.block.operations}
    assert {"if", "for", "concat", "softmax", "assign", "read", "select"} <= types
    assert sum(len(m.assigns) > 1 for m in graphs) > 5
    assert sum(len(set(m.targets)) < len(m.targets) for m in graphs) > 5
