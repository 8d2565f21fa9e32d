"""Every network trained beside its PyTorch twin, in float64 from the same weights and batches."""

from types import ModuleType

import numpy as np
import pytest

from stepgraph.applications import APPLICATIONS

LARGE = ("resnet50", "resnet18", "mobilenet_v2", "vit")
NAMES = [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in APPLICATIONS]


@pytest.mark.parametrize("name", NAMES)
def test_float64_follows_pytorch(parity: ModuleType, name: str) -> None:
    """Ten steps: loss, all gradients, all weights' changes, all moving statistics' changes."""
    # Normalised over 4 values each, ResNet-50's last stage is chaotic at a rate of 1e-6 already.
    rate = 1e-9 if name == "resnet50" else 1e-6
    worst = parity.reference_deviation(name, seed=3, steps=10, batch=4, learning_rate=rate)
    assert set(worst) == {"loss", "gradients", "weights", "statistics"}
    assert all(value <= 1e-6 for value in worst.values()), worst


# With 16 samples behind its last statistics ResNet-50 magnifies float32's rounding a thousandfold;
# PyTorch's own float32 is as far off.
@pytest.mark.parametrize(("device", "tolerance"), [("reference:float64", 1e-6), ("cpu", 1e-3)])
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_predictions(
    parity: ModuleType,
    twins: ModuleType,
    name: str,
    shape: tuple[int, int, int],
    device: str,
    tolerance: float,
    rng: np.random.Generator,
) -> None:
    """The forward pass, with moving statistics that let samples differ."""
    model = parity.build(name, 4, input_shape=shape)
    model.compile("sgd", "categorical_crossentropy", device=device)
    twin = twins.Trained(name, model)
    x = rng.random((3, *shape), "float32")
    twin.settle(np.concatenate([x, rng.random((13, *shape), "float32")]))
    values = [value.astype("float32") for value in twin.get_weights()]
    for each in (twin, model):
        each.set_weights(values)
    expected = twin.predict(x)
    assert np.ptp(expected, axis=0).max() > 1e-3
    np.testing.assert_allclose(model.predict_on_batch(x), expected, rtol=0, atol=tolerance)


def test_a_wrong_weight_is_noticed(parity: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison itself: one gradient off by a hundred-thousandth does not pass."""
    step = parity.Theirs.step

    def wrong(self, x, y):
        found = step(self, x, y)
        found.gradients[0] = found.gradients[0] * (1 + 1e-5)
        return found

    monkeypatch.setattr(parity.Theirs, "step", wrong)
    worst = parity.reference_deviation("lenet5", seed=3, steps=1, batch=4)
    assert worst["gradients"] > 1e-6
    assert worst["loss"] <= 1e-6
