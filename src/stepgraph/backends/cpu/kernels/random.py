"""Philox4x32-10 at 16 counters at a time, and what is made of its words.

Element i of a tensor takes word i % 4 of counter i // 4, so 16 counters give four vectors of 16
neighbours. These lie one behind the other in rows; in panels (of full 16 channels) they are one
panel's part of four rows, whose counters are as far apart as the rows are.

The bits are those of the reference in `stepgraph.graph.philox`, and so are uniform numbers, which
take one rounding each in the same order. Normal numbers differ in the last places.

Arithmetic: some 60 integer operations for each vector of 16, bound by the multiplications.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from stepgraph.backends.cpu.layouts import LANES
from stepgraph.backends.cpu.native import vector_math as vm
from stepgraph.backends.cpu.native.emit import Function, Module, Pointer, Value, f32, i64, pointer
from stepgraph.backends.cpu.native.layout import least
from stepgraph.backends.cpu.native.value import i1, i32, vector
from stepgraph.graph.philox import LOW, PHILOX_MULTIPLIERS, PHILOX_ROUNDS, PHILOX_WEYL

_I32 = vector(i32, LANES)
_I64 = vector(i64, LANES)
# Low bits of a word that a float32 in [0, 1) leaves out.
_SHIFT = 8


@dataclass(frozen=True)
class RandomSpec:
    """What one kernel does.

    Attributes:
        kind: ``bits``, ``uniform``, ``normal`` or ``dropout``.
        step: dtype of the step, ``int32`` or ``int64``.
    """

    kind: str
    step: str


def fields(spec: RandomSpec) -> dict[str, Any]:
    """Arguments.

    `count` is the elements stored of one panel (of all in rows), `rows` the vectors of 16 in it,
    `apart` how many elements their first ones are apart; `a` and `b` are the factor and summand of
    uniform and normal numbers, the factor and nothing for dropout.
    """
    found: dict[str, Any] = {"step": pointer(i32 if spec.step == "int32" else i64)}
    found |= dict.fromkeys(("seed", "stream", "count", "rows", "apart", "block", "blocks"), i64)
    found |= {"y": pointer(i32 if spec.kind == "bits" else f32)}
    if spec.kind != "bits":
        found |= {"a": f32, "b": f32}
    if spec.kind == "dropout":
        found |= {"x": pointer(f32), "threshold": i64}
    return found


def build_random(spec: RandomSpec) -> Module:
    """The module with the kernel ``draw``."""
    module = Module("random")
    with module.kernel("draw", fields(spec)) as (f, args):
        _Emission(spec, f, args).run()
    return module


class _Emission:
    def __init__(self, spec: RandomSpec, f: Function, args: Any) -> None:
        self.spec = spec
        self.f = f
        self.args = args

    def run(self) -> None:
        f, a = self.f, self.args
        panel, block = a.task // a.blocks, a.task % a.blocks
        base = panel * a.count
        step = f.cast(a.step.load(), i64)
        fixed = [self._word(a.stream), self._word(step), self._word(step >> 32)]
        keys = self._keys()
        lane = Value(f, ir.Constant(_I32, [k % 4 for k in range(LANES)]))
        row_of_lane = Value(f, ir.Constant(_I32, [k // 4 for k in range(LANES)]))
        apart = a.apart // 4
        pattern = lane + row_of_lane * f.splat(f.cast(apart, i32), LANES)
        first = block * a.block
        with f.loop(first, least(f, first + a.block, a.rows), 4) as row:
            start = self._word(row * apart + panel * (LANES // 4))
            words = self._philox([start + pattern, *fixed], keys)
            for k, value in enumerate(self._interleaved(self._made(words))):
                offset = (row + k) * LANES
                with f.if_(offset < a.count):
                    self._finish(base + offset, a.count - offset, value)

    # -- Philox --------------------------------------------------------------------------------

    def _word(self, number: Value) -> Value:
        """The low 32 bits in every lane."""
        return self.f.splat(self.f.cast(number, i32), LANES)

    def _keys(self) -> list[tuple[Value, Value]]:
        low, high = self._word(self.args.seed), self._word(self.args.seed >> 32)
        found = []
        for k in range(PHILOX_ROUNDS):
            found.append(
                tuple(
                    key + self.f.constant(_I32, _signed(k * weyl & LOW))
                    for key, weyl in zip((low, high), PHILOX_WEYL, strict=True)
                )
            )
        return found  # type: ignore[return-value]

    def _products(self, word: Value, factor: int) -> tuple[Value, Value]:
        """High and low word of a product."""
        b = self.f.builder
        wide = b.mul(b.zext(word.ir, _I64), ir.Constant(_I64, [factor] * LANES))
        high = b.lshr(wide, ir.Constant(_I64, [32] * LANES))
        return tuple(Value(self.f, b.trunc(v, _I32)) for v in (high, wide))  # type: ignore[return-value]

    def _philox(
        self, counter: Sequence[Value], keys: Sequence[tuple[Value, Value]]
    ) -> tuple[Value, ...]:
        c0, c1, c2, c3 = counter
        for k0, k1 in keys:
            high0, low0 = self._products(c0, PHILOX_MULTIPLIERS[0])
            high1, low1 = self._products(c2, PHILOX_MULTIPLIERS[1])
            c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        return c0, c1, c2, c3

    def _interleaved(self, words: Sequence[Value]) -> list[Value]:
        """From the k-th words of 16 counters to four vectors of 16 neighbours."""
        f = self.f
        pairs = [(words[0], words[1]), (words[2], words[3])]
        halves = [
            [
                f.shuffle(a, b, [n for k in range(8) for n in (h * 8 + k, LANES + h * 8 + k)])
                for a, b in pairs
            ]
            for h in range(2)
        ]
        found = []
        for first, second in halves:
            for h in range(2):
                picks = [
                    n
                    for k in range(4)
                    for n in (
                        *(h * 8 + 2 * k, h * 8 + 2 * k + 1),
                        *(LANES + h * 8 + 2 * k, LANES + h * 8 + 2 * k + 1),
                    )
                ]
                found.append(f.shuffle(first, second, picks))
        return found

    # -- numbers -------------------------------------------------------------------------------

    def _made(self, words: Sequence[Value]) -> Sequence[Value]:
        if self.spec.kind != "normal":
            return words
        f, made = self.f, []
        for first, second in (words[:2], words[2:]):
            # In (0, 1], so that the logarithm is finite.
            radius = f.intrinsic("sqrt", vm.log(f, self._fraction(first) + 2.0**-24) * -2.0)
            cosine, sine = _cos_sin(f, self._fraction(second))
            made += [radius * cosine, radius * sine]
        return made

    def _fraction(self, word: Value) -> Value:
        f = self.f
        kept = Value(f, f.builder.lshr(word.ir, ir.Constant(_I32, [_SHIFT] * LANES)))
        return f.cast(kept, f32) * 2.0 ** (_SHIFT - 32)

    def _finish(self, offset: Value, left: Value, value: Value) -> None:
        f, a, kind = self.f, self.args, self.spec.kind
        if kind == "uniform":
            value = self._fraction(value)
        if kind in ("uniform", "normal"):
            value = value * a.a + a.b
        if kind == "dropout":
            bar = self._word(a.threshold)
            kept = Value(f, f.builder.icmp_unsigned(">=", value.ir, bar.ir))
            value = f.select(kept, (a.x + offset).load(LANES) * a.a, 0.0)
        place = a.y + offset
        f.if_else(
            left >= LANES,
            lambda: place.store(value),
            lambda: self._store_some(place, value, left),
        )

    def _store_some(self, place: Pointer, value: Value, left: Value) -> None:
        f = self.f
        numbers = Value(f, ir.Constant(_I32, list(range(LANES))))
        mask = numbers < self._word(left)
        name = f"llvm.masked.store.v{LANES}{'i32' if self.spec.kind == 'bits' else 'f32'}.p0"
        types = [value.type, ir.PointerType(), i32, vector(i1, LANES)]
        target = f.module.external(name, ir.VoidType(), types)
        f.builder.call(target, [value.ir, place.ir, ir.Constant(i32, 4), mask.ir])


def _signed(word: int) -> int:
    return word - 2**32 if word >> 31 else word


def _cos_sin(f: Function, turns: Value) -> tuple[Value, Value]:
    """Cosine and sine of 2 * pi * turns, turns in [0, 1): Taylor series within an eighth turn."""
    quarter = f.intrinsic("floor", f.fma(turns, turns.like(4.0), 0.5))
    x = f.fma(quarter, quarter.like(-0.25), turns) * (2 * math.pi)
    square = x * x
    sine = x.like((-1) ** 5 / math.factorial(11))
    cosine = x.like((-1) ** 5 / math.factorial(10))
    for k in reversed(range(5)):
        sine = f.fma(sine, square, (-1) ** k / math.factorial(2 * k + 1))
        cosine = f.fma(cosine, square, (-1) ** k / math.factorial(2 * k))
    sine = sine * x
    turn = f.cast(quarter, i32)
    swap = (turn & 1) == 1
    c, s = f.select(swap, sine, cosine), f.select(swap, cosine, sine)
    # Quarter turns 1 and 2 have a negative cosine, 2 and 3 a negative sine; 4 is 0 again.
    negative_c, negative_s = ((turn + 1) & 2) == 2, (turn & 2) == 2
    return f.select(negative_c, -c, c), f.select(negative_s, -s, s)
