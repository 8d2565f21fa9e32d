"""How a tensor's numbers lie in memory.

- ``rows``: row-major, as NumPy has it.
- ``panels``: the last axis (channels) cut into panels of 16: ``[C/16][M][16]``, M all other axes
  together. A kernel that walks down a panel reads contiguous memory and keeps what belongs to a
  channel in one register.
- ``weights``: a convolution's HWIO weights as ``[O/16][I/16][taps][16 i][16 o]``, so that the
  product's inner loop reads contiguous memory.
- ``stem``: weights of a convolution over few channels: ``[O/16][kh][kw*I][16 o]``.
- ``columns``: a matrix (K, N) as ``[N/16][K][16]``: the second operand of a product.

Lanes past the last channel hold zeros, always: products and sums over channels rely on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stepgraph.graph.definition import Array

LANES = 16


def panels_of(channels: int) -> int:
    """How many panels of 16 cover the channels."""
    return -(-channels // LANES)


def _rows_count(shape: tuple[int, ...]) -> int:
    return math.prod(shape)


def _split(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and channels."""
    return math.prod(shape[:-1]), shape[-1]


def _pad(array: Array, axis: int, size: int) -> Array:
    missing = size - array.shape[axis]
    if not missing:
        return array
    widths = [(0, missing if i == axis else 0) for i in range(array.ndim)]
    return np.pad(array, widths)


def _panels_count(shape: tuple[int, ...]) -> int:
    rows, channels = _split(shape)
    return panels_of(channels) * rows * LANES


def _panels_pack(array: Array) -> Array:
    rows, channels = _split(array.shape)
    n = panels_of(channels)
    flat = _pad(array.reshape(rows, channels), 1, n * LANES)
    return np.ascontiguousarray(flat.reshape(rows, n, LANES).transpose(1, 0, 2)).reshape(-1)


def _panels_unpack(flat: Array, shape: tuple[int, ...]) -> Array:
    rows, channels = _split(shape)
    n = panels_of(channels)
    whole = flat.reshape(n, rows, LANES).transpose(1, 0, 2).reshape(rows, n * LANES)
    return np.ascontiguousarray(whole[:, :channels]).reshape(shape)


def _hwio(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A matrix (K, N) is a 1 x 1 kernel."""
    kh, kw, i, o = (1, 1, *shape)[-4:]
    return kh, kw, i, o


def _weights_count(shape: tuple[int, ...]) -> int:
    kh, kw, i, o = _hwio(shape)
    return panels_of(o) * panels_of(i) * kh * kw * LANES * LANES


def _weights_pack(array: Array) -> Array:
    kh, kw, i, o = _hwio(array.shape)
    ni, no = panels_of(i), panels_of(o)
    whole = _pad(_pad(array.reshape(kh, kw, i, o), 2, ni * LANES), 3, no * LANES)
    parts = whole.reshape(kh * kw, ni, LANES, no, LANES).transpose(3, 1, 0, 2, 4)
    return np.ascontiguousarray(parts).reshape(-1)


def _weights_unpack(flat: Array, shape: tuple[int, ...]) -> Array:
    kh, kw, i, o = _hwio(shape)
    ni, no = panels_of(i), panels_of(o)
    whole = flat.reshape(no, ni, kh * kw, LANES, LANES).transpose(2, 1, 3, 0, 4)
    kept = whole.reshape(kh, kw, ni * LANES, no * LANES)[:, :, :i, :o]
    return np.ascontiguousarray(kept).reshape(shape)


def _stem_count(shape: tuple[int, ...]) -> int:
    kh, kw, i, o = shape
    return panels_of(o) * kh * kw * i * LANES


def _stem_pack(array: Array) -> Array:
    kh, kw, i, o = array.shape
    no = panels_of(o)
    whole = _pad(array, 3, no * LANES).reshape(kh * kw * i, no, LANES)
    return np.ascontiguousarray(whole.transpose(1, 0, 2)).reshape(-1)


def _stem_unpack(flat: Array, shape: tuple[int, ...]) -> Array:
    kh, kw, i, o = shape
    no = panels_of(o)
    whole = flat.reshape(no, kh * kw * i, LANES).transpose(1, 0, 2).reshape(kh, kw, i, no * LANES)
    return np.ascontiguousarray(whole[..., :o])


@dataclass(frozen=True)
class Layout:
    """A way to lay a tensor out.

    Attributes:
        name: as above.
        count: shape to number of elements stored.
        pack: row-major array to the stored elements, flat.
        unpack: stored elements and shape to the row-major array.
    """

    name: str
    count: Callable[[tuple[int, ...]], int]
    pack: Callable[[Array], Array]
    unpack: Callable[[Array, tuple[int, ...]], Array]

    def __repr__(self) -> str:
        return self.name


ROWS = Layout(
    "rows",
    _rows_count,
    lambda array: np.ascontiguousarray(array).reshape(-1),
    lambda flat, shape: flat.reshape(shape),
)
PANELS = Layout("panels", _panels_count, _panels_pack, _panels_unpack)
WEIGHTS = Layout("weights", _weights_count, _weights_pack, _weights_unpack)
STEM = Layout("stem", _stem_count, _stem_pack, _stem_unpack)
COLUMNS = Layout("columns", _panels_count, _panels_pack, _panels_unpack)

LAYOUTS = {layout.name: layout for layout in (ROWS, PANELS, WEIGHTS, STEM, COLUMNS)}


def same_places(shape: tuple[int, ...], first: Layout, second: Layout) -> bool:
    """Whether two layouts put every number of a tensor in the same place.

    Example:
        >>> same_places((1, 1, 32), ROWS, PANELS), same_places((4, 16), PANELS, ROWS)
        (True, True)
        >>> same_places((4, 32), ROWS, PANELS), same_places((1, 10), ROWS, PANELS)
        (False, False)
    """
    if {first, second} != {ROWS, PANELS} or not shape or shape[-1] % LANES:
        return first is second
    return shape[-1] == LANES or math.prod(shape[:-1]) == 1
