"""Between rows and the layouts of weights: a copy for each corner of whole and part panels."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from stepgraph.backends.cpu.layouts import LANES, ROWS, STEM, WEIGHTS, panels_of
from stepgraph.backends.cpu.plan import Buffer
from stepgraph.backends.cpu.views import View, constant, copy, row_major, view

if TYPE_CHECKING:
    from stepgraph.backends.cpu.lower import Lowering


def convert_weights(ctx: Lowering, source: Buffer, target: Buffer) -> bool:
    """Adds the steps that convert; False if it is not between rows and weights or a stem."""
    packed, rows = (source, target) if target.layout is ROWS else (target, source)
    if rows.layout is not ROWS or packed.layout not in (WEIGHTS, STEM) or not rows.count:
        return False
    kh, kw, inputs, outputs = (1, 1, *rows.shape)[-4:]
    if packed.layout is STEM:
        # All taps and inputs of an output panel lie behind each other: one tap, no input panels.
        taps, inputs, deep = 1, kh * kw * inputs, kh * kw * inputs
    else:
        taps, deep = kh * kw, LANES
    lead = () if len(rows.shape) <= 4 else rows.shape[:-4]
    if prod(lead) != 1:
        return False
    sizes = (panels_of(outputs), -(-inputs // deep), taps, deep, LANES)
    whole = View(packed, sizes, row_major(sizes))
    flat = view(rows, (taps, inputs, outputs))
    name = f"{source.layout} to {target.layout}"
    into = packed is target
    filled = into and bool(inputs % deep or outputs % LANES)
    if filled:
        zero = constant(np.zeros((), packed.dtype.numpy), f"{target.name}/zero")
        copy(ctx, view(zero).broadcast(sizes), whole, f"{name}: zeros")
    first = not filled
    for i, ni, li in _parts(inputs, deep):
        for o, no, lo in _parts(outputs, LANES):
            corner = whole.sliced(0, o, no).sliced(1, i, ni).sliced(3, 0, li).sliced(4, 0, lo)
            piece = flat.sliced(1, i * deep, ni * li).sliced(2, o * LANES, no * lo)
            piece = piece.split(1, (ni, li)).split(3, (no, lo)).permuted((3, 1, 0, 2, 4))
            if into:
                copy(ctx, piece, corner, name, part=not first)
            else:
                copy(ctx, corner, piece, name, part=not first)
            first = False
    return True


def _parts(size: int, width: int) -> list[tuple[int, int, int]]:
    """(first panel, panels, elements used of each): the whole ones, then the last in part."""
    full, rest = divmod(size, width)
    found = [(0, full, width)] if full else []
    return [*found, (full, 1, rest)] if rest else found
