"""Depthwise convolutions over panels, window by window: large ones, and gradients of strided ones.

Small windows have kernels that compute several outputs at once, in `depthwise_rows`.

- ``forward``: one sum per window. With `flipped` weights it is the data gradient of a convolution
  of stride 1, read as a convolution of the gradient.
- ``scatter``: the data gradient for any stride: windows add to the source rows that a task owns.
- ``weights``: a sum per tap over a task's windows, one partial result per task; ``total`` adds the
  partial results up in order, so that the number of threads decides nothing.

Arithmetic: one multiply-add per tap, two loads each: bound by the first-level cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from stepgraph.backends.cpu.kernels.ahead import Lines, ahead_fields, ask_ahead
from stepgraph.backends.cpu.kernels.windows import FIELDS, UNROLLED, Walker, Window
from stepgraph.backends.cpu.layouts import LANES
from stepgraph.backends.cpu.native.emit import Function, Module, Pointer, Value, f32, i64, pointer
from stepgraph.backends.cpu.native.layout import least
from stepgraph.backends.cpu.native.value import Variable, i1, i32, vector

_F32 = vector(f32, LANES)


@dataclass(frozen=True)
class DepthwiseSpec:
    """What one kernel does.

    Attributes:
        kind: ``forward``, ``scatter`` or ``weights``.
        kernel: taps in height and width.
        dilations: steps between two taps.
        flipped: the weights are read from the last tap to the first.
        ahead: what is asked for on the way; see `ahead`.
    """

    kind: str
    kernel: tuple[int, int]
    dilations: tuple[int, int]
    flipped: bool = False
    ahead: tuple[Lines, ...] = ()


def build_depthwise(spec: DepthwiseSpec) -> Module:
    """The module with the kernel ``depthwise``, and ``total`` for weight gradients."""
    module = Module("depthwise")
    fields: dict[str, Any] = {name: pointer(f32) for name in ("x", "k", "y")}
    fields |= {"channels": i64, "images": i64} | FIELDS
    fields |= ahead_fields(spec.ahead)
    with module.kernel("depthwise", fields) as (f, args):
        _Emission(spec, f, args).run()
    if spec.kind == "weights":
        total_kernel(module, spec.kernel[0] * spec.kernel[1])
    return module


def _mask(f: Function, left: Value) -> Value:
    numbers = Value(f, ir.Constant(vector(i32, LANES), list(range(LANES))))
    return numbers < f.splat(f.cast(left, i32), LANES)


def load_weights(
    f: Function, weights: Pointer, channels: Value, panel: Value, taps: int, flipped: bool
) -> Pointer:
    """A panel's weights [tap][16] on the stack; lanes past the last channel are zero."""
    mask = _mask(f, channels - panel * LANES)
    found: Pointer = f.stack(f32, taps * LANES)
    for tap in range(taps):
        value = (weights + (panel * LANES + tap * channels)).load(LANES)
        to = taps - 1 - tap if flipped else tap
        (found + to * LANES).store(f.select(mask, value, 0.0))
    return found


def total_kernel(module: Module, taps: int) -> None:
    """``total``: partial sums [part][panel][tap][16] to weights [tap][channel]; task: a panel."""
    fields = {"x": pointer(f32), "y": pointer(f32), "parts": i64, "panels": i64, "channels": i64}
    with module.kernel("total", fields) as (f, a):
        mask = _mask(f, a.channels - a.task * LANES)
        types = [_F32, ir.PointerType(), i32, vector(i1, LANES)]
        store = module.external(f"llvm.masked.store.v{LANES}f32.p0", ir.VoidType(), types)
        with f.loop(0, taps) as tap:
            total = f.variable(f.constant(_F32, 0.0))
            with f.loop(0, a.parts) as part:
                place = a.x + ((part * a.panels + a.task) * taps + tap) * LANES
                total.set(total.get() + place.load(LANES))
            to = a.y + (tap * a.channels + a.task * LANES)
            f.builder.call(store, [total.get().ir, to.ir, ir.Constant(i32, 4), mask.ir])


class _Emission:
    """`x` is what is read and `k` the weights; for their gradient `k` is the pooled gradient."""

    def __init__(self, spec: DepthwiseSpec, f: Function, args: Any) -> None:
        self.spec = spec
        self.f = f
        self.args = args
        self.walker = Walker(f, args, spec.kernel, spec.dilations)
        self.taps = spec.kernel[0] * spec.kernel[1]

    def run(self) -> None:
        f, a, walker = self.f, self.args, self.walker
        source, pooled = (walker.plane * size for size in (walker.source_size, walker.pooled_size))
        if self.spec.kind == "weights":
            self._weights()
            return
        panel = walker.plane // a.images
        self.weights = load_weights(f, a.k, a.channels, panel, self.taps, self.spec.flipped)
        if self.spec.kind == "forward":
            self.source, self.target = a.x + source, a.y + pooled
            walker.forward(self._forward)
            return
        self.source, self.target = a.x + pooled, a.y + source
        first = walker.block * a.block
        zero = f.constant(_F32, 0.0)
        with f.loop(first * a.w, least(f, first + a.block, a.h) * a.w) as pixel:
            (self.target + pixel * LANES).store(zero)
        walker.backward(self._scatter)

    def _weight(self, tap: Value | int) -> Value:
        return (self.weights + tap * LANES).load(LANES)

    def _forward(self, number: Value, window: Window, whole: Value) -> None:
        f = self.f
        total = f.variable(f.constant(_F32, 0.0))

        def visit(offset: Value, tap: Value | int) -> None:
            seen = (self.source + offset).load(LANES)
            total.set(f.fma(seen, self._weight(tap), total.get()))

        self.walker.taps(window, whole, visit)
        (self.target + number * LANES).store(total.get())

    def _scatter(self, number: Value, window: Window, whole: Value) -> None:
        f, walker = self.f, self.walker
        pooled = walker.plane * (self.args.oh * self.args.ow)
        ask_ahead(self.args, self.spec.ahead, pooled + number, 1)
        incoming = (self.source + number * LANES).load(LANES)

        def visit(offset: Value, tap: Value | int) -> None:
            place = self.target + offset
            place.store(f.fma(incoming, self._weight(tap), place.load(LANES)))

        self.walker.taps(window, whole, visit, self.walker.own_rows(window))

    # -- weights -------------------------------------------------------------------------------

    def _weights(self) -> None:
        """Tasks are (panel, part): a part is some rows of windows of all images."""
        f, a = self.f, self.args
        panel, part = a.task // a.blocks, a.task % a.blocks
        zero = f.constant(_F32, 0.0)
        sums: list[Variable] | None = None
        place: Pointer = a.y + (part * ((a.channels + (LANES - 1)) // LANES) + panel) * (
            self.taps * LANES
        )
        if self.taps <= UNROLLED:
            sums = [f.variable(zero) for _ in range(self.taps)]
        else:
            for tap in range(self.taps):
                (place + tap * LANES).store(zero)
        first = part * a.block
        with f.loop(first, least(f, first + a.block, a.images * a.oh)) as row:
            image, oy = row // a.oh, row % a.oh
            plane = panel * a.images + image
            self.source = a.x + plane * self.walker.source_size
            incoming = a.k + plane * self.walker.pooled_size

            def body(number: Value, window: Window, whole: Value) -> None:
                value = (incoming + number * LANES).load(LANES)
                if sums is None:
                    self._add_in_memory(place, value, window, whole)
                else:
                    self._add(sums, value, window, whole)

            self.walker.windows(oy, oy + 1, body)
        for tap, total in enumerate(sums or ()):
            (place + tap * LANES).store(total.get())

    def _add_in_memory(self, place: Pointer, value: Value, window: Window, whole: Value) -> None:
        f = self.f

        def visit(offset: Value, tap: Value | int) -> None:
            to = place + tap * LANES
            to.store(f.fma((self.source + offset).load(LANES), value, to.load(LANES)))

        self.walker.taps(window, whole, visit)

    def _add(self, sums: list[Variable], value: Value, window: Window, whole: Value) -> None:
        f, walker = self.f, self.walker

        def one(i: int, j: int) -> None:
            total = sums[i * walker.kw + j]
            seen = (self.source + walker.offset(window, i, j)).load(LANES)
            total.set(f.fma(seen, value, total.get()))

        def every() -> None:
            for i in range(walker.kh):
                for j in range(walker.kw):
                    one(i, j)

        def some() -> None:
            for i in range(walker.kh):
                for j in range(walker.kw):
                    inside = (window.rows[0] <= i) & (window.rows[1] > i)
                    inside = inside & (window.columns[0] <= j) & (window.columns[1] > j)
                    with f.if_(inside):
                        one(i, j)

        f.if_else(whole, every, some)
