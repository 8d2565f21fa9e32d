"""Bilinear resizing and channel conversion of image arrays, in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepgraph.errors import DataError, describe

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's "L"
_CHUNK = 512  # images at a time: bounds the float copy to some megabytes


def bilinear_weights(source: int, target: int) -> NDArray[np.float64]:
    """Returns the matrix ``(target, source)`` that resizes a line of pixels.

    A triangle filter at half-pixel centres; shrinking widens it by the scale, so every source
    pixel counts (what Pillow's ``BILINEAR`` does). Rows sum to 1.

    Example:
        >>> bilinear_weights(2, 4).tolist()
        [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    scale = source / target
    support = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale
    pixels = np.arange(source) + 0.5
    distance = np.abs(pixels[np.newaxis, :] - centres[:, np.newaxis]) / support
    weights = np.maximum(1.0 - distance, 0.0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float64)


def resize(images: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Resizes ``(N, H, W, C)`` images; the dtype stays, uint8 is rounded.

    Raises:
        DataError: `height` or `width` is not positive.

    Example:
        >>> resize(np.full((1, 8, 8, 1), 9, np.uint8), 32, 16).shape
        (1, 32, 16, 1)
    """
    if height < 1 or width < 1:
        raise DataError(describe("resize", f"cannot make {height}x{width} images"))
    count, old_height, old_width, channels = images.shape
    if (old_height, old_width) == (height, width):
        return images
    rows = bilinear_weights(old_height, height).astype(np.float32)
    columns = bilinear_weights(old_width, width).astype(np.float32)
    result = np.empty((count, height, width, channels), images.dtype)
    for start in range(0, count, _CHUNK):
        part = images[start : start + _CHUNK].astype(np.float32)
        # Rows first, over (W * C) at once; then columns, over C.
        tall = np.matmul(rows, part.reshape(len(part), old_height, old_width * channels))
        full = np.matmul(columns, tall.reshape(len(part), height, old_width, channels))
        if images.dtype == np.uint8:
            full = np.clip(np.floor(full + np.float32(0.5)), 0, 255)
        result[start : start + _CHUNK] = full
    return result


def convert_channels(images: NDArray[Any], channels: int | None) -> NDArray[Any]:
    """Turns grey ``(..., 1)`` images into colour ``(..., 3)`` or back.

    Raises:
        DataError: for any other pair of channel counts.

    Example:
        >>> convert_channels(np.zeros((1, 2, 2, 1), np.uint8), 3).shape
        (1, 2, 2, 3)
    """
    have = images.shape[-1]
    if channels is None or channels == have:
        return images
    if (have, channels) == (1, 3):
        return np.repeat(images, 3, axis=-1)
    if (have, channels) == (3, 1):
        grey = sum(
            images[..., c : c + 1].astype(np.float32) * np.float32(_LUMA[c]) for c in range(3)
        )
        rounded = np.floor(grey + np.float32(0.5)) if images.dtype == np.uint8 else grey
        return np.asarray(rounded).astype(images.dtype)
    raise DataError(
        describe(
            "convert channels",
            f"no way from {have} to {channels} channels",
            expected="1 to 3 or 3 to 1",
        )
    )
