"""What the families' lowerings are written with: tensors that know their shape, and safe basics.

MPSGraph's tensors do not tell their shape reliably, so every `Value` carries it. The basics here
are those whose plain selectors are wrong somewhere: an unsigned comparison, a cast to fewer bits,
integers through a gather. A lowering that uses them needs no thought about that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stepgraph.backends.mps.enums import MPSGraphPaddingMode, data_type
from stepgraph.backends.mps.lowering.table import Limit, Lowering
from stepgraph.backends.mps.messages import Argument, Handle, List, numbers
from stepgraph.graph.dtypes import DTYPES, DType, bool_, float32, int8, int32, int64
from stepgraph.graph.operation import Operation

if TYPE_CHECKING:
    from stepgraph.backends.mps.builder import Builder

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """A tensor of the graph being built.

    Attributes:
        handle: stands for it in messages.
        shape: on the GPU, so that rank 0 is (1,).
        dtype: element type.
    """

    handle: Handle
    shape: Sizes
    dtype: DType

    @property
    def rank(self) -> int:
        """Number of axes, 1 or more."""
        return len(self.shape)


Rule = Callable[..., "Value | list[Value]"]


def lowering(
    rule: Rule, limits: Sequence[Limit] = (), *, takes_empty: bool = False, note: str = ""
) -> Lowering:
    """A lowering from ``rule(emitter, operation, *values)``, which returns the outputs' values.

    Args:
        rule: sends the messages; with `takes_empty` an input of no elements is None.
        limits: what it cannot do.
        takes_empty: whether some inputs may have no elements.
        note: what is special about it.
    """

    def lower(b: Builder, operation: Operation, inputs: Sequence[Handle]) -> Handle | list[Handle]:
        values = [
            None if 0 in t.shape else Value(h, known(t.shape), t.dtype)
            for h, t in zip(inputs, operation.inputs, strict=True)
        ]
        made = rule(Emitter(b), operation, *values)
        if isinstance(made, Value):
            return _checked(operation, made, 0).handle
        return [_checked(operation, value, i).handle for i, value in enumerate(made)]

    return Lowering(lower, tuple(limits), takes_empty, note)


def _checked(operation: Operation, value: Value, position: int) -> Value:
    output = operation.outputs[position]
    if (value.shape, value.dtype) != (known(output.shape), output.dtype):
        raise AssertionError(
            f"the lowering of '{operation.type}' gives {value.dtype} {value.shape}, "
            f"not {output.dtype} {output.shape}"
        )
    return value


def known(shape: Sequence[int | None]) -> Sizes:
    """A shape as it is on the GPU."""
    return tuple(size or 0 for size in shape) or (1,)


class Emitter:
    """Sends messages for one operation.

    Attributes:
        b: the builder.
    """

    def __init__(self, builder: Builder) -> None:
        self.b = builder

    def send(
        self, selector: str, *arguments: Value | Argument, shape: Sizes, dtype: DType
    ) -> Value:
        """A message to the graph; says what its result is."""
        plain = [a.handle if isinstance(a, Value) else a for a in arguments]
        return Value(self.b.send(selector, *plain), shape, dtype)

    # --- constants

    def constant(self, array: Any, dtype: DType | None = None) -> Value:
        """A constant; of a number it has shape (1,)."""
        value = np.asarray(array, None if dtype is None else dtype.numpy)
        kind = DTYPES[value.dtype.name]
        return Value(self.b.constant(value), value.shape or (1,), kind)

    def filled(self, shape: Sizes, value: Any, dtype: DType) -> Value:
        """A tensor of one value."""
        return self.constant(np.broadcast_to(np.asarray(value, dtype.numpy), shape))

    # --- one selector each

    def unary(self, stem: str, x: Value, dtype: DType | None = None) -> Value:
        """``<stem>WithTensor:name:``."""
        return self.send(f"{stem}WithTensor:name:", x, shape=x.shape, dtype=dtype or x.dtype)

    def binary(self, stem: str, x: Value, y: Value, dtype: DType | None = None) -> Value:
        """``<stem>WithPrimaryTensor:secondaryTensor:name:``; NumPy's broadcasting."""
        shape = np.broadcast_shapes(x.shape, y.shape)
        selector = f"{stem}WithPrimaryTensor:secondaryTensor:name:"
        return self.send(selector, x, y, shape=shape, dtype=dtype or x.dtype)

    def add(self, x: Value, y: Value) -> Value:
        """``x + y``."""
        return self.binary("addition", x, y)

    def subtract(self, x: Value, y: Value) -> Value:
        """``x - y``."""
        return self.binary("subtraction", x, y)

    def multiply(self, x: Value, y: Value) -> Value:
        """``x * y``."""
        return self.binary("multiplication", x, y)

    def identity(self, x: Value) -> Value:
        """The same elements in a tensor of its own."""
        return self.unary("identity", x)

    def both(self, x: Value, y: Value) -> Value:
        """Logical and of bools."""
        return self.binary("logicalAND", x, y)

    def either(self, x: Value, y: Value) -> Value:
        """Logical or of bools."""
        return self.binary("logicalOR", x, y)

    def differ(self, x: Value, y: Value) -> Value:
        """Logical exclusive or of bools."""
        return self.binary("logicalXOR", x, y)

    def bits_and(self, x: Value, mask: int) -> Value:
        """The bits of a mask, given as those of an unsigned integer."""
        return self.binary("bitwiseAND", x, self.bits(mask, x.dtype))

    def bits(self, pattern: int, dtype: DType) -> Value:
        """A constant with the bits of an unsigned integer."""
        unsigned = np.array(pattern, f"uint{8 * dtype.size}")
        return self.constant(unsigned.view(dtype.numpy))

    def select(self, predicate: Value, x: Value, y: Value) -> Value:
        """``x`` where `predicate`, else ``y``; broadcast."""
        shape = np.broadcast_shapes(predicate.shape, x.shape, y.shape)
        selector = "selectWithPredicateTensor:truePredicateTensor:falsePredicateTensor:name:"
        return self.send(selector, predicate, x, y, shape=shape, dtype=x.dtype)

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """The same elements in another shape; nothing is sent where it is that already."""
        sizes = tuple(shape) or (1,)
        if sizes == x.shape:
            return x
        return self.send(
            "reshapeTensor:withShape:name:", x, numbers(sizes), shape=sizes, dtype=x.dtype
        )

    def with_rank(self, x: Value, rank: int) -> Value:
        """Axes of size 1 before the others, up to a rank."""
        return self.reshape(x, (*(1,) * (rank - x.rank), *x.shape))

    def broadcast(self, x: Value, shape: Sizes) -> Value:
        """Repeated to a shape, which must be NumPy-legal: the framework fills up with zeros."""
        if shape == x.shape:
            return x
        return self.send(
            "broadcastTensor:toShape:name:", x, numbers(shape), shape=shape, dtype=x.dtype
        )

    def permute(self, x: Value, permutation: Sequence[int]) -> Value:
        """Axes in another order."""
        if tuple(permutation) == tuple(range(x.rank)):
            return x
        shape = tuple(x.shape[axis] for axis in permutation)
        return self.send(
            "transposeTensor:permutation:name:",
            x,
            numbers(permutation),
            shape=shape,
            dtype=x.dtype,
        )

    def swap(self, x: Value, axis: int, other: int) -> Value:
        """Two axes exchanged."""
        order = list(range(x.rank))
        order[axis], order[other] = order[other], order[axis]
        return self.permute(x, order)

    def slice(
        self, x: Value, starts: Sequence[int], lengths: Sequence[int], strides: Sequence[int]
    ) -> Value:
        """``lengths`` elements of every axis from ``starts`` on, in steps of 1 or more."""
        shape = tuple(lengths)
        if shape == x.shape:
            return x
        steps = [1 if n == 1 else s for n, s in zip(lengths, strides, strict=True)]
        ends = [a + (n - 1) * s + 1 for a, n, s in zip(starts, lengths, steps, strict=True)]
        return self.send(
            "sliceTensor:starts:ends:strides:name:",
            x,
            numbers(starts),
            numbers(ends),
            numbers(steps),
            shape=shape,
            dtype=x.dtype,
        )

    def part(self, x: Value, axis: int, start: int, length: int) -> Value:
        """Elements of one axis, next to each other."""
        shape = (*x.shape[:axis], length, *x.shape[axis + 1 :])
        if shape == x.shape:
            return x
        selector = "sliceTensor:dimension:start:length:name:"
        return self.send(selector, x, axis, start, length, shape=shape, dtype=x.dtype)

    def reverse(self, x: Value, axes: Sequence[int]) -> Value:
        """Axes read backwards."""
        if not axes:
            return x
        return self.send("reverseTensor:axes:name:", x, numbers(axes), shape=x.shape, dtype=x.dtype)

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        """Joined along an axis."""
        if len(values) == 1:
            return values[0]
        sizes = list(values[0].shape)
        sizes[axis] = sum(v.shape[axis] for v in values)
        joined = List(tuple(v.handle for v in values))
        selector = "concatTensors:dimension:name:"
        return self.send(selector, joined, axis, shape=tuple(sizes), dtype=values[0].dtype)

    def reduce(self, stem: str, x: Value, axes: Iterable[int]) -> Value:
        """``<stem>WithTensor:axes:name:``; the axes stay, with size 1."""
        wanted = tuple(axes)
        shape = tuple(1 if i in wanted else size for i, size in enumerate(x.shape))
        selector = f"{stem}WithTensor:axes:name:"
        return self.send(selector, x, numbers(wanted), shape=shape, dtype=x.dtype)

    def coordinate(self, shape: Sizes, axis: int) -> Value:
        """Every element's index along an axis, int32."""
        selector = "coordinateAlongAxis:withShape:name:"
        return self.send(selector, axis, numbers(shape), shape=shape, dtype=int32)

    # --- padding

    def pad(self, x: Value, before: Sequence[int], after: Sequence[int], value: Any) -> Value:
        """A border of one value."""
        if not any(before) and not any(after):
            return x
        shape = tuple(n + a + b for n, a, b in zip(x.shape, before, after, strict=True))
        exact = np.asarray(value).astype(x.dtype.numpy)
        if x.dtype.is_bool or (x.dtype.is_integer and abs(int(exact)) > 2**53):
            return self._pad_by_concat(x, before, after, exact)
        return self.send(
            "padTensor:withPaddingMode:leftPadding:rightPadding:constantValue:name:",
            x,
            MPSGraphPaddingMode.Constant,
            numbers(before),
            numbers(after),
            float(exact),
            shape=shape,
            dtype=x.dtype,
        )

    def _pad_by_concat(
        self, x: Value, before: Sequence[int], after: Sequence[int], value: Any
    ) -> Value:
        # The border's value travels as a double, and one of bool writes 255.
        for axis, (first, last) in enumerate(zip(before, after, strict=True)):
            parts = [x]
            for position, size in ((0, first), (len(parts) + 1, last)):
                if size:
                    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
                    parts.insert(position, self.filled(shape, value, x.dtype))
            x = self.concat(parts, axis)
        return x

    # --- comparisons

    def compare(self, stem: str, x: Value, y: Value) -> Value:
        """A comparison, as bool, of any dtype; equality too."""
        if x.dtype.is_bool:
            same = "logicalXNOR" if stem == "equal" else "logicalXOR"
            return self.binary(same, x, y)
        if stem not in ("equal", "notEqual"):
            x, y = self.ordered(x), self.ordered(y)
        # Half-precision comparisons with NaN may answer true.
        return self.binary(stem, self.at_least_float32(x), self.at_least_float32(y), bool_)

    def at_least_float32(self, x: Value) -> Value:
        """Half precision as float32, whose NaN can be relied on; all else as it is."""
        return self.cast_plainly(x, float32) if x.dtype.name == "float16" else x

    def is_nan(self, x: Value) -> Value:
        """Where a float is NaN."""
        return self.unary("isNaN", self.at_least_float32(x), bool_)

    def is_negative(self, x: Value) -> Value:
        """Where a signed number is below zero."""
        return self.compare("lessThan", x, self.constant(0, x.dtype))

    def ordered(self, x: Value) -> Value:
        """Something signed of the same order: unsigned numbers are compared as if signed."""
        if x.dtype.kind != "uint":
            return x
        if x.dtype.size <= 2:
            return self.cast_plainly(x, int32)
        top = 1 << (8 * x.dtype.size - 1)
        flipped = self.binary("bitwiseXOR", x, self.bits(top, x.dtype))
        return self.reinterpret(flipped, DTYPES[f"int{8 * x.dtype.size}"])

    def unordered(self, x: Value, dtype: DType) -> Value:
        """Back from `ordered`."""
        if dtype.kind != "uint":
            return x
        if dtype.size <= 2:
            return self.cast_plainly(x, dtype)
        flipped = self.binary("bitwiseXOR", x, self.bits(1 << (8 * dtype.size - 1), x.dtype))
        return self.reinterpret(flipped, dtype)

    # --- casts

    def cast_plainly(self, x: Value, dtype: DType) -> Value:
        """``castTensor:toType:name:``, of values that both dtypes have."""
        if x.dtype == dtype:
            return x
        return self.send("castTensor:toType:name:", x, data_type(dtype), shape=x.shape, dtype=dtype)

    def reinterpret(self, x: Value, dtype: DType) -> Value:
        """The same bits as another dtype of that size."""
        if x.dtype == dtype:
            return x
        selector = "reinterpretCastTensor:toType:name:"
        return self.send(selector, x, data_type(dtype), shape=x.shape, dtype=dtype)

    def cast(self, x: Value, dtype: DType) -> Value:
        """Another dtype: floats cut off, integers wrapped around, anything but 0 True."""
        source = x.dtype
        if source == dtype or (source.is_float and dtype.is_float) or source.is_bool:
            return self.cast_plainly(x, dtype)
        if dtype.is_bool:
            return self.compare("notEqual", x, self.constant(0, source))
        if source.is_float:
            return self.cast_plainly(self.unary("truncate", x), dtype)
        if dtype.is_float:
            return self.cast_plainly(x, dtype)
        return self._cast_integer(x, dtype)

    def _cast_integer(self, x: Value, dtype: DType) -> Value:
        # What a cast does with a value that the result does not have is not said anywhere, so
        # every value is brought into its range first.
        source = x.dtype
        if source.size == dtype.size:
            return self.reinterpret(x, dtype)
        if source.size < dtype.size:
            if source.kind == "int" and dtype.kind == "uint":
                wide = self.cast_plainly(x, DTYPES[f"int{8 * dtype.size}"])
                return self.reinterpret(wide, dtype)
            return self.cast_plainly(x, dtype)
        bits = 8 * dtype.size
        if source.kind == "uint" and dtype.kind == "int":
            x = self.reinterpret(x, DTYPES[f"int{8 * source.size}"])
        low = self.bits_and(x, (1 << bits) - 1)
        if dtype.kind == "int":
            top = self.constant(1 << (bits - 1), x.dtype)
            low = self.subtract(self.binary("bitwiseXOR", low, top), top)
        return self.cast_plainly(low, dtype)

    def as_indices(self, x: Value) -> Value:
        """Indices in a dtype that gathers and scatters take."""
        return x if x.dtype in (int32, int64) else self.cast(x, int32)

    # --- moving elements

    def moved(self, move: Callable[..., Value], *values: Value) -> Value:
        """What `move` makes of values whose elements it only moves about.

        Gathers and scatters carry elements as float32, which loses the low bits of large integers:
        those travel as floats of the same bits, those of 64 bits in two halves.
        """
        dtype = values[0].dtype
        if dtype.is_bool:
            made = move(*(self.cast_plainly(v, int8) for v in values))
            return self.compare("notEqual", made, self.constant(0, int8))
        if dtype.is_float or dtype.size <= 2:
            return move(*values)
        if dtype.size == 4:
            made = move(*(self.reinterpret(v, float32) for v in values))
            return self.reinterpret(made, dtype)
        wide = [self.reinterpret(v, DTYPES["uint64"]) for v in values]
        half = self.constant(32, DTYPES["uint64"])
        word = DTYPES["uint32"]
        low = self.moved(move, *(self.cast(v, word) for v in wide))
        tops = [self.binary("bitwiseRightShift", v, half) for v in wide]
        high = self.moved(move, *(self.cast(v, word) for v in tops))
        above = self.binary("bitwiseLeftShift", self.cast(high, wide[0].dtype), half)
        joined = self.binary("bitwiseOR", above, self.cast(low, wide[0].dtype))
        return self.reinterpret(joined, dtype)

    def gather(self, x: Value, indices: Value, axis: int, batch: int = 0) -> Value:
        """Slices along an axis."""
        places = self.as_indices(indices)

        def move(v: Value) -> Value:
            shape = (*v.shape[:axis], *places.shape[batch:], *v.shape[axis + 1 :])
            selector = "gatherWithUpdatesTensor:indicesTensor:axis:batchDimensions:name:"
            return self.send(selector, v, places, axis, batch, shape=shape, dtype=v.dtype)

        return self.moved(move, x)


def count(shape: Iterable[int]) -> int:
    """Number of elements."""
    return math.prod(shape)
