"""Every optimizer trains the same with the engine's passes and without them, bit for bit if it can.

The network has no full panel of channels, weights of several panels and biases, and is smooth: what
a pass changes stays as small as rounding.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from stepgraph import Sequential, layers, optimizers, utils
from stepgraph.backends.cpu.device import OWN_PASSES
from stepgraph.backends.cpu.plan import ChainStep, KernelStep

STEPS, SIZE = 3, (6, 6, 3)
# Full panels, as many as make shares of a gradient's channels uneven.
WIDE = 784
# Pictures: few rows for the dense layers; more.
BATCHES = (4, 21)
# Passes that reorder work and change no arithmetic.
EXACT = ("chain", "tiles", "share_memory", "ask_ahead", "lend_feeds")
DISABLED = [*((name,) for name in OWN_PASSES), OWN_PASSES]
# Each with what else it knows, so that every slot and every line is there.
OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(0.05),
    "momentum": lambda: optimizers.SGD(0.05, momentum=0.9),
    "nesterov": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda: optimizers.Adam(0.01),
    "amsgrad": lambda: optimizers.Adam(0.01, amsgrad=True, clipvalue=0.5),
    "adamw": lambda: optimizers.AdamW(0.01, 0.02),
    "adam, clipnorm": lambda: optimizers.Adam(0.01, clipnorm=0.1),
    "adamw, global_clipnorm": lambda: optimizers.AdamW(0.01, 0.02, global_clipnorm=0.1),
    "rmsprop": lambda: optimizers.RMSprop(0.01),
    "rmsprop, centered": lambda: optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "legacy sgd": lambda: optimizers.legacy.SGD(0.05, momentum=0.9),
    "legacy adam": lambda: optimizers.legacy.Adam(0.01),
    "legacy rmsprop": lambda: optimizers.legacy.RMSprop(0.01),
}


def _network(wide=False):
    """Convolutions and dense layers; or dense layers alone, which read what they are fed."""
    if wide:
        first = layers.Dense(67, activation="tanh")
        return Sequential([layers.Input((WIDE,)), first, layers.Dense(5)])
    return Sequential(
        [
            layers.Input(SIZE),
            layers.Conv2D(17, 3, activation="tanh"),
            layers.Conv2D(35, 3, strides=2, padding="same", activation="tanh"),
            layers.Flatten(),
            layers.Dense(67, activation="tanh"),
            layers.Dense(5),
        ]
    )


@functools.cache
def _trained(name, batch, disabled, threads=2, wide=False):
    """Losses and the values of all variables after some steps, slots included; the steps."""
    utils.set_random_seed(3)
    model = _network(wide)
    loss = "sparse_categorical_crossentropy"
    model.compile(OPTIMIZERS[name](), loss, device="cpu")
    rng = np.random.default_rng(0)
    step = model.runtime.step("train", (False,))
    graph, whole = model.runtime.graph, step.executable
    executable = graph.compile(
        step.feeds, whole.targets[:1], whole.operations, disable=list(disabled), threads=threads
    )
    losses = []
    for _ in range(STEPS):
        x, y = rng.random((batch, *model.input_shape[1:]), "float32"), rng.integers(0, 5, batch)
        losses.append(float(executable.run(dict(zip(step.feeds, (x, y), strict=True)))[0]))
    values = {n: graph.get_value(n) for n in graph.variables}
    return losses, values, executable._chosen(None).steps


def test_every_optimizer_is_tried():
    tried = {type(make()) for make in OPTIMIZERS.values()}
    assert tried >= set(optimizers.TABLE.values())


@pytest.mark.parametrize(
    "disabled", DISABLED, ids=lambda names: names[0] if names[1:] == () else "all"
)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_passes_change_no_step(name, batch, disabled):
    losses, values, _ = _trained(name, batch, ())
    other_losses, others, _ = _trained(name, batch, disabled)
    assert len(set(losses)) == STEPS
    np.testing.assert_allclose(other_losses, losses, rtol=2e-5)
    for (key, value), other in zip(values.items(), others.values(), strict=True):
        if set(disabled) <= set(EXACT):
            np.testing.assert_array_equal(other, value, err_msg=key)
        elif value.dtype.kind == "f":
            apart = np.linalg.norm(other - value)
            assert apart <= 1e-3 * np.linalg.norm(value) + 1e-6, key


@pytest.mark.parametrize("batch", [4, 32, 64])
@pytest.mark.parametrize("name", ["momentum", "adam", "adam, clipnorm"])
def test_layers_that_read_what_is_fed_train_the_same(name, batch):
    losses, values, _ = _trained(name, batch, (), wide=True)
    for disabled, threads in ((EXACT, 2), ((), 1), ((), 3)):
        other_losses, others, _ = _trained(name, batch, disabled, threads, wide=True)
        assert losses == other_losses
        for (key, value), other in zip(values.items(), others.values(), strict=True):
            np.testing.assert_array_equal(other, value, err_msg=key)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", ["momentum", "adam", "adamw", "rmsprop"])
def test_updates_are_chained_to_their_gradients(name, batch):
    _, _, steps = _trained(name, batch, ())
    chains = [s for s in steps if isinstance(s, ChainStep)]
    ends = [s.members[-1] for s in chains if "weights" in s.members[0].name or "matrix" in s.name]
    written = [b for member in ends for b in member.writes if b.kind == "state"]
    assert len(written) >= 2, [s.name for s in steps]


def test_what_calls_the_c_library_is_computed_once():
    _, _, steps = _trained("adam", 4, ())
    nests = [s for step in steps for s in getattr(step, "members", [step]) if s.kernel == "nest"]
    assert all(isinstance(s, KernelStep) for s in nests)
    calling = [s for s in nests if any(node.op == "power" for node in s.source.key[1].nodes)]
    assert len(calling) == 1
    assert calling[0].tasks == 1
