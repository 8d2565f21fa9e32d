"""Softmax and its cross entropy: several passes over one row while it is in the first-level cache.

A *line* is what is normalised together. Along the last axis it is a row, 16 neighbours at a time,
in rows or in panels. Along another axis 16 lines that lie side by side are computed at once, one in
each lane (`across`).

    pass 1: the maximum
    pass 2: e = exp(x - maximum), kept in the output where there is one; sums of e and of the labels
    pass 3: the output from e and the sums

A loss that is added up leaves one partial sum per task; ``total`` adds those in order. Tasks have
fixed sizes, so results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from stepgraph.backends.cpu.layouts import LANES
from stepgraph.backends.cpu.native import vector_math as vm
from stepgraph.backends.cpu.native.emit import Function, Module, Pointer, Value, f32, i64, pointer
from stepgraph.backends.cpu.native.layout import least
from stepgraph.backends.cpu.native.value import Variable, i1, i32, vector

_F32 = vector(f32, LANES)
_READS = {"softmax": ("x",), "loss": ("x", "t"), "gradient": ("g", "x", "t")}


@dataclass(frozen=True)
class SoftmaxSpec:
    """What one kernel does.

    Attributes:
        kind: ``softmax``, ``loss`` or ``gradient`` (of the loss).
        across: lines lie in lanes instead of along them.
        partial: a loss is added up over a task's lines.
        zeros: the output is in panels: lanes past the end are stored as zeros.
        each: the incoming gradient has an element for every line.
    """

    kind: str
    across: bool = False
    partial: bool = False
    zeros: bool = False
    each: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        """Arguments that are read, in the order of the op's inputs."""
        return _READS[self.kind]


def fields(spec: SoftmaxSpec) -> dict[str, Any]:
    """Arguments: sizes, addresses, and each operand's strides from line to line and chunk to chunk.

    Across lines, `chunks` counts the elements of a line, and `parts` the vectors of lines that lie
    side by side.
    """
    found: dict[str, Any] = dict.fromkeys(("lines", "block", "chunks", "lanes", "parts"), i64)
    for name in (*spec.reads, "y"):
        found[name] = pointer(f32)
    strided = [n for n in (*spec.reads, "y") if n != "g" and (n, spec.kind) != ("y", "loss")]
    for name in strided:
        found |= {f"{name}_line": i64, f"{name}_chunk": i64}
    if spec.kind == "gradient":
        found["count"] = f32
    return found


def build_softmax(spec: SoftmaxSpec) -> Module:
    """The module with the kernel ``softmax``, and ``total`` for partial losses."""
    module = Module("softmax")
    with module.kernel("softmax", fields(spec)) as (f, args):
        _Emission(spec, f, args).run()
    if spec.partial:
        _total(module)
    return module


def _total(module: Module) -> None:
    """``total``: y = sum(x) / count, in order."""
    arguments = {"x": pointer(f32), "y": pointer(f32), "n": i64, "count": f32}
    with module.kernel("total", arguments) as (f, a):
        total = f.variable(f.constant(f32, 0.0))
        with f.loop(0, a.n) as i:
            total.set(total.get() + (a.x + i).load())
        a.y.store(total.get() / a.count)


class _Emission:
    def __init__(self, spec: SoftmaxSpec, f: Function, args: Any) -> None:
        self.spec = spec
        self.f = f
        self.args = args
        self.mask: Value | None = None

    def run(self) -> None:
        f, a = self.f, self.args
        first = a.task * a.block
        total = self._zero()
        with f.loop(first, least(f, first + a.block, a.lines)) as line:
            loss = self._line(line)
            if self.spec.partial and loss is not None:
                total.set(total.get() + loss)
        if self.spec.partial:
            # Along the lanes every lane holds the same sum.
            value = f.sum(total.get()) if self.spec.across else total.get().lane(0)
            (a.y + a.task).store(value)

    # -- one line ------------------------------------------------------------------------------

    def _line(self, line: Value) -> Value | None:
        f, a, spec = self.f, self.args, self.spec
        outer, part = (line // a.parts, line % a.parts) if spec.across else (line, None)
        if part is not None:
            self.mask = self._inside(a.lanes - part * LANES)
        base = {
            name: self._base(name, outer, part)
            for name in ("x", "t", "y")
            if hasattr(a, f"{name}_line")
        }
        peak = f.variable(f.constant(_F32, -np.inf))
        with self._chunks() as k:
            peak.set(f.intrinsic("maximum", peak.get(), self._load("x", base, k, -np.inf)))
        top = self._joined(peak, "maximum")
        powers, labels, terms = self._zero(), self._zero(), self._zero()
        with self._chunks() as k:
            shifted = self._load("x", base, k, -np.inf) - top
            power = vm.exp(f, shifted)
            powers.set(powers.get() + self._kept(power))
            if spec.kind != "softmax":
                label = self._load("t", base, k, 0.0)
                labels.set(labels.get() + label)
                product = f.select(label == 0.0, label.like(0.0), label * shifted)
                terms.set(terms.get() + product)
            if spec.kind != "loss":
                self._store(base["y"], k, power)
        total = self._joined(powers, "sum")
        if spec.kind == "loss":
            loss = vm.log(f, total) * self._joined(labels, "sum") - self._joined(terms, "sum")
            return self._loss(loss, outer, part)
        weight = scale = None
        if spec.kind == "gradient":
            weight, scale = self._joined(labels, "sum"), self._scale(outer, part)
        with self._chunks() as k:
            share = (base["y"] + k * a.y_chunk).load(LANES) / total
            if weight is not None and scale is not None:
                share = (share * weight - self._load("t", base, k, 0.0)) * scale
            self._store(base["y"], k, share)
        return None

    def _loss(self, loss: Value, outer: Value, part: Value | None) -> Value | None:
        f, a = self.f, self.args
        if self.spec.partial:
            return loss if part is None else f.select(self._mask(), loss, 0.0)
        if part is None:
            (a.y + outer).store(loss.lane(0))
        else:
            self._store_masked(a.y + (outer * a.lanes + part * LANES), loss)
        return None

    def _scale(self, outer: Value, part: Value | None) -> Value:
        f, a = self.f, self.args
        if not self.spec.each:
            return f.splat(a.g.load() / a.count, LANES)
        if part is None:
            return f.splat((a.g + outer).load() / a.count, LANES)
        each: Value = (a.g + (outer * a.lanes + part * LANES)).load(LANES)
        return each / f.splat(a.count, LANES)

    # -- chunks --------------------------------------------------------------------------------

    @contextmanager
    def _chunks(self) -> Iterator[Value]:
        with self.f.loop(0, self.args.chunks, nonempty=True) as k:
            if not self.spec.across:
                self.mask = self._inside(self.args.lanes - k * LANES)
            yield k

    def _inside(self, left: Value) -> Value:
        f = self.f
        numbers = Value(f, ir.Constant(vector(i32, LANES), list(range(LANES))))
        return numbers < f.splat(f.cast(left, i32), LANES)

    def _mask(self) -> Value:
        assert self.mask is not None
        return self.mask

    def _base(self, name: str, outer: Value, part: Value | None) -> Pointer:
        base: Pointer = getattr(self.args, name) + outer * getattr(self.args, f"{name}_line")
        return base if part is None else base + part * LANES

    def _kept(self, value: Value) -> Value:
        """Zero in lanes that are none of the line's."""
        return value if self.spec.across else self.f.select(self._mask(), value, 0.0)

    def _load(self, name: str, base: dict[str, Pointer], k: Value, past: float) -> Value:
        value = (base[name] + k * getattr(self.args, f"{name}_chunk")).load(LANES)
        return value if self.spec.across else self.f.select(self._mask(), value, past)

    def _store(self, base: Pointer, k: Value, value: Value) -> None:
        place = base + k * self.args.y_chunk
        if self.spec.zeros:
            place.store(self.f.select(self._mask(), value, 0.0))
        else:
            self._store_masked(place, value)

    def _store_masked(self, place: Pointer, value: Value) -> None:
        f = self.f
        types = [_F32, ir.PointerType(), i32, vector(i1, LANES)]
        target = f.module.external(f"llvm.masked.store.v{LANES}f32.p0", ir.VoidType(), types)
        align = ir.Constant(i32, 4)
        f.builder.call(target, [value.ir, place.ir, align, self._mask().ir])

    # -- lines ---------------------------------------------------------------------------------

    def _zero(self) -> Variable:
        return self.f.variable(self.f.constant(_F32, 0.0))

    def _joined(self, total: Variable, how: str) -> Value:
        """A line's sum or maximum, in every lane that belongs to the line."""
        f, value = self.f, total.get()
        if self.spec.across:
            return value  # type: ignore[no-any-return]
        if how == "sum":
            return f.splat(f.sum(value), LANES)
        return f.splat(f.reduce(value, lambda a, b: f.intrinsic("maximum", a, b)), LANES)
