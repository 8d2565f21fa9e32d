"""From operations to launches: fused loops here, one file per op family beside it."""

from stepgraph.backends.cpu.lowering import (
    attention,
    convolution,
    depthwise,
    gather,
    matrix_multiplication,
    pooling,
    random,
    reduction,
    slicing,
    softmax,
    tensor_shape,
)

FAMILIES = (
    attention,
    convolution,
    depthwise,
    gather,
    matrix_multiplication,
    pooling,
    random,
    reduction,
    slicing,
    softmax,
    tensor_shape,
)
