"""Every network trains to the same bits, again and with any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

from stepgraph import utils
from stepgraph.applications import APPLICATIONS
from stepgraph.optimizers import SGD

LARGE = ("resnet50", "resnet18", "mobilenet_v2")
NAMES = [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in APPLICATIONS]
# Two of the six blocks: the others are lowered in the same way.
SETTINGS = {"vit": {"depth": 2, "dropout": 0.1}}


def _trained(name, threads):
    """Losses of two steps on batches of 3, and the weights behind them."""
    utils.set_random_seed(2)
    model = APPLICATIONS[name].builder(**SETTINGS.get(name, {}))
    optimizer = SGD(0.01, momentum=0.9, weight_decay=1e-4)
    model.compile(optimizer, "categorical_crossentropy", threads=threads)
    rng = np.random.default_rng(4)
    classes = model.output_shape[-1]
    losses = []
    for _ in range(2):
        x = rng.random((3, *model.input_shape[1:]), "float32")
        y = np.eye(classes, dtype="float32")[rng.integers(0, classes, 3)]
        losses.append(model.train_on_batch(x, y))
    return losses, model.get_weights()


@pytest.mark.parametrize("name", NAMES)
def test_training_gives_the_same_bits_with_any_number_of_threads(name):
    losses, weights = _trained(name, 1)
    assert losses[0] != losses[1]
    for threads in (2, 3, 8) if name in LARGE else (1, 2, 3, 8):
        other_losses, others = _trained(name, threads)
        assert other_losses == losses, threads
        for a, b in zip(weights, others, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=f"{threads} threads")
