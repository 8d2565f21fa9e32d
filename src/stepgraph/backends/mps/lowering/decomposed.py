"""Families of which every op is spelt out in simpler ones, and why."""

from __future__ import annotations

LIKE: dict[str, str] = {
    "fill_like": "a constant once the sizes are known",
    "broadcast_like": "a broadcast once the sizes are known",
    "sum_to_like": "a sum once the sizes are known",
    "reshape_like": "a reshape once the sizes are known",
    "element_count": "a constant once the sizes are known",
}

LOSS: dict[str, str] = {
    "softmax_cross_entropy": "softMaxCrossEntropy does not say the shape of its result, nor what "
    "its mean divides by",
    "softmax_cross_entropy_gradient": "softMaxCrossEntropyGradient was seen to be wrong",
}

RANDOM: dict[str, str] = {
    "random_bits": "MPSGraph's numbers are not specified: our own Philox in 32-bit integers",
    "random_uniform": "made of random_bits",
    "random_normal": "made of random_bits",
    "random_uniform_like": "made of random_bits",
    "random_normal_like": "made of random_bits",
    "dropout": "made of random_bits; how dropoutTensor scales is not specified",
}

ONE_HOT: dict[str, str] = {
    "one_hot": "what oneHot gives for an index outside is not specified: a comparison",
}

RESIZE: dict[str, str] = {
    "resize_nearest": "how resizeNearest rounds is not specified: a gather",
    "resize_nearest_gradient": "a scatter",
    "resize_bilinear": "which neighbours resizeBilinear takes is not specified: gathers",
    "resize_bilinear_gradient": "a scatter",
}

ATTENTION: dict[str, str] = {
    "multi_head_attention": "scaledDotProductAttention is younger than the systems we run on: "
    "products and a softmax",
    "multi_head_attention_gradient": "MPSGraph has none: products and the softmax",
}

DECOMPOSED: dict[str, str] = {**LIKE, **LOSS, **RANDOM, **ONE_HOT, **RESIZE, **ATTENTION}
