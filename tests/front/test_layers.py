"""Every layer of the table: configs, weights, shapes, a training step; numbers against PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from stepgraph import layers
from stepgraph.errors import GraphError, ShapeError
from stepgraph.layers import Layer
from tests.front.harness import built, check_layer, exact, run_layer

PICTURE = (6, 5, 4)

# Layer, shapes of its inputs, shapes of its weights, shape of its output.
CASES: dict[str, tuple[Callable[[], Layer], list[Any], list[Any], Any]] = {
    "Dense": (
        lambda: layers.Dense(3, activation="tanh", kernel_regularizer="l2"),
        [(5,)],
        [(5, 3), (3,)],
        (3,),
    ),
    "Dense no bias": (lambda: layers.Dense(3, use_bias=False), [(2, 5)], [(5, 3)], (2, 3)),
    "PositionEmbedding": (lambda: layers.PositionEmbedding(7), [(4, 3)], [(7, 3)], (4, 3)),
    "Identity": (layers.Identity, [(3,)], [], (3,)),
    "Rescaling": (lambda: layers.Rescaling(0.5, [1.0, 2.0, 3.0]), [(2, 3)], [], (2, 3)),
    "Activation": (lambda: layers.Activation("relu"), [(3,)], [], (3,)),
    "ReLU": (lambda: layers.ReLU(6.0, 0.1), [(3,)], [], (3,)),
    "LeakyReLU": (lambda: layers.LeakyReLU(alpha=0.2), [(3,)], [], (3,)),
    "PReLU": (lambda: layers.PReLU(shared_axes=[1, 2]), [PICTURE], [(1, 1, 4)], PICTURE),
    "ELU": (layers.ELU, [(3,)], [], (3,)),
    "Softmax": (layers.Softmax, [(3,)], [], (3,)),
    "Conv2D": (
        lambda: layers.Conv2D(8, (3, 2), strides=2, padding="same", activation="relu"),
        [PICTURE],
        [(3, 2, 4, 8), (8,)],
        (3, 3, 8),
    ),
    "Conv2D groups": (
        lambda: layers.Conv2D(6, 3, groups=2, dilation_rate=2, use_bias=False),
        [(7, 6, 4)],
        [(3, 3, 2, 6)],
        (3, 2, 6),
    ),
    "Conv2D first": (
        lambda: layers.Conv2D(8, 3, data_format="channels_first"),
        [(4, 6, 5)],
        [(3, 3, 4, 8), (8,)],
        (8, 4, 3),
    ),
    "DepthwiseConv2D": (
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"),
        [PICTURE],
        [(3, 3, 4, 2), (8,)],
        (6, 5, 8),
    ),
    "SeparableConv2D": (
        lambda: layers.SeparableConv2D(5, 3, depth_multiplier=2, activation="relu"),
        [PICTURE],
        [(3, 3, 4, 2), (1, 1, 8, 5), (5,)],
        (4, 3, 5),
    ),
    "Conv2DTranspose": (
        lambda: layers.Conv2DTranspose(3, 4, strides=2, padding="same"),
        [PICTURE],
        [(4, 4, 3, 4), (3,)],
        (12, 10, 3),
    ),
    "Conv2DTranspose valid": (
        lambda: layers.Conv2DTranspose(3, 3, strides=2, output_padding=1, use_bias=False),
        [PICTURE],
        [(3, 3, 3, 4)],
        (14, 12, 3),
    ),
    "MaxPooling2D": (lambda: layers.MaxPooling2D((3, 3), strides=(2, 2)), [PICTURE], [], (2, 2, 4)),
    "AveragePooling2D": (
        lambda: layers.AveragePooling2D((2, 2), padding="same"),
        [PICTURE],
        [],
        (3, 3, 4),
    ),
    "GlobalAveragePooling2D": (layers.GlobalAveragePooling2D, [PICTURE], [], (4,)),
    "GlobalMaxPooling2D": (
        lambda: layers.GlobalMaxPooling2D(keepdims=True),
        [PICTURE],
        [],
        (1, 1, 4),
    ),
    "GlobalAveragePooling1D": (layers.GlobalAveragePooling1D, [(6, 4)], [], (4,)),
    "BatchNormalization": (layers.BatchNormalization, [PICTURE], [(4,)] * 4, PICTURE),
    "BatchNormalization plain": (
        lambda: layers.BatchNormalization(center=False, scale=False, axis=1),
        [PICTURE],
        [(6,)] * 2,
        PICTURE,
    ),
    "LayerNormalization": (layers.LayerNormalization, [(6, 4)], [(4,)] * 2, (6, 4)),
    "LayerNormalization axes": (
        lambda: layers.LayerNormalization(axis=[1, 2]),
        [PICTURE],
        [(6, 5)] * 2,
        PICTURE,
    ),
    "GroupNormalization": (
        lambda: layers.GroupNormalization(groups=2),
        [PICTURE],
        [(4,)] * 2,
        PICTURE,
    ),
    "Add": (layers.Add, [(3,), (3,), (3,)], [], (3,)),
    "Subtract": (layers.Subtract, [(3,), (3,)], [], (3,)),
    "Multiply": (layers.Multiply, [PICTURE, (1, 1, 4)], [], PICTURE),
    "Average": (layers.Average, [(3,), (3,)], [], (3,)),
    "Maximum": (layers.Maximum, [(3,), (3,)], [], (3,)),
    "Minimum": (layers.Minimum, [(3,), (3,)], [], (3,)),
    "Concatenate": (lambda: layers.Concatenate(axis=-1), [(2, 3), (2, 4)], [], (2, 7)),
    "Flatten": (layers.Flatten, [PICTURE], [], (120,)),
    "Flatten first": (lambda: layers.Flatten("channels_first"), [PICTURE], [], (120,)),
    "Reshape": (lambda: layers.Reshape((30, -1)), [PICTURE], [], (30, 4)),
    "Permute": (lambda: layers.Permute((3, 1, 2)), [PICTURE], [], (4, 6, 5)),
    "RepeatVector": (lambda: layers.RepeatVector(3), [(4,)], [], (3, 4)),
    "ZeroPadding2D": (lambda: layers.ZeroPadding2D(((1, 0), (2, 3))), [PICTURE], [], (7, 10, 4)),
    "Cropping2D": (lambda: layers.Cropping2D(((1, 0), (2, 1))), [PICTURE], [], (5, 2, 4)),
    "UpSampling2D": (lambda: layers.UpSampling2D((2, 3)), [PICTURE], [], (12, 15, 4)),
    "UpSampling2D bilinear": (
        lambda: layers.UpSampling2D(2, interpolation="bilinear"),
        [PICTURE],
        [],
        (12, 10, 4),
    ),
    "Dropout": (lambda: layers.Dropout(0.5, seed=3), [(6,)], [], (6,)),
    "Dropout shared": (lambda: layers.Dropout(0.5, noise_shape=(None, 1, 4)), [(6, 4)], [], (6, 4)),
    "SpatialDropout2D": (lambda: layers.SpatialDropout2D(0.5), [PICTURE], [], PICTURE),
    "GaussianNoise": (lambda: layers.GaussianNoise(0.5), [(6,)], [], (6,)),
}


@pytest.mark.parametrize("name", CASES)
def test_layer(name: str) -> None:
    make, shapes, weights, output = CASES[name]
    check_layer(make, shapes, weights=weights, output=output)


def test_every_layer_is_tested() -> None:
    elsewhere = {"InputLayer", "Embedding", "MultiHeadAttention"}
    assert set(layers.LAYERS) == {name.split()[0] for name in CASES} | elsewhere


def test_embedding(rng: np.random.Generator) -> None:
    check_layer(
        lambda: layers.Embedding(4, 3), [(5,)], weights=[(4, 3)], output=(5, 3), dtype="int32"
    )
    layer = built(layers.Embedding(4, 3), [(None, 2)], rng)
    found = run_layer(layer, [np.array([[3, 0]], np.int32)])[0]
    np.testing.assert_array_equal(found[0], layer.get_weights()[0][[3, 0]])


# -- numbers against PyTorch ----------------------------------------------------------------------


def compare(
    torch: ModuleType,
    layer: Layer,
    inputs: Sequence[np.ndarray[Any, Any]],
    oracle: Callable[..., Any],
    rng: np.random.Generator,
    **arguments: Any,
) -> None:
    """Output and all gradients in float64."""
    xs = [torch.tensor(x, requires_grad=True) for x in inputs]
    ws = [torch.tensor(w.astype(np.float64), requires_grad=True) for w in layer.get_weights()]
    expected = oracle(*xs, *ws)
    cotangent = exact(rng, expected.shape)
    found, d_inputs, d_weights, _ = run_layer(layer, inputs, cotangent, **arguments)
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-6, atol=1e-7)
    expected.backward(torch.tensor(cotangent))
    trained = [w for w, own in zip(ws, layer.weights, strict=True) if own.trainable]
    for got, want in zip([*d_inputs, *d_weights], [*xs, *trained], strict=True):
        np.testing.assert_allclose(got, want.grad.numpy(), rtol=1e-6, atol=1e-6)


def nchw(x: Any) -> Any:
    return x.permute(0, 3, 1, 2)


def nhwc(x: Any) -> Any:
    return x.permute(0, 2, 3, 1)


def test_dense_numbers(torch: ModuleType, rng: np.random.Generator) -> None:
    layer = built(layers.Dense(3), [(None, 5)], rng)
    compare(torch, layer, [exact(rng, (4, 5))], lambda x, k, b: x @ k + b, rng)


@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_numbers(torch: ModuleType, rng: np.random.Generator, groups: int) -> None:
    layer = built(
        layers.Conv2D(6, 3, strides=2, groups=groups, dilation_rate=1), [(None, 7, 6, 4)], rng
    )

    def oracle(x: Any, k: Any, b: Any) -> Any:
        return nhwc(torch.nn.functional.conv2d(nchw(x), k.permute(3, 2, 0, 1), b, 2, groups=groups))

    compare(torch, layer, [exact(rng, (2, 7, 6, 4))], oracle, rng)


def test_same_padding_puts_more_after(torch: ModuleType, rng: np.random.Generator) -> None:
    layer = built(layers.Conv2D(2, 3, strides=2, padding="same"), [(None, 6, 6, 1)], rng)

    def oracle(x: Any, k: Any, b: Any) -> Any:
        padded = torch.nn.functional.pad(nchw(x), (0, 1, 0, 1))
        return nhwc(torch.nn.functional.conv2d(padded, k.permute(3, 2, 0, 1), b, 2))

    compare(torch, layer, [exact(rng, (2, 6, 6, 1))], oracle, rng)


def test_depthwise_numbers(torch: ModuleType, rng: np.random.Generator) -> None:
    layer = built(layers.DepthwiseConv2D(3, depth_multiplier=2), [(None, 6, 5, 4)], rng)

    def oracle(x: Any, k: Any, b: Any) -> Any:
        kernel = k.permute(2, 3, 0, 1).reshape(8, 1, 3, 3)
        return nhwc(torch.nn.functional.conv2d(nchw(x), kernel, b, groups=4))

    compare(torch, layer, [exact(rng, (2, 6, 5, 4))], oracle, rng)


def test_transposed_numbers(torch: ModuleType, rng: np.random.Generator) -> None:
    layer = built(layers.Conv2DTranspose(3, 3, strides=2, padding="same"), [(None, 4, 5, 2)], rng)

    def oracle(x: Any, k: Any, b: Any) -> Any:
        full = torch.nn.functional.conv_transpose2d(nchw(x), k.permute(3, 2, 0, 1), b, 2)
        # "same" with stride 2 and kernel 3 drops the last row and column of the full result.
        return nhwc(full)[:, :8, :10]

    compare(torch, layer, [exact(rng, (2, 4, 5, 2))], oracle, rng)


def test_batch_normalization_numbers(torch: ModuleType, rng: np.random.Generator) -> None:
    layer = built(layers.BatchNormalization(momentum=0.75, epsilon=2**-10), [(None, 4, 3, 5)], rng)
    x = exact(rng, (3, 4, 3, 5))

    def train(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any) -> Any:
        return nhwc(
            torch.nn.functional.batch_norm(
                nchw(x), None, None, gamma, beta, training=True, eps=2**-10
            )
        )

    def infer(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any) -> Any:
        return nhwc(
            torch.nn.functional.batch_norm(
                nchw(x), mean.detach(), variance.detach(), gamma, beta, eps=2**-10
            )
        )

    compare(torch, layer, [x], train, rng, training=True)
    compare(torch, layer, [x], infer, rng, training=False)
    before = layer.get_weights()
    after = run_layer(layer, [x], training=True)[3]
    # Keras moves by the population variance, PyTorch by the sample variance.
    np.testing.assert_allclose(after[2], before[2] * 0.75 + x.mean((0, 1, 2)) * 0.25)
    np.testing.assert_allclose(after[3], before[3] * 0.75 + x.var((0, 1, 2)) * 0.25)
    layer.trainable = False
    frozen = run_layer(layer, [x], training=True)
    np.testing.assert_array_equal(frozen[0], run_layer(layer, [x], training=False)[0])
    np.testing.assert_array_equal(frozen[3][2], before[2])


def test_layer_normalization_numbers(torch: ModuleType, rng: np.random.Generator) -> None:
    layer = built(layers.LayerNormalization(epsilon=2**-10), [(None, 6, 5)], rng)
    compare(
        torch,
        layer,
        [exact(rng, (3, 6, 5))],
        lambda x, g, b: torch.nn.functional.layer_norm(x, (5,), g, b, 2**-10),
        rng,
    )


def test_layer_normalization_of_other_axes(torch: ModuleType, rng: np.random.Generator) -> None:
    layer = built(layers.LayerNormalization(axis=1, epsilon=2**-10), [(None, 6, 5)], rng)

    def oracle(x: Any, g: Any, b: Any) -> Any:
        y = torch.nn.functional.layer_norm(x.transpose(1, 2), (6,), g, b, 2**-10)
        return y.transpose(1, 2)

    compare(torch, layer, [exact(rng, (3, 6, 5))], oracle, rng)


def test_group_normalization_numbers(torch: ModuleType, rng: np.random.Generator) -> None:
    layer = built(layers.GroupNormalization(2, epsilon=2**-10), [(None, 3, 4, 6)], rng)
    compare(
        torch,
        layer,
        [exact(rng, (2, 3, 4, 6))],
        lambda x, g, b: nhwc(torch.nn.functional.group_norm(nchw(x), 2, g, b, 2**-10)),
        rng,
    )


@pytest.mark.parametrize(("causal", "masked"), [(False, False), (True, False), (False, True)])
def test_attention_numbers(
    torch: ModuleType, rng: np.random.Generator, causal: bool, masked: bool
) -> None:
    heads, size, features, steps, others = 2, 3, 4, 5, 5 if causal else 6
    layer = layers.MultiHeadAttention(heads, size, value_dim=2)
    built(layer, [(None, steps, features), (None, others, 3), (None, others, 3)], rng)
    projections = [(4, 2, 3), (2, 3), (3, 2, 3), (2, 3), (3, 2, 2), (2, 2)]
    assert [w.shape for w in layer.weights] == [*projections, (2, 2, 4), (4,)]
    mask = rng.integers(0, 2, (2, steps, others)).astype(bool)
    mask[..., 0] = True

    def oracle(q: Any, v: Any, k: Any, wq: Any, bq: Any, wk: Any, bk: Any, *rest: Any) -> Any:
        wv, bv, wo, bo = rest
        query = torch.einsum("btd,dhk->bhtk", q, wq) + bq[:, None]
        key = torch.einsum("btd,dhk->bhtk", k, wk) + bk[:, None]
        value = torch.einsum("btd,dhk->bhtk", v, wv) + bv[:, None]
        allowed = torch.tensor(mask)[:, None] if masked else None
        y = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=allowed, is_causal=causal
        )
        return torch.einsum("bhtk,hkd->btd", y, wo) + bo

    arrays = [exact(rng, (2, steps, 4)), exact(rng, (2, others, 3)), exact(rng, (2, others, 3))]
    if not masked:
        compare(torch, layer, arrays, oracle, rng, use_causal_mask=causal)
        return
    xs = [torch.tensor(a) for a in arrays]
    ws = [torch.tensor(w.astype(np.float64)) for w in layer.get_weights()]
    found = run_layer(layer, [*arrays, mask])[0]
    np.testing.assert_allclose(found, oracle(*xs, *ws).numpy(), rtol=1e-6, atol=1e-6)


def test_attention_layer() -> None:
    x = layers.Input((5, 8))
    layer = layers.MultiHeadAttention(2, 3, dropout=0.1)
    y, scores = layer(x, x, return_attention_scores=True, use_causal_mask=True)
    assert (y.shape, scores.shape) == ((None, 5, 8), (None, 2, 5, 5))
    assert [path for path, _ in layer.named_weights()] == [
        f"{layer.name}/{part}/{kind}"
        for part in ("query", "key", "value", "attention_output")
        for kind in ("kernel", "bias")
    ]
    assert layer.count_params() == 3 * (8 * 6 + 6) + 6 * 8 + 8
    again = layers.deserialize(layers.serialize(layer))
    assert layers.serialize(again) == layers.serialize(layer)
    assert layers.MultiHeadAttention(2, 3, output_shape=7)(x, x).shape == (None, 5, 7)


def test_poolings_and_activations(torch: ModuleType, rng: np.random.Generator) -> None:
    functional = torch.nn.functional
    x = exact(rng, (2, 6, 5, 3))
    cases: list[tuple[Layer, Callable[[Any], Any]]] = [
        (layers.MaxPooling2D(3, strides=2), lambda t: nhwc(functional.max_pool2d(nchw(t), 3, 2))),
        (layers.AveragePooling2D(2), lambda t: nhwc(functional.avg_pool2d(nchw(t), 2))),
        (layers.GlobalAveragePooling2D(), lambda t: t.mean((1, 2))),
        (layers.GlobalMaxPooling2D(), lambda t: t.amax((1, 2))),
        (layers.UpSampling2D(2), lambda t: nhwc(functional.interpolate(nchw(t), scale_factor=2))),
        (
            layers.UpSampling2D(2, interpolation="bilinear"),
            lambda t: nhwc(
                functional.interpolate(
                    nchw(t), scale_factor=2, mode="bilinear", align_corners=False
                )
            ),
        ),
        (layers.Softmax(), lambda t: t.softmax(-1)),
        (layers.LeakyReLU(0.25), lambda t: functional.leaky_relu(t, 0.25)),
        (layers.ELU(), functional.elu),
        (layers.ReLU(max_value=1.0), lambda t: t.clamp(0, 1)),
        (layers.Activation("gelu"), functional.gelu),
        (layers.Activation("silu"), functional.silu),
        (layers.Activation("mish"), functional.mish),
        (layers.Activation("softplus"), functional.softplus),
        (layers.Activation("softsign"), functional.softsign),
        (layers.Activation("selu"), functional.selu),
        (layers.Activation("hard_silu"), functional.hardswish),
        (layers.Activation("relu6"), functional.relu6),
        (layers.Activation("log_softmax"), lambda t: t.log_softmax(-1)),
        (layers.Flatten("channels_first"), lambda t: nhwc(t).flatten(1)),
    ]
    for layer, oracle in cases:
        layer.ensure_built(x.shape)
        compare(torch, layer, [x], oracle, rng)


# -- mistakes -------------------------------------------------------------------------------------


def test_wrong_rank_names_layer_and_way_out() -> None:
    with pytest.raises(
        ShapeError, match=r"(?s)layer 'stem' \(Conv2D\): needs an input of rank 4.*fix"
    ):
        layers.Conv2D(3, 3, name="stem")(layers.Input((5, 5)))


def test_weights_fix_the_size() -> None:
    layer = layers.Dense(3, name="head")
    layer(layers.Input((5,)))
    with pytest.raises(ShapeError, match=r"(?s)'head' \(Dense\).*size 5 on axis -1, got 6"):
        layer(layers.Input((6,)))


def test_operations_complain_in_the_layers_name() -> None:
    with pytest.raises(ShapeError, match=r"(?s)layer 'join' \(Concatenate\).*\(\?, 2, 3\)"):
        layers.Concatenate(name="join")([layers.Input((2, 3)), layers.Input((4, 5))])
    with pytest.raises(ShapeError, match="'sum'"):
        layers.Add(name="sum")([layers.Input((3,)), layers.Input((4,))])


def test_other_mistakes() -> None:
    with pytest.raises(TypeError, match=r"(?s)Dense: unexpected argument 'bias'.*use_bias"):
        layers.Dense(3, bias=False)
    with pytest.raises(ValueError, match="padding='full'"):
        layers.Conv2D(3, 3, padding="full")
    with pytest.raises(ValueError, match=r"rate=1\.0"):
        layers.Dropout(1.0)
    with pytest.raises(GraphError, match="was called with ndarray"):
        layers.Dense(3)(np.zeros((2, 3), "float32"))
    with pytest.raises(ShapeError, match="120 values cannot have shape"):
        layers.Reshape((7, -1))(layers.Input(PICTURE))
    with pytest.raises(ShapeError, match="merges two tensors or more"):
        layers.Add()(layers.Input((3,)))
    with pytest.raises(ShapeError, match="must be known"):
        layers.Dense(3)(layers.Input((None,)))


def test_dropout_masks(rng: np.random.Generator) -> None:
    layer = layers.Dropout(0.25, seed=5)
    x = np.ones((50, 40), np.float32).astype(np.float64)
    found = run_layer(layer, [x], training=True)[0]
    assert set(np.unique(found.round(5))) == {0.0, 1.33333}
    assert 0.2 < (found == 0).mean() < 0.3
    np.testing.assert_array_equal(run_layer(layer, [x])[0], x)
