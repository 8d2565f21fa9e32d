"""Models as networks: order of layers and weights, shared and nested parts, summaries, mistakes."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from stepgraph import layers, models, utils
from stepgraph.errors import FeedError, GraphError, ShapeError
from stepgraph.layers import Dense, Input
from stepgraph.models import Model, Sequential

Array = np.ndarray[Any, Any]


def compiled(model: Model, loss: Any = "mse", **settings: Any) -> Model:
    model.compile(optimizer="sgd", loss=loss, device="reference", **settings)
    return model


def test_layers_in_keras_order() -> None:
    """The first block of Keras's ResNet50, in the order in which Keras's own summary lists it."""
    x = Input((8, 8, 3), name="pool1_pool")
    skip = layers.BatchNormalization(name="0_bn")(layers.Conv2D(4, 1, name="0_conv")(x))
    y = x
    for i in (1, 2):
        y = layers.BatchNormalization(name=f"{i}_bn")(layers.Conv2D(4, 1, name=f"{i}_conv")(y))
        y = layers.Activation("relu", name=f"{i}_relu")(y)
    y = layers.BatchNormalization(name="3_bn")(layers.Conv2D(4, 1, name="3_conv")(y))
    y = layers.Activation("relu", name="out")(layers.Add(name="add")([skip, y]))
    assert [layer.name for layer in Model(x, y).layers] == [
        "pool1_pool",
        *("1_conv", "1_bn", "1_relu", "2_conv", "2_bn", "2_relu"),
        *("0_conv", "3_conv", "0_bn", "3_bn", "add", "out"),
    ]


def test_weights_in_keras_order() -> None:
    model = Sequential(
        [
            Input((8, 8, 3)),
            layers.Conv2D(4, 3, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.SeparableConv2D(5, 3, name="separable"),
            layers.Flatten(),
            Dense(2, name="dense"),
        ]
    )
    assert [path for path, _ in model.named_weights()] == [
        "conv/kernel",
        "conv/bias",
        "norm/gamma",
        "norm/beta",
        "norm/moving_mean",
        "norm/moving_variance",
        "separable/depthwise_kernel",
        "separable/pointwise_kernel",
        "separable/bias",
        "dense/kernel",
        "dense/bias",
    ]
    assert len(model.trainable_weights) == 9
    values = [np.full(w.shape, i, "float32") for i, w in enumerate(model.weights)]
    model.set_weights(values)
    for got, want in zip(model.get_weights(), values, strict=True):
        np.testing.assert_array_equal(got, want)
    with pytest.raises(
        ShapeError, match=r"(?s)set_weights.*dense/bias: expects \(2,\), got \(3,\)"
    ):
        model.set_weights([*values[:-1], np.zeros(3)])
    np.testing.assert_array_equal(model.get_weights()[0], values[0])


def test_names_count_up() -> None:
    utils.clear_session()
    made = [layers.Conv2D(1, 1), layers.Conv2D(1, 1), layers.ReLU(), layers.MaxPooling2D()]
    assert [layer.name for layer in made] == ["conv2d", "conv2d_1", "re_lu", "max_pooling2d"]
    x = Input((2,), name="x")
    with pytest.raises(GraphError, match="two layers are called 'twin'"):
        Model(x, Dense(2, name="twin")(Dense(2, name="twin")(x)))


def test_sequential_learns_its_shape(rng: np.random.Generator) -> None:
    late = Sequential([Dense(3, activation="relu"), Dense(2)])
    with pytest.raises(GraphError, match=r"(?s)is not built.*Input\(shape"):
        late.summary()
    late = compiled(late)  # type: ignore[assignment]
    late.fit(rng.standard_normal((5, 4)), np.zeros((5, 2)), verbose=0)
    assert late.output_shape == (None, 2)
    assert late.count_params() == 15 + 8
    first = Sequential([Dense(3, input_shape=(4,))])
    assert first.input_shape == (None, 4)
    first.add(Dense(2))
    assert first.output_shape == (None, 2)
    first.pop()
    assert first.output_shape == (None, 3)
    assert [type(layer) for layer in first.layers] == [Dense]


def test_a_shared_layer_adds_up_its_gradients(rng: np.random.Generator) -> None:
    a, b = Input((3,), name="a"), Input((3,), name="b")
    dense = Dense(1, use_bias=False)
    model = Model([a, b], layers.Add()([dense(a), dense(b)]))
    assert len(model.weights) == 1
    compiled(model)
    w = model.get_weights()[0].astype(np.float64)
    x, y = rng.standard_normal((2, 4, 3)).astype("float32")
    model.train_on_batch({"a": x, "b": y}, np.zeros((4, 1), "float32"))
    s = x.astype(np.float64) + y
    np.testing.assert_allclose(
        model.get_weights()[0], w - 0.01 * 2 * s.T @ (s @ w) / 4, rtol=1e-4, atol=1e-6
    )


def test_a_shared_batch_normalization_moves_twice(rng: np.random.Generator) -> None:
    a, b = Input((3,)), Input((3,))
    norm = layers.BatchNormalization(momentum=0.5)
    model = compiled(Model([a, b], layers.Add()([norm(a), norm(b)])))
    x, y = rng.standard_normal((2, 8, 3)).astype("float32")
    model.train_on_batch([x, y], np.zeros((8, 3), "float32"))
    moved = 0.5 * (0.5 * 0.0 + 0.5 * x.mean(0)) + 0.5 * y.mean(0)
    np.testing.assert_allclose(norm.get_weights()[2], moved, rtol=1e-5, atol=1e-6)


def test_a_model_in_a_model(rng: np.random.Generator) -> None:
    inner = Sequential([Input((3,)), Dense(4, name="d"), layers.BatchNormalization()], name="inner")
    x = Input((3,))
    outer = Model(x, Dense(2, name="d")(inner(x)), name="outer")
    paths = [path for path, _ in outer.named_weights()]
    assert paths[0] == "inner/d/kernel"
    assert paths[-1] == "d/bias"
    assert outer.count_params() == inner.count_params() + 10
    data = rng.standard_normal((6, 3)).astype("float32")
    hidden = inner.predict(data)
    kernel, bias = outer.get_layer("d").get_weights()
    np.testing.assert_allclose(outer.predict(data), hidden @ kernel + bias, rtol=1e-5, atol=1e-6)

    compiled(outer)
    inner.trainable = False
    assert len(outer.trainable_weights) == 2
    compiled(outer)
    before = inner.get_weights()
    outer.train_on_batch(data, np.ones((6, 2), "float32"))
    for a, b in zip(before, inner.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_models_that_share_layers_see_the_same_weights(rng: np.random.Generator) -> None:
    """Weights move between the models' graphs as they run, in either order."""
    x = Input((3,))
    hidden = Dense(4, activation="relu")(x)
    whole = compiled(Model(x, Dense(1)(hidden)))
    part = Model(x, hidden)
    data = rng.standard_normal((5, 3)).astype("float32")
    target = np.ones((5, 1), "float32")

    def expected() -> Array:
        kernel, bias = whole.get_weights()[:2]
        return np.maximum(data @ kernel + bias, 0)

    for _ in range(2):
        np.testing.assert_allclose(part.predict(data), expected(), rtol=1e-5, atol=1e-6)
        before = part.get_weights()[0]
        whole.train_on_batch(data, target)
        assert (part.get_weights()[0] != before).any()
    part.set_weights([np.zeros((3, 4)), np.ones(4)])
    np.testing.assert_array_equal(whole.get_weights()[1], np.ones(4))
    np.testing.assert_array_equal(part.predict(data), np.ones((5, 4)))


def test_several_outputs(rng: np.random.Generator) -> None:
    x = Input((3,), name="x")
    a = Dense(2, activation="softmax", name="kind")(x)
    b = Dense(1, name="size")(x)
    model = Model(x, [a, b])
    model.compile(
        optimizer="sgd",
        loss={"kind": "sparse_categorical_crossentropy", "size": "mse"},
        loss_weights={"size": 0.5},
        metrics={"kind": ["acc"], "size": ["mae"]},
        device="reference",
    )
    data = rng.standard_normal((6, 3)).astype("float32")
    labels = {"kind": np.array([0, 1, 0, 1, 0, 1]), "size": np.ones(6)}
    logs = model.train_on_batch(data, labels, return_dict=True)
    assert list(logs) == ["loss", "kind_loss", "size_loss", "kind_acc", "size_mae"]
    assert logs["loss"] == pytest.approx(logs["kind_loss"] + 0.5 * logs["size_loss"])
    first, second = model.predict(data)
    assert (first.shape, second.shape) == ((6, 2), (6, 1))
    with pytest.raises(GraphError, match="names outputs that there are not"):
        model.compile(loss={"sort": "mse"}, device="reference")


def test_summary() -> None:
    utils.clear_session()
    x = Input((8, 8, 3), batch_size=4)
    y = layers.BatchNormalization()(layers.Conv2D(2, 3)(x))
    lines: list[str] = []
    Model(x, layers.Flatten()(y), name="small").summary(print_fn=lines.append, line_length=80)
    text = "\n".join(lines)
    assert 'Model: "small"' in text
    assert "conv2d (Conv2D)" in text
    assert "(4, 6, 6, 2)" in text
    assert "Total params: 64" in text
    assert "Trainable params: 60" in text
    assert "Non-trainable params: 4" in text
    assert max(map(len, lines)) <= 80
    lines.clear()
    Model(x, layers.Add(name="twice")([y, y])).summary(print_fn=lines.append)
    assert any("twice" in row and "batch_normalization, batch_norm" in row for row in lines)


def test_configs_make_the_same_network(rng: np.random.Generator) -> None:
    x = Input((4, 4, 2), name="x")
    conv = layers.Conv2D(2, 3, padding="same", kernel_regularizer="l2")
    y = layers.Add()([conv(x), conv(conv(x))])
    y = layers.MultiHeadAttention(2, 3)(*[layers.Reshape((16, 2))(y)] * 2, use_causal_mask=True)
    inner = Sequential([Input((16, 2)), layers.LayerNormalization(), layers.Dropout(0.5)])
    model = Model(x, [Dense(3)(inner(y)), y], name="net")
    again = models.model_from_json(model.to_json())
    assert again.get_config() == model.get_config()
    again.set_weights(model.get_weights())
    data = rng.standard_normal((2, 4, 4, 2)).astype("float32")
    for a, b in zip(model.predict(data), again.predict(data), strict=True):
        np.testing.assert_array_equal(a, b)
    copy = models.clone_model(model)
    assert [w.shape for w in copy.weights] == [w.shape for w in model.weights]


def test_regularizers_are_part_of_the_loss() -> None:
    model = Sequential([Input((2,)), Dense(1, use_bias=False, kernel_regularizer="l2")])
    compiled(model, loss=lambda y, p: 0.0 * p)
    model.set_weights([np.array([[2.0], [1.0]])])
    x = np.zeros((1, 2), "float32")
    assert model.test_on_batch(x, np.zeros((1, 1))) == pytest.approx(0.05)
    model.train_on_batch(x, np.zeros((1, 1)))
    np.testing.assert_allclose(model.get_weights()[0].ravel(), [2.0 - 4e-4, 1.0 - 2e-4], rtol=1e-6)


def test_mistakes(rng: np.random.Generator) -> None:
    x, other = Input((3,), name="x"), Input((3,), name="other")
    with pytest.raises(GraphError, match="depend on input 'other'"):
        Model(x, layers.Add()([x, other]))
    model = Model(x, Dense(2, activation="softmax", name="out")(x))
    with pytest.raises(GraphError, match="is not compiled"):
        model.fit(np.zeros((2, 3)), np.zeros((2, 2)))
    compiled(model, loss="categorical_crossentropy")
    data = rng.standard_normal((4, 3)).astype("float32")
    with pytest.raises(FeedError, match=r"(?s)output 'out'.*\(4,\).*sparse_categorical"):
        model.fit(data, np.array([0, 1, 0, 1]), verbose=0)
    with pytest.raises(FeedError, match=r"(?s)input 'x'.*\(4, 2\).*\(\?, 3\)"):
        model.predict(data[:, :2])
    with pytest.raises(ValueError, match="no layer 'outt'"):
        model.get_layer("outt")
    with pytest.raises(GraphError, match="reduction 'none'"):
        compiled(model, loss="mse").compile(
            loss=models_losses().MeanSquaredError(reduction="none"), device="reference"
        )


def models_losses() -> Any:
    from stepgraph import losses

    return losses


def test_parts_are_found_when_asked_for() -> None:
    code = (
        "import sys, stepgraph as sg; assert 'stepgraph.layers' not in sys.modules; "
        "print(sg.layers.Dense.__name__, sg.Model.__name__, 'optimizers' in dir(sg)); "
        "from stepgraph.optimizers.schedules import CosineDecay; "
        "from stepgraph.layers import *; print(Conv2D.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["Dense", "Model", "True", "Conv2D"], done.stderr


def test_initial_weights_follow_the_seed() -> None:
    def first() -> list[Array]:
        return Sequential([Input((4,)), Dense(4), Dense(4)]).get_weights()

    utils.set_random_seed(3)
    a = first()
    utils.set_random_seed(3)
    b = first()
    c = first()
    np.testing.assert_array_equal(a[0], b[0])
    assert (a[0] != c[0]).any()
    # Equal shapes do not start equal.
    assert (a[0] != a[2]).any()


def test_progress_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    model = compiled(Sequential([Input((2,)), Dense(1)]))
    model.fit(np.zeros((6, 2)), np.zeros((6, 1)), batch_size=2, epochs=2)
    out = capsys.readouterr().out
    assert "Epoch 2/2 - 3 steps" in out
    assert "loss: 0" in out
    model.fit(np.zeros((6, 2)), np.zeros((6, 1)), verbose=0)
    assert capsys.readouterr().out == ""
    model.evaluate(np.zeros((6, 2)), np.zeros((6, 1)), verbose=1)
    assert "1 steps" in capsys.readouterr().out
    assert isinstance(sys.stdout, io.TextIOBase)
