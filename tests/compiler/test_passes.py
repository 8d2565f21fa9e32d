"""Each pass: what it makes of a program, what it leaves alone, and that results stay the same.

Values are compared bit by bit, NaN for NaN, -0.0 for -0.0, wherever a rule promises so.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stepgraph as sg
from stepgraph.compiler.pipeline import PASSES, compile_program
from stepgraph.errors import GraphError

HARD = np.array([[0.0, -0.0, 1.5], [np.inf, -np.inf, np.nan]], "float32")


def program_text(build, passes, **options):
    """A program as text, constants unnumbered; `build` makes targets of a (2, 3) placeholder."""
    graph = sg.Graph("p")
    x = graph.placeholder((None, 3), name="x")
    targets = build(graph, x)
    targets = [targets] if isinstance(targets, sg.Tensor) else targets
    chosen = {name: PASSES[name] for name in passes}
    program = compile_program(graph, {x: (2, 3)}, targets, [], passes=chosen, **options)
    return re.sub(r"\bconstant_\d+", "constant", str(program))


def computed(text):
    """Only the lines of a program's text that compute something, without their indentation."""
    skipped = ("= placeholder", "= constant", "program ", "return ")
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if not any(word in line for word in skipped)]


def values(build, feed=HARD, disable=()):
    """What a program computes on the reference device."""
    graph = sg.Graph("p")
    x = graph.placeholder((None, 3), feed.dtype, name="x")
    targets = build(graph, x)
    targets = [targets] if isinstance(targets, sg.Tensor) else targets
    executable = graph.compile([x], targets, device="reference", disable=list(disable))
    return executable.run({x: feed})


def assert_same_bits(got, wanted):
    for g, w in zip(got, wanted, strict=True):
        assert g.dtype == w.dtype
        np.testing.assert_array_equal(g, w)
        if g.dtype.kind == "f":
            known = ~np.isnan(w)
            np.testing.assert_array_equal(np.signbit(g[known]), np.signbit(w[known]))


# -- whole programs, before and after ------------------------------------------------------------


def test_program_without_passes_is_as_built():
    def build(graph, x):
        return graph.negative(-x) * 1.0 + graph.constant([1.0, 2.0, 3.0]) * graph.constant(2.0)

    assert program_text(build, []) == (
        "program p\n"
        "  x: float32 (2, 3) = placeholder()\n"
        "  negative: float32 (2, 3) = negative(x)\n"
        "  negative_1: float32 (2, 3) = negative(negative)\n"
        "  constant: float32 () = constant(value=1.0)\n"
        "  multiplication: float32 (2, 3) = multiplication(negative_1, constant)\n"
        "  constant: float32 (3,) = constant(value=array(3,))\n"
        "  constant: float32 () = constant(value=2.0)\n"
        "  multiplication_1: float32 (3,) = multiplication(constant, constant)\n"
        "  addition: float32 (2, 3) = addition(multiplication, multiplication_1)\n"
        "  return addition"
    )
    assert program_text(build, PASSES) == (
        "program p\n"
        "  x: float32 (2, 3) = placeholder()\n"
        "  constant: float32 (3,) = constant(value=array(3,))\n"
        "  addition: float32 (2, 3) = addition(x, constant)\n"
        "  return addition"
    )
    assert_same_bits(values(build), values(build, disable=PASSES))


def test_fold_computes_constants():
    def build(graph, x):
        return x * (graph.constant(2.0) + graph.square(graph.constant(3.0)))

    text = program_text(build, ["fold"])
    assert computed(text) == ["multiplication: float32 (2, 3) = multiplication(x, constant)"]
    assert "constant: float32 () = constant(value=11.0)" in text
    assert len(computed(program_text(build, []))) == 3
    assert_same_bits(values(build), values(build, disable=["fold"]))


def test_fold_leaves_state_and_large_results_alone():
    graph = sg.Graph("p")
    variable = graph.variable(2.0, name="v")
    wide = graph.broadcast(graph.constant(1.0), (1000, 1000)) * 2.0
    text = str(
        compile_program(graph, {}, [variable * 2.0, wide], [], passes={"fold": PASSES["fold"]})
    )
    assert "multiplication(v, " in text
    assert "= broadcast(" in text


def test_merge_common_computes_equal_operations_once():
    def build(graph, x):
        return graph.exponent(x + 1.0) * graph.tanh(graph.exponent(x + 1.0))

    assert computed(program_text(build, ["merge_common"])) == [
        "addition: float32 (2, 3) = addition(x, constant)",
        "exponent: float32 (2, 3) = exponent(addition)",
        "tanh: float32 (2, 3) = tanh(exponent)",
        "multiplication: float32 (2, 3) = multiplication(exponent, tanh)",
    ]
    assert len(computed(program_text(build, []))) == 6
    assert_same_bits(values(build), values(build, disable=["merge_common"]))


def test_merge_common_tells_zeros_and_attributes_apart():
    def build(graph, x):
        zeros = x * graph.constant([0.0, 0.0, 0.0]), x * graph.constant([-0.0, -0.0, -0.0])
        return [*zeros, graph.softmax(x, 0), graph.softmax(x, 1)]

    assert len(computed(program_text(build, ["merge_common"]))) == 4
    assert_same_bits(values(build), values(build, disable=["merge_common"]))


def test_a_pass_of_unknown_name_is_refused():
    graph = sg.Graph()
    x = graph.placeholder((2,))
    with pytest.raises(GraphError, match="did you mean simplify"):
        compile_program(graph, {x: (2,)}, [x + 1.0], [], disable=["simplfy"])


# -- single rules --------------------------------------------------------------------------------

# Name: (program, what is left of it). The input is (2, 3) with both zeros, infinities and NaN.
SIMPLER = {
    "identity": (lambda g, x: g.tanh(g.identity(x)), ["tanh(x)"]),
    "stop gradient": (lambda g, x: g.tanh(g.stop_gradient(x)), ["tanh(x)"]),
    "times one": (lambda g, x: g.tanh(x * 1.0), ["tanh(x)"]),
    "one times": (lambda g, x: g.tanh(1.0 * x), ["tanh(x)"]),
    "times many ones": (
        lambda g, x: g.tanh(x * np.ones((4, 2, 3))),
        ["broadcast(x)", "tanh(broadcast)"],
    ),
    "times repeated ones": (
        lambda g, x: g.tanh(x * g.broadcast(g.constant(1.0), (2, 3))),
        ["tanh(x)"],
    ),
    "times minus one": (lambda g, x: x * -1.0, ["negative(x)"]),
    "over one": (lambda g, x: g.tanh(x / 1.0), ["tanh(x)"]),
    "over a power of two": (lambda g, x: x / 8.0, ["multiplication(x, constant)"]),
    "plus minus zero": (lambda g, x: g.tanh(x + -0.0), ["tanh(x)"]),
    "square plus zero": (lambda g, x: g.square(x) + 0.0, ["square(x)"]),
    "minus zero": (lambda g, x: g.tanh(x - 0.0), ["tanh(x)"]),
    "negative twice": (lambda g, x: g.tanh(g.negative(-x)), ["tanh(x)"]),
    "negative four times": (
        lambda g, x: g.tanh(g.negative(g.negative(g.negative(-x)))),
        ["tanh(x)"],
    ),
    "plus negative": (lambda g, x: 1.5 + (-x), ["subtraction(constant, x)"]),
    "minus negative": (lambda g, x: 1.5 - (-x), ["addition(constant, x)"]),
    "negative times negative": (
        lambda g, x: (-x) * (-g.tanh(x)),
        ["tanh(x)", "multiplication(x, tanh)"],
    ),
    "negative times constant": (lambda g, x: (-x) * 3.0, ["multiplication(x, constant)"]),
    "times itself": (lambda g, x: x * x, ["square(x)"]),
    "square of negative": (lambda g, x: g.square(-x), ["square(x)"]),
    "absolute of negative": (lambda g, x: g.absolute(-x), ["absolute(x)"]),
    "to the 0th": (lambda g, x: x**0, []),
    "to the 1st": (lambda g, x: g.tanh(x**1.0), ["tanh(x)"]),
    "to the 2nd": (lambda g, x: x**2, ["square(x)"]),
    "to the 3rd": (lambda g, x: x**3, ["square(x)", "multiplication(square, x)"]),
    "to the -1st": (lambda g, x: x**-1, ["reciprocal(x)"]),
    "select of true": (lambda g, x: g.select(g.constant(True), g.tanh(x), 0.0), ["tanh(x)"]),
    "select of false": (lambda g, x: g.select(g.constant(False), 0.0, g.tanh(x)), ["tanh(x)"]),
    "select of two alike": (lambda g, x: g.select(x > 0.0, x, x), []),
    "select of not": (
        lambda g, x: g.select(~(x > 0.0), 1.0, x),
        ["greater_than(x, constant)", "select(greater_than, x, constant)"],
    ),
    "maximum of two alike": (lambda g, x: g.maximum(x, x), []),
    "and true": (lambda g, x: (x > 0.0) & True, ["greater_than(x, constant)"]),
    "and false": (lambda g, x: (x > 0.0) & False, []),
    "or true": (lambda g, x: (x > 0.0) | True, []),
    "not not": (lambda g, x: ~(~(x > 0.0)), ["greater_than(x, constant)"]),
    "not equal": (lambda g, x: ~(x == 0.0), ["not_equal(x, constant)"]),
}

COLLAPSED = {
    "reshape to the same": (lambda g, x: g.tanh(g.reshape(x, (2, 3))), ["tanh(x)"]),
    "reshape of reshape": (lambda g, x: g.reshape(g.reshape(x, (6,)), (3, 2)), ["reshape(x)"]),
    "reshape and back": (lambda g, x: g.tanh(g.reshape(g.reshape(x, (6,)), (2, 3))), ["tanh(x)"]),
    "expand and squeeze": (
        lambda g, x: g.tanh(g.squeeze(g.expand_dims(x, (0,)), (0,))),
        ["tanh(x)"],
    ),
    "broadcast to the same": (lambda g, x: g.tanh(g.broadcast(x, (2, 3))), ["tanh(x)"]),
    "broadcast of broadcast": (
        lambda g, x: g.broadcast(g.broadcast(x, (4, 2, 3)), (5, 4, 2, 3)),
        ["broadcast(x)"],
    ),
    "permute nothing": (lambda g, x: g.tanh(g.permute(x, (0, 1))), ["tanh(x)"]),
    "permute and back": (lambda g, x: g.tanh(g.permute(g.permute(x, (1, 0)), (1, 0))), ["tanh(x)"]),
    "permute of permute": (
        lambda g, x: g.permute(g.permute(g.reshape(x, (1, 2, 3)), (2, 0, 1)), (2, 1, 0)),
        ["reshape(x)"],
    ),
    "permute of single axes": (
        lambda g, x: g.permute(g.reshape(x, (2, 1, 3)), (1, 0, 2)),
        ["reshape(x)"],
    ),
    "reverse twice": (lambda g, x: g.tanh(g.reverse(g.reverse(x, (1,)), (1,))), ["tanh(x)"]),
    "reverse of reverse": (
        lambda g, x: g.reverse(g.reverse(x, (0, 1)), (1,)),
        ["reverse(x, axes=(0,))"],
    ),
    "cast to the same": (lambda g, x: g.tanh(g.cast(x, "float32")), ["tanh(x)"]),
    "cast up and back": (lambda g, x: g.tanh(g.cast(g.cast(x, "float64"), "float32")), ["tanh(x)"]),
    "cast of bool": (
        lambda g, x: g.cast(g.cast(x > 0.0, "int32"), "float32"),
        ["greater_than(x, constant)", "cast(greater_than)"],
    ),
    "concat of one": (lambda g, x: g.tanh(g.concat([x], 0)), ["tanh(x)"]),
    "whole slice": (lambda g, x: g.tanh(g.slice(x, 1, 0, 3)), ["tanh(x)"]),
    "whole strided slice": (lambda g, x: g.tanh(x[0:2, :]), ["tanh(x)"]),
    "pad with nothing": (lambda g, x: g.tanh(g.pad(x, ((0, 0), (0, 0)))), ["tanh(x)"]),
    "tile once": (lambda g, x: g.tanh(g.tile(x, (1, 1))), ["tanh(x)"]),
    "sum of one": (
        lambda g, x: g.reduction_sum(g.expand_dims(x, (0,)), axes=(0,)),
        ["expand_dims(x, axes=(0,))", "addition(expand_dims, constant)"],
    ),
    "maximum of one": (
        lambda g, x: g.reduction_maximum(g.expand_dims(x, (0,)), axes=(0,)),
        ["expand_dims(x, axes=(0,))"],
    ),
    "product of transposed": (
        lambda g, x: g.permute(x, (1, 0)) @ x,
        ["matrix_multiplication(x, x, transpose_primary=True, transpose_secondary=False)"],
    ),
    "product with transposed": (
        lambda g, x: x @ g.permute(x, (1, 0)),
        ["matrix_multiplication(x, x, transpose_primary=False, transpose_secondary=True)"],
    ),
}


def operations_of(text):
    """What stands behind the equals sign of every computing line."""
    return [line.split(" = ", 1)[1] for line in computed(text)]


@pytest.mark.parametrize(
    ("name", "case"),
    [
        *(pytest.param("simplify", case, id=f"simplify {k}") for k, case in SIMPLER.items()),
        *(pytest.param("collapse", case, id=f"collapse {k}") for k, case in COLLAPSED.items()),
    ],
)
def test_rule(name, case):
    build, left = case
    assert operations_of(program_text(build, [name])) == left
    assert operations_of(program_text(build, [])) != left
    got, wanted = values(build, disable=set(PASSES) - {name}), values(build, disable=PASSES)
    assert_same_bits(got, wanted)


# What looks as if it could go, and would change a result.
STAYS = {
    "times zero is NaN for inf": lambda g, x: x * 0.0,
    "plus zero turns -0.0 to 0.0": lambda g, x: x + 0.0,
    "zero minus x": lambda g, x: 0.0 - x,
    "x minus x is NaN for inf": lambda g, x: x - x,
    "x over x is NaN for 0": lambda g, x: x / x,
    "a third is rounded": lambda g, x: x / 3.0,
    "a product of constants is rounded": lambda g, x: (x * 0.1) * 0.2,
    "root of -inf": lambda g, x: x**0.5,
    "no order holds for NaN": lambda g, x: ~(x < 0.0),
    "zeros of both signs": lambda g, x: x + np.array([0.0, -0.0, 0.0]),
    "half precision rounds": lambda g, x: g.cast(g.cast(x, "float16"), "float32"),
    "a product is no sum": lambda g, x: g.reduction_sum(x, axes=(0,)),
    "reshape moves nothing, permute does": lambda g, x: g.reshape(g.permute(x, (1, 0)), (2, 3)),
    "part of a slice": lambda g, x: x[:, 0:2],
    "backwards": lambda g, x: x[::-1, :],
}


@pytest.mark.parametrize("build", STAYS.values(), ids=STAYS)
def test_what_must_stay_stays(build):
    assert program_text(build, ["simplify", "collapse"]) == program_text(build, [])
    assert_same_bits(values(build), values(build, disable=PASSES))


def test_integers_round_in_wide_floats():
    graph = sg.Graph()
    x = graph.placeholder((1,), "int64")
    there_and_back = graph.cast(graph.cast(x, "float64"), "int64")
    odd = np.array([2**53 + 1])
    assert graph.run({x: odd}, [there_and_back], device="reference")[0] == 2**53


@pytest.mark.parametrize("exponent", [2.0, 3.0, -1.0])
def test_small_powers_stay_near(exponent, rng):
    def build(graph, x):
        return graph.power(x, exponent)

    feed = rng.uniform(-3, 3, (50, 3)).astype("float32")
    got, wanted = values(build, feed)[0], values(build, feed, disable=PASSES)[0]
    np.testing.assert_allclose(got, wanted, rtol=3e-7)


def test_integer_zero_and_one():
    feed = np.array([[3, -4, 0]], "int32")

    def build(graph, x):
        return [x + 0, 0 + x, x * 1, graph.negative(-x), graph.absolute(-x)]

    assert_same_bits(values(build, feed), values(build, feed, disable=PASSES))


def test_rules_reach_into_branches_and_loops():
    graph = sg.Graph("p")
    x = graph.placeholder((2, 3), name="x")
    some = graph.placeholder((), "bool", name="some")
    flag = graph.logical_not(some)
    branches = graph.if_(
        graph.logical_and(flag, graph.reduction_or(x > 0.0, keep_dims=False)),
        lambda: [graph.tanh(graph.negative(-x))],
        lambda: [graph.permute(graph.permute(x, (1, 0)), (1, 0)) * 2.0],
    )
    loop = graph.for_loop(3, [x], lambda i, a: [graph.identity(a) * 1.0 + 1.5])
    targets = [*branches, *loop]
    types = set()
    program = compile_program(graph, {x: (2, 3), some: ()}, targets, [])
    for operation in program.operations():
        for region in operation.regions:
            types |= {inner.type for inner in region.operations}
    assert {"tanh", "multiplication", "addition"} <= types
    assert not types & {"negative", "permute", "identity"}
    for value in (True, False):
        feeds = {x: HARD, some: np.array(value)}
        on = graph.compile([x, some], targets, device="reference").run(feeds)
        off = graph.compile([x, some], targets, device="reference", disable=list(PASSES)).run(feeds)
        assert_same_bits(on, off)


# -- random programs -----------------------------------------------------------------------------

UNARY = [
    "negative",
    "identity",
    "stop_gradient",
    "square",
    "absolute",
    "tanh",
    "reciprocal",
    "floor",
]
BINARY = ["addition", "subtraction", "multiplication", "division", "minimum", "maximum"]
MOVES = ["permute", "reshape", "reverse", "cast", "sum"]
NUMBERS = [0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 3.0, float("inf"), float("nan")]

steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(UNARY), st.integers(0, 9)),
        st.tuples(st.sampled_from(BINARY), st.integers(0, 9), st.integers(0, 9)),
        st.tuples(st.sampled_from(BINARY), st.integers(0, 9), st.sampled_from(NUMBERS)),
        st.tuples(st.just("select"), st.integers(0, 9), st.integers(0, 9)),
        st.tuples(st.sampled_from(MOVES), st.integers(0, 9)),
    ),
    min_size=1,
    max_size=12,
)


def grow(graph, x, plan):
    """A graph of (3, 3) tensors, following a drawn plan."""
    made = [x]
    for op, first, *rest in plan:
        a = made[first % len(made)]
        b = (
            rest[0]
            if rest and isinstance(rest[0], float)
            else made[rest[0] % len(made)]
            if rest
            else None
        )
        if op in UNARY or op in BINARY:
            made.append(getattr(graph, op)(a, *rest and [b]))
        elif op == "select":
            made.append(graph.select(~(a < b), b, a))
        elif op == "permute":
            made.append(graph.permute(a, (1, 0)))
        elif op == "reshape":
            made.append(graph.reshape(graph.expand_dims(graph.reshape(a, (9,)), (0,)), (3, 3)))
        elif op == "reverse":
            made.append(graph.reverse(a, (0,)))
        elif op == "cast":
            made.append(graph.cast(graph.cast(a, "float64"), "float32"))
        else:
            made.append(graph.reduction_sum(graph.reshape(a, (3, 1, 3)), (1,), keep_dims=False))
    return made[-3:]


@pytest.mark.parametrize("name", [*PASSES, "all"])
@given(plan=steps, seed=st.integers(0, 2**16))
def test_random_programs_give_the_same_bits(name, plan, seed):
    rng = np.random.default_rng(seed)
    ordinary = rng.choice([0.0, -0.0, 1.0, -2.0, 0.3, np.inf, -np.inf, np.nan, 1e30], (3, 3))
    feed = ordinary.astype("float32")
    enabled = set(PASSES) if name == "all" else {name}
    wanted = values(lambda g, x: grow(g, x, plan), feed, disable=PASSES)
    got = values(lambda g, x: grow(g, x, plan), feed, disable=set(PASSES) - enabled)
    assert_same_bits(got, wanted)


# -- what comes before the common passes ---------------------------------------------------------


def test_capture_keeps_what_is_needed():
    def build(graph, x):
        graph.exponent(x)
        return graph.tanh(x)

    assert operations_of(program_text(build, [])) == ["tanh(x)"]


def test_specialise_takes_the_branch_of_a_known_predicate():
    graph = sg.Graph("p")
    x, training = graph.placeholder((2,), name="x"), graph.placeholder((), "bool", name="training")
    y = graph.if_(training, lambda: [graph.tanh(x)], lambda: [graph.exponent(x)])
    feeds = {x: (2,), training: ()}
    for value, left in ((True, ["tanh(x)"]), (False, ["exponent(x)"])):
        fixed = {"training": np.array(value)}
        text = str(compile_program(graph, feeds, list(y), [], values=fixed, passes={}))
        assert operations_of(text) == left


def test_decompose_spells_out_what_a_device_lacks():
    def build(graph, x):
        return graph.silu(x)

    text = program_text(build, [], supports=lambda definition: definition.name != "silu")
    assert operations_of(text) == ["sigmoid(x)", "multiplication(x, sigmoid)"]
