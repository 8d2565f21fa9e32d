"""Known faults of the framework that the double can replay instead of refusing.

By default whatever runs into one is refused, as a device would give wrong numbers without a word.
A test of the quirk handling names the fault, gets the wrong numbers, and shows what avoids them.
"""

FAULTS = {
    "softmax_cross_entropy_gradient": "the selector forgets the incoming gradient",
    "softmax_gradient": "takes its source for the softmax's output, not its input",
    "depthwise_weights_gradient_padding": "the descriptor's padding is not read",
    "integer_gather": "gathered and scattered integers go through float32",
    "pad_gradient_mode": "the padding mode is not read: always a crop",
    "tile_gradient": "wrong numbers",
    "broadcast_zeros": "an extent that is widened from more than 1 is filled with zeros",
    "transpose_convolution_strides": "asymmetric strides are exchanged",
    "feeds_in_given_order": "`feedTensors` follow the dictionary, which hides reliance on it",
    "average_ceil_with_padding": "ceil mode counts pad elements that lie outside of the padding",
}
