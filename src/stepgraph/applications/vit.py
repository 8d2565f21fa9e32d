"""A small vision transformer."""

from __future__ import annotations

from stepgraph.errors import ShapeError, describe
from stepgraph.initializers import TruncatedNormal
from stepgraph.layers import (
    Add,
    Conv2D,
    Dense,
    Dropout,
    GlobalAveragePooling1D,
    Input,
    KerasTensor,
    LayerNormalization,
    MultiHeadAttention,
    PositionEmbedding,
    Reshape,
)
from stepgraph.models import Model


def ViT(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    patch: int = 4,
    dim: int = 128,
    depth: int = 6,
    heads: int = 4,
    mlp_dim: int = 256,
    dropout: float = 0.0,
    name: str = "vit",
) -> Model:
    """Patches as tokens, learnt positions, pre-norm blocks of attention and GELU, mean pooling.

    The mean over the tokens stands where the paper has a class token: it needs no token of its own
    and trains better at this size (Beyer et al. 2022, https://arxiv.org/abs/2205.01580).

    Args:
        input_shape: (height, width, channels); sizes divisible by `patch`.
        classes: number of classes.
        patch: height and width of a patch.
        dim: features of a token; a multiple of `heads`.
        depth: number of blocks.
        heads: of the attention, each ``dim / heads`` wide.
        mlp_dim: hidden units of a block's two dense layers.
        dropout: rate after attention and dense layers; 0 leaves it out.
        name: of the model.

    Returns:
        A model whose output is probabilities, shape ``(batch, classes)``. By default it has 810,890
        parameters: with d = dim, m = mlp_dim, n tokens and p values in a patch
        ``(p d + d) + n d + depth (4 (d d + d) + 4 d + 2 d m + m + d) + 2 d + (d + 1) classes``.

    Raises:
        ShapeError: the sizes do not divide.

    Source: Dosovitskiy et al. 2020 (https://arxiv.org/abs/2010.11929).

    Example:
        >>> ViT().count_params()
        810890
    """
    height, width = input_shape[:2]
    if height % patch or width % patch or dim % heads:
        raise ShapeError(
            describe(
                "ViT",
                "these sizes do not divide",
                got={
                    "pictures": f"{height}x{width}",
                    "patch": f"{patch}x{patch}",
                    "dim": dim,
                    "heads": heads,
                },
                expected="pictures a multiple of patch, dim a multiple of heads",
            )
        )
    tokens = (height // patch) * (width // patch)
    x = inputs = Input(input_shape)
    x = Conv2D(dim, patch, strides=patch, name="patches")(x)
    x = Reshape((tokens, dim), name="tokens")(x)
    places = PositionEmbedding(tokens, TruncatedNormal(stddev=0.02), name="positions")(x)
    x = Add(name="placed")([x, places])
    for block in range(1, depth + 1):
        x = _block(x, dim, heads, mlp_dim, dropout, f"block{block}")
    x = _norm(x, "norm")
    x = GlobalAveragePooling1D(name="pool")(x)
    x = Dense(classes, activation="softmax", name="classifier")(x)
    return Model(inputs, x, name=name)


def _block(
    x: KerasTensor, dim: int, heads: int, mlp_dim: int, dropout: float, name: str
) -> KerasTensor:
    y = _norm(x, f"{name}_norm1")
    y = MultiHeadAttention(heads, dim // heads, name=f"{name}_attention")(y, y)
    x = Add(name=f"{name}_add1")([x, _drop(y, dropout, f"{name}_dropout1")])
    y = _norm(x, f"{name}_norm2")
    y = Dense(mlp_dim, activation="gelu", name=f"{name}_mlp1")(y)
    y = Dense(dim, name=f"{name}_mlp2")(_drop(y, dropout, f"{name}_dropout2"))
    found: KerasTensor = Add(name=f"{name}_add2")([x, _drop(y, dropout, f"{name}_dropout3")])
    return found


def _norm(x: KerasTensor, name: str) -> KerasTensor:
    found: KerasTensor = LayerNormalization(epsilon=1e-6, name=name)(x)
    return found


def _drop(x: KerasTensor, rate: float, name: str) -> KerasTensor:
    return Dropout(rate, name=name)(x) if rate else x
