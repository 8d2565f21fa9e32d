"""Resizing by PyTorch."""

from __future__ import annotations

import numpy as np

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    torch = None


def _bilinear(x, size, align_corners=False, center_result=True, data_layout="NHWC"):
    if x.size == 0:
        return np.zeros((0, *size, x.shape[-1]))
    if not center_result:
        return _by_matrix(x, size)
    source = torch.from_numpy(x)
    source = source.permute(0, 3, 1, 2) if data_layout == "NHWC" else source
    made = F.interpolate(source, size, mode="bilinear", align_corners=align_corners)
    return (made.permute(0, 2, 3, 1) if data_layout == "NHWC" else made).numpy()


def _by_matrix(x, size):
    """NHWC with corners on corners: hat functions, as a matrix for each axis."""
    for axis, wanted in zip((1, 2), size, strict=True):
        source = x.shape[axis]
        place = np.minimum(np.arange(wanted) * source / wanted, source - 1)
        hats = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(source)))
        x = np.moveaxis(np.tensordot(hats, x, (1, axis)), 0, axis)
    return x


def _nearest(x, size, align_corners=False, center_result=True, data_layout="NHWC"):
    if x.size == 0:
        return np.zeros((0, *size, x.shape[-1]))
    source = torch.from_numpy(x)
    source = source.permute(0, 3, 1, 2) if data_layout == "NHWC" else source
    if align_corners:
        for axis, wanted in zip((2, 3), size, strict=True):
            n = source.shape[axis]
            index = [int(i * (n - 1) / (wanted - 1) + 0.5) for i in range(wanted)]
            source = source.index_select(axis, torch.tensor(index))
        made = source
    else:
        made = F.interpolate(source, size, mode="nearest-exact" if center_result else "nearest")
    return (made.permute(0, 2, 3, 1) if data_layout == "NHWC" else made).numpy()


ORACLES = {} if torch is None else {"resize_nearest": _nearest, "resize_bilinear": _bilinear}
