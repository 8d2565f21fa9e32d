"""Depthwise convolutions by PyTorch's grouped ones."""

from __future__ import annotations

from tests.ops.oracles.convolution import convolve, gradient, leaf, torch


def _convolve(x, w, weights_layout="HWIO", **settings):
    w = w.permute(3, 2, 0, 1) if weights_layout == "HWIO" else w
    multiplier, channels, height, width = w.shape
    # Channel c's kernels follow each other: c * multiplier + m.
    grouped = w.transpose(0, 1).reshape(channels * multiplier, 1, height, width)
    return convolve(x, grouped, groups=channels, weights_layout="OIHW", **settings)


def _forward(x, w, **settings):
    return _convolve(torch.from_numpy(x), torch.from_numpy(w), **settings).numpy()


def _data(incoming, w, like, **settings):
    x = leaf(like)
    return gradient(_convolve(x, torch.from_numpy(w), **settings), x, incoming)


def _weights(incoming, x, like, **settings):
    w = leaf(like)
    return gradient(_convolve(torch.from_numpy(x), w, **settings), w, incoming)


ORACLES = (
    {}
    if torch is None
    else {
        "depthwise_convolution_2d": _forward,
        "depthwise_convolution_2d_data_gradient": _data,
        "depthwise_convolution_2d_weights_gradient": _weights,
    }
)
