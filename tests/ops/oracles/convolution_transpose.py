"""Transposed convolutions by PyTorch's own, laid into a frame and cut as the padding says."""

from __future__ import annotations

from tests.ops.oracles.convolution import pads_of, pair, torch

if torch is not None:
    import torch.nn.functional as F


def _transposed(
    x,
    w,
    output_shape=None,
    strides=1,
    dilations=1,
    groups=1,
    padding="TF_VALID",
    explicit_padding=None,
    data_layout="NHWC",
    weights_layout="HWIO",
):
    x, w = torch.from_numpy(x), torch.from_numpy(w)
    x = x.permute(0, 3, 1, 2) if data_layout == "NHWC" else x
    w = w.permute(3, 2, 0, 1) if weights_layout == "HWIO" else w
    strides, dilations = pair(strides), pair(dilations)
    full = F.conv_transpose2d(x, w, None, strides, 0, 0, groups, dilations)
    extents = [(w.shape[2 + i] - 1) * dilations[i] + 1 for i in range(2)]
    if output_shape is None and padding == "explicit":
        (top, bottom), (left, right) = explicit_padding
        output_shape = full.shape[2] - top - bottom, full.shape[3] - left - right
    elif output_shape is None:
        pairs = zip(extents, strides, strict=True)
        grown = [max(e - s, 0) if padding == "TF_VALID" else 0 for e, s in pairs]
        output_shape = [x.shape[2 + i] * strides[i] + grown[i] for i in range(2)]
    left, _, top, _ = pads_of(
        output_shape, w.shape[2:], strides, dilations, padding, explicit_padding
    )
    height, width = output_shape
    # Pixels that no tap reaches are zero.
    framed = F.pad(full, (0, max(strides) + width, 0, max(strides) + height))
    y = framed[:, :, top : top + height, left : left + width]
    return (y.permute(0, 2, 3, 1) if data_layout == "NHWC" else y).numpy()


ORACLES = {} if torch is None else {"convolution_transpose_2d": _transposed}
