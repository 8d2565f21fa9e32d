"""Attention of heads that lie side by side in panels, and its gradient, without leaving the cache.

A head is ``size / 16`` neighbouring panels; its rows of one picture are contiguous in each of them,
so that the product reads queries, keys, values and incoming gradients in place, and writes results
where the next layer wants them: no head is copied out, none back.

Scores are kept the other way round, keys down and queries along the lanes, because then the
softmax over the keys is 16 independent ones side by side, with no sums across lanes:

    S' = K Q'        Q' packed: 16 x 16 transposes in registers
    P' = softmax of each column
    Y  = P V         P read down its columns
    dP' = V dY'      dY' packed
    dS' = P' * (dP' - column sums of P' * dP')
    dV += P' dY,  dK += scale * dS' Q,  dQ = scale * dS K

Queries are taken `QUERIES` at a time, so that S' has ``keys * QUERIES`` floats: with 64 keys 16 KB,
half of a first-level cache. Per query, key and head the forward pass takes ``2 * (size + value
size)`` operations in products and one exponential, the gradient
``2 * (3 * size + 2 * value size)`` and one exponential.

Tasks: head, picture and, forward, a block of queries: one picture's rows of a head lie behind
another's. The gradient of a head adds up over its blocks in order; sums over what it writes, for
biases, run with it (`chains`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stepgraph.backends.cpu.native import vector_math as vm
from stepgraph.backends.cpu.native.emit import Function, Module, Pointer, Value
from stepgraph.backends.cpu.native.layout import least, transpose_block
from stepgraph.backends.cpu.native.product import PANEL, Product, Walk
from stepgraph.backends.cpu.native.target import Target
from stepgraph.backends.cpu.native.value import f32, i64, pointer, vector

QUERIES = 64
_VECTOR = vector(f32, PANEL)

_SIZES = ("images", "heads", "queries", "keys", "size", "value_size", "scratch_size")
_COMMON = {
    **{name: pointer(f32) for name in ("q", "k", "v", "scratch")},
    **dict.fromkeys(_SIZES, i64),
    "scale": f32,
}
FORWARD_FIELDS = {**_COMMON, "y": pointer(f32)}
GRADIENT_FIELDS = {**_COMMON, **{name: pointer(f32) for name in ("dy", "dq", "dk", "dv")}}


@dataclass(frozen=True)
class Attention:
    """Sizes of an attention.

    Attributes:
        images: batch.
        heads: of each picture.
        queries: steps of the query.
        keys: steps of the key and the value.
        size: of a head's queries and keys; a multiple of 16.
        value_size: of a head's values; a multiple of 16.
    """

    images: int
    heads: int
    queries: int
    keys: int
    size: int
    value_size: int

    def arguments(self, gradient: bool) -> tuple[dict[str, int], int]:
        """Sizes for a kernel, and its number of tasks."""
        scores = self.keys * QUERIES
        packed = QUERIES * (max(self.size, self.value_size) if gradient else self.size)
        scratch = (2 * scores if gradient else scores) + packed
        values = (self.images, self.heads, self.queries, self.keys, self.size, self.value_size)
        blocks = 1 if gradient else -(-self.queries // QUERIES)
        sizes = dict(zip(_SIZES, (*values, scratch), strict=True))
        return sizes, self.images * self.heads * blocks

    def flops(self, gradient: bool) -> int:
        """Operations in products."""
        inner = 3 * self.size + 2 * self.value_size if gradient else self.size + self.value_size
        return 2 * self.images * self.heads * self.queries * self.keys * inner


class _Heads:
    """One kernel's code."""

    def __init__(self, f: Function, x: Any, product: Product, target: Target) -> None:
        self.f, self.x, self.product, self.target = f, x, product, target
        self.walk = Walk(f)
        self.corner = f.stack(f32, PANEL * PANEL)
        self.scores = x.scratch + x.thread * x.scratch_size
        # From one panel to the next.
        self.q_panel = x.images * x.queries * PANEL
        self.k_panel = x.images * x.keys * PANEL

    def forward(self) -> None:
        f, x = self.f, self.x
        blocks = (x.queries + (QUERIES - 1)) // QUERIES
        unit = x.task // blocks
        self._place(unit)
        first = (x.task - unit * blocks) * QUERIES
        packed = self.scores + x.keys * QUERIES
        count = self._block(first)
        q, y = (self._at(x.q, x.size, True), self._at(x.y, x.value_size, True))
        k, v = (self._at(x.k, x.size, False), self._at(x.v, x.value_size, False))
        self._pack(q + first * PANEL, packed, x.size, count)
        self._scores(k, packed, self.scores, x.size, x.scale)
        self._softmax()
        self._down(v, y + first * PANEL, count, x.value_size, f.constant(f32, 1.0))

    def gradient(self) -> None:
        f, x = self.f, self.x
        self._place(x.task)
        others = self.scores + x.keys * QUERIES
        packed = others + x.keys * QUERIES
        q, dq = (self._at(p, x.size, True) for p in (x.q, x.dq))
        k, dk = (self._at(p, x.size, False) for p in (x.k, x.dk))
        v, dv = (self._at(p, x.value_size, False) for p in (x.v, x.dv))
        dy = self._at(x.dy, x.value_size, True)
        one = f.constant(f32, 1.0)
        with f.loop(0, x.queries, QUERIES) as first:
            count = self._block(first)
            at = first * PANEL
            beta = f.select(first == 0, f.constant(f32, 0.0), 1.0)
            self._pack(q + at, packed, x.size, count)
            self._scores(k, packed, self.scores, x.size, x.scale)
            self._softmax()
            self._pack(dy + at, packed, x.value_size, count)
            self._scores(v, packed, others, x.value_size, one)
            self._along(self.scores, dy + at, dv, count, x.value_size, one, beta)
            self._softmax_gradient(others)
            self._along(self.scores, q + at, dk, count, x.size, x.scale, beta)
            self._down(k, dq + at, count, x.size, x.scale)

    # -- places --------------------------------------------------------------------------------

    def _place(self, unit: Value) -> None:
        self.head = unit // self.x.images
        self.image = unit - self.head * self.x.images

    def _at(self, base: Pointer, size: Value, query: bool) -> Pointer:
        """First row of this picture's head."""
        panel, rows = (self.q_panel, self.x.queries) if query else (self.k_panel, self.x.keys)
        place: Pointer = base + (self.head * (size // PANEL) * panel + self.image * rows * PANEL)
        return place

    def _block(self, first: Value) -> Value:
        """Number of queries in a block; sets the number of panels they fill."""
        count = least(self.f, self.x.queries - first, QUERIES)
        self.columns = (count + (PANEL - 1)) // PANEL
        return count

    # -- steps ---------------------------------------------------------------------------------

    def _pack(self, source: Pointer, to: Pointer, size: Value, count: Value) -> None:
        """Rows of a head, transposed: 16 of them side by side, zeros where there are fewer."""
        f = self.f
        zero = f.constant(_VECTOR, 0.0)
        with f.loop(0, self.columns, nonempty=True) as column:
            rows = least(f, count - column * PANEL, PANEL)
            with f.loop(0, size // PANEL, nonempty=True) as panel:
                block = source + (panel * self.q_panel + column * (PANEL * PANEL))
                place = to + (column * size + panel * PANEL) * PANEL

                def some(block: Pointer = block, rows: Value = rows) -> None:
                    with f.loop(0, rows) as row:
                        (self.corner + row * PANEL).store((block + row * PANEL).load(PANEL))
                    with f.loop(rows, PANEL) as row:
                        (self.corner + row * PANEL).store(zero)

                f.if_else(rows == PANEL, lambda: None, some)
                whole = block.select(rows == PANEL, self.corner)
                transpose_block(f, self.target, whole, place)

    def _scores(self, a: Pointer, packed: Pointer, to: Pointer, size: Value, alpha: Value) -> None:
        """Keys times packed queries, a column of `to` for each query."""
        walk = self.walk
        walk.set(a_row=PANEL, a_k=1, b_k=PANEL, run=PANEL, b_panel=size * PANEL)
        walk.set(n1=size // PANEL, a1=self.k_panel, b1=PANEL * PANEL)
        walk.set(c_row=QUERIES, c_panel=PANEL, alpha=alpha, beta=0)
        self._product(a, packed, to, self.x.keys, self.columns, size * PANEL, PANEL)

    def _down(self, b: Pointer, c: Pointer, count: Value, size: Value, alpha: Value) -> None:
        """Rows of queries: weights read down the columns of the scores, times keys or values."""
        walk = self.walk
        walk.set(a_row=1, a_k=QUERIES, b_k=PANEL, run=self.x.keys, n1=1, b_panel=self.k_panel)
        walk.set(c_row=PANEL, c_panel=self.q_panel, alpha=alpha, beta=0)
        panels = size // PANEL
        self._product(self.scores, b, c, count, panels, self.k_panel, self.q_panel)

    def _along(
        self,
        a: Pointer,
        b: Pointer,
        c: Pointer,
        count: Value,
        size: Value,
        alpha: Value,
        beta: Value,
    ) -> None:
        """Rows of keys: weights read along the scores' rows, times rows of queries; adds to C."""
        walk = self.walk
        walk.set(a_row=QUERIES, a_k=1, b_k=PANEL, run=count, n1=1, b_panel=self.q_panel)
        walk.set(c_row=PANEL, c_panel=self.k_panel, alpha=alpha, beta=beta)
        panels = size // PANEL
        self._product(a, b, c, self.x.keys, panels, self.q_panel, self.k_panel)

    def _product(
        self,
        a: Pointer,
        b: Pointer,
        c: Pointer,
        rows: Value,
        panels: Value,
        b_panel: Value,
        c_panel: Value | int,
    ) -> None:
        """Any number of panels, as many at a time as the registers hold."""
        f, most = self.f, self.product.blocking.panels
        with f.loop(0, panels, most, nonempty=True) as first:
            some = least(f, panels - first, most)
            to = c + first * c_panel
            self.product.call(f, a, b + first * b_panel, to, rows, some, self.walk)

    def _softmax(self) -> None:
        """Of each column of the scores."""
        f, keys = self.f, self.x.keys
        with f.loop(0, self.columns, nonempty=True) as column:
            top = self.scores + column * PANEL
            peak = f.variable(f.constant(_VECTOR, -np.inf))
            with f.loop(0, keys, nonempty=True) as key:
                score = (top + key * QUERIES).load(PANEL)
                # A NaN that this forgets comes through the sum.
                peak.set(f.maximum(peak.get(), score))
            total = f.variable(f.constant(_VECTOR, 0.0))
            highest = peak.get()
            with f.loop(0, keys, nonempty=True) as key:
                place = top + key * QUERIES
                power = vm.exp_of_negative(f, place.load(PANEL) - highest)
                total.set(total.get() + power)
                place.store(power)
            inverse = 1.0 / total.get()
            with f.loop(0, keys, nonempty=True) as key:
                place = top + key * QUERIES
                place.store(place.load(PANEL) * inverse)

    def _softmax_gradient(self, others: Pointer) -> None:
        """Replaces weights by the gradient of their scores, from that of the weights."""
        f, keys = self.f, self.x.keys
        with f.loop(0, self.columns, nonempty=True) as column:
            weights, grads = (at + column * PANEL for at in (self.scores, others))
            total = f.variable(f.constant(_VECTOR, 0.0))
            with f.loop(0, keys, nonempty=True) as key:
                weight, grad = ((at + key * QUERIES).load(PANEL) for at in (weights, grads))
                total.set(f.fma(weight, grad, total.get()))
            mean = total.get()
            with f.loop(0, keys, nonempty=True) as key:
                place = weights + key * QUERIES
                grad = (grads + key * QUERIES).load(PANEL)
                place.store(place.load(PANEL) * (grad - mean))


def emit_attention(module: Module, product: Product, target: Target) -> None:
    """Adds the kernels ``attention`` and ``attention_gradient``."""
    with module.kernel("attention", FORWARD_FIELDS) as (f, x):
        _Heads(f, x, product, target).forward()
    with module.kernel("attention_gradient", GRADIENT_FIELDS) as (f, x):
        _Heads(f, x, product, target).gradient()
