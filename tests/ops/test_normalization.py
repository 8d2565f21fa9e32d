"""Batch and layer normalisation as a whole, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import stepgraph as sg


def feed(graph, array):
    return graph.placeholder((None, *array.shape[1:]), array.dtype)


def types_needed(tensor):
    """Types of the operations that a tensor is made of."""
    seen, stack = set(), [tensor.operation]
    while stack:
        operation = stack.pop()
        if operation not in seen:
            seen.add(operation)
            stack.extend(t.operation for t in operation.inputs)
    return {operation.type for operation in seen}


def numbers(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize(
    ("shape", "axis"), [((6, 3), -1), ((4, 5, 3, 2), -1), ((4, 2, 5, 3), 1), ((2, 3, 4), 1)]
)
@pytest.mark.parametrize("parameters", [True, False])
def test_batch_normalization_and_both_derivatives(torch, shape, axis, parameters):
    x, incoming, twice = numbers(1, shape, shape, shape)
    gamma, beta = numbers(2, (shape[axis],), (shape[axis],))
    graph = sg.Graph()
    tensors = [feed(graph, a) for a in (x, incoming, twice)]
    scale, shift = (graph.placeholder(a.shape, "float64") for a in (gamma, beta))
    moving = [graph.variable(np.zeros(shape[axis])) for _ in range(2)]
    y = graph.batch_normalization(
        tensors[0],
        scale if parameters else None,
        shift if parameters else None,
        *moving,
        is_training=True,
        epsilon=0.01,
        axis=axis,
    )
    wanted = [tensors[0], scale, shift] if parameters else [tensors[0]]
    first = graph.gradients(of=y, with_=wanted, incoming=tensors[1])
    assert "normalization_gradient" in types_needed(first[tensors[0]])
    second = graph.gradients(of=first[tensors[0]], with_=wanted[:2], incoming=tensors[2])
    feeds = dict(zip([*tensors, scale, shift], [x, incoming, twice, gamma, beta], strict=True))
    got = graph.run(feeds, [y, *first.values(), *second.values()], device="reference")

    tx, tg, tb = (torch.tensor(a, requires_grad=True) for a in (x, gamma, beta))
    ours = (tx, tg, tb) if parameters else (tx,)
    moved = tx.transpose(axis, 1)
    options = {"training": True, "eps": 0.01}
    made = torch.nn.functional.batch_norm(
        moved, None, None, *((tg, tb) if parameters else (None, None)), **options
    ).transpose(axis, 1)
    grads = torch.autograd.grad(made, ours, torch.tensor(incoming), create_graph=True)
    again = torch.autograd.grad(grads[0], ours[:2], torch.tensor(twice))
    for g, w in zip(got, [made, *grads, *again], strict=True):
        np.testing.assert_allclose(g, w.detach().numpy(), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("axis", [-1, 1, (1, 2), (2, 3), 0])
def test_layer_normalization_and_both_derivatives(torch, axis):
    shape = (3, 4, 2, 5)
    axes = (axis,) if isinstance(axis, int) else axis
    sizes = tuple(shape[a] for a in axes)
    x, incoming, twice, gamma, beta = numbers(3, shape, shape, shape, sizes, sizes)
    graph = sg.Graph()
    tensors = [graph.placeholder(a.shape, "float64") for a in (x, incoming, twice, gamma, beta)]
    y = graph.layer_normalization(tensors[0], *tensors[3:], axis=axis, epsilon=0.01)
    wanted = [tensors[0], *tensors[3:]]
    first = graph.gradients(of=y, with_=wanted, incoming=tensors[1])
    assert "normalization_gradient" in types_needed(first[tensors[0]])
    second = graph.gradients(of=first[tensors[0]], with_=wanted[:2], incoming=tensors[2])
    feeds = dict(zip(tensors, [x, incoming, twice, gamma, beta], strict=True))
    got = graph.run(feeds, [y, *first.values(), *second.values()], device="reference")

    tx, tg, tb = (torch.tensor(a, requires_grad=True) for a in (x, gamma, beta))
    broadcast = [shape[i] if i in axes or i - 4 in axes else 1 for i in range(4)]
    mean = tx.mean(axes, keepdim=True)
    variance = tx.var(axes, correction=0, keepdim=True)
    standard = (tx - mean) / torch.sqrt(variance + 0.01)
    made = standard * tg.reshape(broadcast) + tb.reshape(broadcast)
    grads = torch.autograd.grad(made, (tx, tg, tb), torch.tensor(incoming), create_graph=True)
    again = torch.autograd.grad(grads[0], (tx, tg), torch.tensor(twice))
    for g, w in zip(got, [made, *grads, *again], strict=True):
        np.testing.assert_allclose(g, w.detach().numpy(), rtol=1e-9, atol=1e-10)


def test_gradients_of_the_statistics_are_partial_where_asked_for(torch):
    x, incoming = numbers(4, (5, 3), (5, 3))
    graph = sg.Graph()
    source, seed = feed(graph, x), feed(graph, incoming)
    mean = graph.mean(source, 0)
    variance = graph.variance(source, mean, 0)
    y = graph.normalize(source, mean, variance, epsilon=0.01)
    found = graph.gradients(of=y, with_=[source, mean, variance], incoming=seed)
    got = graph.run({source: x, seed: incoming}, list(found.values()), device="reference")

    tx = torch.tensor(x, requires_grad=True)
    tm = tx.mean(0, keepdim=True)
    tv = ((tx - tm) ** 2).mean(0, keepdim=True)
    made = (tx - tm) / torch.sqrt(tv + 0.01)
    wanted = torch.autograd.grad(made, (tx, tm, tv), torch.tensor(incoming))
    for g, w in zip(got, wanted, strict=True):
        np.testing.assert_allclose(g, w.numpy(), rtol=1e-9, atol=1e-11)


def test_statistics_of_another_tensor_count_as_independent(torch):
    x, other, incoming = numbers(5, (5, 3), (5, 3), (5, 3))
    graph = sg.Graph()
    source, of, seed = (feed(graph, a) for a in (x, other, incoming))
    y = graph.normalize(source, graph.mean(of, 0), graph.variance(source, None, 0), epsilon=0.01)
    found = graph.gradients(of=y, with_=[source, of], incoming=seed)
    feeds = {source: x, of: other, seed: incoming}
    got = graph.run(feeds, list(found.values()), device="reference")

    tx, to = (torch.tensor(a, requires_grad=True) for a in (x, other))
    variance = tx.var(0, correction=0, keepdim=True)
    made = (tx - to.mean(0, keepdim=True)) / torch.sqrt(variance + 0.01)
    wanted = torch.autograd.grad(made, (tx, to), torch.tensor(incoming))
    for g, w in zip(got, wanted, strict=True):
        np.testing.assert_allclose(g, w.numpy(), rtol=1e-9, atol=1e-11)


def test_statistics_over_different_axes_count_as_independent(torch):
    x, incoming = numbers(9, (5, 3), (5, 3))
    graph = sg.Graph()
    source, seed = graph.placeholder((5, 3), "float64"), graph.placeholder((5, 3), "float64")
    y = graph.normalize(source, graph.mean(source, 0), graph.variance(source, None, 1))
    grad = graph.gradients(of=y, with_=[source], incoming=seed)[source]
    got = graph.run({source: x, seed: incoming}, [grad], device="reference")[0]

    tx = torch.tensor(x, requires_grad=True)
    made = (tx - tx.mean(0)) / torch.sqrt(tx.var(1, correction=0, keepdim=True) + 1e-3)
    wanted = torch.autograd.grad(made, tx, torch.tensor(incoming))[0]
    np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-9, atol=1e-11)


def test_beta_without_gamma():
    (x,) = numbers(6, (5, 3))
    graph = sg.Graph()
    source, beta = feed(graph, x), graph.placeholder((3,), "float64")
    y = graph.normalize(source, graph.mean(source, 0), graph.variance(source, None, 0), None, beta)
    grad = graph.gradients(of=y, with_=[beta])[beta]
    value, slope = graph.run({source: x, beta: np.arange(3.0)}, [y, grad], device="reference")
    wanted = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3) + np.arange(3.0)
    np.testing.assert_allclose(value, wanted, rtol=1e-12)
    np.testing.assert_array_equal(slope, [5, 5, 5])


@pytest.mark.parametrize("kind", ["fixed", "fed"])
def test_moving_statistics_move_in_training_only(kind):
    (x,) = numbers(7, (8, 3))
    graph = sg.Graph()
    source = feed(graph, x)
    flag = graph.placeholder((), "bool", name="is_training")
    mean, variance = graph.variable(np.ones(3), name="mean"), graph.variable(np.full(3, 2.0))

    def normalized(training):
        steering = flag if kind == "fed" else training
        return graph.batch_normalization(
            source, None, None, mean, variance, steering, momentum=0.75, epsilon=0.5
        )

    def run(training):
        feeds = {source: x, flag: training} if kind == "fed" else {source: x}
        return graph.run(feeds, [normalized(training)], device="reference")[0]

    before = run(False)
    np.testing.assert_allclose(before, (x - 1) / np.sqrt(2.5), rtol=1e-12)
    np.testing.assert_array_equal(graph.get_value(mean, "reference"), np.ones(3))
    trained = run(True)
    np.testing.assert_allclose(
        trained, (x - x.mean(0)) / np.sqrt(x.var(0) + 0.5), rtol=1e-12, atol=1e-12
    )
    moved = 0.75 * np.ones(3) + 0.25 * x.mean(0), 0.75 * np.full(3, 2.0) + 0.25 * x.var(0)
    np.testing.assert_allclose(graph.get_value(mean, "reference"), moved[0], rtol=1e-12)
    np.testing.assert_allclose(graph.get_value(variance, "reference"), moved[1], rtol=1e-12)
    np.testing.assert_allclose(run(False), (x - moved[0]) / np.sqrt(moved[1] + 0.5), rtol=1e-12)


def test_a_large_mean_costs_no_digits():
    x = (10_000 + np.random.default_rng(8).standard_normal((4096, 2))).astype("float32")
    graph = sg.Graph()
    got = graph.run(targets=[graph.variance(graph.constant(x), axes=0)], device="reference")[0]
    np.testing.assert_allclose(got[0], x.astype("float64").var(0), rtol=1e-6)


def test_moving_statistics_must_be_variables():
    graph = sg.Graph()
    x, fixed = graph.placeholder((4, 3)), graph.constant([0.0, 0.0, 0.0])
    with pytest.raises(sg.errors.GraphError, match="moving_mean is no variable"):
        graph.batch_normalization(x, None, None, fixed, fixed, True)


def test_parameters_of_another_axis_are_refused():
    graph = sg.Graph()
    x = graph.placeholder((4, 3, 5, 5))
    gamma = graph.placeholder((3,))
    with pytest.raises(sg.errors.ShapeError, match=r"has shape \(3,\)(.|\n)*expected: \(5,\)"):
        graph.layer_normalization(x, gamma)
