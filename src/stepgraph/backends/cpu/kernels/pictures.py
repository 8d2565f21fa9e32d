"""Pictures of a data set brought into a network's form: picked, moved, mirrored, scaled, in one go.

A picture is read where the data set keeps it and written where the step reads it, row by row: the
row is copied between two rows of zeros, so that a shift is another place to read from, and turned
around in vectors of 16 pixels if the picture is mirrored. Sizes are constants of the code.

Arithmetic is that of NumPy's ``(x / 255 - mean) / std`` in float32, operation by operation, so that
the bits are the same (`datasets.pictures`). Tasks are blocks of pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepgraph.backends.cpu.layouts import LANES
from stepgraph.backends.cpu.native.emit import Function, Module, Pointer, Value, f32, i64, pointer
from stepgraph.backends.cpu.native.layout import least
from stepgraph.backends.cpu.native.value import i8, vector

# Elements of a row that the stack holds five times.
LONGEST_ROW = 4096


@dataclass(frozen=True)
class PicturesSpec:
    """What one kernel does.

    Attributes:
        height: of a picture.
        width: of a picture.
        channels: of a picture.
        dtype: of the data set, ``uint8`` (scaled to [0, 1]) or ``float32``.
        moved: whether pictures are shifted and mirrored.
        normalized: whether a mean is subtracted and a deviation divided by.
    """

    height: int
    width: int
    channels: int
    dtype: str
    moved: bool
    normalized: bool


def fields(spec: PicturesSpec) -> dict[str, Any]:
    """Arguments: the set, the numbers of the pictures, their moves, a row's means; the target."""
    element = pointer(i8 if spec.dtype == "uint8" else f32)
    # What changes from step to step comes first.
    moves = ("down", "right", "mirror") if spec.moved else ()
    found: dict[str, Any] = {name: pointer(i64) for name in ("index", *moves)}
    found |= {"source": element, "out": pointer(f32)}
    if spec.normalized:
        found |= {"mean": pointer(f32), "std": pointer(f32)}
    return found | {"count": i64, "block": i64}


def build_pictures(spec: PicturesSpec) -> Module:
    """The module with the kernel ``pictures``."""
    module = Module("pictures")
    with module.kernel("pictures", fields(spec)) as (f, args):
        _Emission(spec, f, args).run()
    return module


class _Emission:
    def __init__(self, spec: PicturesSpec, f: Function, args: Any) -> None:
        self.spec, self.f, self.a = spec, f, args
        self.row = spec.width * spec.channels
        self.element = i8 if spec.dtype == "uint8" else f32

    def run(self) -> None:
        f, a, spec = self.f, self.a, self.spec
        size = spec.height * self.row
        if spec.moved:
            # What is read in vectors of 16 pixels may begin before a row and end behind it.
            slack = LANES * spec.channels
            padded = f.stack(self.element, 3 * self.row + 2 * slack)
            self.zeros = f.stack(self.element, self.row)
            self.turned = f.stack(self.element, self.row + slack)
            self.middle = padded + (slack + self.row)
            zero = f.constant(self.element, 0)
            for place, count in ((padded, 3 * self.row + 2 * slack), (self.zeros, self.row)):
                with f.loop(0, count) as i:
                    (place + i).store(zero)
        first = a.task * a.block
        with f.loop(first, least(f, first + a.block, a.count)) as k:
            source = a.source + (a.index + k).load() * size
            target = a.out + k * size
            if spec.moved:
                self._moved(source, target, k)
            elif spec.normalized:
                with f.loop(0, spec.height) as y:
                    self._row(source + y * self.row, target + y * self.row)
            else:
                self._line(size, lambda i, n: self._convert(source, target, i, n))

    def _moved(self, source: Pointer, target: Pointer, k: Value) -> None:
        f, a, spec = self.f, self.a, self.spec
        down, right, mirror = ((row + k).load() for row in (a.down, a.right, a.mirror))
        shifted = self.middle + right * spec.channels
        origin = self.turned.select(mirror != 0, shifted)
        with f.loop(0, spec.height) as y:
            at = y + down
            inside = (at >= 0) & (at < spec.height)
            line = (source + at * self.row).select(inside, self.zeros)
            self._line(self.row, lambda i, n: (self.middle + i).store((line + i).load(n)))
            with f.if_(mirror != 0):
                self._turn(shifted)
            self._row(origin, target + y * self.row)

    def _turn(self, source: Pointer) -> None:
        """Writes a row backwards, pixel by pixel, 16 pixels at a time."""
        f, channels = self.f, self.spec.channels
        width, block = self.spec.width, LANES * channels
        picks = [(LANES - 1 - p) * channels + c for p in range(LANES) for c in range(channels)]
        for start in range(0, width, LANES):
            value = (source + (width - LANES - start) * channels).load(block)
            (self.turned + start * channels).store(f.shuffle(value, value, picks))

    def _row(self, source: Pointer, target: Pointer) -> None:
        self._line(self.row, lambda i, n: self._convert(source, target, i, n))

    def _convert(self, source: Pointer, target: Pointer, i: Value, n: int) -> None:
        f, a = self.f, self.a
        value = (source + i).load(n)
        if self.element == i8:
            value = Value(f, f.builder.uitofp(value.ir, vector(f32, n))) / 255.0
        if self.spec.normalized:
            value = (value - (a.mean + i).load(n)) / (a.std + i).load(n)
        (target + i).store(value)

    def _line(self, count: int, body: Any) -> None:
        """Vectors of 16 as far as they fit, then a shorter one."""
        f = self.f
        whole = count // LANES * LANES
        if whole:
            with f.loop(0, whole, LANES, nonempty=True) as i:
                body(i, LANES)
        if count > whole:
            body(f.index(whole), count - whole)


def build_rows() -> Module:
    """The module with the kernel ``rows``: rows of bytes picked by numbers; tasks are blocks."""
    module = Module("rows")
    byte, number = pointer(i8), pointer(i64)
    names = dict.fromkeys(("size", "count", "block"), i64)
    with module.kernel("rows", {"index": number, "source": byte, "out": byte, **names}) as (f, a):
        first = a.task * a.block
        with f.loop(first, least(f, first + a.block, a.count)) as k:
            source, target = a.source + (a.index + k).load() * a.size, a.out + k * a.size
            whole = a.size // 64 * 64
            with f.loop(0, whole, 64) as i:
                (target + i).store((source + i).load(64))
            with f.loop(whole, a.size) as i:
                (target + i).store((source + i).load())
    return module
