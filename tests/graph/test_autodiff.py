"""The walk: sums, broadcasting, what is unconnected, refusals in words, second derivatives."""

from __future__ import annotations

import numpy as np
import pytest

import stepgraph as sg
from stepgraph.errors import DTypeError, GraphError, ShapeError
from stepgraph.graph.autodiff import pullback
from tests.graph.numeric import check

REFERENCE = "reference"


def run(graph, feeds, *targets):
    return graph.run(feeds, list(targets), device=REFERENCE)


def total(graph, x):
    return graph.reduction_sum(x, keep_dims=False)


# -- sums and broadcasting -----------------------------------------------------------------------


def test_uses_of_a_tensor_add_up(rng):
    check(lambda g, x: x * g.sin(x) + x / (x * x + 1.0) - x, rng.standard_normal((2, 3)))


@pytest.mark.parametrize(
    "shapes",
    [((2, 3), (3,)), ((2, 1), (1, 3)), ((), (2, 3)), ((1, 1), (2, 3)), ((4, 1, 3), (2, 1))],
)
@pytest.mark.parametrize("order", [1, 2])
def test_broadcast_operands_are_summed_back(shapes, order, rng):
    a, b = (rng.standard_normal(shape) for shape in shapes)
    check(lambda g, x, y: g.sin(x * y) + x - y * y, a, b, order=order)


def test_unknown_sizes_are_summed_back():
    graph = sg.Graph()
    x, w = graph.placeholder((None, 3)), graph.variable(np.ones(3, "float32"))
    y = x * w
    grads = graph.gradients(of=y, with_=[w, x])
    for rows in (1, 4):
        found = run(graph, {x: np.full((rows, 3), 2.0)}, grads[w], grads[x])
        np.testing.assert_array_equal(found[0], np.full(3, 2.0 * rows))
        np.testing.assert_array_equal(found[1], np.ones((rows, 3)))


def test_sum_of_a_tensor_is_differentiated(rng):
    """`of` need not be a scalar: its sum is meant, or what `incoming` weighs."""
    graph = sg.Graph()
    x, seed = graph.placeholder((3,), "float64"), graph.placeholder((3,), "float64")
    y = graph.square(x)
    plain = graph.gradients(of=y, with_=[x])[x]
    weighed = graph.gradients(of=y, with_=[x], incoming=seed)[x]
    a, s = rng.standard_normal(3), rng.standard_normal(3)
    found = run(graph, {x: a, seed: s}, plain, weighed)
    np.testing.assert_allclose(found, [2 * a, 2 * a * s])


@pytest.mark.parametrize("order", [1, 2, 3])
def test_higher_derivatives(order, rng):
    check(
        lambda g, x, y: g.exponent(g.sin(x) * y) + g.tanh(x) * y * y,
        rng.standard_normal(3),
        rng.standard_normal(3),
        order=order,
    )


# -- what is asked for ---------------------------------------------------------------------------


def test_intermediate_tensors_may_be_wanted_with_those_before_them():
    graph = sg.Graph()
    x = graph.placeholder(())
    y = graph.square(x)
    z = graph.square(y) + x
    grads = graph.gradients(of=z, with_=[z, y, x])
    assert list(grads) == [z, y, x]
    found = run(graph, {x: 3.0}, *grads.values())
    assert [float(a) for a in found] == [1.0, 18.0, 4 * 27.0 + 1.0]


def test_wanted_tensors_do_not_cut_the_walk(rng):
    def build(graph, x):
        y = graph.sin(x)
        z = y * y
        grads = graph.gradients(of=z, with_=[y, x])
        return grads[y] * grads[x]

    check(build, rng.standard_normal(3))


def test_unconnected_is_refused_or_zero():
    graph = sg.Graph()
    x, w = graph.placeholder((2,), name="x"), graph.placeholder((2,), name="w")
    y = graph.square(x)
    with pytest.raises(GraphError, match=f"'{y.name}' does not depend on 'w'.*"):
        graph.gradients(of=y, with_=[x, w])
    grads = graph.gradients(of=y, with_=[x, w], unconnected="zero")
    np.testing.assert_array_equal(run(graph, {x: [1, 2], w: [3, 4]}, grads[w])[0], [0.0, 0.0])
    with pytest.raises(GraphError, match="'error' or 'zero'"):
        graph.gradients(of=y, with_=[w], unconnected="none")


def test_gradients_stop_where_told(rng):
    graph = sg.Graph()
    x = graph.placeholder((3,), "float64")
    y = graph.stop_gradient(graph.square(x)) * x
    grads = graph.gradients(of=y, with_=[x])
    a = rng.standard_normal(3)
    np.testing.assert_allclose(run(graph, {x: a}, grads[x])[0], a * a)
    with pytest.raises(GraphError, match="does not depend on"):
        graph.gradients(of=graph.stop_gradient(x), with_=[x])


def test_discrete_operations_carry_no_gradient():
    graph = sg.Graph()
    x = graph.placeholder((2,))
    y = graph.floor(x) * x
    grads = graph.gradients(of=y, with_=[x])
    np.testing.assert_array_equal(run(graph, {x: [1.5, -2.5]}, grads[x])[0], [1.0, -3.0])


def test_integers_carry_no_gradient():
    graph = sg.Graph()
    x = graph.placeholder((2,))
    y = graph.cast(graph.cast(x, "int32"), "float32") + x
    grads = graph.gradients(of=y, with_=[x])
    np.testing.assert_array_equal(run(graph, {x: [1.5, -2.5]}, grads[x])[0], [1.0, 1.0])


# -- variables and order -------------------------------------------------------------------------


def test_reads_of_the_start_value_are_differentiated():
    graph = sg.Graph()
    v = graph.variable([1.0, 2.0])
    loss = total(graph, graph.square(graph.read(v)) + v)
    grads = graph.gradients(of=loss, with_=[v])
    np.testing.assert_array_equal(run(graph, {}, grads[v])[0], [3.0, 5.0])


def test_assigned_values_are_leaves():
    graph = sg.Graph()
    x, v = graph.placeholder(()), graph.variable(2.0)
    update = graph.assign(v, x * x)
    y = graph.control_dependency([update], lambda: v * x)
    assert float(run(graph, {x: 3.0}, graph.gradients(of=y, with_=[x])[x])[0]) == 9.0
    with pytest.raises(GraphError, match="does not depend on"):
        graph.gradients(of=y, with_=[v])


def test_gradients_asked_for_behind_an_update_use_the_forward_values():
    """The rule of a product reads the variable: it must be the value the product was made of."""
    graph = sg.Graph()
    x, w = graph.placeholder(()), graph.variable(2.0)
    loss = w * w * x
    update = graph.assign(w, 100.0)
    grads = graph.control_dependency([update], lambda: graph.gradients(of=loss, with_=[w]))
    assert float(run(graph, {x: 3.0}, grads[w])[0]) == 12.0


# -- refusals ------------------------------------------------------------------------------------


def test_operations_without_a_rule_are_named():
    graph = sg.Graph()
    x = graph.placeholder((3,), name="x")
    definition = graph.relu(x).operation.definition
    from dataclasses import replace

    odd = replace(definition, name="odd", gradient=None, not_differentiable="it is made up")
    y = graph._one(odd, (x,), name="culprit")
    with pytest.raises(
        GraphError, match=r"cannot differentiate through 'culprit' \(odd\): it is made up"
    ) as caught:
        graph.gradients(of=y * 2.0, with_=[x])
    assert "stop_gradient" in str(caught.value)
    assert "created at: test_autodiff.py" in str(caught.value)
    graph.gradients(of=graph.stop_gradient(y) * x, with_=[x])


def test_a_rule_that_forgets_an_input_is_caught():
    graph = sg.Graph()
    x = graph.placeholder((3,))
    from dataclasses import replace

    broken = replace(
        graph.addition(x, x).operation.definition,
        name="broken",
        gradient=lambda op, grads: [grads[0]],
    )
    y = graph._one(broken, (x, x))
    with pytest.raises(GraphError, match="gave 1 gradients for 2 inputs"):
        graph.gradients(of=y, with_=[x])


@pytest.mark.parametrize(
    ("ask", "error", "words"),
    [
        (lambda g, x, n: g.gradients(of=x, with_=[n]), DTypeError, "'n' is int32"),
        (lambda g, x, n: g.gradients(of=n, with_=[x]), DTypeError, "'n' is int32"),
        (lambda g, x, n: g.gradients(of=x, with_=[3.0]), GraphError, "float is no tensor"),
        (
            lambda g, x, n: g.gradients(of=x, with_=[sg.Graph().placeholder(())]),
            GraphError,
            "another graph",
        ),
        (
            lambda g, x, n: g.gradients(of=x, with_=[x], incoming=g.constant([1.0, 2.0, 3.0])),
            ShapeError,
            r"incoming: \(3,\)",
        ),
    ],
    ids=["integer", "of an integer", "number", "foreign", "incoming"],
)
def test_wrong_questions_are_answered_in_words(ask, error, words):
    graph = sg.Graph()
    x, n = graph.placeholder((2,), name="x"), graph.placeholder((2,), "int32", name="n")
    with pytest.raises(error, match=words):
        ask(graph, x, n)


# -- the walk itself -----------------------------------------------------------------------------


def test_several_seeds_are_carried_back_together(rng):
    graph = sg.Graph()
    x = graph.placeholder((3,), "float64")
    y = graph.sin(x)
    z = y * y
    found = pullback(graph, [(y, graph.ones_like(y)), (z, y)], [x])
    a = rng.standard_normal(3)
    wanted = np.cos(a) * (1 + 2 * np.sin(a) * np.sin(a))
    np.testing.assert_allclose(run(graph, {x: a}, found[x])[0], wanted)


def test_only_what_lies_between_is_differentiated():
    """An operation without a gradient off the path does no harm, nor is anything built for it."""
    graph = sg.Graph()
    x, w = graph.placeholder((2,)), graph.placeholder((2,))
    y = graph.exponent(w) * x
    before = len(graph.block.operations)
    graph.gradients(of=y, with_=[x])
    made = [op.type for op in graph.block.operations[before:]]
    assert "exponent" not in made


def test_deep_graphs_do_not_exhaust_the_stack():
    graph = sg.Graph()
    x = graph.placeholder(())
    y = x
    for _ in range(3000):
        y = y + 0.001
    grads = graph.gradients(of=y, with_=[x])
    assert float(run(graph, {x: 1.0}, grads[x])[0]) == 1.0
