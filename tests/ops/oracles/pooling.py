"""Poolings by PyTorch; their gradients by PyTorch's own differentiation."""

from __future__ import annotations

import numpy as np

from tests.ops.oracles.convolution import gradient, leaf, pads_of, pair, torch

if torch is not None:
    import torch.nn.functional as F


def _settings(x, kernel_size, strides, padding, explicit_padding):
    kernel = pair(kernel_size)
    strides = kernel if strides is None else pair(strides)
    pads = pads_of(x.shape[2:], kernel, strides, (1, 1), padding, explicit_padding)
    return kernel, strides, pads


def _max(x, kernel_size, strides=None, padding="valid", explicit_padding=None, data_layout="NHWC"):
    x = x.permute(0, 3, 1, 2) if data_layout == "NHWC" else x
    kernel, strides, pads = _settings(x, kernel_size, strides, padding, explicit_padding)
    if not x.numel():
        x = x.new_zeros(1, *x.shape[1:])[:0]
        sizes = [(x.shape[2 + i] - kernel[i]) // strides[i] + 1 for i in range(2)]
        y = x.new_zeros(0, x.shape[1], *sizes)
    else:
        y = F.max_pool2d(F.pad(x, pads, value=-torch.inf), kernel, strides)
    return y.permute(0, 2, 3, 1) if data_layout == "NHWC" else y


def _avg(
    x,
    kernel_size,
    strides=None,
    padding="valid",
    explicit_padding=None,
    data_layout="NHWC",
    include_zero_pad_to_average=False,
):
    x = x.permute(0, 3, 1, 2) if data_layout == "NHWC" else x
    kernel, strides, pads = _settings(x, kernel_size, strides, padding, explicit_padding)
    # The sum as a convolution with ones, channel by channel; its divisor likewise.
    ones = x.new_ones(x.shape[1], 1, *kernel)
    total = F.conv2d(F.pad(x, pads), ones, stride=strides, groups=x.shape[1])
    seen = x.new_ones(1, 1, *x.shape[2:])
    count = F.conv2d(F.pad(seen, pads), ones[:1], stride=strides)
    y = total / (kernel[0] * kernel[1] if include_zero_pad_to_average else count)
    return y.permute(0, 2, 3, 1) if data_layout == "NHWC" else y


def _max_gradient(incoming, source, **settings):
    if np.isinf(source).all():
        # PyTorch's padding is -inf too and could be taken for a maximum.
        source = np.zeros_like(source)
    x = leaf(source)
    return gradient(_max(x, **settings), x, incoming)


def _avg_gradient(incoming, like, **settings):
    x = leaf(like)
    return gradient(_avg(x, **settings), x, incoming)


def _at_maximum(values, source, **settings):
    """The derivative of the maximum in the direction of the values, by double differentiation."""
    constant = np.full_like(source, 0.0)
    x = leaf(constant if not np.isfinite(source).all() else source)
    y = _max(x, **settings)
    if not y.numel():
        return y.detach().numpy()
    seed = torch.zeros_like(y, requires_grad=True)
    back = torch.autograd.grad(y, x, seed, create_graph=True)[0]
    return torch.autograd.grad(back, seed, torch.from_numpy(values))[0].numpy()


ORACLES = (
    {}
    if torch is None
    else {
        "max_pooling_2d": lambda x, **settings: _max(torch.from_numpy(x), **settings).numpy(),
        "max_pooling_2d_gradient": _max_gradient,
        "max_pooling_2d_at_maximum": _at_maximum,
        "avg_pooling_2d": lambda x, **settings: _avg(torch.from_numpy(x), **settings).numpy(),
        "avg_pooling_2d_gradient": _avg_gradient,
    }
)
