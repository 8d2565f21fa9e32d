"""Every network trains the same with each compiler pass and without it."""

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


@functools.cache
def first_step(name, *disable):
    """Loss of one step, and all that it adds to weights and statistics, as one vector."""
    utils.set_random_seed(5)
    model = APPLICATIONS[name].builder()
    # A clip that never clips: gradients are read by more than their update.
    model.compile(SGD(0.01, global_clipnorm=1e6), "categorical_crossentropy")
    rng = np.random.default_rng(1)
    x = rng.random((4, *model.input_shape[1:]), "float32")
    y = np.eye(model.output_shape[-1], dtype="float32")[:4]
    step = model.runtime.step("train", (False,))
    graph, feeds, whole = model.runtime.graph, step.feeds, step.executable
    executable = graph.compile(feeds, whole.targets[:1], whole.operations, disable=list(disable))
    before = {n: graph.get_value(n) for n in graph.variables}
    loss = float(executable.run(dict(zip(feeds, (x, y), strict=True)))[0])
    moved = [np.ravel(graph.get_value(n) - before[n]) for n in before if "optimizer" not in n]
    return loss, np.concatenate(moved).astype(np.float64)


@pytest.mark.parametrize("disabled", [*ALL_PASSES, *OWN_PASSES])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_without_the_pass_is_the_same(name, disabled):
    loss, moved = first_step(name)
    other_loss, other = first_step(name, disabled)
    assert abs(other_loss - loss) <= 1e-4 * abs(loss)
    # Winograd rounds a few times more, and statistics of four samples magnify it.
    limit = 1e-2 if disabled == "winograd" else 1e-3
    assert np.linalg.norm(other - moved) <= limit * np.linalg.norm(moved)
