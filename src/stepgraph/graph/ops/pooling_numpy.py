"""What a pooling is given and what it means, in NumPy: one pass over the array per tap."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepgraph.graph.definition import Array
from stepgraph.graph.windows import (
    PadsLike,
    Pair,
    PairLike,
    Window,
    accumulator,
    as_pair,
    counts,
    cropped,
    from_nhwc,
    known_output,
    padded,
    to_nhwc,
    window_attributes,
)


def pooling_window(attributes: dict[str, Any]) -> Window:
    """The window that a pooling's attributes describe."""
    return Window.of(attributes["kernel_size"], attributes)


def max_reference(source: Array, **attributes: Any) -> Array:
    """Meaning of `max_pooling_2d`."""
    x, window = to_nhwc(source, attributes["data_layout"]), pooling_window(attributes)
    sizes = (x.shape[1], x.shape[2])
    output = known_output(window, sizes)
    x = padded(x, window.pads(sizes), -np.inf)
    made = np.full((x.shape[0], *output, x.shape[3]), -np.inf, x.dtype)
    for _, _, index in window.slices(output):
        np.maximum(made, x[index], out=made)
    return from_nhwc(made, attributes["data_layout"])


def _places(x: Array, window: Window, output: Pair) -> Array:
    """For each window of an NHWC array, the tap that sees the first maximum; NaN counts as one."""
    pads = window.pads((x.shape[1], x.shape[2]))
    # Padding never wins, not even where everything else is -inf too.
    real = padded(np.ones((1, x.shape[1], x.shape[2], 1), bool), pads, False)
    x = padded(x, pads, -np.inf)
    best = np.full((x.shape[0], *output, x.shape[3]), -np.inf, x.dtype)
    place = np.full(best.shape, -1, np.int64)
    for tap, (_, _, index) in enumerate(window.slices(output)):
        seen = x[index]
        wins = (seen > best) | (np.isnan(seen) & ~np.isnan(best)) | (place < 0)
        wins &= real[index]
        np.copyto(best, seen, where=wins)
        np.copyto(place, tap, where=wins)
    return place


def max_gradient_reference(incoming: Array, source: Array, **attributes: Any) -> Array:
    """Meaning of `max_pooling_2d_gradient`."""
    layout, window = attributes["data_layout"], pooling_window(attributes)
    grad, x = to_nhwc(incoming, layout), to_nhwc(source, layout)
    output = (grad.shape[1], grad.shape[2])
    pads = window.pads((x.shape[1], x.shape[2]))
    place = _places(x, window, output)
    result = padded(np.zeros_like(x, dtype=accumulator(x.dtype), order="C"), pads)
    for tap, (_, _, index) in enumerate(window.slices(output)):
        result[index] += np.where(place == tap, grad, 0)
    return from_nhwc(cropped(result, pads).astype(source.dtype, copy=False), layout)


def at_maximum_reference(values: Array, source: Array, **attributes: Any) -> Array:
    """Meaning of `max_pooling_2d_at_maximum`."""
    layout, window = attributes["data_layout"], pooling_window(attributes)
    v, x = to_nhwc(values, layout), to_nhwc(source, layout)
    sizes = (x.shape[1], x.shape[2])
    output = known_output(window, sizes)
    place = _places(x, window, output)
    v = padded(v, window.pads(sizes))
    made = np.zeros((x.shape[0], *output, x.shape[3]), values.dtype)
    for tap, (_, _, index) in enumerate(window.slices(output)):
        np.copyto(made, v[index], where=place == tap)
    return from_nhwc(made, layout)


def avg_reference(source: Array, *, include_zero_pad_to_average: bool, **attributes: Any) -> Array:
    """Meaning of `avg_pooling_2d`."""
    x, window = to_nhwc(source, attributes["data_layout"]), pooling_window(attributes)
    sizes = (x.shape[1], x.shape[2])
    output = known_output(window, sizes)
    x = padded(x, window.pads(sizes))
    total = np.zeros((x.shape[0], *output, x.shape[3]), accumulator(x.dtype))
    for _, _, index in window.slices(output):
        total += x[index]
    total /= counts(window, sizes, include_zero_pad_to_average)
    return from_nhwc(total.astype(source.dtype, copy=False), attributes["data_layout"])


def avg_gradient_reference(
    incoming: Array, like: Array, *, include_zero_pad_to_average: bool, **attributes: Any
) -> Array:
    """Meaning of `avg_pooling_2d_gradient`."""
    layout, window = attributes["data_layout"], pooling_window(attributes)
    n, height, width, c = to_nhwc(like, layout).shape
    pads, dtype = window.pads((height, width)), accumulator(incoming.dtype)
    share = to_nhwc(incoming, layout) / counts(window, (height, width), include_zero_pad_to_average)
    result = padded(np.zeros((n, height, width, c), dtype), pads)
    for _, _, index in window.slices((share.shape[1], share.shape[2])):
        result[index] += share
    return from_nhwc(cropped(result, pads).astype(incoming.dtype, copy=False), layout)


def pooling_attributes(
    kernel_size: PairLike,
    strides: PairLike | None,
    padding: str,
    explicit_padding: PadsLike,
    data_layout: str,
) -> dict[str, Any]:
    """The attributes stored, from what a user may write."""
    kernel = as_pair(kernel_size, "kernel_size")
    rest = window_attributes(
        kernel if strides is None else strides, padding, explicit_padding, data_layout
    )
    return {"kernel_size": kernel, **rest}
