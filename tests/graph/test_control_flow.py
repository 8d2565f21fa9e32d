"""if_, for_loop, while_loop, control_dependency: values, gradients, state inside, specialising."""

from __future__ import annotations

import numpy as np
import pytest

import stepgraph as sg
from stepgraph.backends.executable import _steering
from stepgraph.compiler.pipeline import compile_program
from stepgraph.errors import GraphError, ShapeError
from tests.graph.numeric import check


def run(device, graph, feeds, *targets, operations=()):
    return graph.run(feeds, list(targets), list(operations), device=device)


def types(program):
    """Every op of a program, those inside regions included."""

    def inside(operations):
        for operation in operations:
            yield operation.type
            for region in operation.regions:
                yield from inside(region.operations)

    return list(inside(program.operations()))


def is_large(graph, x):
    """A predicate that no compiler can know."""
    return graph.reduction_sum(x, keep_dims=False) > 0.0


# -- if_: values ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fed", [True, False])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_if_takes_one_branch(device, fed, shape):
    graph = sg.Graph()
    x, flag = graph.placeholder((3,)), graph.placeholder(shape, "bool")
    y = graph.if_(flag, lambda: x * 2.0, lambda: x - 1.0)
    array = np.array([1.0, 2.0, 3.0], "float32")
    found = run(device, graph, {x: array, flag: np.full(shape, fed)}, y)[0]
    np.testing.assert_array_equal(found, array * 2 if fed else array - 1)


def test_if_on_an_integer(device):
    graph = sg.Graph()
    n = graph.placeholder((), "int32")
    y = graph.if_(n, lambda: graph.constant(1.0), lambda: graph.constant(2.0))
    assert [float(run(device, graph, {n: v}, y)[0]) for v in (0, 3, -1)] == [2.0, 1.0, 1.0]


@pytest.mark.parametrize("known", [True, False], ids=["python bool", "tensor"])
@pytest.mark.parametrize("kind", [list, tuple])
def test_if_mirrors_what_blocks_return(kind, known):
    graph = sg.Graph()
    x = graph.placeholder((2,))
    predicate = True if known else is_large(graph, x)
    made = graph.if_(predicate, lambda: kind([x, x + 1.0]), lambda: kind([x, x]))
    assert type(made) is kind
    assert len(made) == 2
    single = graph.if_(predicate, lambda: [x], lambda: [x])
    assert isinstance(single, list)


def test_python_bool_builds_only_its_branch():
    graph = sg.Graph()
    x = graph.placeholder((2,))
    y = graph.if_(False, lambda: pytest.fail("built"), lambda: graph.relu(x))
    assert y.operation.type == "relu"
    assert "if(" not in str(graph)


def test_only_the_taken_branch_runs(device):
    graph = sg.Graph()
    x = graph.placeholder((2,))
    endless = graph.if_(
        is_large(graph, x),
        lambda: x,
        lambda: graph.while_loop(x, lambda v: graph.constant(True), lambda v: v),
    )
    np.testing.assert_array_equal(run(device, graph, {x: [1.0, 2.0]}, endless)[0], [1.0, 2.0])


def test_branch_may_return_what_it_captured(device):
    graph = sg.Graph()
    x = graph.placeholder((2,))
    v = graph.variable([5.0, 6.0])
    y = graph.if_(is_large(graph, x), lambda: x, lambda: v)
    np.testing.assert_array_equal(run(device, graph, {x: [-1.0, 0.0]}, y)[0], [5.0, 6.0])


def test_unknown_sizes_are_settled_inside_branches(device):
    graph = sg.Graph()
    x = graph.placeholder((None, 2))
    y = graph.if_(is_large(graph, x), lambda: x + graph.ones_like(x), lambda: graph.zeros_like(x))
    assert y.shape == (None, 2)
    for rows in (1, 3):
        np.testing.assert_array_equal(
            run(device, graph, {x: np.ones((rows, 2))}, y)[0], np.full((rows, 2), 2)
        )


def test_sizes_that_differ_once_known_are_refused(device):
    graph = sg.Graph()
    x, z = graph.placeholder((None,)), graph.placeholder((None,))
    y = graph.if_(is_large(graph, x), lambda: x, lambda: z)
    with pytest.raises(ShapeError, match=r"result 0 has shape \(2,\) when true and \(3,\)"):
        run(device, graph, {x: np.ones(2), z: np.ones(3)}, y)


# -- if_: gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("order", [1, 2])
def test_gradient_of_if(sign, order, rng):
    def build(graph, x, w):
        return graph.if_(is_large(graph, x), lambda: graph.square(x) * w, lambda: graph.exponent(x))

    check(build, sign * (1.0 + np.abs(rng.standard_normal(3))), rng.standard_normal(3), order=order)


@pytest.mark.parametrize("order", [1, 2])
def test_gradient_of_one_result_among_several(order, rng):
    def build(graph, x, w):
        a, b = graph.if_(
            is_large(graph, x), lambda: (x * w, graph.sin(x)), lambda: (x + w, graph.cos(w))
        )
        del a
        return b * b

    check(build, np.abs(rng.standard_normal(3)), rng.standard_normal(3), order=order)


@pytest.mark.parametrize("order", [1, 2])
def test_gradient_of_nested_ifs(order, rng):
    def build(graph, x, w):
        def inner():
            y = graph.sin(x) * w
            return graph.if_(is_large(graph, y - 100.0), lambda: y, lambda: graph.square(y) * w)

        return graph.if_(is_large(graph, x), inner, lambda: x)

    check(build, np.array([0.5, 1.5]), rng.standard_normal(2), order=order)


def test_gradient_with_respect_to_what_lies_between(rng):
    def build(graph, x):
        y = graph.square(x)
        z = graph.if_(is_large(graph, x), lambda: y * y, lambda: y)
        return graph.gradients(of=z, with_=[y])[y]

    check(build, np.abs(rng.standard_normal(3)))


def test_branch_that_does_not_use_a_tensor_gives_it_zeros(device):
    graph = sg.Graph()
    x, w = graph.placeholder((2,)), graph.placeholder((2,))
    y = graph.if_(is_large(graph, x), lambda: x * 1.0, lambda: x * w)
    grads = graph.gradients(of=y, with_=[x, w])
    found = run(device, graph, {x: [1.0, 2.0], w: [3.0, 4.0]}, grads[x], grads[w])
    np.testing.assert_array_equal(found, [[1.0, 1.0], [0.0, 0.0]])
    found = run(device, graph, {x: [-1.0, -2.0], w: [3.0, 4.0]}, grads[x], grads[w])
    np.testing.assert_array_equal(found, [[3.0, 4.0], [-1.0, -2.0]])


def test_tensor_that_no_branch_uses_is_unconnected():
    graph = sg.Graph()
    x, w = graph.placeholder((2,)), graph.placeholder((2,))
    flag = graph.reduction_sum(w, keep_dims=False) > 0.0
    y = graph.if_(flag, lambda: x * 1.0, lambda: x * 2.0)
    with pytest.raises(GraphError, match="does not depend on"):
        graph.gradients(of=y, with_=[w])


# -- loops: values -------------------------------------------------------------------------------


def test_for_loop_counts(device):
    graph = sg.Graph()
    total = graph.for_loop(4, graph.constant(0), lambda i, t: t + i, lower_bound=10, step=-3)
    assert int(run(device, graph, {}, total)[0]) == 10 + 7 + 4 + 1


@pytest.mark.parametrize("count", [-1, 0, 1, 5])
def test_for_loop_on_a_fed_count(device, count):
    graph = sg.Graph()
    n, x = graph.placeholder((), "int32"), graph.placeholder((2,))
    a, b = graph.for_loop(
        n, (x, graph.constant(0)), lambda i, a, b: (a * 2.0, i), maximum_iterations=3
    )
    trips = max(0, min(count, 3))
    found = run(device, graph, {n: count, x: [1.0, 3.0]}, a, b)
    np.testing.assert_array_equal(found[0], np.array([1.0, 3.0]) * 2**trips)
    assert int(found[1]) == max(0, trips - 1)


def test_while_loop_runs_until_the_predicate_fails(device):
    graph = sg.Graph()
    x = graph.placeholder(())
    value, count = graph.while_loop(
        [x, graph.constant(0)], lambda v, n: v < 100.0, lambda v, n: [v * 3.0, n + 1]
    )
    assert [float(v) for v in run(device, graph, {x: 1.0}, value, count)] == [243.0, 5]
    assert [float(v) for v in run(device, graph, {x: 500.0}, value, count)] == [500.0, 0]


def test_while_loop_stops_at_its_maximum(device):
    graph = sg.Graph()
    y = graph.while_loop(
        graph.constant(1.0), lambda v: graph.constant(True), lambda v: v + 1.0, maximum_iterations=7
    )
    assert float(run(device, graph, {}, y)[0]) == 8.0


def test_nested_loops_see_what_surrounds_them(device):
    graph = sg.Graph()
    x = graph.placeholder((2,))

    def row(i, total):
        return graph.for_loop(3, total, lambda j, t: t + x * graph.cast(i * 10 + j, "float32"))

    y = graph.for_loop(2, graph.zeros_like(x), row)
    wanted = sum(i * 10 + j for i in range(2) for j in range(3))
    np.testing.assert_array_equal(
        run(device, graph, {x: [1.0, 2.0]}, y)[0], np.array([1.0, 2.0]) * wanted
    )


def test_carried_sizes_may_be_unknown(device):
    graph = sg.Graph()
    x = graph.placeholder((None, 2))
    y = graph.for_loop(3, x, lambda i, v: v + graph.ones_like(v))
    assert y.shape == (None, 2)
    np.testing.assert_array_equal(
        run(device, graph, {x: np.zeros((4, 2))}, y)[0], np.full((4, 2), 3.0)
    )


def test_gradients_may_be_taken_inside_a_body(device):
    """Gradient descent as a loop: five steps of 0.25 towards the minimum of (w - x)**2."""
    graph = sg.Graph()
    x = graph.placeholder((2,))

    def descend(i, w):
        loss = graph.reduction_sum(graph.square(w - x), keep_dims=False)
        return w - 0.25 * graph.gradients(of=loss, with_=[w])[w]

    w = graph.for_loop(5, graph.zeros_like(x), descend)
    np.testing.assert_allclose(
        run(device, graph, {x: [1.0, -2.0]}, w)[0], np.array([1.0, -2.0]) * (1 - 0.5**5), rtol=1e-6
    )


# -- loops: gradients ----------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2])
def test_gradient_of_for_loop(order, rng):
    def build(graph, x, w):
        return graph.for_loop(3, x, lambda i, v: graph.sin(v * w) + graph.cast(i, "float64") * w)

    check(build, rng.standard_normal(3), rng.standard_normal(3), order=order)


@pytest.mark.parametrize("count", [0, 2, 4, 9])
def test_gradient_of_for_loop_on_a_computed_count(count, rng):
    def build(graph, x, w):
        n = graph.cast(graph.reduction_sum(graph.square(w) * 0.0, keep_dims=False), "int32") + count
        return graph.for_loop(n, x, lambda i, v: graph.sin(v) * w, maximum_iterations=4)

    check(build, rng.standard_normal(3), rng.standard_normal(3))


@pytest.mark.parametrize("order", [1, 2])
def test_gradient_of_while_loop(order, rng):
    def build(graph, x, w):
        total, _ = graph.while_loop(
            [x, graph.constant(0)],
            lambda v, n: graph.reduction_sum(graph.square(v), keep_dims=False) < 50.0,
            lambda v, n: [v * 1.7 + w * w * graph.cast(n, "float64"), n + 1],
            maximum_iterations=8,
        )
        return total

    check(build, 1.0 + rng.random(2), rng.random(2), order=order)


@pytest.mark.parametrize("order", [1, 2])
def test_gradient_of_mixed_carried_values(order, rng):
    """A counter, a flag and two floats that feed each other; only one of them is asked for."""

    def build(graph, x, w):
        a, _, _, _ = graph.for_loop(
            3,
            [x, w * 1.0, graph.constant(1), graph.constant(True)],
            lambda i, a, b, n, flag: [
                graph.select(flag, a * b, a + b),
                b + graph.cast(n, "float64"),
                n * 2,
                ~flag,
            ],
            lower_bound=1,
            step=2,
        )
        return a

    check(build, rng.standard_normal(2), rng.standard_normal(2), order=order)


def test_gradient_of_nested_control_flow(rng):
    def build(graph, x, w):
        def outer(i, v):
            def inner(j, u):
                return graph.if_(
                    graph.equal(j, i), lambda: graph.square(u) * w, lambda: u + graph.sin(w)
                )

            return graph.for_loop(3, v, inner)

        return graph.for_loop(2, x, outer)

    check(build, 0.5 * rng.standard_normal(2), 0.5 * rng.standard_normal(2))
    check(build, 0.5 * rng.standard_normal(2), 0.5 * rng.standard_normal(2), order=2)


def test_gradient_of_unknown_sizes(device, rng):
    graph = sg.Graph()
    x, w = graph.placeholder((None, 2), "float64"), graph.placeholder((2,), "float64")
    y = graph.for_loop(3, x, lambda i, v: v * w)
    grads = graph.gradients(of=y, with_=[x, w])
    a, b = rng.standard_normal((4, 2)), rng.standard_normal(2)
    found = run(device, graph, {x: a, w: b}, grads[x], grads[w])
    np.testing.assert_allclose(found[0], np.broadcast_to(b**3, (4, 2)))
    np.testing.assert_allclose(found[1], a.sum(0) * 3 * b**2)


def test_gradient_without_a_bound_says_so():
    graph = sg.Graph()
    x, n = graph.placeholder(()), graph.placeholder((), "int32")
    loop = graph.while_loop(x, lambda v: v < 10.0, lambda v: v * 2.0, name="growth")
    with pytest.raises(
        GraphError, match=r"'growth' \(while\)[^$]*maximum_iterations= to while_loop"
    ):
        graph.gradients(of=loop, with_=[x])
    loop = graph.for_loop(n, x, lambda i, v: v * 2.0)
    with pytest.raises(GraphError, match="maximum_iterations= to for_loop"):
        graph.gradients(of=loop, with_=[x])


def test_loop_without_trips_hands_the_gradient_on(device):
    graph = sg.Graph()
    x = graph.placeholder((2,))
    y = graph.for_loop(0, x, lambda i, v: graph.square(v)) * 3.0
    grads = graph.gradients(of=y, with_=[x])
    np.testing.assert_array_equal(run(device, graph, {x: [1.0, 2.0]}, grads[x])[0], [3.0, 3.0])


@pytest.mark.parametrize("own_step", [True, False], ids=["index as step", "counter of the graph"])
def test_random_numbers_are_drawn_again_alike(device, own_step):
    """The body computed again for the gradient must drop the same elements."""
    graph = sg.Graph()
    x = graph.placeholder((64,))

    def body(i, v):
        return graph.dropout(v, 0.3, seed=5, step=i if own_step else None)

    y = graph.if_(is_large(graph, x), lambda: graph.for_loop(3, x, body), lambda: x)
    grads = graph.gradients(of=y, with_=[x])
    value, grad = run(device, graph, {x: np.full(64, 2.0)}, y, grads[x])
    np.testing.assert_allclose(value, 2.0 * grad, rtol=1e-6)
    survivors = np.count_nonzero(value) / 64
    assert 0.0 < survivors < 1.0
    # Own steps draw another mask in each trip, the graph's counter one mask for the whole run.
    assert (survivors < 0.55) == own_step


# -- state inside --------------------------------------------------------------------------------


@pytest.mark.parametrize("steered", [True, False], ids=["specialised", "dynamic"])
def test_assign_in_a_branch(device, steered):
    graph = sg.Graph()
    x, flag = graph.placeholder((2,)), graph.placeholder((), "bool")
    v = graph.variable(1.0, name="v")
    predicate = flag if steered else is_large(graph, x)

    def then():
        update = graph.assign(v, v * 3.0)
        return graph.control_dependency([update], lambda: x * v)

    y = graph.if_(predicate, then, lambda: x * v)
    after = graph.control_dependency([y], lambda: graph.read(v))
    executable = graph.compile([x, flag], [y, after, v], device=device)
    wanted = 1.0
    for taken in (True, False, True):
        array = np.array([1.0, 2.0] if taken else [-1.0, -2.0], "float32")
        found = executable.run({x: array, flag: taken})
        before, wanted = wanted, wanted * 3 if taken else wanted
        np.testing.assert_array_equal(found[0], array * wanted)
        assert [float(found[1]), float(found[2])] == [wanted, before]
        assert float(graph.get_value(v, device)) == wanted


def test_effects_only_give_an_operation(device):
    graph = sg.Graph()
    x = graph.placeholder((2,))
    v = graph.variable(0.0)
    made = graph.if_(
        is_large(graph, x), lambda: graph.assign(v, 1.0), lambda: [graph.assign(v, 2.0)]
    )
    assert isinstance(made, sg.Operation)
    after = graph.control_dependency([made], lambda: v)
    assert float(run(device, graph, {x: [1.0, 1.0]}, after)[0]) == 1.0
    run(device, graph, {x: [-1.0, -1.0]}, operations=[made])
    assert float(graph.get_value(v, device)) == 2.0


@pytest.mark.parametrize("predicate", [True, False])
def test_effects_of_a_python_bool_give_an_operation_too(device, predicate):
    graph = sg.Graph()
    v = graph.variable(0.0)
    made = graph.if_(predicate, lambda: graph.assign(v, 1.0))
    assert isinstance(made, sg.Operation)
    after = graph.control_dependency([made], lambda: graph.read(v))
    assert float(run(device, graph, {}, after, operations=[made])[0]) == float(predicate)
    assert float(graph.get_value(v, device)) == float(predicate)


def test_assign_in_a_loop_takes_effect_trip_by_trip(device):
    graph = sg.Graph()
    v = graph.variable(1.0)
    y = graph.variable(0.0)

    def body(i):
        update = graph.assign(v, v * 2.0)
        graph.control_dependency([update], lambda: graph.assign(y, y + v))

    loop = graph.for_loop(4, [], body)
    assert isinstance(loop, sg.Operation)
    after = graph.control_dependency([loop], lambda: [v, y])
    found = run(device, graph, {}, *after, v)
    assert [float(a) for a in found] == [16.0, 2.0 + 4.0 + 8.0 + 16.0, 1.0]
    assert float(graph.get_value(v, device)) == 16.0


def test_assign_in_a_while_loop_is_seen_by_its_predicate(device):
    graph = sg.Graph()
    v = graph.variable(1.0)

    def after():
        graph.assign(v, v + 1.0)

    loop = graph.while_loop([], lambda: v < 10.0, after)
    run(device, graph, {}, operations=[loop])
    assert float(graph.get_value(v, device)) == 10.0


def test_loop_behind_an_assign_starts_with_its_value(device):
    graph = sg.Graph()
    v = graph.variable(1.0)
    first = graph.assign(v, 100.0)

    def loop():
        return graph.for_loop(3, [], lambda i: graph.assign(v, v + 1.0))

    made = graph.control_dependency([first], loop)
    after = graph.control_dependency([made], lambda: v)
    assert float(run(device, graph, {}, after)[0]) == 103.0


def test_branch_inside_a_loop_assigns(device):
    graph = sg.Graph()
    v = graph.variable(0.0)

    def body(i, total):
        made = graph.if_(graph.equal(i % 2, 0), lambda: graph.assign(v, v + 1.0))
        return graph.control_dependency([made], lambda: total + v)

    total = graph.for_loop(5, graph.constant(0.0), body)
    assert float(run(device, graph, {}, total)[0]) == 1 + 1 + 2 + 2 + 3
    assert float(graph.get_value(v, device)) == 3.0


def test_unordered_assigns_across_a_branch_are_refused(device):
    graph = sg.Graph()
    x = graph.placeholder((2,))
    v = graph.variable(0.0, name="v")
    outside = graph.assign(v, 1.0)
    branch = graph.if_(is_large(graph, x), lambda: graph.assign(v, 2.0))
    with pytest.raises(GraphError, match="two unordered assigns to variable 'v'"):
        graph.compile([x], operations=[outside, branch], device=device)
    ordered = graph.control_dependency(
        [outside], lambda: graph.if_(is_large(graph, x), lambda: graph.assign(v, 2.0))
    )
    executable = graph.compile([x], operations=[ordered], device=device)
    for array, wanted in (([1.0, 1.0], 2.0), ([-1.0, -1.0], 1.0)):
        executable.run({x: array})
        assert float(graph.get_value(v, device)) == wanted


def test_programs_are_free_of_state():
    graph = sg.Graph()
    x = graph.placeholder((2,))
    v = graph.variable(1.0, name="v")

    def body(i, total):
        update = graph.if_(
            is_large(graph, total), lambda: graph.assign(v, v + 1.0), lambda: graph.assign(v, 0.0)
        )
        return graph.control_dependency([update], lambda: total * v)

    y = graph.for_loop(3, x, body)
    grads = graph.gradients(of=y, with_=[x])
    program = compile_program(graph, {x: (2,)}, [y, grads[x]], [])
    assert not {"assign", "read"} & set(types(program))
    assert list(program.updates) == ["v"]


def test_state_is_not_differentiated_through(device, rng):
    """d y / d x counts `v` as a number although it is assigned from `x` in every trip."""
    graph = sg.Graph()
    x = graph.placeholder((), "float64")
    v = graph.variable(np.float64(2.0))

    def body(i, total):
        update = graph.assign(v, v + x)
        return graph.control_dependency([update], lambda: total * v)

    y = graph.for_loop(2, graph.square(x), body)
    grads = graph.gradients(of=y, with_=[x])
    value, grad = run(device, graph, {x: 3.0}, y, grads[x])
    assert float(value) == 9.0 * 5.0 * 8.0
    assert float(grad) == 2 * 3.0 * 5.0 * 8.0


@pytest.mark.parametrize("order", [1, 2])
def test_gradient_around_state_in_nested_control_flow(order, rng):
    """The second pass through the loop must see the values of `v` that the first one saw."""

    def build(graph, x, w):
        v = graph.variable(np.float64(1.0))

        def body(i, total):
            made = graph.if_(graph.equal(i % 2, 0), lambda: graph.assign(v, v + 1.5))

            def inner():
                doubled = graph.for_loop(2, [], lambda j: graph.assign(v, v * 1.1))
                return graph.control_dependency([doubled], lambda: graph.sin(total * w) * v)

            return graph.control_dependency([made], inner)

        return graph.for_loop(4, x, body)

    check(build, rng.standard_normal(2), rng.standard_normal(2), order=order)


def test_gradient_behind_an_assign_sees_the_assigned_value(rng):
    def build(graph, x):
        v = graph.variable(np.float64(1.0))
        update = graph.assign(v, 3.0)

        def behind():
            return graph.if_(is_large(graph, x), lambda: graph.square(x) * v, lambda: x)

        return graph.control_dependency([update], behind)

    check(build, np.abs(rng.standard_normal(3)))


def test_control_flow_in_float64(rng):
    """The float64 oracle settles the dtypes of parameters and carried values too."""
    graph = sg.Graph()
    x = graph.placeholder((3,))
    v = graph.variable(1.0)

    def body(i, total):
        update = graph.assign(v, v + 0.125)
        scaled = graph.control_dependency([update], lambda: total * v)
        return graph.if_(is_large(graph, total), lambda: scaled, lambda: graph.sin(total))

    y = graph.for_loop(3, x, body)
    grads = graph.gradients(of=y, with_=[x])
    array = np.abs(rng.standard_normal(3))
    found = graph.run({x: array}, [y, grads[x]], device="reference:float64")
    assert all(a.dtype == np.float64 for a in found)
    factor = 1.125 * 1.25 * 1.375
    single = array.astype("float32").astype("float64")
    np.testing.assert_allclose(found, [single * factor, np.full(3, factor)], rtol=1e-12)


# -- specialising --------------------------------------------------------------------------------


def training_network():
    graph = sg.Graph()
    x, training = graph.placeholder((2,), name="x"), graph.placeholder((), "bool", name="training")
    moving = graph.variable([0.0, 0.0], name="moving")

    def train():
        update = graph.assign(moving, moving * 0.5 + x)
        return graph.control_dependency([update], lambda: graph.square(x) + moving * 0.0)

    y = graph.if_(training, train, lambda: x * moving)
    return graph, x, training, y


@pytest.mark.parametrize("value", [True, False])
def test_specialised_programs_have_no_branch(value):
    graph, x, training, y = training_network()
    grads = graph.gradients(of=y, with_=[x])
    program = compile_program(
        graph,
        {x: (2,), training: ()},
        [y, grads[x]],
        [],
        values={"training": np.array(value)},
    )
    assert "if" not in types(program)
    assert list(program.feeds) == ["x"]
    assert list(program.updates) == (["moving"] if value else [])


@pytest.mark.parametrize("value", [True, False])
def test_specialised_and_dynamic_agree(value):
    results = []
    for steered in (True, False):
        graph, x, training, y = training_network()
        grads = graph.gradients(of=y, with_=[x])
        values = {"training": np.array(value)} if steered else {}
        program = compile_program(graph, {x: (2,), training: ()}, [y, grads[x]], [], values=values)
        assert ("if" in types(program)) != steered
        from stepgraph.backends.reference import ReferenceRunner, ReferenceState

        state = ReferenceState(graph.variables, None)
        runner = ReferenceRunner(program, state)
        feeds = {"x": np.array([1.0, 2.0], "float32"), "training": np.array(value)}
        results.append([*runner.run(feeds), *runner.run(feeds), state.current("moving")])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_recomputation_vanishes_once_specialised():
    """The gradient's copy of the branch is merged with the branch itself."""
    graph = sg.Graph()
    x, training = graph.placeholder((2,)), graph.placeholder((), "bool", name="training")
    y = graph.if_(training, lambda: graph.square(graph.exponent(x)), lambda: x)
    grads = graph.gradients(of=y, with_=[x])
    program = compile_program(
        graph, {x: (2,), training: ()}, [y, grads[x]], [], values={"training": np.array(True)}
    )
    assert types(program).count("exponent") == 1


def test_predicates_computed_from_fed_bools_steer():
    graph = sg.Graph()
    x = graph.placeholder((2,))
    a, b, c = (graph.placeholder((1,), "bool", name=n) for n in "abc")
    many = graph.placeholder((2,), "bool", name="many")
    both = graph.reshape(a, ()) & ~graph.reshape(b, ())
    y = graph.if_(both, lambda: graph.if_(c, lambda: x, lambda: x * 2.0), lambda: x * 3.0)
    z = graph.if_(graph.reduction_and(many, keep_dims=False), lambda: y, lambda: y + 1.0)
    executable = graph.compile([x, a, b, c, many], [z], device="reference")
    assert _steering(executable._live, executable._feeds) == [a, b, c]
    for bits in np.ndindex(2, 2, 2):
        fa, fb, fc = (np.array([bool(bit)]) for bit in bits)
        factor = 3 if not (bits[0] and not bits[1]) else (1 if bits[2] else 2)
        feeds = {x: np.array([1.0, 2.0], "float32"), a: fa, b: fb, c: fc, many: [True, True]}
        np.testing.assert_array_equal(executable.run(feeds)[0], np.array([1.0, 2.0]) * factor)
        assert executable.describe(feeds).count("= if(") == 1
    assert len(executable._runners) == 8


def test_predicate_that_folding_makes_constant():
    graph = sg.Graph()
    x = graph.placeholder((2,))
    table = graph.constant([1.0, -3.0])
    y = graph.if_(is_large(graph, table), lambda: graph.relu(x), lambda: x * 2.0)
    program = compile_program(graph, {x: (2,)}, [y], [])
    assert "if" not in types(program)
    assert "multiplication" in types(program)
    unfolded = compile_program(graph, {x: (2,)}, [y], [], disable=["fold"])
    assert "if" in types(unfolded)


def test_ifs_inside_loops_are_specialised():
    graph = sg.Graph()
    x, training = graph.placeholder((2,)), graph.placeholder((), "bool", name="training")
    y = graph.for_loop(3, x, lambda i, v: graph.if_(training, lambda: v * 2.0, lambda: v))
    program = compile_program(
        graph, {x: (2,), training: ()}, [y], [], values={"training": np.array(True)}
    )
    assert "for" in types(program)
    assert "if" not in types(program)


# -- passes and regions --------------------------------------------------------------------------


def test_ops_inside_regions_are_decomposed():
    graph = sg.Graph()
    x = graph.placeholder((2, 3))
    y = graph.for_loop(
        2, x, lambda i, v: graph.if_(is_large(graph, v), lambda: graph.softmax(v), lambda: v)
    )
    program = compile_program(
        graph, {x: (2, 3)}, [y], [], supports=lambda definition: definition.name != "softmax"
    )
    assert {"for", "if", "exponent"} <= set(types(program))
    assert "softmax" not in types(program)


@pytest.mark.parametrize("disabled", ["prune", "fold", "merge_common"])
def test_result_is_the_same_without_a_pass(device, disabled, rng):
    graph = sg.Graph()
    x = graph.placeholder((2,))

    def body(i, v):
        scale = graph.constant([2.0, 3.0]) * 0.25
        a, b = graph.sin(v * scale), graph.sin(v * scale)
        return graph.if_(is_large(graph, v), lambda: a + graph.sin(v * scale), lambda: b + v)

    y = graph.for_loop(4, x, body)
    grads = graph.gradients(of=y, with_=[x])
    array = rng.standard_normal(2).astype("float32")
    with_it = graph.compile([x], [y, grads[x]], device=device)
    without = graph.compile([x], [y, grads[x]], device=device, disable=[disabled])
    for a, b in zip(with_it.run({x: array}), without.run({x: array}), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_common_operations_inside_a_body_are_merged():
    graph = sg.Graph()
    x = graph.placeholder((2,))
    graph.sin(x)
    y = graph.for_loop(2, x, lambda i, v: graph.exponent(v) + graph.exponent(v) + graph.sin(x))
    z = y + graph.sin(x)
    program = compile_program(graph, {x: (2,)}, [z], [])
    assert types(program).count("exponent") == 1


def test_equal_loops_run_once():
    """Two gradients of one loss build its loop twice; what is captured and fixed must agree."""
    graph = sg.Graph()
    x, w = graph.placeholder((2,)), graph.placeholder((2,))

    def loop(factor, captured):
        return graph.for_loop(
            3,
            x,
            lambda i, v: graph.if_(
                is_large(graph, v), lambda: v * captured * factor, lambda: graph.sin(v)
            ),
        )

    same, again = loop(2.0, w), loop(2.0, w)
    different = [loop(3.0, w), loop(2.0, x)]
    feeds = {x: (2,), w: (2,)}
    assert types(compile_program(graph, feeds, [same, again], [])).count("for") == 1
    for other in different:
        assert types(compile_program(graph, feeds, [same, other], [])).count("for") == 2


def regions_of(program, kind):
    return [op for op in program.operations() if op.type == kind]


def test_unread_results_of_a_branch_are_pruned():
    graph = sg.Graph()
    x = graph.placeholder((2,))
    a, b = graph.if_(
        is_large(graph, x), lambda: (graph.sin(x), graph.exponent(x)), lambda: (x, graph.tanh(x))
    )
    program = compile_program(graph, {x: (2,)}, [b], [])
    (made,) = regions_of(program, "if")
    assert len(made.outputs) == 1
    assert "sin" not in types(program)
    both = compile_program(graph, {x: (2,)}, [a, b], [])
    assert len(regions_of(both, "if")[0].outputs) == 2


def test_unread_carried_values_are_pruned_unless_others_need_them(device):
    graph = sg.Graph()
    x = graph.placeholder((2,))
    a, b, c = graph.for_loop(
        3, [x, x, x], lambda i, a, b, c: [a * b, graph.sin(b), graph.exponent(c) + a]
    )
    wanted = {a: 2, b: 1, c: 3}
    for target, count in wanted.items():
        program = compile_program(graph, {x: (2,)}, [target], [])
        (made,) = regions_of(program, "for")
        assert len(made.outputs) == count
    array = np.array([0.5, -0.25], "float32")
    together = run(device, graph, {x: array}, a, b, c)
    for target, value in zip((a, b, c), together, strict=True):
        np.testing.assert_array_equal(run(device, graph, {x: array}, target)[0], value)


def test_a_while_loop_keeps_what_its_predicate_reads(device):
    graph = sg.Graph()
    x = graph.placeholder((2,))
    value, _, _ = graph.while_loop(
        [x, graph.constant(0), x], lambda v, n, u: n < 3, lambda v, n, u: [v * 2.0, n + 1, u + v]
    )
    program = compile_program(graph, {x: (2,)}, [value], [])
    (made,) = regions_of(program, "while")
    assert len(made.outputs) == 2
    np.testing.assert_array_equal(run(device, graph, {x: [1.0, 2.0]}, value)[0], [8.0, 16.0])


def test_nested_results_are_pruned():
    graph = sg.Graph()
    x = graph.placeholder((2,))

    def body(i, a, b):
        return graph.if_(is_large(graph, a), lambda: [a, graph.sin(b)], lambda: [a * 2.0, b])

    a, _ = graph.for_loop(3, [x, x], body)
    program = compile_program(graph, {x: (2,)}, [a], [])
    (loop,) = regions_of(program, "for")
    (inner,) = (op for op in loop.regions[0].operations if op.type == "if")
    assert len(loop.outputs) == len(inner.outputs) == 1
    assert "sin" not in types(program)


def test_histories_that_a_gradient_does_not_read_are_pruned():
    """Of `a + b`, only the sine's argument is needed again."""
    graph = sg.Graph()
    x = graph.placeholder((2,))
    a, _ = graph.for_loop(5, [x, x], lambda i, a, b: [a + graph.sin(b), b * 2.0])
    grads = graph.gradients(of=a, with_=[x])
    program = compile_program(graph, {x: (2,)}, [grads[x]], [])
    recorded = [op for op in regions_of(program, "for") if any(t.rank == 2 for t in op.outputs)]
    (loop,) = recorded
    assert sorted(t.shape for t in loop.outputs) == [(2,), (5, 2)]


# -- printing, order and errors ------------------------------------------------------------------


def test_printed_regions():
    graph = sg.Graph("tiny")
    x = graph.placeholder((2,), name="x")
    y = graph.if_(is_large(graph, x), lambda: graph.relu(x), lambda: x, name="choice")
    graph.for_loop(3, y, lambda i, v: v + x, name="repeat")
    text = str(graph).splitlines()
    start = text.index("  choice: float32 (2,) = if(greater_than)")
    assert text[start + 1 :] == [
        "    then:",
        "      relu: float32 (2,) = relu(x)",
        "      return relu",
        "    else:",
        "      return x",
        "  constant_1: int32 () = constant(value=3)",
        "  repeat: float32 (2,) = for(constant_1, choice, lower_bound=0, step=1, "
        "maximum_iterations=3)",
        "    body(argument: int32 (), argument_1: float32 (2,)):",
        "      addition: float32 (2,) = addition(argument_1, x)",
        "      return addition",
    ]
    assert "[style=dotted]" in graph.to_dot()


def test_control_dependency_orders_reads(device):
    graph = sg.Graph()
    v = graph.variable(1.0)
    update = graph.assign(v, 5.0)
    got = graph.control_dependency([update], lambda: (v * 2.0, v))
    assert [float(a) for a in run(device, graph, {}, *got, v)] == [10.0, 5.0, 1.0]


def test_control_dependency_prefixes_names():
    graph = sg.Graph()
    x = graph.placeholder((2,))
    y = graph.control_dependency([], lambda: graph.relu(x), name="later")
    assert y.name == "later/relu"


def test_dependent_operations_run_although_nothing_reads_them(device):
    graph = sg.Graph()
    v = graph.variable(1.0)
    x = graph.placeholder((2,))
    y = graph.control_dependency([graph.assign(v, 7.0)], lambda: graph.relu(x))
    run(device, graph, {x: [1.0, 2.0]}, y)
    assert float(graph.get_value(v, device)) == 7.0


def test_tensors_of_a_closed_block_are_refused(device):
    graph = sg.Graph()
    x = graph.placeholder((2,))
    v = graph.variable(1.0)
    leaked = []

    def then():
        leaked.extend([graph.relu(x), graph.assign(v, 2.0)])
        return x

    graph.if_(is_large(graph, x), then, lambda: x)
    tensor, operation = leaked
    with pytest.raises(GraphError, match="closed"):
        graph.relu(tensor)
    with pytest.raises(GraphError, match="closed"):
        graph.control_dependency([operation], lambda: x)
    with pytest.raises(GraphError, match="stands inside a control-flow block"):
        graph.run({x: [1.0, 2.0]}, [tensor], device=device)
    with pytest.raises(GraphError, match="stands inside a control-flow block"):
        graph.run({x: [1.0, 2.0]}, operations=[operation], device=device)


def test_control_dependency_refuses_what_is_no_operation():
    graph, other = sg.Graph(), sg.Graph()
    with pytest.raises(GraphError, match="is no operation"):
        graph.control_dependency([3], lambda: None)
    with pytest.raises(GraphError, match="another graph"):
        graph.control_dependency([other.constant(1.0)], lambda: None)


def test_blocks_must_agree():
    graph = sg.Graph()
    x = graph.placeholder((2,))
    large = is_large(graph, x)
    with pytest.raises(GraphError, match="returns 2 tensors in a tuple when true and a tensor"):
        graph.if_(large, lambda: (x, x), lambda: x)
    with pytest.raises(GraphError, match="among tensors"):
        graph.if_(large, lambda: [x, graph.assign(graph.variable(1.0), 2.0)], lambda: [x, x])


def test_predicate_block_must_not_assign():
    graph = sg.Graph()
    v = graph.variable(1.0, name="v")

    def before(x):
        graph.assign(v, 2.0)
        return x < 3.0

    with pytest.raises(GraphError, match="`before` assigns variable 'v'"):
        graph.while_loop(graph.constant(1.0), before, lambda x: x + 1.0)


def test_maximum_iterations_must_be_known():
    graph = sg.Graph()
    n = graph.placeholder((), "int32")
    with pytest.raises(GraphError, match="known when the graph is built"):
        graph.for_loop(n, graph.constant(1.0), lambda i, x: x, maximum_iterations=n)


def test_counts_must_be_whole():
    graph = sg.Graph()
    one = graph.constant(1.0)
    with pytest.raises(GraphError, match=r"iterations=2.5"):
        graph.for_loop(2.5, one, lambda i, x: x)
    with pytest.raises(GraphError, match="maximum_iterations=-1"):
        graph.while_loop(one, lambda x: x < 3.0, lambda x: x, maximum_iterations=-1)
    graph.for_loop(np.int64(2), one, lambda i, x: x, maximum_iterations=np.int32(4))
