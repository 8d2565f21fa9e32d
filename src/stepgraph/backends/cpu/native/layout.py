"""Between row-major arrays and panels, and 16 x 16 transposes in registers.

Panels: activations ``[C/16][M][16]`` with M the positions (images * height * width); weights
``[O/16][I/16][taps][16 i][16 o]``. Channels that do not fill their panel are zero there, and every
kernel keeps them zero: a product with zero weight columns writes zeros.

These kernels move 8 bytes per element and compute nothing: they are bound by memory, and belong to
the borders of a step (feeds, checkpoints, results), not into it.
"""

from __future__ import annotations

from stepgraph.backends.cpu.native.emit import Function, Module, Pointer, Value
from stepgraph.backends.cpu.native.product import PANEL
from stepgraph.backends.cpu.native.target import Target
from stepgraph.backends.cpu.native.value import f32, i64, pointer, vector


def least(f: Function, a: Value | int, b: Value | int) -> Value:
    """The smaller of two i64."""
    first, second = f.index(a), f.index(b)
    return f.select(first < second, first, second)


def greatest(f: Function, a: Value | int, b: Value | int) -> Value:
    """The greater of two i64."""
    first, second = f.index(a), f.index(b)
    return f.select(first > second, first, second)


def share(f: Function, units: Value, part: Value, parts: Value) -> tuple[Value, Value]:
    """First and last-plus-one of a part's units, when parts differ by at most one."""
    return units * part // parts, units * (part + 1) // parts


def transpose_block(f: Function, target: Target, source: Pointer, to: Pointer) -> None:
    """Transposes 16 contiguous rows of 16 floats into another such block.

    Squares of `lanes` x `lanes` are transposed by butterflies: stage s exchanges, between rows i
    and i + s, the lanes whose number has bit s. That is log2(lanes) shuffles per vector loaded.
    """
    lanes = min(target.lanes, PANEL)
    for top in range(0, PANEL, lanes):
        for left in range(0, PANEL, lanes):
            rows = [(source + ((top + i) * PANEL + left)).load(lanes) for i in range(lanes)]
            stage = 1
            while stage < lanes:
                low = [j if not j & stage else lanes + j - stage for j in range(lanes)]
                high = [j + stage if not j & stage else lanes + j for j in range(lanes)]
                for i in range(lanes):
                    if not i & stage:
                        a, b = rows[i], rows[i + stage]
                        rows[i], rows[i + stage] = f.shuffle(a, b, low), f.shuffle(a, b, high)
                stage *= 2
            for i, row in enumerate(rows):
                (to + ((left + i) * PANEL + top)).store(row)


def emit_layout(module: Module) -> None:
    """Adds the four conversion kernels to a module.

    ``rows_to_panels`` and ``panels_to_rows``: array [rows][channels] (``row`` floats apart) and
    panels; tasks: panels * parts, each a part of the rows. ``weights_to_panels`` and
    ``panels_to_weights``: array with strides ``tap``, ``i``, ``o`` in floats, and weight panels of
    ``inputs`` channels in panels of ``width`` (16, or all of them for a first layer), ``outputs``
    in panels of 16; tasks: output panels * input panels.
    """
    for name, forth in (("rows_to_panels", True), ("panels_to_rows", False)):
        _rows(module, name, forth)
    for name, forth in (("weights_to_panels", True), ("panels_to_weights", False)):
        _weights(module, name, forth)


def _lanes_between(
    f: Function, array: Pointer, step: Value, panel: Pointer, count: Value, forth: bool
) -> None:
    """Copies up to 16 lanes between an array and a panel row; forth also fills up with zeros."""

    def whole() -> None:
        if forth:
            panel.store(array.load(PANEL))
        else:
            array.store(panel.load(PANEL))

    def some() -> None:
        if forth:
            panel.store(f.constant(vector(f32, PANEL), 0.0))
        with f.loop(0, count) as lane:
            if forth:
                (panel + lane).store((array + lane * step).load())
            else:
                (array + lane * step).store((panel + lane).load())

    f.if_else((count == PANEL) & (step == 1), whole, some)


def _rows(module: Module, name: str, forth: bool) -> None:
    fields = {"array": pointer(f32), "panels": pointer(f32)}
    sizes = {"rows": i64, "row": i64, "channels": i64, "parts": i64}
    with module.kernel(name, {**fields, **sizes}) as (f, x):
        panel = x.task // x.parts
        first, last = share(f, x.rows, x.task - panel * x.parts, x.parts)
        count = least(f, x.channels - panel * PANEL, PANEL)
        one = f.index(1)
        with f.loop(first, last) as row:
            array = x.array + (row * x.row + panel * PANEL)
            to = x.panels + (panel * x.rows + row) * PANEL
            _lanes_between(f, array, one, to, count, forth)


def _weights(module: Module, name: str, forth: bool) -> None:
    fields = {"array": pointer(f32), "panels": pointer(f32)}
    sizes = dict.fromkeys(("taps", "inputs", "outputs", "width", "tap", "i", "o"), i64)
    with module.kernel(name, {**fields, **sizes}) as (f, x):
        in_panels = (x.inputs + x.width - 1) // x.width
        out_panel = x.task // in_panels
        in_panel = x.task - out_panel * in_panels
        lanes = least(f, x.outputs - out_panel * PANEL, PANEL)
        rows = least(f, x.inputs - in_panel * x.width, x.width)
        zero = f.constant(vector(f32, PANEL), 0.0)
        with f.loop(0, x.taps) as tap:
            start = x.panels + ((x.task * x.taps + tap) * x.width) * PANEL
            origin = x.array + (tap * x.tap + in_panel * x.width * x.i + out_panel * PANEL * x.o)
            with f.loop(0, rows) as i:
                _lanes_between(f, origin + i * x.i, x.o, start + i * PANEL, lanes, forth)
            if forth:
                with f.loop(rows, x.width) as i:
                    (start + i * PANEL).store(zero)
