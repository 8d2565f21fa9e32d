"""The networks: how many parameters, which shapes, which order of weights; that they learn."""

import numpy as np
import pytest

from stepgraph import applications, optimizers, utils
from stepgraph.applications import APPLICATIONS, table
from stepgraph.errors import ShapeError
from stepgraph.models import Model

NAMES = list(APPLICATIONS)
LARGE = ("resnet50", "resnet18", "mobilenet_v2", "vit")
RUN = [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in NAMES]
SHAPES = [(28, 28, 1), (32, 32, 3)]


def trainable(model: Model) -> int:
    return sum(weight.size for weight in model.trainable_weights)


@pytest.mark.parametrize("name", NAMES)
def test_the_table_tells_the_truth(name: str) -> None:
    entry = APPLICATIONS[name]
    assert entry.builder().count_params() == entry.parameters
    (line,) = [line for line in table().splitlines() if line.split()[0] == name]
    assert f"{entry.parameters:,}" in line
    assert entry.source in line


def test_resnet50_counts_as_torchvision_does() -> None:
    # torchvision's resnet50: 25,557,032 for 1000 classes, whose layer has 2,049,000.
    assert trainable(applications.ResNet50(classes=1000)) == 25_557_032
    assert trainable(applications.ResNet50()) == 25_557_032 - 2_049_000 + 20_490
    # Keras's has a bias in each of its 53 convolutions, 26,560 in all: 25,636,712.
    assert applications.ResNet50(classes=1000).count_params() == 25_636_712 - 26_560


def test_resnet50_with_the_stem_of_the_talks_code() -> None:
    stem = 7 * 7 * 3
    narrow, wide = (trainable(applications.ResNet50(stem=n)) for n in (2, 64))
    # The stem itself, its normalisation, and the two convolutions that read it.
    assert wide - narrow == 62 * (stem + 2 + 64 + 256)


def test_resnet18_counts_as_everywhere() -> None:
    assert trainable(applications.ResNet18()) == 11_173_962


@pytest.mark.parametrize(("alpha", "count"), [(0.35, 410_208), (1.0, 2_257_984), (1.4, 4_363_712)])
def test_mobilenet_v2_counts_as_keras_does_without_top(alpha: float, count: int) -> None:
    model = applications.MobileNetV2(alpha=alpha)
    assert model.count_params() - model.get_layer("classifier").count_params() == count


def test_mobilenet_v2_trainable() -> None:
    assert trainable(applications.MobileNetV2()) == 2_223_872 + 12_810


@pytest.mark.parametrize(
    ("shape", "patch", "d", "m", "depth", "heads"),
    [((32, 32, 3), 4, 128, 256, 6, 4), ((28, 28, 1), 7, 48, 64, 2, 3)],
)
def test_vit_counts_as_its_formula(
    shape: tuple[int, int, int], patch: int, d: int, m: int, depth: int, heads: int
) -> None:
    model = applications.ViT(shape, 10, patch, d, depth, heads, m)
    tokens = (shape[0] // patch) * (shape[1] // patch)
    attention, norms, mlp = 4 * (d * d + d), 4 * d, 2 * d * m + m + d
    count = patch * patch * shape[2] * d + d + tokens * d + depth * (attention + norms + mlp)
    assert model.count_params() == count + 2 * d + (d + 1) * 10


def test_vit_refuses_sizes_that_do_not_divide() -> None:
    with pytest.raises(ShapeError, match="pictures: 30x30"):
        applications.ViT((30, 30, 3))
    with pytest.raises(ShapeError, match="heads: 5"):
        applications.ViT(heads=5)


def test_small_networks_count_as_their_sources_do() -> None:
    assert applications.LeNet5().count_params() == 61_706
    assert applications.LeNet5((28, 28, 1)).count_params() == 61_706
    assert applications.LeNet5((32, 32, 3)).count_params() == 62_006
    assert applications.CNN().count_params() == 34_826
    assert applications.MLP().count_params() == 669_706


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_shapes(name: str, shape: tuple[int, int, int]) -> None:
    model = APPLICATIONS[name].builder(input_shape=shape, classes=7)
    assert model.input_shape == (None, *shape)
    assert model.output_shape == (None, 7)
    assert len({layer.name for layer in model.layers}) == len(model.layers)


@pytest.mark.parametrize("name", RUN)
def test_predictions_are_probabilities(name: str) -> None:
    utils.set_random_seed(1)
    model = APPLICATIONS[name].builder()
    x = np.random.default_rng(1).random((2, *model.input_shape[1:]), "float32")
    found = model.predict_on_batch(x)
    assert found.shape == (2, 10)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)


def test_resnet50_is_the_talks_network() -> None:
    model = applications.ResNet50(stem=2)
    sizes = [
        model.get_layer(name).output_shape[1:]
        for name in ("stem_conv", "stem_pool", "stage1_3_relu", "stage2_4_relu", "stage3_6_relu")
    ]
    assert sizes == [(13, 13, 2), (6, 6, 2), (6, 6, 256), (3, 3, 512), (2, 2, 1024)]
    assert model.get_layer("stage4_3_relu").output_shape == (None, 1, 1, 2048)
    convolutions = [layer for layer in model.layers if layer.name.endswith("_conv")]
    assert len(convolutions) == 53
    assert not any(layer.use_bias for layer in convolutions)
    strided = [layer.name for layer in convolutions if layer.strides == (2, 2)]
    assert sorted(strided) == sorted(
        ["stem_conv"]
        + [f"stage{n}_1_{part}_conv" for n in (2, 3, 4) for part in ("reduce", "shortcut")]
    )
    padded = {layer.name.split("_")[-2] for layer in convolutions if layer.padding == "same"}
    assert padded == {"middle"}
    assert model.get_layer("stem_pool").padding == "valid"
    assert model.get_layer("pool").padding == "same"
    norm = model.get_layer("stem_norm")
    assert (norm.momentum, norm.epsilon) == (0.99, 1e-3)


def test_weights_come_in_keras_order() -> None:
    # Keras orders layers by depth: those of the two paths of a block take turns.
    paths = [path for path, _ in applications.ResNet50().named_weights()]
    norm = ["gamma", "beta", "moving_mean", "moving_variance"]
    expected = ["stem_conv/kernel", *(f"stem_norm/{w}" for w in norm)]
    for part in ("reduce", "middle"):
        expected += [f"stage1_1_{part}_conv/kernel"]
        expected += [f"stage1_1_{part}_norm/{w}" for w in norm]
    expected += [f"stage1_1_{part}_conv/kernel" for part in ("expand", "shortcut")]
    expected += [f"stage1_1_{part}_norm/{w}" for part in ("expand", "shortcut") for w in norm]
    assert paths[: len(expected)] == expected
    assert paths[-2:] == ["classifier/kernel", "classifier/bias"]
    attention = [
        f"block1_attention/{part}/{weight}"
        for part in ("query", "key", "value", "attention_output")
        for weight in ("kernel", "bias")
    ]
    vit = [path for path, _ in applications.ViT().named_weights()]
    assert [path for path in vit if path.startswith("block1_attention")] == attention


@pytest.mark.parametrize("name", RUN)
def test_learns_a_batch_by_heart(name: str, rng: np.random.Generator) -> None:
    utils.set_random_seed(2)
    model = APPLICATIONS[name].builder()
    model.compile(optimizers.SGD(0.02), "categorical_crossentropy")
    x = rng.random((8, *model.input_shape[1:]), "float32")
    y = np.eye(10, dtype="float32")[rng.integers(0, 10, 8)]
    losses = [model.train_on_batch(x, y) for _ in range(6)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
