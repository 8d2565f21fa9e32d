"""ResNet-50 for 32x32 images, op by op, trained by one graph: forward, loss, gradients, updates.

It is the program of the talk "Training DNNs on iOS with Metal Performance Shaders Graph" without
its workarounds: `mean`, `variance` and `softmax_cross_entropy` differentiate correctly, and the
conditional on `is_training` costs nothing, because each value gets a program of its own.

    python examples/resnet50_graph.py --steps 100
"""

from __future__ import annotations

import argparse
import math
import threading

import numpy as np

import stepgraph as sg
from stepgraph.datasets import Batches, load


class ResNet50:
    """The network and its training step.

    Args:
        batch_size: images a step.
        stem: filters of the first convolution; 64, or 2 as on the talk's slides.
        classes: how many.
        seed: of the weights.
    """

    def __init__(self, batch_size: int = 64, stem: int = 64, classes: int = 10, seed: int = 0):
        self.graph = graph = sg.Graph("resnet50")
        self.rng = np.random.default_rng(seed)
        self.weights: list[sg.Variable] = []
        self.images = graph.placeholder((batch_size, 32, 32, 3), name="images")
        self.labels = graph.placeholder((batch_size, classes), name="labels")
        self.is_training = graph.placeholder((1,), "bool", name="is_training")

        x = self.conv(self.images, stem, 7, stride=2, padding="TF_VALID")
        x = graph.relu(self.batch_normalization(x))
        x = graph.max_pooling_2d(x, (3, 3), strides=(2, 2))
        stages = [((64, 256), 3, 1), ((128, 512), 4, 2), ((256, 1024), 6, 2), ((512, 2048), 3, 2)]
        for filters, blocks, stride in stages:
            for block in range(blocks):
                x = self.block(x, filters, stride if block == 0 else 1, project=block == 0)
        x = graph.avg_pooling_2d(x, (2, 2), strides=(2, 2), padding="TF_SAME")
        features = x.shape[1] * x.shape[2] * x.shape[3]
        x = graph.reshape(x, (batch_size, features))
        logits = self.dense(x, classes)
        self.output = graph.softmax(logits)

        loss = graph.softmax_cross_entropy(logits, self.labels, axis=-1, reduction="sum")
        self.loss = loss / float(batch_size)
        gradients = graph.gradients(of=self.loss, with_=self.weights)
        self.updates = []
        for weight, gradient in gradients.items():
            value = graph.stochastic_gradient_descent(0.01, weight, gradient)
            self.updates.append(graph.assign(weight, value))

    def glorot(self, shape: tuple[int, ...], name: str) -> sg.Variable:
        """Weights drawn as TensorFlow's GlorotUniform does: fans are channels times kernel area."""
        area = math.prod(shape[:-2])
        limit = math.sqrt(6 / (area * shape[-2] + area * shape[-1]))
        values = self.rng.uniform(-limit, limit, shape).astype("float32")
        weight = self.graph.variable(values, name=name)
        self.weights.append(weight)
        return weight

    def conv(self, x, filters, kernel, stride=1, padding="TF_SAME"):
        """A convolution without bias."""
        weights = self.glorot((kernel, kernel, x.shape[3], filters), "conv/kernel")
        return self.graph.convolution_2d(x, weights, strides=(stride, stride), padding=padding)

    def batch_normalization(self, x, momentum=0.99, epsilon=0.001):
        """Keras's BatchNormalization, spelled out with a conditional and a control dependency."""
        graph, channels = self.graph, x.shape[3]
        gamma = graph.variable(1.0, shape=(channels,), name="norm/gamma")
        beta = graph.variable(0.0, shape=(channels,), name="norm/beta")
        self.weights += [gamma, beta]
        moving_mean = graph.variable(0.0, shape=(1, 1, 1, channels), name="norm/moving_mean")
        moving_variance = graph.variable(
            1.0, shape=(1, 1, 1, channels), name="norm/moving_variance"
        )

        def training():
            mean = graph.mean(x, axes=(0, 1, 2))
            variance = graph.variance(x, mean, axes=(0, 1, 2))
            moved = [
                graph.assign(old, old * momentum + new * (1 - momentum))
                for old, new in ((moving_mean, mean), (moving_variance, variance))
            ]
            return graph.control_dependency(
                moved, lambda: graph.normalize(x, mean, variance, gamma, beta, epsilon)
            )

        def inference():
            return graph.normalize(x, moving_mean, moving_variance, gamma, beta, epsilon)

        return graph.if_(self.is_training, training, inference)

    def block(self, x, filters, stride, project):
        """Three convolutions and a shortcut; the first block of a stage projects its shortcut."""
        graph, (inner, outer), shortcut = self.graph, filters, x
        x = graph.relu(self.batch_normalization(self.conv(x, inner, 1, stride, "TF_VALID")))
        x = graph.relu(self.batch_normalization(self.conv(x, inner, 3)))
        x = self.batch_normalization(self.conv(x, outer, 1, padding="TF_VALID"))
        if project:
            shortcut = self.conv(shortcut, outer, 1, stride, "TF_VALID")
            shortcut = self.batch_normalization(shortcut)
        return graph.relu(x + shortcut)

    def dense(self, x, features):
        """A product with weights, and a bias."""
        weights = self.glorot((x.shape[1], features), "dense/kernel")
        bias = self.graph.variable(0.0, shape=(features,), name="dense/bias")
        self.weights.append(bias)
        return x @ weights + bias


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--stem", type=int, default=64, help="filters of the first convolution")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data", help="folder or archive of the data set")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    data = load(options.dataset, options.data, size=32, channels=3).train
    network = ResNet50(options.batch_size, options.stem, len(data.class_names))
    feeds = [network.images, network.labels, network.is_training]
    step = network.graph.compile(
        feeds, [network.loss, network.output], network.updates, device=options.device
    )
    done = threading.Event()
    batches = Batches(data, options.batch_size, seed=0).stream()
    number = 0

    def train_next() -> None:
        batch = next(batches)
        values = dict(zip(feeds, [batch.x, batch.y, np.array([True])], strict=True))

        def completed(results, error) -> None:
            nonlocal number
            if error is not None:
                print(f"step {number}: {error}")
                done.set()
                return
            loss, output = results
            right = np.mean(output.argmax(1) == batch.y.argmax(1))
            number += 1
            print(f"step {number}: loss {float(loss):.4f}, accuracy {right:.0%}", flush=True)
            if number < options.steps:
                train_next()
            else:
                done.set()

        step.run_async(values, sg.ExecutionDescriptor(completion_handler=completed))

    train_next()
    done.wait()
    batches.close()


if __name__ == "__main__":
    main()
