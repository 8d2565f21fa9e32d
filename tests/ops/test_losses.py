"""Losses built of other ops, against PyTorch and Keras's formulas; unknown batch sizes."""

from __future__ import annotations

import numpy as np
import pytest

import stepgraph as sg


def loss_and_slope(build, x, device="reference"):
    """A loss of one placeholder of unknown batch size, and its gradient (of the sum of it)."""
    graph = sg.Graph()
    source = graph.placeholder((None, *x.shape[1:]), x.dtype)
    loss = build(graph, source)
    slope = graph.gradients(of=graph.reduction_sum(loss, keep_dims=False), with_=[source])[source]
    return graph.run({source: x}, [loss, slope], device=device)


def by_torch(torch, function, x):
    source = torch.from_numpy(x).requires_grad_()
    loss = function(source)
    loss.sum().backward()
    return loss.detach().numpy(), source.grad.numpy()


def check(torch, ours, theirs, x):
    for got, wanted in zip(loss_and_slope(ours, x), by_torch(torch, theirs, x), strict=True):
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)


REDUCTIONS = pytest.mark.parametrize("reduction", ["none", "sum", "mean"])


@REDUCTIONS
def test_sparse_softmax_cross_entropy(torch, rng, reduction):
    x, labels = rng.standard_normal((6, 4)) * 3, rng.integers(0, 4, 6)
    check(
        torch,
        lambda g, s: g.sparse_softmax_cross_entropy(s, labels, reduction=reduction),
        lambda s: torch.nn.functional.cross_entropy(
            s, torch.from_numpy(labels), reduction=reduction
        ),
        x,
    )


@REDUCTIONS
def test_sparse_softmax_cross_entropy_over_a_middle_axis(torch, rng, reduction):
    x, labels = rng.standard_normal((2, 5, 3)), rng.integers(0, 5, (2, 3))
    check(
        torch,
        lambda g, s: g.sparse_softmax_cross_entropy(s, labels, axis=1, reduction=reduction),
        lambda s: torch.nn.functional.cross_entropy(
            s, torch.from_numpy(labels), reduction=reduction
        ),
        x,
    )


@REDUCTIONS
def test_binary_cross_entropy_from_logits(torch, rng, reduction):
    x, labels = rng.standard_normal((5, 3)) * 20, rng.uniform(0, 1, (5, 3))
    check(
        torch,
        lambda g, s: g.binary_cross_entropy_from_logits(s, labels, reduction),
        lambda s: torch.nn.functional.binary_cross_entropy_with_logits(
            s, torch.from_numpy(labels), reduction=reduction
        ),
        x,
    )


@REDUCTIONS
def test_binary_cross_entropy(torch, rng, reduction):
    x, labels = rng.uniform(0.01, 0.99, (5, 3)), rng.uniform(0, 1, (5, 3))
    check(
        torch,
        lambda g, s: g.binary_cross_entropy(s, labels, reduction),
        lambda s: torch.nn.functional.binary_cross_entropy(
            s, torch.from_numpy(labels), reduction=reduction
        ),
        x,
    )


@REDUCTIONS
def test_cross_entropy_of_probabilities(torch, rng, reduction):
    x, labels = rng.uniform(0.1, 1.0, (5, 3)), rng.uniform(0, 1, (5, 3))

    def theirs(source):
        scaled = source / source.sum(1, keepdim=True)
        losses = -(torch.from_numpy(labels) * scaled.log()).sum(1)
        return {"none": losses, "sum": losses.sum(), "mean": losses.mean()}[reduction]

    check(torch, lambda g, s: g.cross_entropy(s, labels, reduction=reduction), theirs, x)


def test_probabilities_of_zero_and_one_give_finite_losses():
    x, labels = np.array([[1.0, 0.0], [1.0, 0.0]], "float32"), [[1.0, 0.0], [0.0, 1.0]]
    loss, _ = loss_and_slope(lambda g, s: g.cross_entropy(s, labels), x)
    np.testing.assert_allclose(loss, [0.0, -np.log(1e-7)], rtol=1e-5, atol=1e-6)
    loss, _ = loss_and_slope(lambda g, s: g.binary_cross_entropy(s, labels), x)
    assert np.all(np.isfinite(loss))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_log_softmax(torch, rng, axis):
    x = rng.standard_normal((4, 5)) * 100
    weights = rng.standard_normal((4, 5))
    check(
        torch,
        lambda g, s: g.log_softmax(s, axis) * weights,
        lambda s: torch.log_softmax(s, axis) * torch.from_numpy(weights),
        x,
    )


@REDUCTIONS
def test_gradient_for_labels(torch, rng, reduction):
    logits, labels = rng.standard_normal((4, 3)), rng.uniform(0.1, 1, (4, 3))

    def theirs(source):
        losses = -(source * torch.log_softmax(torch.from_numpy(logits), 1)).sum(1)
        return {"none": losses, "sum": losses.sum(), "mean": losses.mean()}[reduction]

    check(
        torch,
        lambda g, s: g.softmax_cross_entropy(g.constant(logits), s, reduction=reduction),
        theirs,
        labels,
    )


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("builder", ["sparse_softmax_cross_entropy", "sparse_cross_entropy"])
def test_a_label_that_is_no_class_makes_the_loss_nan(builder, dtype, axis, device, rng):
    x = rng.uniform(0.1, 1.0, (2, 3, 3)).astype(dtype)
    labels = np.array([[0, 3, 2], [-1, 1, 0]], "int32")
    outside = (labels < 0) | (labels > 2)
    graph = sg.Graph()
    source = graph.placeholder((None, 3, 3), dtype)
    given = graph.placeholder((None, 3), "int32")
    made = {
        reduction: getattr(graph, builder)(source, given, axis, reduction)
        for reduction in ("none", "sum", "mean")
    }
    slope = graph.gradients(of=made["mean"], with_=[source])[source]
    executable = graph.compile([source, given], [*made.values(), slope], device=device)
    losses, total, mean, slopes = executable.run({source: x, given: labels})
    np.testing.assert_array_equal(np.isnan(losses), outside)
    assert np.isnan(total)
    assert np.isnan(mean)
    assert np.all(np.isfinite(slopes))
    np.testing.assert_array_equal(np.any(slopes, axis=axis), ~outside)
    right, total, mean, _ = executable.run({source: x, given: labels.clip(0, 2)})
    np.testing.assert_array_equal(losses[~outside], right[~outside])
    assert np.isfinite([total, mean]).all()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64"])
def test_labels_may_be_any_integers(dtype):
    graph = sg.Graph()
    labels = graph.placeholder((2,), dtype)
    loss = graph.sparse_softmax_cross_entropy(graph.constant(np.zeros((2, 300))), labels)
    (found,) = graph.run({labels: np.array([0, 100], dtype)}, [loss], device="reference")
    np.testing.assert_allclose(found, np.log(300), rtol=1e-12)


def test_number_of_classes_must_be_known():
    graph = sg.Graph()
    with pytest.raises(sg.errors.ShapeError, match="number of classes is not known"):
        graph.sparse_softmax_cross_entropy(graph.placeholder((3, None)), [0, 1, 2])


def test_a_mean_over_a_batch_of_unknown_size():
    x = np.zeros((8, 10), "float32")
    labels = np.eye(10, dtype="float32")[:8]
    loss, slope = loss_and_slope(
        lambda g, s: g.softmax_cross_entropy(s, labels, reduction="mean"), x
    )
    np.testing.assert_allclose(loss, np.log(10), rtol=1e-6)
    np.testing.assert_allclose(slope, (0.1 - labels) / 8, atol=1e-7)
