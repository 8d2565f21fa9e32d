"""What the convolutions mean, in NumPy: matrices of patches, a chunk of the batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from stepgraph.graph.definition import Array
from stepgraph.graph.windows import (
    Pair,
    Window,
    accumulator,
    cropped,
    from_hwio,
    from_nhwc,
    known_output,
    padded,
    patches,
    to_hwio,
    to_nhwc,
)

# Elements of the patch matrix built at a time by the references: 64 MB in float64.
_PATCHES = 1 << 23


def _matrix(weights: Array, groups: int) -> Array:
    """HWIO weights as (groups, taps * in, out of a group)."""
    kh, kw, per_group, out = weights.shape
    split = weights.reshape(kh * kw * per_group, groups, out // groups)
    return split.transpose(1, 0, 2)


def _columns(x: Array, window: Window, output: Pair, groups: int) -> Array:
    """Patches of a padded array as (groups, windows, taps * in of a group)."""
    n, c = x.shape[0], x.shape[3]
    rows = n * output[0] * output[1]
    view = patches(x, window, output)
    if groups == 1:
        return view.reshape(1, rows, window.taps * c)
    split = view.reshape(rows, window.taps, groups, c // groups)
    return split.transpose(2, 0, 1, 3).reshape(groups, rows, window.taps * (c // groups))


def _by_group(y: Array, groups: int) -> Array:
    """(n, h, w, c) as (groups, n * h * w, c of a group)."""
    c = y.shape[3]
    rows = y.shape[0] * y.shape[1] * y.shape[2]
    return y.reshape(rows, groups, c // groups).transpose(1, 0, 2)


def _chunks(batch: int, per_image: int) -> Iterator[slice]:
    """Slices of the batch whose patch matrices stay small."""
    size = max(1, _PATCHES // max(1, per_image))
    for start in range(0, batch, size):
        yield slice(start, start + size)


def forward(x: Array, w: Array, window: Window, groups: int) -> Array:
    """Convolution of NHWC data with HWIO weights."""
    n, h, width, c = x.shape
    output = known_output(window, (h, width))
    x = padded(x, window.pads((h, width)))
    result = np.zeros((n, *output, w.shape[3]), x.dtype)
    matrix = _matrix(w, groups)
    for part in _chunks(n, output[0] * output[1] * window.taps * c):
        made = np.matmul(_columns(x[part], window, output, groups), matrix)
        result[part] = made.transpose(1, 0, 2).reshape(result[part].shape)
    return result


def backward_data(grad: Array, w: Array, window: Window, groups: int, sizes: Pair) -> Array:
    """Gradient of `forward` with respect to its data, whose height and width are `sizes`."""
    n, output = grad.shape[0], (grad.shape[1], grad.shape[2])
    c = w.shape[2] * groups
    pads = window.pads(sizes)
    (top, bottom), (left, right) = pads
    result = np.zeros((n, sizes[0] + top + bottom, sizes[1] + left + right, c), grad.dtype)
    matrix = _matrix(w, groups).transpose(0, 2, 1)
    for part in _chunks(n, output[0] * output[1] * window.taps * c):
        made = np.matmul(_by_group(grad[part], groups), matrix)
        count = grad[part].shape[0]
        split = made.reshape(groups, count, *output, *window.kernel, c // groups)
        for i, j, index in window.slices(output):
            seen = split[:, :, :, :, i, j].transpose(1, 2, 3, 0, 4)
            result[part][index] += seen.reshape(count, *output, c)
    return cropped(result, pads)


def backward_weights(grad: Array, x: Array, window: Window, groups: int) -> Array:
    """Gradient of `forward` with respect to its weights, in HWIO."""
    n, h, width, c = x.shape
    output, out = (grad.shape[1], grad.shape[2]), grad.shape[3]
    x = padded(x, window.pads((h, width)))
    total = np.zeros((groups, window.taps * (c // groups), out // groups), x.dtype)
    for part in _chunks(n, output[0] * output[1] * window.taps * c):
        columns = _columns(x[part], window, output, groups)
        total += np.matmul(columns.transpose(0, 2, 1), _by_group(grad[part], groups))
    return total.transpose(1, 0, 2).reshape(*window.kernel, c // groups, out)


def _prepared(attributes: dict[str, Any], data: tuple[Array, ...], weights: Array) -> Any:
    """Data in NHWC, weights in HWIO, in the dtype to add up in, and the window."""
    dtype = accumulator(weights.dtype)
    arrays = [to_nhwc(x, attributes["data_layout"]).astype(dtype, copy=False) for x in data]
    w = to_hwio(weights, attributes["weights_layout"]).astype(dtype, copy=False)
    return *arrays, w, Window.of(w.shape[:2], attributes)


def reference(source: Array, weights: Array, **attributes: Any) -> Array:
    """Meaning of `convolution_2d`."""
    x, w, window = _prepared(attributes, (source,), weights)
    made = forward(x, w, window, attributes["groups"]).astype(source.dtype, copy=False)
    return from_nhwc(made, attributes["data_layout"])


def data_gradient_reference(
    incoming: Array,
    weights: Array,
    like: Array | None = None,
    *,
    output_size: Pair | None,
    **attributes: Any,
) -> Array:
    """Meaning of `convolution_2d_data_gradient`."""
    grad, w, window = _prepared(attributes, (incoming,), weights)
    if like is not None:
        output_size = to_nhwc(like, attributes["data_layout"]).shape[1:3]
    assert output_size is not None
    made = backward_data(grad, w, window, attributes["groups"], output_size)
    return from_nhwc(made.astype(incoming.dtype, copy=False), attributes["data_layout"])


def weights_gradient_reference(
    incoming: Array, source: Array, like: Array, **attributes: Any
) -> Array:
    """Meaning of `convolution_2d_weights_gradient`."""
    grad, x, _, window = _prepared(attributes, (incoming, source), like)
    made = backward_weights(grad, x, window, attributes["groups"])
    return from_hwio(made.astype(incoming.dtype, copy=False), attributes["weights_layout"])
