"""Every network trains the same with each compiler pass and without it.

Loss and moving statistics come of the forward pass and agree to rounding. So do the weights' moves,
except in deep networks with ReLUs: some of their many inputs lie within rounding of 0, and a step
that sees the other side has another gradient, however exactly it computes. Measured on four
pictures: ResNet-18's moves stand 5e-4 from float64, 8e-6 without Winograd and 4e-3 with two-pass
moments, while their statistics stand 2.7e-6 from it in all three. ResNet-50 on four pictures does
not follow float64 at all (0.35 from it, on each path), so it gets 32: there two paths were up to
3e-2 apart, and MobileNetV2's up to 1e-2 on four.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from stepgraph import utils
from stepgraph.applications import APPLICATIONS
from stepgraph.backends.cpu.device import ALL_PASSES, OWN_PASSES
from stepgraph.optimizers import SGD

LARGE = ("resnet50", "resnet18", "mobilenet_v2", "vit")
NAMES = [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in APPLICATIONS]


# Pictures in the batch, and how far apart the weights' moves may be: at ReLUs, see above.
PICTURES = {"resnet50": 32}
MOVES = {"resnet50": 0.1, "resnet18": 2e-2, "mobilenet_v2": 5e-2}


@functools.cache
def first_step(name, *disable):
    """Loss of one step, and what it adds to weights and to statistics, each as one vector."""
    utils.set_random_seed(5)
    model = APPLICATIONS[name].builder()
    # A clip that never clips: gradients are read by more than their update.
    model.compile(SGD(0.01, global_clipnorm=1e6), "categorical_crossentropy")
    rng = np.random.default_rng(1)
    pictures, classes = PICTURES.get(name, 4), model.output_shape[-1]
    x = rng.random((pictures, *model.input_shape[1:]), "float32")
    y = np.eye(classes, dtype="float32")[np.arange(pictures) % classes]
    step = model.runtime.step("train", (False,))
    graph, feeds, whole = model.runtime.graph, step.feeds, step.executable
    executable = graph.compile(feeds, whole.targets[:1], whole.operations, disable=list(disable))
    before = {n: graph.get_value(n) for n in graph.variables}
    loss = float(executable.run(dict(zip(feeds, (x, y), strict=True)))[0])
    moved = {True: [np.zeros(0)], False: [np.zeros(0)]}
    for n in before:
        if "optimizer" not in n:
            change = np.ravel(graph.get_value(n) - before[n])
            moved["moving_" in n].append(change.astype(np.float64))
    return loss, np.concatenate(moved[False]), np.concatenate(moved[True])


@pytest.mark.parametrize("disabled", [*ALL_PASSES, *OWN_PASSES])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_without_the_pass_is_the_same(name, disabled):
    loss, weights, statistics = first_step(name)
    other_loss, other_weights, other_statistics = first_step(name, disabled)
    assert abs(other_loss - loss) <= 1e-4 * abs(loss)
    apart = np.linalg.norm(other_statistics - statistics)
    assert apart <= 1e-4 * np.linalg.norm(statistics)
    apart = np.linalg.norm(other_weights - weights)
    assert 0 < np.linalg.norm(weights)
    assert apart <= MOVES.get(name, 1e-3) * np.linalg.norm(weights)
