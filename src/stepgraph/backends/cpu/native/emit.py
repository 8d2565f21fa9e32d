"""The language kernels are written in: Python that writes LLVM IR, shaped like the loops it makes.

    module = Module("example")
    with module.kernel("scale", {"x": pointer(f32), "n": i64, "by": f32}) as (f, args):
        by = f.splat(args.by, 16)
        with f.loop(0, args.n, 16) as i:
            at = args.x + i
            at.store(at.load(16) * by)

A kernel is a C function ``void scale(int64_t *args, int64_t task, int64_t thread)``. Its arguments
lie in slots of eight bytes (`Arguments.pack` fills them), so that a launch is an address and a
pointer. Values know their type and carry operators; Python numbers become constants of the type
they meet; a scalar that meets a vector is splat.

Two habits that generated loops rely on: what changes from one turn to the next is a `Variable`
(LLVM turns it into registers), and vectors are loaded and stored explicitly, with the lanes
written down, because no alias analysis then stands between a loop and its vector form.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from llvmlite import ir

from stepgraph.backends.cpu.native.value import (
    Pointer,
    Value,
    Variable,
    element,
    f32,
    f64,
    i1,
    i8,
    i32,
    i64,
    is_float,
    lanes,
    pointer,
    vector,
    wrap,
)

__all__ = ["Arguments", "Function", "Module", "Pointer", "Value", "Variable"]
__all__ += ["element", "f32", "f64", "i8", "i32", "i64", "lanes", "pointer", "vector"]


class Arguments:
    """How a kernel's arguments lie in memory: one slot of eight bytes each, in order.

    Attributes:
        fields: name to type; `i64`, `f32`, `f64` or a `pointer`.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields = dict(fields)

    def pack(self, **values: float) -> bytes:
        """Bytes for one launch; pointers are given as addresses.

        Raises:
            TypeError: a field is missing or unknown.
        """
        if values.keys() != self.fields.keys():
            odd = sorted(values.keys() ^ self.fields.keys())
            raise TypeError(f"kernel arguments {', '.join(odd)}: missing or unknown")
        parts = []
        for name, type_ in self.fields.items():
            if type_ == f32:
                parts.append(struct.pack("<fi", values[name], 0))
            elif type_ == f64:
                parts.append(struct.pack("<d", values[name]))
            else:
                parts.append(struct.pack("<q", int(values[name])))
        return b"".join(parts)


class Module:
    """A set of functions compiled together.

    Attributes:
        kernels: kernel name to its argument layout; what the lowering needs to launch it.
    """

    def __init__(self, name: str) -> None:
        self.ir = ir.Module(name=name)
        self.kernels: dict[str, Arguments] = {}

    def __str__(self) -> str:
        return str(self.ir)

    @contextlib.contextmanager
    def kernel(self, name: str, fields: Mapping[str, Any]) -> Iterator[tuple[Function, Any]]:
        """Opens a kernel; yields the function and a namespace of its loaded arguments.

        The namespace also holds ``task`` and ``thread``.
        """
        layout = Arguments(fields)
        self.kernels[name] = layout
        outer = {"slots": pointer(i64), "task": i64, "thread": i64}
        with self.function(name, outer, exported=True) as (f, outer_args):
            values: dict[str, Value] = {"task": outer_args.task, "thread": outer_args.thread}
            for number, (field, type_) in enumerate(layout.fields.items()):
                slot = outer_args.slots + number
                raw = f.builder.load(slot.ir, typ=getattr(type_, "ir", type_), align=8)
                raw.set_metadata("invariant.load", self.ir.add_metadata([]))
                values[field] = wrap(f, raw, type_)
            yield f, SimpleNamespace(**values)

    @contextlib.contextmanager
    def function(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        exported: bool = False,
        inline: bool | None = None,
    ) -> Iterator[tuple[Function, Any]]:
        """Opens a function without result; yields it and a namespace of its arguments.

        Args:
            name: its symbol.
            arguments: name to type.
            exported: visible outside the module.
            inline: always, never, or (None) as LLVM sees fit.
        """
        types = [getattr(type_, "ir", type_) for type_ in arguments.values()]
        raw = ir.Function(self.ir, ir.FunctionType(ir.VoidType(), types), name=name)
        raw.attributes.add("nounwind")
        raw.linkage = "" if exported else "internal"
        if inline is not None:
            raw.attributes.add("alwaysinline" if inline else "noinline")
        f = Function(self, raw)
        named = {
            key: wrap(f, value, type_)
            for value, (key, type_) in zip(raw.args, arguments.items(), strict=True)
        }
        yield f, SimpleNamespace(**named)
        if not f.builder.block.is_terminated:
            f.builder.ret_void()

    def external(self, name: str, result: Any, types: Sequence[Any]) -> Any:
        """Declares a C function or an intrinsic by its full name, once.

        llvmlite's own `declare_intrinsic` does not mangle vector types, hence the full name.
        """
        found = self.ir.globals.get(name)
        return found or ir.Function(self.ir, ir.FunctionType(result, list(types)), name=name)


class Function:
    """A function under construction; every method appends code at the current place."""

    def __init__(self, module: Module, raw: Any) -> None:
        self.module = module
        self.ir = raw
        self.builder = ir.IRBuilder(raw.append_basic_block("entry"))

    # Constants, conversions.

    def constant(self, type_: Any, number: float) -> Value:
        """A number of the given scalar or vector type."""
        number = float(number) if is_float(type_) else int(number)
        if isinstance(type_, ir.VectorType):
            return Value(self, ir.Constant(type_, [number] * type_.count))
        return Value(self, ir.Constant(type_, number))

    def index(self, value: int | Value) -> Value:
        """An i64, whether it is known now or at run time."""
        return value if isinstance(value, Value) else self.constant(i64, value)

    def splat(self, scalar: Value, count: int) -> Value:
        """A vector with the scalar in every lane."""
        type_ = vector(scalar.type, count)
        undefined = ir.Constant(type_, ir.Undefined)
        one = self.builder.insert_element(undefined, scalar.ir, ir.Constant(i32, 0))
        mask = ir.Constant(vector(i32, count), [0] * count)
        return Value(self, self.builder.shuffle_vector(one, undefined, mask))

    def cast(self, value: Value, scalar: Any) -> Value:
        """Converts every lane to another scalar type; float to integer truncates."""
        old, new = element(value.type), scalar
        to = vector(new, lanes(value.type)) if lanes(value.type) > 1 else new
        if old == new:
            return value
        b = self.builder
        if is_float(old) and is_float(new):
            raw = (b.fpext if new == f64 else b.fptrunc)(value.ir, to)
        elif is_float(old):
            raw = b.fptosi(value.ir, to)
        elif is_float(new):
            raw = (b.uitofp if old == i1 else b.sitofp)(value.ir, to)
        elif old.width > new.width:
            raw = b.trunc(value.ir, to)
        else:
            raw = (b.zext if old == i1 else b.sext)(value.ir, to)
        return Value(self, raw)

    def bitcast(self, value: Value, scalar: Any) -> Value:
        """The same bits as lanes of another type of equal size."""
        count = lanes(value.type)
        return Value(self, self.builder.bitcast(value.ir, vector(scalar, count)))

    # Arithmetic beyond operators.

    def intrinsic(self, name: str, *values: Value) -> Value:
        """Calls ``llvm.name`` for the type of the first value; all operands share it."""
        type_ = values[0].type
        kind = f"{'f' if is_float(type_) else 'i'}{_bits(element(type_))}"
        full = f"llvm.{name}.{f'v{lanes(type_)}' if lanes(type_) > 1 else ''}{kind}"
        target = self.module.external(full, type_, [type_] * len(values))
        return Value(self, self.builder.call(target, [value.ir for value in values]))

    def fma(self, a: Value, b: Value | float, c: Value | float) -> Value:
        """``a * b + c``, with one rounding where the processor can, with two where it cannot."""
        return self.intrinsic("fmuladd", a, a.like(b), a.like(c))

    def select(self, condition: Value, then: Value, otherwise: Value | float) -> Value:
        """Lane by lane one or the other."""
        return Value(self, self.builder.select(condition.ir, then.ir, then.like(otherwise).ir))

    def maximum(self, a: Value | float, b: Value) -> Value:
        """The greater; one instruction. A NaN in `b` comes through, a NaN in `a` gives `b`."""
        first = b.like(a)
        return self.select(first > b, first, b)

    def minimum(self, a: Value | float, b: Value) -> Value:
        """The smaller; one instruction. A NaN in `b` comes through, a NaN in `a` gives `b`."""
        first = b.like(a)
        return self.select(first < b, first, b)

    def libm(self, name: str, *values: Value) -> Value:
        """Calls the C library's function lane by lane (`expf` for f32, `exp` for f64)."""
        type_ = element(values[0].type)
        symbol = f"{name}f" if type_ == f32 else name
        target = self.module.external(symbol, type_, [type_] * len(values))
        target.attributes.add("nounwind")
        count = lanes(values[0].type)
        if count == 1:
            return Value(self, self.builder.call(target, [value.ir for value in values]))
        out = Value(self, ir.Constant(values[0].type, ir.Undefined))
        for lane in range(count):
            result = self.builder.call(target, [value.lane(lane).ir for value in values])
            out = out.with_lane(lane, Value(self, result))
        return out

    def shuffle(self, a: Value, b: Value, picks: Sequence[int]) -> Value:
        """Lanes picked from `a` followed by `b`."""
        mask = ir.Constant(vector(i32, len(picks)), list(picks))
        return Value(self, self.builder.shuffle_vector(a.ir, b.ir, mask))

    def reduce(self, value: Value, combine: Callable[[Value, Value], Value]) -> Value:
        """Combines all lanes by halving the vector, in an order that never changes."""
        while lanes(value.type) > 2:
            half = lanes(value.type) // 2
            low = self.shuffle(value, value, range(half))
            value = combine(low, self.shuffle(value, value, range(half, 2 * half)))
        return combine(value.lane(0), value.lane(1)) if lanes(value.type) == 2 else value

    def sum(self, value: Value) -> Value:
        """Sum of all lanes."""
        return self.reduce(value, lambda a, b: a + b)

    # Memory and control flow.

    def stack(self, type_: Any, count: int = 1) -> Pointer:
        """Room for `count` values, 64-byte aligned, for as long as the function runs."""
        with self.builder.goto_entry_block():
            raw = self.builder.alloca(ir.ArrayType(type_, count))
            raw.align = 64
            raw.type = ir.PointerType()  # what llvmlite knows of its pointee would be in the way
        return Pointer(self, raw, type_)

    def variable(self, initial: Value) -> Variable:
        """A place whose value changes; becomes a register."""
        with self.builder.goto_entry_block():
            place = self.builder.alloca(initial.type)
        return Variable(self, place, initial)

    @contextlib.contextmanager
    def loop(
        self,
        start: int | Value,
        stop: int | Value,
        step: int | Value = 1,
        *,
        nonempty: bool = False,
    ) -> Iterator[Value]:
        """Counts i64 from `start` up to before `stop`.

        Args:
            start: first value.
            stop: excluded.
            step: positive.
            nonempty: the first turn is known to happen, so its test is left out.
        """
        b = self.builder
        first, last, by = self.index(start), self.index(stop), self.index(step)
        before = b.block
        body, after = b.append_basic_block("loop"), b.append_basic_block("after")
        if nonempty:
            b.branch(body)
        else:
            b.cbranch((first < last).ir, body, after)
        b.position_at_end(body)
        counter = b.phi(i64)
        counter.add_incoming(first.ir, before)
        i = Value(self, counter)
        yield i
        following = Value(self, b.add(counter, by.ir, flags=("nsw",)))
        counter.add_incoming(following.ir, b.block)
        b.cbranch((following < last).ir, body, after)
        b.position_at_end(after)

    @contextlib.contextmanager
    def if_(self, condition: Value, *, likely: bool | None = None) -> Iterator[None]:
        """Runs the block only if the condition (one i1) holds."""
        with self.builder.if_then(condition.ir, likely=likely):
            yield

    def if_else(
        self, condition: Value, then: Callable[[], None], other: Callable[[], None]
    ) -> None:
        """Runs one of two pieces of code."""
        with self.builder.if_else(condition.ir) as (yes, no):
            with yes:
                then()
            with no:
                other()

    def switch(self, value: Value, cases: Mapping[int, Callable[[], None]]) -> None:
        """Runs the piece of code whose number `value` is, or none."""
        b = self.builder
        after = b.append_basic_block("switched")
        choice = b.switch(value.ir, after)
        for number, code in cases.items():
            block = b.append_basic_block(f"case{number}")
            choice.add_case(ir.Constant(value.type, number), block)
            b.position_at_end(block)
            code()
            b.branch(after)
        b.position_at_end(after)

    def opaque(self, value: Value) -> Value:
        """The same value, about whose making LLVM forgets everything.

        Keeps an address computed where it is written: the optimiser cannot rebuild it from others.
        """
        type_ = ir.FunctionType(value.type, [value.type])
        return Value(self, self.builder.asm(type_, "", "=r,0", [value.ir], side_effect=False))

    def address_of(self, place: Pointer) -> Value:
        """Where a pointer points, as an i64."""
        return Value(self, self.builder.ptrtoint(place.ir, i64))

    def at_address(self, address: Value, type_: Any) -> Pointer:
        """A pointer to values of a type at an address."""
        return Pointer(self, self.builder.inttoptr(address.ir, ir.PointerType()), type_)

    def call_address(self, address: Value, *arguments: Value) -> None:
        """Calls whatever function lies at an address; it takes the arguments as they are."""
        type_ = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        target = self.builder.inttoptr(address.ir, type_.as_pointer())
        self.builder.call(target, [argument.ir for argument in arguments])

    def call(self, function: Function, *arguments: Value) -> None:
        """Calls another function of the module."""
        self.builder.call(function.ir, [argument.ir for argument in arguments])


def _bits(type_: Any) -> int:
    return {f32: 32, f64: 64}.get(type_) or int(type_.width)
