"""Losses and metrics: against PyTorch and NumPy, and how stably they are computed."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import stepgraph as sg
from stepgraph import layers, losses, metrics, models
from stepgraph.errors import GraphError, ShapeError

Array = np.ndarray[Any, Any]


def one_hot(numbers: Array, classes: int) -> Array:
    return np.eye(classes)[numbers]


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    found: Array = e / e.sum(-1, keepdims=True)
    return found


@pytest.fixture
def data(rng: np.random.Generator) -> dict[str, Array]:
    numbers = rng.integers(0, 5, 7)
    return {
        "numbers": numbers,
        "y": one_hot(numbers, 5),
        "x": rng.standard_normal((7, 5)),
        "p": softmax(rng.standard_normal((7, 5))),
        "bits": rng.integers(0, 2, (7, 5)).astype(float),
        "values": rng.standard_normal((7, 5)),
    }


TORCH: dict[str, tuple[losses.Loss, str, str, Callable[[Any, Any, Any], Any]]] = {
    "categorical": (
        losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.25),
        "y",
        "x",
        lambda f, y, x: f.cross_entropy(x, y, label_smoothing=0.25),
    ),
    "categorical of probabilities": (
        losses.CategoricalCrossentropy(),
        "y",
        "p",
        lambda f, y, p: f.cross_entropy(p.log(), y),
    ),
    "binary": (
        losses.BinaryCrossentropy(from_logits=True),
        "bits",
        "x",
        lambda f, y, x: f.binary_cross_entropy_with_logits(x, y),
    ),
    "binary of probabilities": (
        losses.BinaryCrossentropy(),
        "bits",
        "p",
        lambda f, y, p: f.binary_cross_entropy(p, y),
    ),
    "mse": (losses.MeanSquaredError(), "values", "x", lambda f, y, x: f.mse_loss(x, y)),
    "mae": (losses.MeanAbsoluteError(), "values", "x", lambda f, y, x: f.l1_loss(x, y)),
    "huber": (losses.Huber(0.5), "values", "x", lambda f, y, x: f.huber_loss(x, y, delta=0.5)),
    "kl": (
        losses.KLDivergence(),
        "p",
        "p",
        lambda f, y, p: f.kl_div(p.log(), y, reduction="batchmean"),
    ),
    "poisson": (
        losses.Poisson(),
        "bits",
        "p",
        lambda f, y, p: f.poisson_nll_loss(p, y, log_input=False, full=False),
    ),
    "cosine": (
        losses.CosineSimilarity(),
        "values",
        "x",
        lambda f, y, x: -f.cosine_similarity(y, x).mean(),
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_against_torch(name: str, torch: ModuleType, data: dict[str, Array]) -> None:
    loss, truth, prediction, oracle = TORCH[name]
    y, p = torch.tensor(data[truth]), torch.tensor(data[prediction], requires_grad=True)
    want = oracle(torch.nn.functional, y, p)
    assert float(loss(data[truth], data[prediction])) == pytest.approx(want.item(), rel=1e-5)
    want.backward()
    graph = sg.Graph()
    a = graph.constant(data[truth])
    b = graph.variable(data[prediction])
    grads = graph.gradients(of=loss(a, b), with_=[b])
    (found,) = graph.run(targets=[grads[b]], device="reference")
    np.testing.assert_allclose(found, p.grad.numpy(), rtol=1e-4, atol=1e-6)


def test_the_others(data: dict[str, Array]) -> None:
    y, x, bits = data["values"], data["x"], data["bits"]
    signs = np.where(bits == 0, -1.0, 1.0)
    hinges = np.maximum(1 - signs * x, 0)
    right, wrong = (data["y"] * x).sum(-1), ((1 - data["y"]) * x).max(-1)
    cases: list[tuple[losses.Loss, Array, Array, float]] = [
        (losses.Hinge(), bits, x, hinges.mean()),
        (losses.SquaredHinge(), bits, x, (hinges**2).mean()),
        (losses.CategoricalHinge(), data["y"], x, np.maximum(wrong - right + 1, 0).mean()),
        (losses.LogCosh(), y, x, np.log(np.cosh(x - y)).mean()),
        (losses.MeanAbsolutePercentageError(), y, x, 100 * np.abs((y - x) / y).mean()),
        (
            losses.MeanSquaredLogarithmicError(),
            np.abs(y),
            np.abs(x),
            ((np.log1p(np.abs(y)) - np.log1p(np.abs(x))) ** 2).mean(),
        ),
    ]
    for loss, truth, prediction, want in cases:
        assert float(loss(truth, prediction)) == pytest.approx(float(want), rel=1e-5)


def test_sparse_is_one_hot(data: dict[str, Array]) -> None:
    for settings, prediction in (({"from_logits": True}, "x"), ({}, "p")):
        sparse = losses.SparseCategoricalCrossentropy(**settings)
        dense = losses.CategoricalCrossentropy(**settings)
        a = sparse(data["numbers"], data[prediction])
        assert float(a) == pytest.approx(float(dense(data["y"], data[prediction])), rel=1e-12)


def test_reductions_and_weights(data: dict[str, Array]) -> None:
    weights = np.arange(7.0)
    each = losses.MeanSquaredError(reduction="none")(data["values"], data["x"])
    assert each.shape == (7,)
    total = losses.MeanSquaredError(reduction="sum")(data["values"], data["x"])
    assert float(total) == pytest.approx(each.sum())
    # Keras divides by the number of samples, not by the sum of weights.
    mean = losses.MeanSquaredError()(data["values"], data["x"], weights)
    assert float(mean) == pytest.approx((each * weights).sum() / 7)
    with pytest.raises(ValueError, match="reduction='average'"):
        losses.MeanSquaredError(reduction="average")
    assert losses.Reduction.SUM_OVER_BATCH_SIZE == "sum_over_batch_size"


@pytest.mark.parametrize(
    ("activation", "loss", "label"),
    [("softmax", "categorical_crossentropy", [[0.0, 1.0]]), ("sigmoid", "bce", [[0.0, 1.0]])],
)
def test_the_logits_behind_an_activation_are_found(
    activation: str, loss: str, label: list[list[float]]
) -> None:
    """Where float32 probabilities are 0 or 1, the loss must still have its value and gradient."""
    model = models.Sequential(
        [
            layers.Input((2,)),
            layers.Dense(2, use_bias=False, kernel_initializer="identity"),
            layers.Activation(activation),
        ]
    )
    model.compile(optimizer=sg.optimizers.SGD(1.0), loss=loss, device="reference")
    x = np.array([[200.0, 0.0 if activation == "softmax" else 30.0]], "float32")
    value = model.train_on_batch(x, np.array(label, "float32"))
    assert value == pytest.approx(200.0 if activation == "softmax" else 100.0, rel=1e-6)
    assert model.get_weights()[0][0, 0] < 0


def test_names() -> None:
    for name, cls in losses.TABLE.items():
        assert type(losses.get(name)) is cls
        again = losses.get(losses.serialize(cls()))
        assert again.get_config() == cls().get_config()
    for name, metric in metrics.TABLE.items():
        assert type(metrics.get(name)) is metric
        assert metrics.get(metrics.serialize(metric())).get_config() == metric().get_config()
    with pytest.raises(GraphError, match=r"(?s)no loss 'crossentrop'"):
        losses.get("crossentrop")
    with pytest.raises(ShapeError, match="CategoricalCrossentropy for one-hot"):
        losses.SparseCategoricalCrossentropy()(np.eye(2), np.eye(2))


# -- metrics --------------------------------------------------------------------------------------


def test_accuracies(data: dict[str, Array]) -> None:
    y, numbers, p = data["y"], data["numbers"], data["p"]
    weights = np.arange(1.0, 8.0)
    right = (p.argmax(-1) == numbers).astype(float)
    order = np.argsort(-p, -1)
    among = np.array([n in row[:3] for n, row in zip(numbers, order, strict=True)], float)
    cases: list[tuple[metrics.Metric, Array, Array]] = [
        (metrics.CategoricalAccuracy(), y, right),
        (metrics.SparseCategoricalAccuracy(), numbers, right),
        (metrics.TopKCategoricalAccuracy(k=3), y, among),
        (metrics.SparseTopKCategoricalAccuracy(k=3), numbers, among),
    ]
    for metric, truth, want in cases:
        metric.update_state(truth[:3], p[:3])
        metric.update_state(truth[3:], p[3:])
        assert metric.result() == pytest.approx(want.mean())
        metric.reset_state()
        assert metric(truth, p, weights) == pytest.approx((want * weights).sum() / weights.sum())


def test_counts() -> None:
    y = np.array([[1.0], [1.0], [0.0], [0.0], [1.0]])
    p = np.array([[0.9], [0.2], [0.8], [0.1], [0.7]])
    assert metrics.BinaryAccuracy()(y, p) == pytest.approx(0.6)
    assert metrics.Precision()(y, p) == pytest.approx(2 / 3)
    assert metrics.Recall()(y, p) == pytest.approx(2 / 3)
    assert metrics.Recall(thresholds=0.15)(y, p) == 1.0
    assert metrics.Precision()(y, p, [1.0, 1.0, 0.0, 1.0, 1.0]) == 1.0
    assert metrics.RootMeanSquaredError()(y, p) == pytest.approx(np.sqrt(((y - p) ** 2).mean()))
    assert metrics.MeanSquaredError()(y, p) == pytest.approx(((y - p) ** 2).mean())


def test_accuracy_is_what_suits_the_labels() -> None:
    found = [
        metrics.for_output("acc", size, sparse)
        for size, sparse in ((1, False), (4, True), (4, False))
    ]
    assert [type(m).__name__ for m in found] == [
        "BinaryAccuracy",
        "SparseCategoricalAccuracy",
        "CategoricalAccuracy",
    ]
    assert {m.name for m in found} == {"acc"}


@pytest.mark.parametrize("from_logits", [True, False])
def test_a_label_that_is_no_class_is_not_a_small_loss(from_logits: bool) -> None:
    loss = losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    outputs = np.full((2, 3), 1 / 3, "float32")
    assert np.isfinite(float(loss(np.array([0, 2], "int32"), outputs)))
    for wrong in (-1, 3):
        assert np.isnan(float(loss(np.array([0, wrong], "int32"), outputs)))
