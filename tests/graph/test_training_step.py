"""A whole training step in float64 against PyTorch: loss, gradients, weights, moving statistics."""

from __future__ import annotations

import numpy as np
import pytest

import stepgraph as sg

RATE, MOMENTUM, EPSILON, CLASSES, STEPS = 0.125, 0.9, 1e-3, 5, 5


def initial_values():
    rng = np.random.default_rng(11)
    return {
        "conv1": rng.standard_normal((3, 3, 3, 4)) * 0.3,
        "gamma": rng.uniform(0.5, 1.5, 4),
        "beta": rng.standard_normal(4) * 0.1,
        "conv2": rng.standard_normal((3, 3, 2, 6)) * 0.3,
        "dense": rng.standard_normal((3 * 3 * 6, CLASSES)) * 0.3,
        "bias": np.zeros(CLASSES),
    }


def batches():
    rng = np.random.default_rng(12)
    for size in (4, 4, 3, 1, 6)[:STEPS]:
        images = rng.standard_normal((size, 23, 22, 3))
        labels = np.eye(CLASSES)[rng.integers(0, CLASSES, size)]
        yield images, labels


class Step:
    """The step as a graph. Training is a Python bool or a placeholder."""

    def __init__(self, training):
        self.graph = graph = sg.Graph("step")
        self.weights = {n: graph.variable(v, name=n) for n, v in initial_values().items()}
        self.moving = [graph.variable(v, name=n) for n, v in start_of_moving().items()]
        self.images = graph.placeholder((None, None, None, 3), "float64", name="images")
        self.labels = graph.placeholder((None, CLASSES), "float64", name="labels")
        fed = training == "fed"
        self.is_training = graph.placeholder((), "bool", name="is_training") if fed else training
        w = self.weights
        x = graph.convolution_2d(self.images, w["conv1"], strides=2, padding="TF_SAME")
        x = graph.batch_normalization(
            x, w["gamma"], w["beta"], *self.moving, self.is_training, MOMENTUM, EPSILON
        )
        x = graph.relu(x)
        x = graph.max_pooling_2d(x, 3, strides=2, padding="TF_SAME")
        x = graph.relu(graph.convolution_2d(x, w["conv2"], groups=2, padding="TF_SAME"))
        x = graph.avg_pooling_2d(x, 3, strides=2, padding="TF_SAME")
        x = graph.reshape(x, (-1, 3 * 3 * 6))
        logits = x @ w["dense"] + w["bias"]
        self.loss = graph.softmax_cross_entropy(logits, self.labels, reduction="mean")

    def feeds(self, images, labels, training=True):
        fed = {self.images: images, self.labels: labels}
        if isinstance(self.is_training, sg.Tensor):
            fed[self.is_training] = np.array(training)
        return fed

    def compile_training(self):
        graph = self.graph
        self.gradients = graph.gradients(of=self.loss, with_=list(self.weights.values()))
        updates = [
            graph.assign(v, graph.stochastic_gradient_descent(RATE, v, g))
            for v, g in self.gradients.items()
        ]
        inputs = [self.images, self.labels]
        if isinstance(self.is_training, sg.Tensor):
            inputs.append(self.is_training)
        targets = [self.loss, *self.gradients.values()]
        return graph.compile(inputs, targets, updates, device="reference")


def start_of_moving():
    return {"moving_mean": np.zeros(4), "moving_variance": np.ones(4)}


def same(x, kernel, stride, torch, value=0.0):
    """TensorFlow's SAME padding of NCHW data."""
    pads = []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return torch.nn.functional.pad(x, pads, value=value)


def torch_loss(torch, w, moving, images, labels):
    F = torch.nn.functional
    x = torch.tensor(images).permute(0, 3, 1, 2)
    x = F.conv2d(same(x, 3, 2, torch), w["conv1"].permute(3, 2, 0, 1), stride=2)
    with torch.no_grad():
        for name, batch in (
            ("moving_mean", x.mean((0, 2, 3))),
            ("moving_variance", x.var((0, 2, 3), correction=0)),
        ):
            moving[name] = moving[name] * MOMENTUM + batch * (1 - MOMENTUM)
    x = F.batch_norm(x, None, None, w["gamma"], w["beta"], training=True, eps=EPSILON)
    x = F.max_pool2d(same(F.relu(x), 3, 2, torch, -torch.inf), 3, 2)
    x = F.relu(F.conv2d(x, w["conv2"].permute(3, 2, 0, 1), padding=1, groups=2))
    ones = torch.ones_like(x[:1, :1])
    sums = F.avg_pool2d(same(x, 3, 2, torch), 3, 2)
    x = sums / F.avg_pool2d(same(ones, 3, 2, torch), 3, 2)
    x = x.permute(0, 2, 3, 1).reshape(images.shape[0], -1)
    return F.cross_entropy(x @ w["dense"] + w["bias"], torch.tensor(labels))


@pytest.mark.parametrize("training", [True, "fed"], ids=["fixed", "fed"])
def test_five_steps_agree_with_pytorch(torch, training):
    step = Step(training)
    executable = step.compile_training()
    weights = {n: torch.tensor(v, requires_grad=True) for n, v in initial_values().items()}
    moving = {n: torch.tensor(v) for n, v in start_of_moving().items()}
    losses = []
    for images, labels in batches():
        loss, *gradients = executable.run(step.feeds(images, labels))
        wanted = torch_loss(torch, weights, moving, images, labels)
        grads = torch.autograd.grad(wanted, list(weights.values()))
        close(loss, wanted.detach().numpy(), "loss")
        losses.append(float(loss))
        for name, got, grad in zip(weights, gradients, grads, strict=True):
            close(got, grad.numpy(), f"gradient of {name}")
        with torch.no_grad():
            for value, grad in zip(weights.values(), grads, strict=True):
                value -= RATE * grad
        for name, value in {**weights, **moving}.items():
            close(step.graph.get_value(name, "reference"), value.detach().numpy(), name)
    assert len(set(losses)) == STEPS


def close(got, wanted, what):
    """To 1e-9 of the largest element."""
    scale = max(float(np.max(np.abs(wanted))), 1e-3)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-9 * scale, err_msg=what)


def test_evaluation_sees_what_training_left():
    step = Step("fed")
    graph, executable = step.graph, step.compile_training()
    inputs = [step.images, step.labels, step.is_training]
    evaluation = graph.compile(inputs, [step.loss], device="reference")
    images, labels = next(batches())
    feeds = step.feeds(images, labels, training=False)
    before = evaluation.run(feeds)[0]
    assert evaluation.run(feeds)[0] == before
    for _ in range(3):
        executable.run(step.feeds(images, labels))
    assert evaluation.run(feeds)[0] != before
    left = graph.get_value("moving_mean", "reference")
    evaluation.run(feeds)
    np.testing.assert_array_equal(graph.get_value("moving_mean", "reference"), left)


def test_loss_falls_in_float32():
    """The same graph on the device's own float32, by its float64 oracle."""
    graph = sg.Graph()
    x, labels = graph.placeholder((None, 6)), graph.placeholder((None, 3))
    rng = np.random.default_rng(13)
    w = graph.variable(rng.standard_normal((6, 3)).astype("float32"))
    loss = graph.softmax_cross_entropy(x @ w, labels, reduction="mean")
    grad = graph.gradients(of=loss, with_=[w])[w]
    update = graph.assign(w, graph.stochastic_gradient_descent(0.5, w, grad))
    data = rng.standard_normal((12, 6)).astype("float32")
    classes = np.eye(3, dtype="float32")[rng.integers(0, 3, 12)]
    histories = []
    for device in ("reference", "reference:float64"):
        executable = graph.compile([x, labels], [loss], [update], device=device)
        histories.append([float(executable.run({x: data, labels: classes})[0]) for _ in range(20)])
    assert histories[0][-1] < histories[0][0] / 2
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-5)
