"""Convolutions by PyTorch; their gradients by PyTorch's own differentiation."""

from __future__ import annotations

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = None


def pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


def pads_of(sizes, kernel, strides, dilations, padding, explicit_padding):
    """(left, right, top, bottom), from TensorFlow's definition of its padding schemes."""
    if padding == "explicit":
        (top, bottom), (left, right) = explicit_padding
        return left, right, top, bottom
    found = []
    for size, taps, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        extent = (taps - 1) * dilation + 1
        if padding.lower() in ("same", "tf_same"):
            rest = size % stride or stride
            total = max(extent - rest, 0)
            found.append((total // 2, total - total // 2))
        else:
            found.append((0, 0))
    (top, bottom), (left, right) = found
    return left, right, top, bottom


def convolve(
    x,
    w,
    strides=1,
    dilations=1,
    groups=1,
    padding="TF_VALID",
    explicit_padding=None,
    data_layout="NHWC",
    weights_layout="HWIO",
):
    """On torch tensors, differentiable."""
    x = x.permute(0, 3, 1, 2) if data_layout == "NHWC" else x
    w = w.permute(3, 2, 0, 1) if weights_layout == "HWIO" else w
    strides, dilations = pair(strides), pair(dilations)
    pads = pads_of(x.shape[2:], w.shape[2:], strides, dilations, padding, explicit_padding)
    y = F.conv2d(F.pad(x, pads), w, None, strides, 0, dilations, groups)
    return y.permute(0, 2, 3, 1) if data_layout == "NHWC" else y


def gradient(output, wanted, incoming):
    if not output.numel():
        return torch.zeros_like(wanted).numpy()
    return torch.autograd.grad(output, wanted, torch.from_numpy(incoming))[0].numpy()


def leaf(x):
    return torch.from_numpy(x).requires_grad_()


def _forward(x, w, **settings):
    return convolve(torch.from_numpy(x), torch.from_numpy(w), **settings).numpy()


def _data(incoming, w, like=None, output_size=None, **settings):
    if like is None:
        like = torch.zeros(incoming.shape[0], *output_size, w.shape[2], dtype=torch.float64)
        like = like.numpy()
    x = leaf(like)
    return gradient(convolve(x, torch.from_numpy(w), **settings), x, incoming)


def _weights(incoming, x, like, **settings):
    w = leaf(like)
    return gradient(convolve(torch.from_numpy(x), w, **settings), w, incoming)


ORACLES = (
    {}
    if torch is None
    else {
        "convolution_2d": _forward,
        "convolution_2d_data_gradient": _data,
        "convolution_2d_weights_gradient": _weights,
    }
)
